//! Meta commands. Where stock memcached answers by chance, or by a mistake, the script keeps away:
//! - `ma` of a number that gets longer sets the expiry of the item it has just replaced: `T` comes with
//!   `D0` only; what was said of `incr` holds for it, too;
//! - `R` is never near the time to live of anything; `T-1` and `N-1` do not come with `t`;
//! - version numbers are ordered over all keys; here only over one key's: `I` of an `ms` comes with
//!   versions of its own key only.
use super::{Batch, State, key, line_end, value};
use crate::common::rng::Rng;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for block in bytes.chunks(3) {
        let word =
            block.iter().fold(0u32, |w, &b| w << 8 | u32::from(b)) << (8 * (3 - block.len()));
        for n in 0..4 {
            let digit = BASE64[(word >> (18 - 6 * n)) as usize & 63];
            text.push(if n <= block.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// A key, and whether it is in base64. Those in base64 are few, some of them of any bytes but a line
/// feed; some name the keys that others give as they are.
fn meta_key(rng: &mut Rng) -> (String, bool) {
    match rng.below(12) {
        0 => (base64(key(rng).as_bytes()), true),
        1 => {
            let mut bytes = Rng::new(rng.below(20) as u64 + 1).bytes(1 + rng.below(2) * 20);
            bytes.iter_mut().filter(|b| **b == b'\n').for_each(|b| *b = 0);
            (base64(&bytes), true)
        }
        2 => (rng.pick(&["Zm9v", "Zm9vYg==", "Z.m9v", "=AAA"]).into(), true),
        _ => (key(rng), false),
    }
}

fn opaque(rng: &mut Rng) -> String {
    let len = if rng.one_in(30) { 29 + rng.below(5) } else { rng.below(8) };
    format!("O{}", "opaquetokenopaquetokenopaquetoken12345".get(..len).unwrap_or(""))
}

/// Shuffled flags, some wrong, some twice.
fn line_up(rng: &mut Rng, mut flags: Vec<String>, binary: bool) -> String {
    if binary {
        flags.push("b".into());
    }
    if rng.one_in(40) {
        flags.push(
            rng.pick(&["v", "q", "Z", "E5", "\u{e9}", "Tx", "N", "Cx", "b", "Dx", "Jx", "?"])
                .into(),
        );
    }
    let mut line = String::new();
    while !flags.is_empty() {
        let at = rng.below(flags.len());
        line += " ";
        line += &flags.swap_remove(at);
    }
    if rng.one_in(200) {
        line += " s t f h k c v q u O1 T1 N1 R1 I M D1 J1 F1 C1 x";
    }
    line
}

fn some(rng: &mut Rng, from: &[&str], one_in: usize) -> Vec<String> {
    from.iter().filter(|_| rng.one_in(one_in)).map(|flag| (*flag).to_string()).collect()
}

pub fn get(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("mg");
    let (key, binary) = meta_key(rng);
    let mut flags = some(rng, &["s", "c", "f", "h", "l", "k", "q"], 3);
    if rng.one_in(2) {
        flags.push("v".into());
    }
    if rng.one_in(10) {
        flags.push("u".into());
    }
    if rng.one_in(3) {
        flags.push(opaque(rng));
    }
    let mut past = false;
    for (letter, chance) in [("N", 5), ("T", 8)] {
        if rng.one_in(chance) {
            past |= rng.one_in(10);
            let time = if past {
                "-1"
            } else {
                rng.pick(&["0", "1000", "2592000", "2147483000", "4102444800"])
            };
            flags.push(format!("{letter}{time}"));
        }
    }
    if rng.one_in(5) {
        flags.push(format!("R{}", rng.pick(&["0", "-1", "500", "100000"])));
    }
    if !past && rng.one_in(3) {
        flags.push("t".into());
    }
    let flags = line_up(rng, flags, binary);
    batch.text(&format!("mg {key}{flags}{}", line_end(rng)));
}

pub fn set(rng: &mut Rng, state: &State, batch: &mut Batch) {
    batch.kinds.push("ms");
    let (mut key, mut binary) = meta_key(rng);
    let value = value(rng);
    let mut flags = some(rng, &["c", "k", "q"], 3);
    if rng.one_in(4) {
        flags.push(opaque(rng));
    }
    if rng.one_in(3) {
        flags.push(format!("F{}", rng.pick(&["0", "1", "4294967295", "x", "-1"])));
    }
    if rng.one_in(3) {
        flags.push(format!(
            "T{}",
            rng.pick(&["0", "1000", "2592000", "2147483000", "4102444800", "-1"])
        ));
    }
    if rng.one_in(2) {
        flags.push(format!("M{}", rng.pick(&["E", "A", "P", "R", "S", "A", "P", "X", "", "AP"])));
    }
    let mut version = None;
    if rng.one_in(3) && !state.known.is_empty() {
        // With a version of this very key, often an old one.
        let (of, name) = &state.known[rng.below(state.known.len())];
        (key, binary) = (of.clone(), false);
        version = Some(*name);
        if rng.one_in(2) {
            flags.push("I".into());
        }
    } else if rng.one_in(6) {
        flags.push(rng.pick(&["C0", "C7", "C18446744073709551615"]).into());
    }
    let flags = line_up(rng, flags, binary);
    batch.text(&format!("ms {key} {}{flags}", value.len()));
    if let Some(version) = version {
        batch.text(" C");
        batch.version(version);
    }
    batch.text(line_end(rng));
    batch.bytes(&value);
    batch.text("\r\n");
}

pub fn delete(rng: &mut Rng, state: &State, batch: &mut Batch) {
    batch.kinds.push("md");
    let (mut key, mut binary) = meta_key(rng);
    let mut flags = some(rng, &["k", "q"], 3);
    if rng.one_in(4) {
        flags.push(opaque(rng));
    }
    if rng.one_in(2) {
        flags.push("I".into());
        if rng.one_in(2) {
            flags.push(format!("T{}", rng.pick(&["0", "1000", "30000", "-1"])));
        }
    }
    let mut version = None;
    if rng.one_in(4) && !state.known.is_empty() {
        let (of, name) = &state.known[rng.below(state.known.len())];
        (key, binary) = (of.clone(), false);
        version = Some(*name);
    }
    let flags = line_up(rng, flags, binary);
    batch.text(&format!("md {key}{flags}"));
    if let Some(version) = version {
        batch.text(" C");
        batch.version(version);
    }
    batch.text(line_end(rng));
}

/// Alone in its batch, as `incr` is.
pub fn arithmetic(rng: &mut Rng, state: &State, batch: &mut Batch) {
    batch.kinds.push("ma");
    let (mut key, mut binary) = meta_key(rng);
    let mut version = None;
    if rng.one_in(6) && !state.known.is_empty() {
        let (of, name) = &state.known[rng.below(state.known.len())];
        (key, binary) = (of.clone(), false);
        version = Some(*name);
    }
    if rng.one_in(2) && version.is_none() {
        let value = rng.pick(&["0", "1", "99", "100", "-1", "x", "", "007", "10 ", "12x", "+5"]);
        let base = if binary { " b" } else { "" };
        batch.text(&format!("ms {key} {} q{base}\r\n{value}\r\n", value.len()));
    }
    let mut flags = some(rng, &["t", "c", "v", "k", "q"], 3);
    if rng.one_in(4) {
        flags.push(opaque(rng));
    }
    let mut large = false;
    if rng.one_in(3) {
        flags.extend(["D0".into(), format!("T{}", rng.pick(&["0", "1000", "2592000"]))]);
    } else if rng.one_in(2) {
        let delta = rng.pick(&["1", "5", "99999999999", "18446744073709551615", "x", "-1", ""]);
        large |= delta.len() > 10;
        flags.push(format!("D{delta}"));
    }
    if rng.one_in(3) {
        flags.push(format!("N{}", rng.pick(&["0", "1000", "x"])));
    }
    if rng.one_in(4) {
        let initial = rng.pick(&["0", "7", "18446744073709551615", "-1", "x"]);
        large |= initial.len() > 10;
        flags.push(format!("J{initial}"));
    }
    if rng.one_in(2) {
        flags.push(format!("M{}", rng.pick(&["I", "D", "+", "-", "i", "", "DD"])));
    }
    let flags = line_up(rng, flags, binary);
    batch.text(&format!("ma {key}{flags}"));
    if let Some(version) = version {
        batch.text(" C");
        batch.version(version);
    }
    batch.text(line_end(rng));
    let base = if binary { " b" } else { "" };
    batch.text(&format!("mg {key} v t k{base}\r\n"));
    if large {
        batch.text(&format!("md {key} q{base}\r\n"));
    }
}

pub fn debug(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("me");
    let (key, binary) = meta_key(rng);
    let tail = if binary { " b" } else { rng.pick(&["", "", " b", " x"]) };
    batch.text(&format!("me {key}{tail}{}", line_end(rng)));
}

pub fn malformed(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("malformed meta");
    let long = "z".repeat(251);
    match rng.below(14) {
        0 => batch.text("mg\r\n"),
        1 => batch.text("ms\r\n"),
        2 => batch.text("ms key1\r\n"),
        3 => batch.text("ms key1 S4\r\n"),
        4 => batch.text("ms key1 -1\r\nms key1 4.5\r\nms key1 2147483647\r\n"),
        5 => batch.text(&format!("mg {long} v\r\nmd {long}\r\nma {long}\r\nme {long}\r\n")),
        6 => batch.text(&format!("ms {long} 2\r\n")),
        7 => batch.text("md\r\nma\r\nme\r\nmn\r\nmn x y\r\n"),
        8 => batch.text("mx key1\r\nm\r\nMG key1\r\nmgg key1\r\n"),
        9 => batch.text(&format!("ms key1 2 {} k\r\nxx\r\n", rng.pick(&["Z", "Tx", "b", "k"]))),
        10 => batch.text("ms key1 4 k\r\n12345678\r\n"),
        11 => batch.text("ms key1 4 k q\r\n1234xx\r\n"),
        12 => batch.text("mg key1 b v\r\nmd key1 b\r\nma key1 b\r\nme key1 b\r\n"),
        _ => batch.text("ms key1 4 F1 Fx b Ox T\r\nabcd\r\n"),
    }
}
