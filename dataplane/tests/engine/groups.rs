//! Flow groups as values: handed from core to core while their connections talk. And DHCP.
use crate::support::app::{App, Context};
use crate::support::apps::{Client, stream};
use crate::support::net::{End, Net, Void};
use crate::support::peer::Peer;
use crate::support::station::{Setup, Station};
use ix_abi::call::{Call, SgEntry};
use ix_abi::stats::Counter;
use ix_abi::{Condition, Cookie, Handle, SocketAddress};
use ix_abi::{CoreId, GroupId, IpAddress};
use ix_acl::{Action, Prefix, Protocol, Rule};
use ix_dataplane::rng::Rng;
use ix_dataplane::time::{Duration, Instant};
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, Ipv4Address};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// What the instances of one application share: its memory. Echoes whole pieces.
#[derive(Default)]
struct Shared {
    unsent: HashMap<Handle, Vec<SgEntry>>,
    came: u64,
}

struct Echo {
    shared: Rc<RefCell<Shared>>,
    listens: bool,
}

impl App for Echo {
    fn run(&mut self, context: &mut Context) {
        if std::mem::take(&mut self.listens) {
            let at = SocketAddress { port: 7, ..SocketAddress::default() };
            context.call(Call::listen(at, 256));
        }
        let mut shared = self.shared.borrow_mut();
        for event in context.events() {
            match event {
                Condition::GroupIn { .. } => shared.came += 1,
                Condition::Knock { handle, .. } => {
                    context.call(Call::accept(handle, Cookie(0)));
                }
                Condition::Recv { handle, addr, len, .. } => {
                    let entry = SgEntry { addr, len: u64::from(len) };
                    context.call_sg(Call::sendv(handle, 1, entry, SgEntry::default()), &[entry]);
                    shared.unsent.entry(handle).or_default().push(entry);
                }
                Condition::Sent { handle, bytes, .. } => {
                    context.call(Call::recv_done(handle, u64::from(bytes)));
                }
                Condition::Result { status, .. } => panic!("a call failed: {status:?}"),
                _ => {}
            }
        }
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

#[test]
fn groups_move_between_cores_and_no_stream_notices() {
    const BYTES: usize = 300_000;
    let mut station = Station::new(Setup { cores: 3, ..Setup::new(1) });
    let shared = Rc::new(RefCell::new(Shared::default()));
    let app = |core: u16| {
        Box::new(Echo { shared: Rc::clone(&shared), listens: core == 0 }) as Box<dyn App>
    };
    station.start((0..3).map(app).collect());
    let mut net = Net::new(5);
    let mut peer = Peer::new(2, net.now);
    let sockets: Vec<_> = (0..24).map(|_| peer.socket(4_000)).collect();
    net.run_for(&mut station, &mut peer, Duration::from_ms(2));
    for (i, socket) in sockets.iter().enumerate() {
        peer.connect(*socket, [10, 0, 0, 1], 7, 40_000 + i as u16);
    }
    let mut rng = Rng::from_seed(5);
    let (mut sent, mut received, mut moves) = ([0; 24], [0; 24], 0);
    net.run_until(&mut station, &mut peer, Duration::from_s(60), |s, p| {
        for (i, socket) in sockets.iter().enumerate() {
            let socket = p.tcp(*socket);
            while sent[i] < BYTES && socket.can_send() {
                let byte = stream(i as u64, sent[i] as u64);
                sent[i] += socket.send_slice(&[byte]).unwrap();
            }
            let mut piece = [0; 1000];
            while socket.can_recv() {
                let n = socket.recv_slice(&mut piece).unwrap();
                for byte in &piece[..n] {
                    assert_eq!(*byte, stream(i as u64, received[i] as u64), "stream {i}");
                    received[i] += 1;
                }
            }
        }
        // The queues are drained here: `step` lets the device work after each iteration.
        let group = GroupId(rng.below(8) as u16);
        let to = rng.below(3) as usize;
        let from = (0..3).find(|core| s.engines[*core].owns(group)).expect("an owner");
        if from != to {
            move_group(s, group, from, to);
            moves += 1;
        }
        received.iter().all(|n| *n == BYTES)
    });
    assert!(moves > 50, "{moves} moves");
    assert_eq!(station.count(Counter::TcpRetransmits), 0);
    for engine in &station.engines {
        let open = engine.conservation().connections as u64;
        assert_eq!(engine.stats().get(Counter::TcpConnections), open, "the gauge moves, too");
    }
    for socket in &sockets {
        peer.tcp(*socket).abort();
    }
    net.run_for(&mut station, &mut peer, Duration::from_ms(100));
    station.assert_buffers_conserved();
    assert!(shared.borrow().came >= 8 + moves);
}

/// What a platform will do at quiescent points: nothing of the group is under way.
fn move_group(station: &mut Station, group: GroupId, from: usize, to: usize) {
    let value = station.engines[from].take_group(group, CoreId(to as u16)).expect("owned");
    station.engines[to].give_group(value);
    for (core, engine) in station.engines.iter_mut().enumerate() {
        if core != from && core != to {
            engine.set_owner(group, CoreId(to as u16));
        }
    }
}

/// A DHCP server that leases one address; those who have another are refused.
struct Server {
    void: Void,
    acked: u32,
    host: u8,
}

impl Server {
    fn new(host: u8) -> Server {
        Server { void: Void::default(), acked: 0, host }
    }
}

impl End for Server {
    fn step(&mut self, _now: Instant) -> Instant {
        for frame in std::mem::take(&mut self.void.frames) {
            if frame.len() < 282 || frame[12..14] != [8, 0] || frame[36..38] != [0, 67] {
                continue;
            }
            let packet = DhcpPacket::new_checked(&frame[42..]).unwrap();
            let request = DhcpRepr::parse(&packet).unwrap();
            let answer = match request.message_type {
                DhcpMessageType::Discover => DhcpMessageType::Offer,
                // Renewed is what the client has; else it asks for an address by an option.
                _ if ![0, self.host].contains(&request.client_ip.octets()[3]) => {
                    DhcpMessageType::Nak
                }
                _ => DhcpMessageType::Ack,
            };
            self.acked += u32::from(answer == DhcpMessageType::Ack);
            self.void.to_send.push(reply(&request, answer, self.host));
        }
        if self.void.to_send.is_empty() { Instant::NEVER } else { Instant(0) }
    }

    fn take(&mut self) -> Vec<Vec<u8>> {
        self.void.take()
    }

    fn give(&mut self, frame: Vec<u8>) {
        self.void.give(frame);
    }
}

fn reply(request: &DhcpRepr<'_>, message_type: DhcpMessageType, host: u8) -> Vec<u8> {
    let server = Ipv4Address::new(10, 0, 0, 2);
    let repr = DhcpRepr {
        message_type,
        your_ip: Ipv4Address::new(10, 0, 0, host),
        server_ip: server,
        router: Some(server),
        subnet_mask: Some(Ipv4Address::new(255, 255, 255, 0)),
        server_identifier: Some(server),
        lease_duration: Some(3600),
        client_identifier: None,
        requested_ip: None,
        parameter_request_list: None,
        ..request.clone()
    };
    let mut payload = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut payload)).unwrap();
    let mut f = vec![0xff; 6];
    f.extend(EthernetAddress([2, 0, 0, 0, 0, 2]).0);
    f.extend([8, 0, 0x45, 0]);
    f.extend((28 + payload.len() as u16).to_be_bytes());
    f.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 255, 255, 255, 255]);
    let sum = ix_dataplane::checksum::finish(ix_dataplane::checksum::sum(&f[14..34]));
    f[24..26].copy_from_slice(&sum);
    f.extend([0, 67, 0, 68]);
    f.extend((8 + payload.len() as u16).to_be_bytes());
    f.extend([0, 0]);
    f.extend(payload);
    f
}

