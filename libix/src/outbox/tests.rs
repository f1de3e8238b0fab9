//! The queue against a model: three positions in one stream of bytes.

use super::*;
use alloc::boxed::Box;
use alloc::{vec, vec::Vec};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Buf(usize),
    Received(u32),
    DoneAfter(u32),
    Static(usize),
    Offer,
    OfferOne,
    Refuse(u8),
    Sent(u8),
    SentAll,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6000usize).prop_map(Step::Write),
        (0..300usize).prop_map(Step::Buf),
        (0..300usize).prop_map(Step::Static),
        (1..300u32).prop_map(Step::Received),
        (1..50u32).prop_map(Step::DoneAfter),
        Just(Step::Offer),
        Just(Step::Offer),
        Just(Step::OfferOne),
        Just(Step::OfferOne),
        // Nothing is left: so that there is one segment at times, not only in the beginning.
        Just(Step::SentAll),
        any::<u8>().prop_map(Step::Refuse),
        any::<u8>().prop_map(Step::Sent),
    ]
}

/// Received memory for the test: longer than any piece.
static RECEIVED: [u8; 300] = [0xaa; 300];

fn read(entry: &SgEntry) -> Vec<u8> {
    let start: *const u8 = core::ptr::with_exposed_provenance(entry.addr as usize);
    // SAFETY: the queue under test keeps what it offers alive; that it does is what is tested.
    #[allow(unsafe_code, reason = "looks at memory as the kernel would")]
    unsafe { core::slice::from_raw_parts(start, entry.len as usize) }.to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_offered_is_the_stream_from_where_it_was_left(steps in prop::collection::vec(step(), 1..120)) {
        let mut outbox: Outbox<Box<[u8]>> = Outbox::new();
        let mut pool = Pool::default();
        let mut stream: Vec<u8> = Vec::new();
        let (mut offered, mut sent, mut salt) = (0usize, 0usize, 0u8);
        // Positions where received bytes end, with how many are returned then.
        let mut owed: Vec<(usize, u64)> = Vec::new();
        for step in steps {
            salt = salt.wrapping_add(17);
            match step {
                Step::Write(len) => {
                    let bytes: Vec<u8> = (0..len).map(|n| salt.wrapping_add(n as u8)).collect();
                    outbox.write(&bytes, &mut pool);
                    stream.extend(bytes);
                }
                Step::Buf(len) => {
                    let bytes: Box<[u8]> = (0..len).map(|n| salt.wrapping_sub(n as u8)).collect();
                    stream.extend(&bytes[..]);
                    outbox.push_buf(bytes);
                }
                Step::Static(len) => {
                    stream.extend(&RECEIVED[..len]);
                    outbox.push_static(&RECEIVED[..len]);
                }
                Step::Received(len) => {
                    let addr = RECEIVED.as_ptr().expose_provenance() as u64;
                    outbox.push_received(Piece { addr, len });
                    stream.extend(&RECEIVED[..len as usize]);
                    owed.push((stream.len(), u64::from(len)));
                }
                Step::DoneAfter(bytes) => {
                    let last = owed.last_mut().filter(|(end, _)| *end > sent);
                    prop_assert_eq!(outbox.done_after(u64::from(bytes)), last.is_some());
                    if let Some((_, done)) = last {
                        *done += u64::from(bytes);
                    }
                }
                Step::Offer => {
                    let mut sg = SgList::new();
                    outbox.offer(&mut sg);
                    let bytes: Vec<u8> = sg.entries().iter().flat_map(read).collect();
                    prop_assert_eq!(bytes.len() as u64, sg.bytes());
                    prop_assert_eq!(&bytes[..], &stream[offered..offered + bytes.len()]);
                    offered += bytes.len();
                    prop_assert!(sg.room() == 0 || offered == stream.len(), "stops only when full");
                }
                Step::OfferOne => {
                    // The short way does what the general one does, or leaves it alone.
                    let one = outbox.rest.is_empty() && offered < stream.len();
                    let entry = outbox.offer_one();
                    prop_assert_eq!(entry.is_some(), one);
                    if let Some(entry) = entry {
                        prop_assert_eq!(&read(&entry)[..], &stream[offered..]);
                        offered = stream.len();
                    }
                }
                Step::Refuse(share) => {
                    let bytes = (offered - sent) * usize::from(share) / 255;
                    outbox.refuse(bytes as u64);
                    offered -= bytes;
                }
                Step::Sent(_) | Step::SentAll => {
                    let share = if let Step::Sent(share) = step { share } else { 255 };
                    let bytes = (offered - sent) * usize::from(share) / 255;
                    let done = outbox.sent(bytes as u64, &mut pool);
                    let now = sent + bytes;
                    let due = |(end, _): &&(usize, u64)| *end > sent && *end <= now;
                    prop_assert_eq!(done, owed.iter().filter(due).map(|(_, n)| n).sum::<u64>());
                    sent = now;
                }
            }
            prop_assert_eq!(outbox.waiting(), (stream.len() - offered) as u64);
        }
    }
}
