//! The pieces against a model: a queue of bytes, with the places where pieces end.

use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

/// Received memory for the test: longer than any piece, and no two places alike nearby.
static RECEIVED: [u8; 512] = {
    let mut bytes = [0; 512];
    let mut n = 0;
    while n < bytes.len() {
        bytes[n] = (n * 7 + n / 256) as u8;
        n += 1;
    }
    bytes
};

#[derive(Clone, Debug)]
enum Step {
    /// Where, and how much; nothing at times.
    Push(usize, usize),
    Take(usize),
    TakeOnly(usize),
    Skip(usize),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..200usize, 0..40usize).prop_map(|(at, len)| Step::Push(at, len)),
        1 => (1..60usize).prop_map(Step::Take),
        1 => (0..60usize).prop_map(Step::TakeOnly),
        1 => prop_oneof![0..100usize, Just(usize::MAX)].prop_map(Step::Skip),
        1 => Just(Step::Clear),
    ]
}

fn bytes(piece: Option<Piece>) -> Vec<u8> {
    // SAFETY: all pieces of the test are in `RECEIVED`.
    #[allow(unsafe_code, reason = "looks at what was taken out")]
    piece.map(|piece| unsafe { piece.bytes() }.to_vec()).unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_taken_is_what_came_in_order(steps in prop::collection::vec(step(), 1..80)) {
        let mut inbox = Inbox::new();
        let mut pieces: VecDeque<Vec<u8>> = VecDeque::new();
        for step in steps {
            match step {
                Step::Push(at, len) => {
                    let bytes = &RECEIVED[at..at + len];
                    let addr = bytes.as_ptr().expose_provenance() as u64;
                    // SAFETY: static memory stands for what the kernel has reported.
                    #[allow(unsafe_code, reason = "plays the kernel")]
                    unsafe { inbox.push(Piece { addr, len: len as u32 }) };
                    pieces.extend((len > 0).then(|| bytes.to_vec()));
                }
                Step::Take(max) => {
                    let expected = pieces.front_mut().map(|front| {
                        front.drain(..max.min(front.len())).collect::<Vec<u8>>()
                    });
                    prop_assert_eq!(bytes(inbox.take(max)), expected.unwrap_or_default());
                }
                Step::TakeOnly(max) => {
                    let fits = pieces.len() == 1 && pieces[0].len() <= max;
                    let taken = inbox.take_only(max);
                    prop_assert_eq!(taken.is_some(), fits);
                    if fits {
                        prop_assert_eq!(bytes(taken), pieces.pop_front().unwrap_or_default());
                    }
                }
                Step::Skip(most) => {
                    let mut left = most.min(pieces.iter().map(Vec::len).sum());
                    prop_assert_eq!(inbox.skip(most), left);
                    while left > 0 && let Some(front) = pieces.front_mut() {
                        let n = left.min(front.len());
                        front.drain(..n);
                        left -= n;
                        pieces.retain(|piece| !piece.is_empty());
                    }
                }
                Step::Clear => {
                    inbox.clear();
                    pieces.clear();
                }
            }
            pieces.retain(|piece| !piece.is_empty());
            prop_assert_eq!(inbox.len(), pieces.iter().map(Vec::len).sum::<usize>());
            prop_assert_eq!(inbox.front(), pieces.front().map_or(&[][..], |front| &front[..]));
            prop_assert!(inbox.pieces().eq(pieces.iter().map(|piece| &piece[..])));
        }
    }
}
