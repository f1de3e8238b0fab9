//! The same stream, cut anywhere, gets the same answers.
mod common;

use common::client::{Client, shared};
use common::rng::Rng;
use common::script::ops;

const SMALL: usize = 4 << 20;
/// Enough that nothing is evicted: what is, depends on which replies still wait.
const LARGE: usize = 64 << 20;

/// One of everything: commands, values, keys, errors, each at the mercy of a cut.
fn stream() -> Vec<u8> {
    let mut stream = Vec::new();
    let long = "k".repeat(250);
    let too_long = "k".repeat(251);
    for part in [
        "set a 1 0 5\r\nhello\r\n",
        &format!("set {long} 0 0 3\r\nabc\r\nget {long} a\r\n"),
        "  get   a  b\ta  a \r\nget\r\nget \r\ngets\r\nbget a\r\n",
        &format!("get a {too_long} a\r\nget {too_long}\r\nget a {too_long}\0 \r\n"),
        "get a\0 b\r\nget a\r\r\nget a\n\r\n\n",
        "gat 0 a b\r\ngats 100 a\r\ngat x a\r\ngat 0\r\ngat 0 a\0 a\r\n",
        "append a 0 0 2\r\n\r\n\r\nget a\r\nprepend a 0 0 0 noreply\r\n\r\n",
        "set a 0 0 2\r\nlong\r\nset a x 0 2\r\nab\r\nadd a 0 0 1 noreply\r\nx\r\n",
        "set n 0 0 2\r\n10\r\nincr n 5\r\ndecr n 9 noreply\r\nget n\r\ndelete n 5\r\ndelete n 0\r\n",
        "set a 0 0 2000000\r\n",
    ] {
        stream.extend_from_slice(part.as_bytes());
    }
    stream.extend(vec![b'x'; 2_000_002]);
    for part in [
        "get a\r\n",
        &format!("set big 0 0 600\r\n{}\r\nget big big\r\ngets x big\r\n", "b".repeat(600)),
        "flush_all\r\ntouch a 0\r\nverbosity 0\r\nstats reset\r\nversion\r\nPUT / HTTP/1.0\r\nget a\r\n",
    ] {
        stream.extend_from_slice(part.as_bytes());
    }
    stream
}

/// Versions differ from store to store only if the operations do.
fn answers(stream: &[u8], cuts: &[usize], memory: usize) -> Vec<u8> {
    let shared = shared(memory);
    let mut client = Client::new(&shared, 0);
    let mut answers = Vec::new();
    let mut from = 0;
    for &cut in cuts.iter().chain([&stream.len()]) {
        answers.extend(client.ask(&stream[from..cut]));
        from = cut;
    }
    client.close();
    answers
}

/// Positions worth a cut: all but those in the middle of the two million swallowed bytes.
fn positions(stream: &[u8]) -> Vec<usize> {
    let dull =
        |at: usize| (2..stream.len() - 2).contains(&at) && stream[at - 2..at + 2] == *b"xxxx";
    (0..stream.len()).filter(|&at| !dull(at)).collect()
}

#[test]
fn a_stream_cut_at_any_position_is_answered_alike() {
    let stream = stream();
    let whole = answers(&stream, &[], SMALL);
    assert!(whole.windows(8).any(|w| w == b"too larg"), "{}", whole.escape_ascii());
    for cut in positions(&stream) {
        let cut_answers = answers(&stream, &[cut], SMALL);
        assert!(
            cut_answers == whole,
            "cut at {cut}: {}\nnot: {}",
            cut_answers.escape_ascii(),
            whole.escape_ascii()
        );
    }
}

/// Around the length at which lines are no longer kept whole.
#[test]
fn long_gets_are_answered_alike_wherever_they_are_cut() {
    for len in [2040, 2046, 2047, 2048, 2049, 2050, 2060, 2500, 4100, 5000] {
        for (word, end) in [("get", "\r\n"), ("gets", "\n"), ("   get", " \r\n")] {
            let mut line = String::from(word);
            while line.len() + end.len() < len {
                line += if line.len() % 3 == 0 { " a" } else { " bc" };
            }
            let stream = format!("set a 0 0 1\r\nx\r\n{line}{end}version\r\n").into_bytes();
            let whole = answers(&stream, &[], SMALL);
            assert!(whole.ends_with(b"END\r\nVERSION 1.6.18-ix\r\n"), "{len} {word}");
            for cut in (0..stream.len()).filter(|cut| cut % 7 == 0 || stream.len() - cut < 40) {
                assert!(answers(&stream, &[cut], SMALL) == whole, "{len} {word} cut at {cut}");
                let next = (cut + 1460).min(stream.len());
                assert!(answers(&stream, &[cut, next], SMALL) == whole, "{len} {word} at {cut}");
            }
        }
    }
}

#[test]
fn a_stream_in_single_bytes_is_answered_alike() {
    let stream = stream();
    let whole = answers(&stream, &[], SMALL);
    assert!(answers(&stream, &positions(&stream), SMALL) == whole);
}

#[test]
fn random_operations_cut_at_random_are_answered_alike() {
    for seed in 1..=30 {
        let mut rng = Rng::new(seed);
        let stream = ops::requests(&mut rng, 300_000);
        let cuts = |rng: &mut Rng, step: usize| {
            let mut cuts = vec![];
            let mut at = 0;
            while at < stream.len() {
                cuts.push(at);
                at += 1 + rng.below(step);
            }
            cuts
        };
        let whole = answers(&stream, &cuts(&mut rng, 100_000), LARGE);
        for step in [3, 40, 1460, 5000] {
            let cut = answers(&stream, &cuts(&mut rng, step), LARGE);
            let same = cut.iter().zip(&whole).take_while(|(a, b)| a == b).count();
            let at = |answers: &[u8]| {
                let from = same.saturating_sub(80);
                answers[from..answers.len().min(same + 80)].escape_ascii().to_string()
            };
            assert!(cut == whole, "seed {seed}, step {step}: {}\nnot: {}", at(&cut), at(&whole));
        }
    }
}
