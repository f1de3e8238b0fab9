use super::*;
use proptest::prelude::*;

const START: u32 = 0xffff_ff00;

/// A connection that has sent segments of these lengths.
fn sent(start: u32, lens: &[u32], limit: u32) -> (Conn, Records) {
    let (mut conn, mut records) = (Conn::default(), Records::new(limit));
    for seq in [&mut conn.snd_una, &mut conn.snd_max] {
        *seq = WrappingSeq(start);
    }
    for (len, at) in lens.iter().zip(0..) {
        let place = sent::reserve(&conn, &mut records).unwrap();
        let end = conn.snd_max.plus(*len);
        sent::push(&mut conn, &mut records, place, end, at);
        conn.snd_max = end;
    }
    (conn, records)
}

fn block(start: u32, from: u32, to: u32) -> SackBlock {
    (WrappingSeq(start).plus(from), WrappingSeq(start).plus(to))
}

#[test]
fn duplicates_are_told_from_news_and_nonsense_is_ignored() {
    let (mut conn, _) = sent(START, &[100; 10], 64);
    conn.snd_una = WrappingSeq(START).plus(200);
    conn.max_wnd = 60_000;
    let ack = conn.snd_una;
    let b = |from, to| block(START, from, to);
    let sorted = |blocks: &[SackBlock]| sort_out(&conn, ack, blocks);
    // RFC 2883 §4.1: below the acknowledgement; §4.2: inside of the second block.
    assert_eq!(sorted(&[b(100, 200)]).duplicate, Some(b(100, 200)));
    let told = sorted(&[b(400, 500), b(300, 600)]);
    assert_eq!((told.duplicate, &told.blocks[..]), (Some(b(400, 500)), &[b(300, 600)][..]));
    let told = sorted(&[b(700, 800), b(300, 400), b(500, 600)]);
    assert_eq!(told.duplicate, None);
    assert_eq!(told.blocks[..], [b(300, 400), b(500, 600), b(700, 800)], "in order");
    assert_eq!(sorted(&[b(100, 400)]).blocks[..], [b(200, 400)], "what is new of it");
    for nonsense in [b(900, 1100), b(500, 400), b(500, 500), block(START, u32::MAX, 0)] {
        let told = sorted(&[b(300, 400), nonsense]);
        assert_eq!((told.duplicate, &told.blocks[..]), (None, &[b(300, 400)][..]));
    }
    let ancient = block(START.wrapping_sub(100_000), 0, 10);
    assert_eq!(sorted(&[ancient]), Told::default());
}

#[test]
fn a_run_is_one_record_and_a_full_table_only_costs_marks() {
    let (mut conn, mut records) = sent(START, &[100; 64], 63);
    let b = |from, to| block(START, from, to);
    mark(&mut conn, &mut records, &[b(150, 1000)], |_, _| ());
    assert_eq!(conn.sacked, 800, "no room for a split of the second: not taken");
    assert_eq!(conn.sent_count, 63 - 7);
    mark(&mut conn, &mut records, &[b(150, 1100)], |_, _| ());
    assert_eq!(conn.sacked, 950);
    mark(&mut conn, &mut records, &[b(0, 6400)], |_, _| ());
    assert_eq!((conn.sacked, conn.sent_count), (6400, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Against an array of bytes: what is marked is what was told, whatever the blocks, and what is
    /// called new was not marked before.
    #[test]
    fn marks_are_what_an_array_of_bytes_would_have(
        start: u32,
        lens in proptest::collection::vec(1u32..40, 1..30),
        rounds in proptest::collection::vec(
            (0u32..60, proptest::collection::vec((0u32..700, 1u32..200), 0..5)),
            1..30,
        ),
        losses in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let (mut conn, mut records) = sent(start, &lens, 256);
        let all = conn.snd_max.since(conn.snd_una) as usize;
        let mut model = alloc::vec![(false, false); all];
        let mut base = 0;
        for (acked, told) in rounds {
            // Some are taken for lost.
            let (mut at, mut from, mut n) = (sent::head(&conn), base, 0);
            while at != NIL {
                let record = sent::get_mut(&mut conn, &mut records, at);
                let (end, next) = (record.end.since(WrappingSeq(start)) as usize, record.next);
                if losses[n % losses.len()] && record.marks.is_empty() {
                    record.marks = Marks::LOST;
                    model[from..end].iter_mut().for_each(|byte| byte.1 = true);
                    conn.lost += (end - from) as u32;
                }
                (from, at, n) = (end, next, n + 1);
            }
            let blocks: alloc::vec::Vec<_> =
                told.iter().map(|(from, len)| block(start, *from, from + len)).collect();
            let told = sort_out(&conn, conn.snd_una, &blocks);
            let mut news = 0;
            mark(&mut conn, &mut records, &told.blocks, |record, len| {
                assert!(!record.marks.contains(Marks::SACKED));
                news += len as usize;
            });
            let marked = |model: &[(bool, bool)]| model[base..].iter().filter(|b| b.0).count();
            let before = marked(&model);
            for (left, right) in &told.blocks {
                let at = |seq: &WrappingSeq| seq.since(WrappingSeq(start)) as usize;
                model[at(left)..at(right)].iter_mut().for_each(|byte| *byte = (true, false));
            }
            prop_assert_eq!(marked(&model), before + news);
            // The marks one by one.
            let (mut at, mut from) = (sent::head(&conn), base);
            let mut run = false;
            while at != NIL {
                let record = sent::get(&conn, &records, at);
                let end = record.end.since(WrappingSeq(start)) as usize;
                let marks =
                    (record.marks.contains(Marks::SACKED), record.marks.contains(Marks::LOST));
                prop_assert!(model[from..end].iter().all(|byte| *byte == marks), "{from}..{end}");
                prop_assert!(!(run && marks.0), "two records of one run");
                run = marks.0;
                (from, at) = (end, record.next);
            }
            prop_assert_eq!(from, all);
            let lost = model[base..].iter().filter(|byte| byte.1).count();
            prop_assert_eq!((conn.sacked as usize, conn.lost as usize), (marked(&model), lost));
            // The peer acknowledges some, marked or not.
            for _ in 0..acked.min((all - base) as u32) {
                let (sacked, lost) = model[base];
                conn.sacked -= u32::from(sacked);
                conn.lost -= u32::from(lost);
                base += 1;
            }
            conn.snd_una = WrappingSeq(start).plus(base as u32);
            let una = conn.snd_una;
            sent::pop_to(&mut conn, &mut records, una);
        }
    }
}
