//! The operations of the script.
//!
//! Where stock memcached answers by chance, the script keeps away:
//! - a reply that still waits pins its item, and `decr` then replaces the item instead of padding it:
//!   `incr` and `decr` come alone in their batch;
//!   (and so does memcached's LRU maintainer: it is to run without, see [`super::super::memcached`]);
//! - a key that is too long in a `get` drops the replies of the whole batch so far: alone, too;
//! - lines over 2,048 bytes are cut off only if they have not arrived whole: sent without an end;
//! - a bad data block of an item over 512 KiB fails an assertion; `incr` of white space reads on
//!   behind the value, and a number of 2^63 or more makes it look for a minus sign there; a delayed `flush_all` brings back what an earlier one flushed.
mod admin;
mod malformed;
mod meta;
mod udp;

use crate::common::rng::Rng;
use malformed::MALFORMED;

/// A piece of a request.
pub enum Part {
    Bytes(Vec<u8>),
    /// The version number that was the n-th to appear.
    Version(usize),
}

/// How a batch ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Answers,
    /// The server closes the connection.
    Hangup,
    /// A datagram with this frame.
    Datagrams {
        id: u16,
        sequence: u16,
        total: u16,
    },
}

/// Requests that are sent together.
pub struct Batch {
    pub parts: Vec<Part>,
    pub kinds: Vec<&'static str>,
    pub expect: Expect,
}

/// What the script remembers.
#[derive(Default)]
pub struct State {
    pub versions_seen: usize,
    /// Keys with the number of a version of each, as far as that was seen together.
    pub known: Vec<(String, usize)>,
    /// Whether the servers take datagrams.
    pub udp: bool,
}

impl Batch {
    fn text(&mut self, text: &str) {
        self.parts.push(Part::Bytes(text.as_bytes().to_vec()));
    }

    fn version(&mut self, name: usize) {
        self.parts.push(Part::Version(name));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.parts.push(Part::Bytes(bytes.to_vec()));
    }
}

/// At least so many bytes of requests that are answered, each version number by its name alone.
pub fn requests(rng: &mut Rng, bytes: usize) -> Vec<u8> {
    let mut state = State::default();
    let mut stream = Vec::new();
    while stream.len() < bytes {
        let batch = batch(rng, &mut state);
        if batch.expect != Expect::Answers {
            continue;
        }
        for part in batch.parts {
            match part {
                Part::Bytes(bytes) => stream.extend(bytes),
                Part::Version(name) => stream.extend(name.to_string().as_bytes()),
            }
        }
    }
    stream
}

/// The next batch.
pub fn batch(rng: &mut Rng, state: &mut State) -> Batch {
    let mut batch = Batch { parts: vec![], kinds: vec![], expect: Expect::Answers };
    match rng.below(100) {
        0..=6 => arithmetic(rng, &mut batch),
        7..=11 => meta::arithmetic(rng, state, &mut batch),
        16..=19 if state.udp => udp::datagram(rng, &mut batch),
        12 => get_with_long_key(rng, &mut batch),
        13 if rng.one_in(8) => hangup(rng, &mut batch),
        14 if rng.one_in(4) => large(rng, &mut batch),
        15 if rng.one_in(10) => many_keys(rng, &mut batch),
        _ => {
            for _ in 0..=rng.below(12) {
                operation(rng, state, &mut batch);
            }
        }
    }
    batch
}

fn operation(rng: &mut Rng, state: &State, batch: &mut Batch) {
    match rng.below(160) {
        100..=119 => meta::get(rng, batch),
        120..=136 => meta::set(rng, state, batch),
        137..=145 => meta::delete(rng, state, batch),
        146..=149 => meta::debug(rng, batch),
        150..=155 => meta::malformed(rng, batch),
        156..=159 => admin::command(rng, batch),
        0..=19 => get(rng, batch),
        20..=44 => store(rng, batch),
        45..=54 => cas(rng, state, batch),
        55..=60 => delete(rng, batch),
        61..=67 => touch(rng, batch),
        68..=74 => get_and_touch(rng, batch),
        75 => flush(rng, batch),
        76..=78 => verbosity(rng, batch),
        79..=86 => malformed_line(rng, batch),
        87..=93 => malformed_store(rng, batch),
        _ => bad_data_block(rng, batch),
    }
}

