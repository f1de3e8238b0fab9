extern crate std;

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

type Owned = (Kind, u16, Vec<u8>);

fn encoded(kind: Kind, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = [0; 2048];
    let len = encode(&mut out, kind, sequence, &[payload]).expect("it fits");
    out[..len].to_vec()
}

fn decoded(bytes: &[u8]) -> Vec<Owned> {
    let mut decoder = Decoder::<REPLY_BYTES_MAX>::new();
    let mut found = Vec::new();
    for byte in bytes {
        if let Some(frame) = decoder.push(*byte) {
            found.push((frame.kind, frame.sequence, frame.payload.to_vec()));
        }
    }
    found
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..=REPLY_BYTES_MAX - HEAD_BYTES - CRC_BYTES)
}

fn frame() -> impl Strategy<Value = Owned> {
    (any::<u8>(), any::<u16>(), payload()).prop_map(|(kind, n, p)| (Kind(kind.into()), n, p))
}

/// Bytes that look like beginnings of frames more often than chance has it.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => any::<u8>(), 1 => Just(SYNC[0]), 1 => Just(SYNC[1]), 1 => Just(0), 1 => Just(1)];
    proptest::collection::vec(byte, 0..300)
}

#[test]
fn the_bytes_of_a_frame_are_those_of_the_documentation() {
    let range = Range { offset: 0x200, words: 1 };
    let mut out = [0; 64];
    let word = 0x1122_3344_5566_7788_u64.to_le_bytes();
    let len = encode(&mut out, Kind::Write, 0x0102, &[&range.to_bytes(), &word]).unwrap();
    assert_eq!(
        out[..len],
        [
            0x5a, 0xa5, 16, 0, 0x02, 0x01, 3, 1, 0x00, 0x02, 0, 0, 1, 0, 0, 0, 0x88, 0x77, 0x66,
            0x55, 0x44, 0x33, 0x22, 0x11, 0xed, 0xc8, 0xe7, 0x3a
        ]
    );
    assert_eq!(encode(&mut out[..27], Kind::Write, 1, &[&range.to_bytes(), &word]), None);
}

#[test]
fn only_what_a_client_owns_may_be_written() {
    let range = |offset, words| Range { offset, words };
    for (good, words) in [(0x200, 7), (0x218, 4), (0x230, 1), (BULK_BASE, 16), (0x1f_fff8, 1)] {
        assert!(range(good, words).is_writable(), "{good:#x}");
    }
    for (bad, words) in
        [(0, 1), (0x1f8, 2), (0x200, 8), (0x238, 1), (0x280, 1), (BULK_BASE - 8, 2), (0x1f_fff8, 2)]
    {
        assert!(!range(bad, words).is_writable(), "{bad:#x}");
    }
}

#[test]
fn ranges_lie_within_the_page_and_at_words() {
    assert_eq!(Range::checked(0, 64, 64), Some(Range { offset: 0, words: 64 }));
    let last = (PAGE_BYTES - 8) as u32;
    assert_eq!(Range::checked(last, 1, 64), Some(Range { offset: last as usize, words: 1 }));
    for (offset, words) in
        [(0, 0), (0, 65), (4, 1), (last, 2), (last + 8, 1), (u32::MAX, u32::MAX), (!7, 1)]
    {
        assert_eq!(Range::checked(offset, words, 64), None, "{offset:#x} {words}");
    }
}

#[test]
fn requests_are_what_they_say_or_refused() {
    let ask = |kind, payload: &[u8]| {
        let frame = Frame { kind, sequence: 1, payload };
        Request::decode(&frame).map(|r| std::format!("{r:?}"))
    };
    assert!(ask(Kind::Ping, &[]).is_some());
    assert!(ask(Kind::Ping, &[0]).is_none());
    let range = Range { offset: 0x200, words: 2 }.to_bytes();
    assert!(ask(Kind::Read, &range).is_some());
    assert!(ask(Kind::Read, &range[..7]).is_none());
    assert!(ask(Kind::Read, &[&range[..], &[0]].concat()).is_none());
    assert!(ask(Kind::Write, &[&range[..], &[0; 16]].concat()).is_some());
    assert!(ask(Kind::Write, &[&range[..], &[0; 15]].concat()).is_none());
    assert!(ask(Kind::Write, &[&range[..], &[0; 17]].concat()).is_none());
    let header = Range { offset: 0, words: 2 }.to_bytes();
    assert!(ask(Kind::Write, &[&header[..], &[0; 16]].concat()).is_none());
    for kind in [Kind::Pong, Kind::Words, Kind::Written, Kind::Refused, Kind(0), Kind(99)] {
        assert!(ask(kind, &range).is_none(), "{kind:?}");
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(frames in proptest::collection::vec(frame(), 0..5)) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(k, n, p)| encoded(*k, *n, p)).collect();
        prop_assert_eq!(decoded(&bytes), frames);
    }

    /// Noise costs at most the frames that it seems to announce the length of; after silence all is well.
    #[test]
    fn a_frame_after_noise_is_found(noise in noise(), wanted in frame()) {
        let mut bytes = noise;
        bytes.extend([0; REPLY_BYTES_MAX]);
        bytes.extend(encoded(wanted.0, wanted.1, &wanted.2));
        let found = decoded(&bytes);
        prop_assert_eq!(found.last(), Some(&wanted));
    }

    #[test]
    fn a_frame_with_an_error_is_none_and_the_next_is_found(
        first in frame(), second in frame(), at in any::<prop::sample::Index>(), flip in 1u8..,
    ) {
        let mut bytes = encoded(first.0, first.1, &first.2);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        // A length that was changed may swallow what follows: clients leave a pause and ask again.
        bytes.extend([0; REPLY_BYTES_MAX]);
        bytes.extend(encoded(second.0, second.1, &second.2));
        prop_assert_eq!(decoded(&bytes), [second]);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic_or_stop(noise in proptest::collection::vec(noise(), 0..20)) {
        let mut decoder = Decoder::<REQUEST_BYTES_MAX>::new();
        for byte in noise.concat() {
            if let Some(frame) = decoder.push(byte) {
                let _ = Request::decode(&frame);
            }
        }
        let mut last = None;
        for byte in [&[0; REQUEST_BYTES_MAX][..], &encoded(Kind::Ping, 7, &[])].concat() {
            last = decoder.push(byte).map(|frame| (frame.kind, frame.sequence));
        }
        prop_assert_eq!(last, Some((Kind::Ping, 7)));
    }
}
