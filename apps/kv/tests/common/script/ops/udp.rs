//! Requests in datagrams; each is followed by an `mn`, whose answer ends the batch's. Datagrams that a
//! server drops come before one that it answers.
use super::{Batch, Expect, exptime, flags, key, meta};
use crate::common::rng::Rng;

pub fn datagram(rng: &mut Rng, batch: &mut Batch) {
    batch.kinds.push("datagram");
    let total = if rng.one_in(12) { rng.pick(&["0", "2", "257"]) } else { "1" };
    batch.expect = Expect::Datagrams {
        id: rng.next() as u16,
        sequence: if rng.one_in(4) { rng.next() as u16 } else { 0 },
        total: total.parse().expect("a number"),
    };
    for _ in 0..=rng.below(3) {
        match rng.below(10) {
            0..=3 => {
                let mut line = String::from("get");
                for _ in 0..=rng.below(8) {
                    line += " ";
                    line += &key(rng);
                }
                batch.text(&format!("{line}\r\n"));
            }
            4 | 5 => {
                let value = vec![b'a' + rng.below(26) as u8; rng.below(200)];
                let head = format!("set {} {} {}", key(rng), flags(rng), exptime(rng));
                batch.text(&format!("{head} {}\r\n", value.len()));
                batch.bytes(&value);
                batch.text("\r\n");
            }
            6 => batch.text(&format!("delete {} noreply\r\n", key(rng))),
            7 => batch.text(&format!("mg {} v k f\r\n", key(rng))),
            8 => meta::debug(rng, batch),
            _ => batch.text(rng.pick(&[
                "bogus\r\n",
                "\r\n",
                "get\r\n",
                "touch key1 0\r\n",
                "mn\r\n",
                "stats bogus\r\n",
                "append key2 0 0 2\r\nxx\r\n",
            ])),
        }
    }
}
