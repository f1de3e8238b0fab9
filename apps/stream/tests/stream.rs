//! The stream server against a kernel in memory.

#[path = "../../../libix/tests/fake/mod.rs"]
mod fake;

use fake::{boot, kernel};
use ix_abi::Handle;
use libix::{Args, EventLoop};
use stream::{Pattern, Request, Role, Stream, Verdict};

struct Rig {
    events: EventLoop<Stream>,
    app: Stream,
    handle: Handle,
}

impl Rig {
    /// A server that somebody has connected to.
    fn open() -> Rig {
        let context = boot("");
        let app = Stream::new(Args::new(context.info())).expect("good arguments");
        let mut rig = Rig { events: EventLoop::new(context), app, handle: Handle(0) };
        kernel(|k| k.patient = true);
        rig.events.start(&mut rig.app);
        rig.turns(2);
        rig.handle = kernel(|k| k.knock(1));
        rig.turns(1);
        rig
    }

    fn new(request: &Request) -> Rig {
        let mut rig = Rig::open();
        // In two pieces: a request need not come in one.
        let bytes = request.to_bytes();
        for part in [&bytes[..5], &bytes[5..]] {
            rig.receive(part);
        }
        rig
    }

    fn turns(&mut self, n: usize) {
        for _ in 0..n {
            self.events.enter();
            self.events.turn(&mut self.app);
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        kernel(|k| k.recv(self.handle, bytes));
        self.turns(2);
    }

    fn verdict(&self) -> Option<Verdict> {
        kernel(|k| k.tcp(self.handle).stream[..].try_into().ok().map(|b| Verdict::parse(&b)))
    }
}

fn data(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Pattern::new(seed).fill(&mut bytes);
    bytes
}

#[test]
fn the_pattern_is_the_same_however_it_is_cut_and_every_difference_shows() {
    let whole = data(3, 10_000);
    for step in [1, 3, 8, 13, 1448] {
        let (mut made, mut checked) = (Pattern::new(3), Pattern::new(3));
        for part in whole.chunks(step) {
            let mut bytes = vec![0; part.len()];
            made.fill(&mut bytes);
            assert_eq!(bytes, part);
            assert_eq!(checked.check(part), None);
        }
        assert_eq!((made.at(), checked.at()), (10_000, 10_000));
    }
    for at in [0, 7, 8, 4001, 9_999] {
        let mut wrong = whole.clone();
        wrong[at] ^= 0x10;
        assert_eq!(Pattern::new(3).check(&wrong), Some(at as u64));
    }
    // A segment that is missing, one that came twice.
    let lost = [&whole[..1448], &whole[2896..]].concat();
    let doubled = [&whole[..1448], &whole[..1448]].concat();
    assert!(Pattern::new(3).check(&lost).is_some_and(|at| (1448..1456).contains(&at)));
    assert!(Pattern::new(3).check(&doubled).is_some_and(|at| (1448..1456).contains(&at)));
}

#[test]
fn a_sink_says_that_all_came_and_was_right() {
    let mut rig = Rig::new(&Request { role: Role::Sink, seed: 9, bytes: 10_001 });
    for part in data(9, 10_001).chunks(1448) {
        assert_eq!(rig.verdict(), None);
        rig.receive(part);
    }
    assert_eq!(rig.verdict(), Some(Verdict { bytes: 10_001, wrong: None }));
    assert_eq!(kernel(|k| k.tcp(rig.handle).outstanding), 0, "everything is given back");
    kernel(|k| k.eof(rig.handle));
    rig.turns(1);
    kernel(|k| k.ack(rig.handle, 16, 1000));
    rig.turns(2);
    assert!(kernel(|k| k.tcp(rig.handle).closed));
}

#[test]
fn a_sink_says_where_the_first_wrong_byte_was_and_how_much_came() {
    let mut rig = Rig::new(&Request { role: Role::Sink, seed: 9, bytes: 5000 });
    let mut bytes = data(9, 3000);
    bytes[1234] ^= 1;
    bytes[2345] ^= 1;
    rig.receive(&bytes[..2000]);
    rig.receive(&bytes[2000..]);
    kernel(|k| k.eof(rig.handle));
    rig.turns(2);
    assert_eq!(rig.verdict(), Some(Verdict { bytes: 3000, wrong: Some(1234) }));
}

#[test]
fn a_source_sends_the_pattern_and_then_its_end() {
    for len in [0, 1, 16_384, 100_000, 9_000_001] {
        let mut rig = Rig::new(&Request { role: Role::Source, seed: 4, bytes: len as u64 });
        for turn in 0..100_000 {
            assert!(turn < 99_999, "it does not end");
            let shut = kernel(|k| {
                let bytes = k.tcp(rig.handle).unacked().min(50_000);
                if bytes > 0 {
                    k.ack(rig.handle, bytes, 200_000);
                }
                bytes == 0 && k.tcp(rig.handle).shut
            });
            if shut {
                break;
            }
            rig.turns(1);
        }
        assert!(kernel(|k| k.tcp(rig.handle).stream == data(4, len)), "{len} bytes");
    }
}

#[test]
fn a_strange_request_ends_its_connection() {
    let mut rig = Rig::open();
    rig.receive(&[0xff; 24]);
    rig.turns(2);
    assert!(kernel(|k| k.connections.is_empty()) && rig.events.conns().is_empty());
}