fn key(rng: &mut Rng) -> String {
    match rng.below(40) {
        0 => format!("{}{}", "k".repeat(249), rng.below(3)),
        1 => format!("odd\t\u{1}key{}", rng.below(4)),
        2 => "noreply".into(),
        _ => format!("key{}", rng.below(120)),
    }
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(20) {
        0 => 0,
        1 => 1,
        2 => rng.below(20_000),
        3 => 440 + rng.below(80),
        4..=7 => return format!("{}", rng.next() >> (1 + rng.below(63))).into_bytes(),
        _ => rng.below(100),
    };
    let mut value = rng.bytes(len);
    if let Some(first) = value.first_mut() {
        // White space before a number is skipped, by memcached also behind the value's end.
        *first |= 0x40;
    }
    value
}

fn flags(rng: &mut Rng) -> &'static str {
    rng.pick(&["0", "0", "0", "1", "32", "4294967295", "007"])
}

/// Never, far away, or at once; nothing that depends on when the script gets there.
fn exptime(rng: &mut Rng) -> &'static str {
    if rng.one_in(12) {
        return rng.pick(&["-1", "-100", "2592001"]);
    }
    rng.pick(&["0", "0", "0", "0", "1000", "2592000", "2147483000", "4102444800"])
}

fn noreply(rng: &mut Rng) -> &'static str {
    if rng.one_in(6) { " noreply" } else { "" }
}

fn spaces(rng: &mut Rng) -> &'static str {
    if rng.one_in(20) { "   " } else { " " }
}

fn line_end(rng: &mut Rng) -> &'static str {
    if rng.one_in(30) { "\n" } else { "\r\n" }
}

fn get(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("get");
    let mut line = String::from(rng.pick(&["get", "get", "get", "gets", "gets", " get", "bget"]));
    for _ in 0..=if rng.one_in(3) { rng.below(40) } else { 0 } {
        line += spaces(rng);
        line += &key(rng);
    }
    if rng.one_in(20) {
        line.push(' ');
    }
    line += line_end(rng);
    batch.text(&line);
}

fn store(rng: &mut Rng, batch: &mut Batch) {
    let word = rng.pick(&["set", "set", "set", "add", "replace", "append", "prepend"]);
    batch.kinds.push(word);
    let value = value(rng);
    batch.text(&format!(
        "{word}{}{} {} {}{}{}{}{}",
        spaces(rng),
        key(rng),
        flags(rng),
        exptime(rng),
        spaces(rng),
        value.len(),
        noreply(rng),
        line_end(rng)
    ));
    batch.bytes(&value);
    batch.text("\r\n");
}

fn cas(rng: &mut Rng, state: &State, batch: &mut Batch) {
    let value = value(rng);
    batch.kinds.push("cas");
    // Of a key that has just been looked at, often: so that some versions are current.
    let key = key(rng);
    if rng.one_in(2) {
        batch.text(&format!("gets {key}\r\n"));
    }
    batch.text(&format!("cas {key} {} {} {} ", flags(rng), exptime(rng), value.len()));
    match rng.below(8) {
        0 => batch.text("0"),
        1 => batch.text("18446744073709551615"),
        _ if state.versions_seen > 0 => {
            let back = 1 + rng.below(state.versions_seen.min(12));
            batch.parts.push(Part::Version(state.versions_seen - back));
        }
        _ => batch.text("7"),
    }
    batch.text(noreply(rng));
    batch.text("\r\n");
    batch.bytes(&value);
    batch.text("\r\n");
}

fn delete(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("delete");
    let tail = rng.pick(&[
        "",
        "",
        "",
        "",
        " noreply",
        " 0",
        " 0 noreply",
        " 5",
        " 5 noreply",
        " noreply 0",
        " 0 0",
        " 0 noreply x",
    ]);
    batch.text(&format!("delete {}{tail}{}", key(rng), line_end(rng)));
}