#[test]
fn an_address_leased_by_dhcp_is_used_by_all_cores() {
    let mut station = Station::new(Setup { cores: 2, dhcp: true, ..Setup::new(77) });
    let mut server = Server::new(77);
    let mut net = Net::new(8);
    net.run_until(&mut station, &mut server, Duration::from_s(30), |s, _| {
        s.engines.iter().all(|engine| engine.ipv4().is_some())
    });
    assert_eq!(server.acked, 1);
    for engine in &station.engines {
        let config = engine.ipv4().unwrap();
        assert_eq!((config.address, config.prefix), ([10, 0, 0, 77], 24));
        assert_eq!(config.gateway, Some([10, 0, 0, 2]));
    }
    net.run_for(&mut station, &mut server, Duration::from_ms(10));
    station.assert_all_quiet();
    // It serves as a client's address, too.
    let mut other = Station::new(Setup::new(1));
    other.start(vec![Box::new(crate::support::apps::Echo::new(7))]);
    let to = SocketAddress::v4([10, 0, 0, 1], 7);
    let mut idle = Client::new(to, 1, 0);
    idle.start = false;
    station.start(vec![Box::new(Client::new(to, 1, 5_000)), Box::new(idle)]);
    net.run_until(&mut station, &mut other, Duration::from_s(10), |s, _| s.app::<Client>(0).done());
    assert_eq!(station.app::<Client>(0).received, 5_000);
}

