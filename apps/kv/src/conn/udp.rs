//! Requests in datagrams: memcached's 8-byte frame, and one message of datagrams for each reply.
//!
//! A frame is four big-endian 16-bit numbers: the request's id, the datagram's number in its message,
//! how many the message has, and 0. A request is one datagram; of a `get`, each hit is a message of its
//! own, and so is the `END`, unless the last key was a hit, as memcached 1.6 answers.
use super::{Conn, State};
use crate::limits::{UDP_BUFFER_KEPT_MAX, UDP_FRAME_BYTES, UDP_PAYLOAD_BYTES};
use crate::worker::{Worker, count};
use alloc::vec::Vec;

/// A request's replies on their way out.
struct Replies<'a> {
    id: [u8; 2],
    bytes: Vec<u8>,
    sent: u64,
    send: &'a mut dyn FnMut(&[u8]),
}

impl Replies<'_> {
    /// Sends the first `len` bytes as one message.
    fn message(&mut self, len: usize) {
        let total = len.div_ceil(UDP_PAYLOAD_BYTES).min(usize::from(u16::MAX)) as u16;
        let mut datagram = [0; UDP_FRAME_BYTES + UDP_PAYLOAD_BYTES];
        for (number, piece) in (0..total).zip(self.bytes[..len].chunks(UDP_PAYLOAD_BYTES)) {
            datagram[..2].copy_from_slice(&self.id);
            datagram[2..4].copy_from_slice(&number.to_be_bytes());
            datagram[4..6].copy_from_slice(&total.to_be_bytes());
            let end = UDP_FRAME_BYTES + piece.len();
            datagram[UDP_FRAME_BYTES..end].copy_from_slice(piece);
            (self.send)(&datagram[..end]);
            self.sent += end as u64;
        }
        self.bytes.drain(..len);
    }

    /// Sends what is complete: all but the last hit, and that, too, once the `command` is over.
    fn cut(&mut self, command: Option<&[u8]>) {
        while let Some(len) = hit_len(&self.bytes) {
            let rest = &self.bytes[len.min(self.bytes.len())..];
            let last =
                rest == b"END\r\n" && command.is_some_and(|c| words_end_alike(c, &self.bytes));
            if rest.is_empty() || last {
                break;
            }
            self.message(len);
        }
        if command.is_some() && !self.bytes.is_empty() {
            self.message(self.bytes.len());
        }
    }
}