fn touch(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("touch");
    let time = if rng.one_in(8) { "soon" } else { exptime(rng) };
    batch.text(&format!("touch {} {time}{}{}", key(rng), noreply(rng), line_end(rng)));
}

fn get_and_touch(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("gat");
    let time = if rng.one_in(10) { "1x" } else { exptime(rng) };
    let mut line = format!("{} {time}", rng.pick(&["gat", "gats"]));
    for _ in 0..rng.below(5) {
        line += spaces(rng);
        line += &key(rng);
    }
    batch.text(&format!("{line}{}", line_end(rng)));
}

fn flush(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("flush_all");
    let tail = rng.pick(&["", " noreply", " 0", " 0 noreply", " -5", " x", " x noreply", " 1 2 3"]);
    match rng.below(20) {
        // A delayed one is called off by the one that follows it.
        0 => batch.text("flush_all 1000\r\nflush_all\r\n"),
        1 | 2 => batch.text(&format!("flush_all{tail}\r\n")),
        _ => batch.text(&format!("flush_all {}\r\n", rng.pick(&["x", "1x noreply", "y 0"]))),
    }
}

fn verbosity(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("verbosity");
    // Never above 0: a chatty memcached would only fill the test's output.
    let tail = rng.pick(&[
        "",
        " 0",
        " 0 noreply",
        " x",
        " -1",
        " 0 0",
        " 4294967296",
        " x noreply",
        " 0 0 0",
    ]);
    batch.text(&format!("verbosity{tail}\r\n"));
}

/// `incr` and `decr` of all sorts of values, alone in their batch, then a look at the result.
fn arithmetic(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("incr");
    let key = key(rng);
    if rng.one_in(2) {
        let value = rng.pick(&[
            "0",
            "1",
            "9",
            "10",
            "99",
            "100",
            "4611686018427387904",
            "18446744073709551616",
            "-1",
            "-0",
            "+5",
            "12x",
            "12 x",
            "x",
            "",
            "1000000000000000000000000",
            "5\t",
            "007",
            "10 ",
        ]);
        batch.text(&format!("set {key} 5 0 {} noreply\r\n{value}\r\n", value.len()));
    }
    let delta = rng.pick(&[
        "1",
        "1",
        "1",
        "5",
        "10",
        "99999999999",
        "18446744073709551615",
        "18446744073709551616",
        "-1",
        "x",
        "1x",
        "0",
        "+1",
        "\t1",
        "1.5",
    ]);
    let word = rng.pick(&["incr", "decr"]);
    batch.text(&format!("{word} {key} {delta}{}{}", noreply(rng), line_end(rng)));
    batch.text(&format!("get {key}\r\n"));
    // A number that looks negative makes memcached search the memory behind it for a minus sign.
    if delta.len() > 10 {
        batch.text(&format!("delete {key}\r\n"));
    }
}

fn get_with_long_key(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("get with a long key");
    let long = "x".repeat(251 + rng.below(700));
    let word = rng.pick(&["get", "gets", "gat 0", "gats 100"]);
    let line = match rng.below(4) {
        0 => format!("{word} {long}"),
        1 => format!("{word} {} {} {long} {}", key(rng), key(rng), key(rng)),
        2 => format!("{word} {long} {}", key(rng)),
        _ => format!("{word} {} {long}", key(rng)),
    };
    batch.text(&format!("{line}\r\n"));
}

fn malformed_line(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("malformed line");
    let long = "y".repeat(251);
    let lines = MALFORMED;
    match rng.below(lines.len() + 4) {
        0 => batch.text(&format!("incr {long} 1\r\n")),
        1 => batch.text(&format!("touch {long} 0\r\n")),
        2 => batch.text(&format!("delete {long}{}\r\n", rng.pick(&["", " noreply", " 5"]))),
        3 => {
            let noise: Vec<u8> =
                rng.bytes(40).into_iter().map(|b| if b == b'\n' { b'?' } else { b }).collect();
            // A letter that begins no command, so that noise stays noise.
            batch.text("z");
            batch.bytes(&noise);
            batch.text("z\r\n");
        }
        n => batch.text(lines[n - 4]),
    }
}