/// A ping to one of our addresses.
fn ping(to: u8) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 77, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 28];
    f.extend([0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 2, 10, 0, 0, to]);
    let sum = ix_dataplane::checksum::finish(ix_dataplane::checksum::sum(&f[14..34]));
    f[24..26].copy_from_slice(&sum);
    f.extend([8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    f
}

#[test]
fn rules_about_our_address_are_compiled_anew_for_each_that_dhcp_brings() {
    let about = |host: u8, action| {
        let local = Prefix::new(IpAddress::v4([10, 0, 0, host]).0, 128).expect("a prefix");
        Rule { local, action, protocol: Some(Protocol::Icmp), ..Rule::ALLOW }
    };
    let rules = [about(77, Action::Deny), about(78, Action::Allow), about(79, Action::Deny)];
    let source = ix_acl::build::build(&rules, [Action::Allow; 2], "");
    let set = ix_acl::decode(source, IpAddress::UNSPECIFIED).expect("good rules");
    let mut station = Station::new(Setup { dhcp: true, ..Setup::new(77) });
    station.engines[0].set_rules(set).expect("room");
    assert!(station.engines[0].recompile_rules().is_none(), "there is no address yet");
    let mut net = Net::new(8);
    for (generation, host) in [(2, 77), (3, 78), (4, 79)] {
        let mut server = Server::new(host);
        let wanted = [10, 0, 0, host];
        net.run_until(&mut station, &mut server, Duration::from_s(8_000), |s, _| {
            s.engines[0].ipv4().is_some_and(|config| config.address == wanted)
        });
        // Twice: by the set that was compiled for another address, and by the one for this.
        for compiled in [false, true] {
            if compiled {
                let compiler = station.engines[0].recompile_rules().expect("it is behind");
                let set = compiler.finish().expect("they were good");
                assert!(set.is_for(IpAddress::v4(wanted)));
                station.engines[0].set_rules(set).expect("room");
                assert!(station.engines[0].recompile_rules().is_none());
            }
            let rule = usize::from(host - 77);
            let before = station.engines[0].rule_hits(rule);
            server.void.to_send.push(ping(host));
            net.run_for(&mut station, &mut server, Duration::from_ms(10));
            let (_, number) = station.engines[0].rules().expect("rules");
            assert_eq!(number, generation - u32::from(!compiled));
            // What is allowed is judged again as it is answered.
            let hits = if host == 78 { 2 } else { 1 };
            let before = if compiled { 0 } else { before };
            assert_eq!(station.engines[0].rule_hits(rule), before + hits, "{host} {compiled}");
        }
    }
}
