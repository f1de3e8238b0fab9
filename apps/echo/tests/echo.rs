//! The echo server against a kernel in memory.

#[path = "../../../libix/tests/fake/mod.rs"]
mod fake;

use echo::Echo;
use fake::{boot, kernel};
use ix_abi::call::Request;
use ix_abi::{DeadReason, Handle, IpAddress, SocketAddress};
use libix::{Args, EventLoop};
use proptest::prelude::*;

struct Rig {
    events: EventLoop<Echo>,
    app: Echo,
}

impl Rig {
    fn new(args: &str) -> Rig {
        let context = boot(args);
        let app = Echo::new(Args::new(context.info())).expect("good arguments");
        let mut rig = Rig { events: EventLoop::new(context), app };
        kernel(|k| k.patient = true);
        rig.events.start(&mut rig.app);
        rig.turns(2);
        rig
    }

    fn turns(&mut self, n: usize) {
        for _ in 0..n {
            self.events.enter();
            self.events.turn(&mut self.app);
        }
    }
}

fn listened() -> Vec<SocketAddress> {
    let ports = |request: &Request| match request {
        Request::Listen { local, .. } | Request::UdpBind { local, .. } => Some(*local),
        _ => None,
    };
    kernel(|k| k.calls.iter().filter_map(|(request, _)| ports(request)).collect())
}

#[test]
fn it_listens_on_port_7_or_the_one_named() {
    for (args, port) in [("", 7), ("-p 4711", 4711)] {
        let _rig = Rig::new(args);
        let any = SocketAddress { ip: IpAddress::UNSPECIFIED, port, scope: 0 };
        assert_eq!(listened(), [any, any]);
        assert!(kernel(|k| k.ready));
    }
}

#[test]
fn bad_arguments_are_refused() {
    assert!(Echo::new(Args::parse("-p x")).is_err());
    assert!(Echo::new(Args::parse("--port 7")).is_err());
}

#[test]
fn a_datagram_goes_back_to_its_sender() {
    let mut rig = Rig::new("");
    let addr = kernel(|k| k.udp_recv(b"ping"));
    rig.turns(2);
    let (request, sg) = kernel(|k| k.calls.pop().expect("a call"));
    assert!(matches!(request, Request::UdpSendv { remote: fake::PEER, .. }));
    assert_eq!((sg[0].addr, sg[0].len), (addr, 4));
}

/// One step of a peer.
#[derive(Clone, Debug)]
enum Peer {
    Sends(Vec<u8>),
    Acks { share: u8, window: u64 },
    Waits,
}

fn steps() -> impl Strategy<Value = Vec<Peer>> {
    let sends = proptest::collection::vec(any::<u8>(), 1..300).prop_map(Peer::Sends);
    let window = prop_oneof![Just(0), 0..50u64, 0..5000u64];
    let acks = (any::<u8>(), window).prop_map(|(share, window)| Peer::Acks { share, window });
    proptest::collection::vec(prop_oneof![3 => sends, 2 => acks, 1 => Just(Peer::Waits)], 1..80)
}

/// Acknowledges what is out and opens the window until nothing moves any more.
fn drain(rig: &mut Rig, handle: Handle) {
    for _ in 0..200 {
        kernel(|k| {
            if k.connections.contains_key(&handle.0) {
                let bytes = k.tcp(handle).unacked();
                k.ack(handle, bytes, 4096);
            }
        });
        rig.turns(2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the peer's pace: what it sent comes back, in order, from the same memory; nothing
    /// is returned to the kernel before it is acknowledged, and everything in the end.
    #[test]
    fn any_stream_comes_back_whole_and_every_buffer_returns(steps in steps(), window in 0..3000u64) {
        let mut rig = Rig::new("");
        let handle = kernel(|k| k.knock(1));
        rig.turns(1);
        let mut sent = Vec::new();
        kernel(|k| k.tcp(handle).window = window);
        for step in &steps {
            match step {
                Peer::Sends(bytes) => {
                    sent.extend_from_slice(bytes);
                    kernel(|k| k.recv(handle, bytes));
                }
                Peer::Acks { share, window } => kernel(|k| {
                    let bytes = k.tcp(handle).unacked() * u64::from(*share) / 255;
                    k.ack(handle, bytes, *window);
                }),
                Peer::Waits => rig.turns(1),
            }
            let held = kernel(|k| k.tcp(handle).outstanding);
            let acked = kernel(|k| k.tcp(handle).acked);
            prop_assert!(held + acked >= sent.len() as u64, "returned before acknowledged");
        }
        kernel(|k| k.eof(handle));
        drain(&mut rig, handle);
        kernel(|k| {
            let tcp = k.tcp(handle);
            assert_eq!(tcp.stream, sent);
            assert_eq!((tcp.closed, tcp.outstanding, tcp.aborted), (true, 0, false));
            k.dead(handle, DeadReason::Closed);
        });
        rig.turns(2);
        prop_assert!(kernel(|k| k.connections.is_empty()));
        prop_assert!(rig.events.conns().is_empty());
    }
}
