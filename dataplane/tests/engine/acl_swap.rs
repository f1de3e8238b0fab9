//! Rules swapped a thousand times under traffic, on several cores: every packet is judged by one set or the
//! other, whole, and what both allow never notices.
use crate::support::app::{App, Context};
use crate::support::apps::stream;
use crate::support::net::{End, Net};
use crate::support::peer::Peer;
use crate::support::station::{Setup, Station};
use ix_abi::acl::IN;
use ix_abi::call::{Call, SgEntry};
use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{Condition, Cookie, IpAddress, SocketAddress};
use ix_acl::{Action, Protocol, Rule, RuleSet};
use ix_dataplane::checksum;
use ix_dataplane::rng::Rng;
use ix_dataplane::time::Duration;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Allowed by both sets, denied by both, allowed by the first alone.
const ALWAYS: u16 = 52;
const NEVER: u16 = 51;
const FIRST: u16 = 50;

#[derive(Default)]
struct Shared {
    /// Datagrams by port.
    datagrams: HashMap<u64, u64>,
    dead: u64,
}

/// Echoes TCP, counts datagrams.
struct Service {
    shared: Rc<RefCell<Shared>>,
    begins: bool,
}

impl App for Service {
    fn run(&mut self, context: &mut Context) {
        let any = |port| SocketAddress { port, ..SocketAddress::default() };
        if std::mem::take(&mut self.begins) {
            context.call(Call::listen(any(7), 256));
            for port in [FIRST, NEVER, ALWAYS] {
                context.call(Call::udp_bind(any(port), Cookie(port.into())));
            }
        }
        let mut shared = self.shared.borrow_mut();
        for event in context.events() {
            match event {
                Condition::Knock { handle, .. } => context.call(Call::accept(handle, Cookie(0))),
                Condition::Recv { handle, addr, len, .. } => {
                    let entry = SgEntry { addr, len: u64::from(len) };
                    context.call(Call::sendv(handle, 1, entry, SgEntry::default()));
                }
                Condition::Sent { handle, bytes, .. } => {
                    context.call(Call::recv_done(handle, u64::from(bytes)));
                }
                Condition::UdpRecv { handle, cookie, addr, .. } => {
                    *shared.datagrams.entry(cookie.0).or_default() += 1;
                    context.call(Call::udp_recv_done(handle, addr));
                }
                Condition::Dead { .. } => shared.dead += 1,
                Condition::Result { status, .. } => panic!("a call failed: {status:?}"),
                _ => {}
            }
        }
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

fn rule(protocol: Protocol, action: Action, port: u16) -> Rule {
    let (protocol, local_ports) = (Some(protocol), (port, port));
    Rule { action, protocol, local_ports, directions: IN, ..Rule::ALLOW }
}

/// The two sets: other orders, other numbers of rules, other defaults.
fn sets() -> [RuleSet; 2] {
    let first = [
        rule(Protocol::Tcp, Action::Allow, 7),
        rule(Protocol::Udp, Action::Deny, NEVER),
        rule(Protocol::Udp, Action::Allow, ALWAYS),
    ];
    let mut second: Vec<Rule> =
        (1000..1100).map(|port| rule(Protocol::Udp, Action::Deny, port)).collect();
    second.push(rule(Protocol::Udp, Action::Allow, ALWAYS));
    second.push(rule(Protocol::Tcp, Action::Allow, 7));
    [(&first[..], Action::Allow), (&second[..], Action::Deny)].map(|(rules, default_in)| {
        let source = ix_acl::build::build(rules, [default_in, Action::Allow], "");
        ix_acl::decode(source, IpAddress::v4([10, 0, 0, 1])).expect("good rules")
    })
}

fn datagram(from: u16, to: u16) -> Vec<u8> {
    let mut f =
        vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0];
    f.extend([10, 0, 0, 2, 10, 0, 0, 1]);
    let sum = checksum::finish(checksum::sum(&f[14..34]));
    f[24..26].copy_from_slice(&sum);
    for half in [from, to, 12, 0] {
        f.extend(half.to_be_bytes());
    }
    f.extend(*b"ping");
    f
}

#[test]
fn a_thousand_swaps_under_traffic_and_no_packet_is_judged_by_neither_set() {
    const SWAPS: u32 = 1000;
    const SOCKETS: usize = 12;
    let mut station = Station::new(Setup { cores: 3, ..Setup::new(1) });
    let shared = Rc::new(RefCell::new(Shared::default()));
    let app = |core: u16| {
        Box::new(Service { shared: Rc::clone(&shared), begins: core == 0 }) as Box<dyn App>
    };
    station.start((0..3).map(app).collect());
    let mut net = Net::new(5);
    let mut peer = Peer::new(2, net.now);
    let sockets: Vec<_> = (0..SOCKETS).map(|_| peer.socket(4_000)).collect();
    station.engines[0]
        .set_rules({
            let [first, _] = sets();
            first
        })
        .expect("room");
    net.run_for(&mut station, &mut peer, Duration::from_ms(2));
    for (i, socket) in sockets.iter().enumerate() {
        peer.connect(*socket, [10, 0, 0, 1], 7, 40_000 + i as u16);
    }
    let mut rng = Rng::from_seed(5);
    let (mut sent, mut received) = ([0_u64; SOCKETS], [0_u64; SOCKETS]);
    let (mut swaps, mut settling) = (0, 0_u32);
    let mut given = [0_u64; 3];
    net.run_until(&mut station, &mut peer, Duration::from_s(600), |s, p| {
        for (i, socket) in sockets.iter().enumerate() {
            let socket = p.tcp(*socket);
            if socket.can_send() && sent[i] - received[i] < 500 {
                sent[i] += socket.send_slice(&[stream(i as u64, sent[i])]).unwrap() as u64;
            }
            let mut piece = [0; 1000];
            while socket.can_recv() {
                let n = socket.recv_slice(&mut piece).unwrap();
                for byte in &piece[..n] {
                    assert_eq!(*byte, stream(i as u64, received[i]), "stream {i}");
                    received[i] += 1;
                }
            }
        }
        // Datagrams, some of which are in rings between cores when rules change.
        for _ in 0..1 + rng.below(4) {
            let which = rng.below(3) as usize;
            given[which] += 1;
            s.give(datagram(rng.next_u32() as u16, [FIRST, NEVER, ALWAYS][which]));
        }
        if s.engines[0].can_set_rules() {
            let [first, second] = sets();
            swaps += 1;
            let next = [first, second].into_iter().nth(swaps as usize % 2).expect("one of two");
            s.engines[0].set_rules(next).expect("room");
            settling += u32::from(!s.engines[0].rules_settled());
        }
        swaps >= SWAPS
    });
    net.run_for(&mut station, &mut peer, Duration::from_ms(200));
    assert!(station.engines[0].rules_settled());
    assert!(settling >= SWAPS, "every swap takes all cores a while");
    let seen = |port: u16| shared.borrow().datagrams.get(&port.into()).copied().unwrap_or(0);
    println!("{given:?} datagrams, {} of the first kind came", seen(FIRST));
    // What one set allows and the other denies: each was let pass or dropped, once.
    assert_eq!(seen(ALWAYS), given[2]);
    assert_eq!(seen(NEVER), 0);
    assert_eq!(station.dropped(Reason::AclDeniedIn), given[1] + given[0] - seen(FIRST));
    assert!(seen(FIRST) > given[0] / 10 && seen(FIRST) < given[0] * 9 / 10, "both sets had a say");
    assert!(given.iter().all(|n| *n > 1000), "{given:?}");
    // Connections that both sets allow: judged a thousand times, never ended, never held up.
    assert_eq!(station.dropped(Reason::AclEnded), 0);
    assert_eq!((shared.borrow().dead, station.count(Counter::TcpRetransmits)), (0, 0));
    assert!(received.iter().all(|n| *n > 500), "{received:?}");
    assert!(station.count(Counter::RxSteeredOut) > 1000);
    for socket in &sockets {
        peer.tcp(*socket).abort();
    }
    net.run_for(&mut station, &mut peer, Duration::from_ms(100));
    station.assert_buffers_conserved();
}
