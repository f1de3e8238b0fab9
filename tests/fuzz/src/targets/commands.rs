//! What the kernel reads of its control page: commands, and the filter of a capture.
use crate::input::Input;
use ix_abi::IpAddress;
use ix_abi::capture::{Direction, FILTER_WORDS, Filter, SNAP_MAX};
use ix_abi::control::{CommandCode, command, outcome};
use ix_abi::status::Status;
use ix_dataplane::tap::Headers;
use ix_kernel_core::commands::{BATCH_MAX, Command, poll};

const EPOCH: u64 = 0x1234_5678_9abc_def1;

/// A word as somebody may have left it.
fn word(input: &mut Input<'_>) -> u64 {
    match input.below(4) {
        0 => input.u64(),
        1 => EPOCH,
        2 => u64::MAX - u64::from(input.u8()),
        _ => u64::from(input.u16()),
    }
}

/// Command words that change in any order: each command is answered once, and none does more than it may.
pub fn commands(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut words = [0_u64; (outcome::SEQUENCE - command::SEQUENCE) / 8 + 1];
    let (first, last) = (command::SEQUENCE, outcome::SEQUENCE);
    let index = |at: usize| {
        assert!(at.is_multiple_of(8) && (first..=last).contains(&at), "a read at {at:#x}");
        (at - first) / 8
    };
    words[index(command::EPOCH)] = EPOCH;
    while !input.is_empty() {
        for _ in 0..1 + input.below(4) {
            let at = input.below(words.len());
            words[at] = word(&mut input);
        }
        let reads = std::cell::Cell::new(0);
        let found = poll(
            |at| {
                reads.set(reads.get() + 1);
                words[index(at)]
            },
            EPOCH,
        );
        assert!(reads.get() <= 8, "a word is read twice");
        let waits = words[0] != words[index(outcome::SEQUENCE)];
        assert_eq!(found.is_some(), waits);
        let Some((pending, asked)) = found else { continue };
        let stale = words[index(command::EPOCH)] != EPOCH;
        assert_eq!(stale, asked == Err(Status::Stale));
        match asked {
            Ok(Command::SetBatch(frames)) => assert!((1..=BATCH_MAX).contains(&frames)),
            Ok(Command::Stop) => assert_eq!(words[index(command::CODE)], 1, "the machine ends"),
            Ok(_) => {}
            Err(Status::Stale | Status::Invalid) => {}
            Err(status) => {
                assert_eq!(status, Status::Unsupported);
                assert!(pending.code.0 > CommandCode::Trace.0);
            }
        }
        // Answered, whatever it was: that was all of it.
        words[index(outcome::SEQUENCE)] = pending.sequence;
        assert_eq!(poll(|at| words[index(at)], EPOCH), None);
    }
}

/// Filters that a client lays into the bulk area, applied to any frame.
pub fn capture_filters(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        let mut words: [u64; FILTER_WORDS] = Filter::default().encode();
        // Mostly one that could be meant: a few words of it are something else.
        for _ in 0..input.below(12) {
            let at = input.below(FILTER_WORDS);
            words[at] = match input.below(3) {
                0 => input.u64(),
                1 => u64::from(input.u8()),
                _ => u64::from(input.u16()),
            };
        }
        let frame = input.take(input.clone().below(96));
        match Filter::decode(&words) {
            Ok(filter) => {
                assert!((1..=SNAP_MAX).contains(&filter.snaplen));
                assert!(filter.address.is_none_or(|(_, prefix)| prefix <= 128));
                assert_eq!(Filter::decode(&filter.encode()), Ok(filter));
                let headers = Headers::parse(frame);
                for direction in [Direction::In, Direction::Out] {
                    let matched = headers.match_filter(&filter, direction);
                    // What a prefix of no bits asks for, every packet with addresses has.
                    let open = Filter {
                        address: filter.address.map(|_| (IpAddress::UNSPECIFIED, 0)),
                        ..filter
                    };
                    assert!(!matched || headers.match_filter(&open, direction));
                }
            }
            Err(status) => assert_eq!(status, Status::Invalid),
        }
    }
}
