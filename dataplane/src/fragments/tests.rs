use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

const LONGEST: u16 = 2014;

fn key(id: u32) -> Key {
    let source = IpAddress::v4([10, 0, 0, 2]);
    Key { source, destination: IpAddress::v4([10, 0, 0, 1]), protocol: 17, id }
}

fn piece(offset: u16, len: u16, last: bool) -> Piece {
    Piece { offset, len, last }
}

/// Adds as the engine does: a new one begins with the number of its buffer.
fn add(table: &mut Table<u32>, id: u32, piece: Piece, freed: &mut Vec<u32>) -> Added {
    let added = table.add(&key(id), piece, |buffer| freed.push(buffer));
    if added == Added::New {
        table.begin(key(id), piece, id, Instant(0), |buffer| freed.push(buffer));
    }
    added
}

#[test]
fn pieces_in_any_order_make_a_whole() {
    let mut table = Table::new(LONGEST);
    let mut freed = Vec::new();
    assert_eq!(add(&mut table, 1, piece(800, 100, true), &mut freed), Added::New);
    assert_eq!(add(&mut table, 2, piece(0, 400, false), &mut freed), Added::New);
    assert_eq!(add(&mut table, 1, piece(0, 400, false), &mut freed), Added::Place(0));
    assert_eq!(add(&mut table, 1, piece(400, 400, false), &mut freed), Added::Complete(0));
    assert_eq!(table.take(0), Some((1, 900)));
    assert_eq!(add(&mut table, 2, piece(400, 3, true), &mut freed), Added::Complete(0));
    assert_eq!(table.take(0), Some((2, 403)));
    assert!(table.is_empty() && freed.is_empty());
}

#[test]
fn an_overlap_spoils_the_datagram_and_what_follows_of_it() {
    // RFC 5722 §4.
    let whole = [(0, 400, false), (400, 400, false), (800, 100, true)];
    let bad = [(8, 8, false), (392, 16, false), (0, 800, false), (0, 400, true), (0, 392, false)];
    for (offset, len, last) in bad {
        let mut table = Table::new(LONGEST);
        let mut freed = Vec::new();
        add(&mut table, 1, piece(0, 400, false), &mut freed);
        let added = add(&mut table, 1, piece(offset, len, last), &mut freed);
        assert_eq!(added, Added::Useless(Drop::FragmentOverlap), "{offset} {len}");
        assert_eq!(freed, [1]);
        for (offset, len, last) in whole {
            let added = add(&mut table, 1, piece(offset, len, last), &mut freed);
            assert_eq!(added, Added::Useless(Drop::FragmentOverlap));
        }
        assert_eq!(table.buffers(), 0);
    }
}

#[test]
fn two_ends_and_pieces_beyond_the_end_are_overlaps_too() {
    for second in [piece(800, 50, true), piece(960, 8, true), piece(904, 8, false)] {
        let mut table = Table::new(LONGEST);
        let mut freed = Vec::new();
        add(&mut table, 1, piece(800, 100, true), &mut freed);
        let added = add(&mut table, 1, second, &mut freed);
        assert_eq!(added, Added::Useless(Drop::FragmentOverlap), "{second:?}");
    }
}

#[test]
fn a_repetition_changes_nothing() {
    let mut table = Table::new(LONGEST);
    let mut freed = Vec::new();
    add(&mut table, 1, piece(0, 400, false), &mut freed);
    let again = add(&mut table, 1, piece(0, 400, false), &mut freed);
    assert_eq!(again, Added::Useless(Drop::FragmentAgain));
    assert_eq!(add(&mut table, 1, piece(400, 8, true), &mut freed), Added::Complete(0));
}

#[test]
fn what_cannot_be_a_fragment_or_does_not_fit_is_refused() {
    let mut table = Table::new(LONGEST);
    let mut freed = Vec::new();
    for bad in [piece(0, 0, false), piece(8, 0, true), piece(0, 7, false)] {
        assert_eq!(add(&mut table, 1, bad, &mut freed), Added::Useless(Drop::IpMalformed));
    }
    // The "ping of death": beyond what a datagram can be.
    let death = piece(65_528, 65_000, true);
    assert_eq!(add(&mut table, 1, death, &mut freed), Added::Useless(Drop::FragmentTooLong));
    assert!(table.is_empty());
    add(&mut table, 1, piece(0, 1480, false), &mut freed);
    let long = add(&mut table, 1, piece(1480, 535, true), &mut freed);
    assert_eq!((long, &freed[..]), (Added::Useless(Drop::FragmentTooLong), &[1][..]));
}