/// Whether the last word of a command is the key of the hit that `bytes` begin with.
fn words_end_alike(command: &[u8], bytes: &[u8]) -> bool {
    let line = command.split(|&b| b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let last = line.split(|&b| b == b' ').rfind(|word| !word.is_empty());
    last.is_some() && last == bytes.split(|&b| b == b' ').nth(1)
}

/// Length of the hit that `bytes` begin with: of its first line, and the value with its line end.
fn hit_len(bytes: &[u8]) -> Option<usize> {
    let line = bytes.strip_prefix(b"VALUE ")?;
    let end = line.iter().position(|&b| b == b'\n')?;
    let word = line[..end].trim_ascii_end().split(|&b| b == b' ').nth(2)?;
    let len: usize = core::str::from_utf8(word).ok()?.parse().ok()?;
    Some(6 + end + 1 + len + 2)
}

/// Answers a datagram: `send` gets each datagram of the answer. What is no request gets none: a frame
/// of several datagrams, and commands or data blocks that are not whole.
pub fn on_datagram(worker: &mut Worker<'_>, datagram: &[u8], send: &mut dyn FnMut(&[u8])) {
    count(&worker.counters.bytes_read, datagram.len() as u64);
    let Some((frame, request)) = datagram.split_first_chunk::<UDP_FRAME_BYTES>() else { return };
    if request.is_empty() || frame[4..6] != [0, 1] {
        return;
    }
    let bytes = core::mem::take(&mut worker.udp_buffer);
    let mut replies = Replies { id: [frame[0], frame[1]], bytes, sent: 0, send };
    let mut conn = Conn::default();
    let (mut rest, mut start) = (request, 0);
    while !(conn.closing || rest.is_empty() && conn.line_used == conn.line.len()) {
        let before = (rest.len(), conn.line_used);
        let used = conn.step(worker, rest);
        rest = &rest[used..];
        conn.drain_into(worker, &mut replies.bytes);
        let over = matches!(conn.state, State::Line);
        replies.cut(over.then(|| &request[start..request.len() - rest.len()]));
        if over {
            start = request.len() - rest.len();
        }
        if before == (rest.len(), conn.line_used) {
            break;
        }
    }
    conn.release(worker);
    count(&worker.counters.bytes_written, replies.sent);
    let mut bytes = replies.bytes;
    if bytes.capacity() <= UDP_BUFFER_KEPT_MAX {
        bytes.clear();
        worker.udp_buffer = bytes;
    }
}

impl Conn {
    /// Moves all replies that wait to the end of `bytes`.
    fn drain_into(&mut self, worker: &mut Worker<'_>, bytes: &mut Vec<u8>) {
        while self.out.waiting() > 0 {
            let peeked = self.out.peek(worker.store(), usize::MAX, |piece| {
                bytes.extend_from_slice(piece);
            });
            self.out.take(peeked.bytes);
            self.out.sent(worker.store(), &mut worker.pool, peeked.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::worker::{Settings, Shared};
    use alloc::string::String;

    fn ask(worker: &mut Worker<'_>, frame: [u8; 8], request: &[u8]) -> Vec<(u8, u8, String)> {
        let mut answers = Vec::new();
        on_datagram(worker, &[&frame, request].concat(), &mut |datagram| {
            assert_eq!(datagram[..2], frame[..2]);
            assert!(datagram.len() <= 1400);
            let text = String::from_utf8_lossy(&datagram[8..]).into_owned();
            answers.push((datagram[3], datagram[5], text));
        });
        answers
    }

    #[test]
    fn each_reply_is_a_message_of_its_own_as_memcacheds_are() {
        let shared = Shared::new(Store::with_capacity(8 << 20, 1), Settings::default());
        let mut worker = Worker::new(&shared, 0);
        let one = [7, 1, 0, 0, 0, 1, 0, 9];
        let text = |n, of, text: &str| (n, of, String::from(text));
        let stored = text(0, 1, "STORED\r\n");
        let answer = ask(&mut worker, one, b"set a 0 0 1\r\nx\r\n");
        assert_eq!(answer, core::slice::from_ref(&stored));
        let hit = text(0, 1, "VALUE a 0 1\r\nx\r\n");
        let last = text(0, 1, "VALUE a 0 1\r\nx\r\nEND\r\n");
        assert_eq!(ask(&mut worker, one, b"get a b a\r\n"), [hit.clone(), last.clone()]);
        let end = text(0, 1, "END\r\n");
        assert_eq!(ask(&mut worker, one, b"get a a b\r\n"), [hit.clone(), hit.clone(), end]);
        let big = [&b"set b 0 0 5000\r\n"[..], &[b'y'; 5000], b"\r\nmn\r\n"].concat();
        assert_eq!(ask(&mut worker, one, &big), [stored, text(0, 1, "MN\r\n")]);
        let answers = ask(&mut worker, one, b"get a b\r\n");
        let numbers: Vec<_> = answers.iter().map(|(n, of, _)| (*n, *of)).collect();
        assert_eq!(numbers, [(0, 1), (0, 4), (1, 4), (2, 4), (3, 4)]);
        assert!(answers[4].2.ends_with("y\r\nEND\r\n"));
    }

    #[test]
    fn what_is_no_whole_request_is_not_answered() {
        let shared = Shared::new(Store::with_capacity(8 << 20, 1), Settings::default());
        let mut worker = Worker::new(&shared, 0);
        let one = [0, 1, 0, 0, 0, 1, 0, 0];
        for (frame, request) in [
            ([0, 1, 0, 0, 0, 2, 0, 0], &b"mn\r\n"[..]),
            ([0, 1, 0, 0, 1, 1, 0, 0], b"mn\r\n"),
            ([0, 1, 0, 0, 0, 0, 0, 0], b"mn\r\n"),
            (one, b""),
            (one, b"get a"),
            (one, b"set a 0 0 10\r\nabc\r\n"),
            (one, b"quit\r\nmn\r\n"),
        ] {
            assert_eq!(ask(&mut worker, frame, request), [], "{request:?}");
        }
        on_datagram(&mut worker, b"short", &mut |_| panic!("an answer"));
        assert_eq!(shared.store.figures().used_chunks, 0, "half a value is given back");
    }
}
