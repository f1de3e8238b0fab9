use super::*;
use std::io::{Read, Write};

const BROADCAST: [u8; 6] = [0xff; 6];

fn mac(n: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, n]
}

fn frame(to: [u8; 6], from: [u8; 6], number: u32) -> Vec<u8> {
    let mut frame = [&to[..], &from[..], &[0x88, 0xb5], &number.to_be_bytes()].concat();
    frame.resize(60, 0);
    frame
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}

/// A machine: the other end of a port.
struct Machine(UnixStream);

impl Machine {
    fn send(&mut self, frame: &[u8]) {
        let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(frame);
        self.0.write_all(&bytes).unwrap();
    }

    /// The next frame; `None` if none comes.
    fn recv(&mut self, patience: Duration) -> Option<Vec<u8>> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut head = [0; 4];
        self.0.read_exact(&mut head).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(head) as usize];
        self.0.read_exact(&mut frame).unwrap();
        Some(frame)
    }
}

fn machines(n: usize, impairment: Impairment) -> (Bridge, Vec<Machine>) {
    let (ours, theirs): (Vec<_>, Vec<_>) = (0..n).map(|_| UnixStream::pair().unwrap()).unzip();
    (Bridge::start(ours, impairment), theirs.into_iter().map(Machine).collect())
}

const PATIENCE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_millis(30);

fn round_trip() -> Impairment {
    Impairment::round_trip(Duration::from_millis(2))
}

#[test]
fn frames_take_their_time_and_keep_their_order() {
    let (bridge, mut machines) = machines(2, round_trip());
    let mut times = Vec::new();
    for i in 0..200 {
        let start = Instant::now();
        machines[0].send(&frame(BROADCAST, mac(0), i));
        assert_eq!(number(&machines[1].recv(PATIENCE).unwrap()), i);
        times.push(start.elapsed());
    }
    times.sort();
    assert!(times[0] >= Duration::from_millis(1), "too early: {:?}", times[0]);
    // Close on an idle machine; nobody promises that this one is.
    assert!(times[100] < Duration::from_millis(3), "too late: {:?}", times[100]);
    let counts = bridge.counts()[0];
    assert_eq!((counts.lost, counts.reordered, counts.overflowed), (0, 0, 0));
    for i in 0..1000 {
        machines[0].send(&frame(BROADCAST, mac(0), i));
    }
    let got: Vec<u32> = (0..1000).map(|_| number(&machines[1].recv(PATIENCE).unwrap())).collect();
    assert_eq!(got, (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_switch_learns_who_is_where() {
    let (_bridge, mut machines) = machines(3, round_trip());
    machines[0].send(&frame(BROADCAST, mac(0), 1));
    assert!(machines[1].recv(PATIENCE).is_some() && machines[2].recv(PATIENCE).is_some());
    assert!(machines[0].recv(SILENCE).is_none(), "not back to the sender");
    machines[1].send(&frame(mac(0), mac(1), 2));
    assert_eq!(number(&machines[0].recv(PATIENCE).unwrap()), 2);
    assert!(machines[2].recv(SILENCE).is_none(), "not to others");
}

#[test]
fn losses_and_reordering_come_from_the_seed() {
    let run = |seed| {
        let how = Impairment { seed, loss_permille: 50, reorder_permille: 20, ..round_trip() };
        let mut link = Link::new(how, 0);
        let start = Instant::now();
        let mut got = Vec::new();
        for i in 0..20_000 {
            let now = start + Duration::from_micros(10) * i;
            link.push(now, &frame(BROADCAST, mac(0), i));
            while let Some(frame) = link.pop(now) {
                got.push(number(&frame));
            }
        }
        while let Some(frame) = link.pop(start + PATIENCE) {
            got.push(number(&frame));
        }
        (got, link.counts)
    };
    let (got, counts) = run(1);
    assert_eq!(counts.frames, 20_000);
    assert!((900..1100).contains(&counts.lost), "{counts:?}");
    assert!((320..480).contains(&counts.reordered), "{counts:?}");
    assert_eq!(got.len() as u64, counts.frames - counts.lost);
    let overtaken = got.windows(2).filter(|w| w[0] > w[1]).count();
    assert!(overtaken > 200, "{overtaken}");
    let (again, other) = (run(1).0, run(2).0);
    assert!(got == again && got != other);
}

#[test]
fn a_full_queue_drops_and_counts() {
    let how = Impairment { queue_frames: 10, ..round_trip() };
    let mut link = Link::new(how, 0);
    let now = Instant::now();
    for i in 0..15 {
        link.push(now, &frame(BROADCAST, mac(0), i));
    }
    assert_eq!((link.queued(), link.counts.overflowed, link.counts.queued_max), (10, 5, 10));
}

#[test]
fn nonsense_ends_a_port_and_nothing_else() {
    let (_bridge, mut machines) = machines(3, round_trip());
    machines[2].0.write_all(&[0xff; 64]).unwrap();
    std::thread::sleep(SILENCE);
    machines[0].send(&frame(BROADCAST, mac(0), 7));
    assert_eq!(number(&machines[1].recv(PATIENCE).unwrap()), 7);
}