#[test]
fn too_many_pieces_and_too_many_datagrams_are_bounded() {
    let mut table = Table::new(LONGEST);
    let mut freed = Vec::new();
    for i in 0..FRAGMENTS_PER_DATAGRAM as u16 {
        add(&mut table, 1, piece(16 * i, 8, false), &mut freed);
    }
    let more = add(&mut table, 1, piece(1000, 8, false), &mut freed);
    assert_eq!((more, &freed[..]), (Added::Useless(Drop::FragmentsFull), &[1][..]));
    for id in 2..200 {
        add(&mut table, id, piece(0, 8, false), &mut freed);
    }
    assert_eq!(table.buffers(), FRAGMENTED_DATAGRAMS_MAX);
    assert_eq!(freed.last(), Some(&(199 - FRAGMENTED_DATAGRAMS_MAX as u32)), "the oldest goes");
    assert_eq!(add(&mut table, 199, piece(8, 8, true), &mut freed), Added::Complete(63));
}

#[test]
fn what_does_not_become_complete_ends_in_time() {
    let mut table = Table::new(LONGEST);
    let mut freed = Vec::new();
    assert_eq!(table.next_deadline(), Instant::NEVER);
    add(&mut table, 1, piece(0, 8, false), &mut freed);
    add(&mut table, 2, piece(0, 8, false), &mut freed);
    add(&mut table, 2, piece(0, 16, false), &mut freed);
    let end = table.next_deadline();
    assert_eq!(end, Instant(0) + FRAGMENT_TIMEOUT);
    assert_eq!(table.pop_expired(Instant(end.0 - 1)), None);
    assert_eq!(table.pop_expired(end), Some(Some(1)));
    assert_eq!(table.pop_expired(end), Some(None), "its buffer went when it was spoilt");
    assert_eq!(table.pop_expired(end), None);
}

proptest! {
    /// Against an array of bytes: who has written each, and whether the end is known.
    #[test]
    fn the_table_agrees_with_an_array(
        pieces in prop::collection::vec((0_u16..12, 1_u16..5, any::<bool>(), 0_u16..8), 1..20),
    ) {
        let mut table = Table::new(LONGEST);
        let mut freed = Vec::new();
        let mut bytes = [false; 256];
        let (mut seen, mut end, mut spoilt) = (Vec::new(), None, false);
        for (at, units, last, odd) in pieces {
            let len = if last { 8 * units - odd } else { 8 * units };
            let p = piece(8 * at, len, last);
            let range = usize::from(p.offset)..usize::from(p.offset + p.len);
            let added = add(&mut table, 1, p, &mut freed);
            if spoilt {
                prop_assert_eq!(added, Added::Useless(Drop::FragmentOverlap));
                continue;
            }
            if seen.contains(&p) {
                prop_assert_eq!(added, Added::Useless(Drop::FragmentAgain));
                continue;
            }
            if seen.len() == FRAGMENTS_PER_DATAGRAM {
                prop_assert_eq!(added, Added::Useless(Drop::FragmentsFull));
                spoilt = true;
                continue;
            }
            let beyond = bytes[range.end..].iter().any(|there| *there);
            let wrong = bytes[range.clone()].iter().any(|there| *there)
                || end.is_some_and(|end| last || range.end > end)
                || last && beyond;
            if wrong {
                prop_assert_eq!(added, Added::Useless(Drop::FragmentOverlap));
                spoilt = true;
                continue;
            }
            bytes[range.clone()].fill(true);
            if last {
                end = Some(range.end);
            }
            let whole = end.is_some_and(|end| bytes[..end].iter().all(|there| *there));
            if whole && seen.is_empty() {
                // All in one piece: no fragment, and the engine never asks.
                return Ok(());
            }
            seen.push(p);
            if whole {
                prop_assert_eq!(added, Added::Complete(0));
                prop_assert_eq!(table.take(0), Some((1, end.unwrap_or(0) as u16)));
                return Ok(());
            }
            prop_assert!(added == Added::New || added == Added::Place(0));
        }
        prop_assert_eq!(freed.len(), usize::from(spoilt));
    }
}
