//! Clients that hammer a small set of keys and record what they were told: meta commands, whose answers
//! carry versions.
use super::{Event, Op, Outcome, check};
use crate::common::rng::Rng;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A connection to a server: a request, and its whole answer.
pub trait Ask {
    fn ask(&mut self, request: &[u8]) -> Vec<u8>;
}

/// Lets all go on at the same moment: they wait awake, or the first would be done before the last
/// has woken up.
struct Start {
    clients: usize,
    arrived: AtomicUsize,
}

impl Start {
    fn wait(&self) {
        let mine = self.arrived.fetch_add(1, Ordering::SeqCst);
        let all = (mine / self.clients + 1) * self.clients;
        let mut rounds = 0u32;
        while self.arrived.load(Ordering::SeqCst) < all {
            rounds += 1;
            match rounds {
                100_000.. => std::thread::sleep(Duration::from_micros(100)),
                _ if rounds.is_multiple_of(64) => std::thread::yield_now(),
                _ => {}
            }
            std::hint::spin_loop();
        }
    }
}

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub seed: u64,
    pub keys: usize,
    pub operations: usize,
    /// The clients wait for each other this often, so that they stay on each other's heels.
    pub lockstep: usize,
    /// Length of the values that are no numbers, at most.
    pub value_len: usize,
}

fn request(key: &str, op: &Op) -> Vec<u8> {
    let store = |flags: &str, value: &[u8]| {
        let head = format!("ms {key} {} c{flags}\r\n", value.len());
        [head.as_bytes(), value, b"\r\n"].concat()
    };
    match op {
        Op::Get => format!("mg {key} v c\r\n").into_bytes(),
        Op::Set(value) => store("", value),
        Op::Cas(version, value) => store(&format!(" C{version}"), value),
        Op::Append(value) => store(" MA", value),
        Op::Incr(by) => format!("ma {key} v c D{by}\r\n").into_bytes(),
        Op::Delete => format!("md {key}\r\n").into_bytes(),
    }
}

fn outcome(op: &Op, answer: &[u8]) -> Outcome {
    let strange = || -> ! { panic!("{op:?} was answered {}", answer.escape_ascii()) };
    let end = answer.iter().position(|&b| b == b'\n').unwrap_or_else(|| strange());
    let line = String::from_utf8_lossy(&answer[..end]).into_owned();
    let version = || {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix('c')?.parse().ok());
        word.unwrap_or_else(|| strange())
    };
    match (op, line.get(..2).unwrap_or("")) {
        (Op::Get | Op::Incr(_), "VA") => {
            Outcome::Value(answer[end + 1..answer.len() - 2].to_vec(), version())
        }
        (Op::Get, "EN") | (_, "NF") => Outcome::NotFound,
        (Op::Set(_) | Op::Cas(..) | Op::Append(_), "HD") => Outcome::Stored(version()),
        (Op::Delete, "HD") => Outcome::Deleted,
        (Op::Append(_), "NS") => Outcome::NotStored,
        (Op::Cas(..), "EX") => Outcome::Exists,
        (Op::Incr(_), "CL") => Outcome::NotNumeric,
        _ => strange(),
    }
}

/// The next operation of a client that last saw these versions.
fn next(rng: &mut Rng, load: &Load, client: usize, n: usize, seen: u64) -> Op {
    // Every value is written once only, unless it is a number.
    let mut value = match rng.below(3) {
        0 => format!("{}", rng.below(1000)).into_bytes(),
        _ => format!("{client}.{n};").into_bytes(),
    };
    if value.ends_with(b";") && rng.one_in(4) {
        value.resize(value.len() + rng.below(load.value_len + 1), b'.');
    }
    match rng.below(12) {
        0..=3 => Op::Get,
        4 | 5 => Op::Set(value),
        6 | 7 if seen != 0 => Op::Cas(seen, value),
        8 => Op::Append(vec![b'0' + rng.below(10) as u8]),
        9 | 10 => Op::Incr(1 + rng.below(5) as u64),
        11 => Op::Delete,
        _ => Op::Get,
    }
}

/// Runs one client: the history of each key.
fn client(
    ask: &mut dyn Ask,
    load: &Load,
    number: usize,
    epoch: Instant,
    start: &Start,
) -> Vec<Vec<Event>> {
    let mut rng = Rng::new(load.seed * 1000 + number as u64);
    let mut histories = vec![vec![]; load.keys];
    let mut seen = vec![0; load.keys];
    // All clients' keys follow the same course, so that they meet.
    let mut course = Rng::new(load.seed);
    for n in 0..load.operations {
        if n % load.lockstep == 0 {
            start.wait();
        }
        let key = course.below(load.keys);
        let op = next(&mut rng, load, number, n, seen[key]);
        let request = request(&format!("linear{key}"), &op);
        let from = epoch.elapsed().as_nanos() as u64;
        let answer = ask.ask(&request);
        let to = epoch.elapsed().as_nanos() as u64;
        let outcome = outcome(&op, &answer);
        match outcome {
            Outcome::Value(_, version) | Outcome::Stored(version) => seen[key] = version,
            _ => {}
        }
        histories[key].push(Event { from, to, op, outcome });
    }
    histories
}

/// What a load did.
#[derive(Debug, Default)]
pub struct Summary {
    pub operations: usize,
    /// Pairs of operations on one key that overlapped, of neighbours in time.
    pub overlaps: usize,
    pub exists: usize,
    pub deleted: usize,
}

/// Runs all clients side by side and checks the histories of all keys.
#[track_caller]
pub fn run(clients: Vec<Box<dyn Ask + Send>>, load: Load) -> Summary {
    let epoch = Instant::now();
    let start = Start { clients: clients.len(), arrived: AtomicUsize::new(0) };
    let mut histories: Vec<Vec<Event>> = vec![vec![]; load.keys];
    std::thread::scope(|scope| {
        let running: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, mut ask)| {
                let (load, start) = (&load, &start);
                scope.spawn(move || client(&mut *ask, load, number, epoch, start))
            })
            .collect();
        for client in running {
            let of_client = client.join().expect("a client that does not panic");
            for (all, one) in histories.iter_mut().zip(of_client) {
                all.extend(one);
            }
        }
    });
    let mut summary = Summary::default();
    for (key, history) in histories.iter_mut().enumerate() {
        history.sort_by_key(|event| event.from);
        if let Err(event) = check(history) {
            let near =
                |other: &&Event| other.to + 5000 >= event.from && other.from <= event.to + 5000;
            let around: Vec<_> = history.iter().filter(near).map(Event::show).collect();
            panic!("{load:?}, key {key}: no place for {} among {around:#?}", event.show());
        }
        summary.operations += history.len();
        summary.overlaps += history.windows(2).filter(|pair| pair[1].from <= pair[0].to).count();
        let of = |outcome: &Outcome| history.iter().filter(|e| e.outcome == *outcome).count();
        summary.exists += of(&Outcome::Exists);
        summary.deleted += of(&Outcome::Deleted);
    }
    summary
}
