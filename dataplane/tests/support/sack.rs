//! Conversations with a peer that gives and takes selective acknowledgements, without timestamps.
use super::talk::*;
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_abi::{Call, Condition, Cookie, Handle, SocketAddress};

pub const WINDOW: u16 = 60_000;
pub const SEGMENT: u32 = 1000;

/// NOP, NOP, SACK with these blocks.
pub fn option(blocks: &[(u32, u32)]) -> Vec<u8> {
    let mut option = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
    for (left, right) in blocks {
        option.extend(left.to_be_bytes());
        option.extend(right.to_be_bytes());
    }
    option
}

/// The blocks of a segment of the station's, whose only option they are.
#[track_caller]
pub fn blocks(segment: &Segment) -> Vec<(u32, u32)> {
    let options = &segment.options;
    if options.is_empty() {
        return Vec::new();
    }
    assert_eq!((&options[..3], usize::from(options[3])), (&[1, 1, 5][..], options.len() - 2));
    let word = |b: &[u8]| u32::from_be_bytes(b.try_into().unwrap());
    options[4..].chunks(8).map(|b| (word(&b[..4]), word(&b[4..]))).collect()
}

/// A connection that the peer opened with sequence number 1000 and an SEGMENT of 1000, in `rtt`: its
/// handle and the station's next sequence number.
pub fn accepted(talk: &mut Talk, rtt: ix_dataplane::time::Duration) -> (Handle, u32) {
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 4));
    talk.send_options(SYN, (999, 0), WINDOW, &[2, 4, 0x03, 0xe8, 4, 2, 1, 1], &[]);
    let una = talk.one().seq + 1;
    talk.pass(rtt);
    talk.send(ACK, 1000, una, WINDOW, &[]);
    let [Condition::Knock { handle, .. }] = talk.events()[..] else { panic!() };
    talk.call(Call::accept(handle, Cookie(1)));
    talk.nothing();
    (handle, una)
}

pub fn sendv(handle: Handle, len: u32) -> Call {
    let entry = SgEntry { addr: HEAP_BASE, len: u64::from(len) };
    Call::sendv(handle, 1, entry, SgEntry::default()).with_result(5)
}

/// An acknowledgement of the peer's with selective ones.
pub fn ack(talk: &mut Talk, ack: u32, blocks: &[(u32, u32)]) {
    let options = if blocks.is_empty() { Vec::new() } else { option(blocks) };
    talk.send_options(ACK, (1000, ack), WINDOW, &options, &[]);
}

/// Sequence numbers of what the station has sent with payload since the last look, from `una`, with
/// lengths.
pub fn payloads(talk: &mut Talk, una: u32) -> Vec<(u32, u32)> {
    let sent = talk.sent();
    let with = sent.iter().filter(|s| !s.payload.is_empty());
    with.map(|s| (s.seq.wrapping_sub(una), s.payload.len() as u32)).collect()
}