/// Storage commands that are refused; their data block is then a line of its own, or swallowed.
fn malformed_store(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("malformed store");
    let word = rng.pick(&["set", "add", "replace", "append", "prepend", "cas"]);
    let version = if word == "cas" { rng.pick(&[" 1", " x", " -1"]) } else { "" };
    let noreply = noreply(rng);
    let long = format!("z{}", "z".repeat(250));
    let key = key(rng);
    let (line, block) = match rng.below(11) {
        0 => (format!("{word} {long} 0 0 4{version}"), "data"),
        1 => (format!("{word} {key} x 0 4{version}"), "data"),
        2 => (format!("{word} {key} 0 x 4{version}"), "data"),
        3 => (format!("{word} {key} 0 0 x{version}"), "data"),
        4 => (format!("{word} {key} 0 0 -1{version}"), "data"),
        5 => (format!("{word} {key} -1 0 4{version}"), "data"),
        6 => (format!("{word} {key} 4294967296 0 4{version}"), "data"),
        7 => (format!("{word} {key} 0 99999999999999999999 4{version}"), "data"),
        8 => (format!("{word} {key} 0 0 2147483647{version}"), "data"),
        9 => (format!("{word} {key} 0 0 4294967300{version}"), "data"),
        _ => (format!("{word} {key} 0 0 4.5{version}"), "data"),
    };
    batch.text(&format!("{line}{noreply}\r\n{block}\r\n"));
}

/// Data blocks that do not end where they should.
fn bad_data_block(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("bad data block");
    let word = rng.pick(&["set", "add", "replace", "append", "prepend"]);
    let (key, noreply) = (key(rng), noreply(rng));
    let (len, block): (usize, &[u8]) = match rng.below(6) {
        0 => (4, b"12345678\r\n"),
        1 => (4, b"1234\n\n\r\n"),
        2 => (4, b"1234\rx\r\n"),
        3 => (8, b"1234\r\n5678\r\n"),
        4 => (0, b"x\r\n\r\n"),
        _ => (4, b"12\r\n34\r\nversionx\r\n"),
    };
    batch.text(&format!("{word} {key} 0 0 {len}{noreply}\r\n"));
    batch.bytes(block);
}

/// Values around the limits of 512 KiB and 1 MiB, on few keys.
fn large(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("large value");
    let key = format!("large{}", rng.below(5));
    let limit = 1_048_576 - 59 - key.len();
    let len = match rng.below(6) {
        0 => limit,
        1 => limit + 1,
        2 => limit - 4 + rng.below(10),
        3 => 1_048_576 + rng.below(5000),
        4 => 524_288 - 59 - key.len() + rng.below(3),
        _ => 20_000 + rng.below(1_000_000),
    };
    let word = rng.pick(&["set", "set", "add", "replace", "append", "prepend"]);
    let flags = rng.pick(&["0", "1"]);
    let mut value = vec![b'0' + rng.below(10) as u8; len];
    if let Some(first) = value.first_mut() {
        *first = b'7';
    }
    batch.text(&format!("{word} {key} {flags} 0 {len}{}\r\n", noreply(rng)));
    batch.bytes(&value);
    batch.text("\r\n");
    batch.text(&format!("get {key}\r\n"));
    if rng.one_in(3) {
        batch.text(&format!("append {key} 0 0 3\r\nabc\r\nget {key} key1 {key}\r\n"));
    }
}

/// A `get` longer than any other line may be.
fn many_keys(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("get of many keys");
    let mut line = String::from(rng.pick(&["get", "gets", "   get"]));
    for _ in 0..300 + rng.below(3000) {
        line += " ";
        line += &key(rng);
    }
    batch.text(&format!("{line}\r\n"));
}

fn hangup(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("hang up");
    batch.expect = Expect::Hangup;
    match rng.below(5) {
        0 => batch.text("quit\r\n"),
        1 => batch.text("quit and ignore this\r\nget key1\r\n"),
        2 => batch.text("GET / HTTP/1.1\r\n"),
        3 => batch.text(&format!("set {}", "x".repeat(2100))),
        _ => batch.text(&format!("{}get key1 {}", " ".repeat(101), "x".repeat(2100))),
    }
}
