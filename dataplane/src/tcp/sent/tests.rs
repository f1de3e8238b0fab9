use super::*;
use proptest::prelude::*;

/// Records as the list is to be: end, time.
fn listed(conn: &Conn, records: &Records) -> alloc::vec::Vec<(u32, u32)> {
    let mut all = alloc::vec::Vec::new();
    let mut at = head(conn);
    while at != NIL {
        let record = get(conn, records, at);
        all.push((record.end.0, record.at));
        assert!(record.next != NIL || at == conn.sent_tail);
        at = record.next;
    }
    all
}

fn send(conn: &mut Conn, records: &mut Records, len: u32, at: u32) -> bool {
    let Some(place) = reserve(conn, records) else { return false };
    let end = conn.snd_max.plus(len);
    push(conn, records, place, end, at);
    conn.snd_max = end;
    true
}

#[test]
fn one_segment_in_flight_needs_no_slab() {
    let (mut conn, mut records) = (Conn::default(), Records::new(64));
    for at in 0..1000 {
        assert!(send(&mut conn, &mut records, 100, at));
        conn.snd_una = conn.snd_max;
        let ack = conn.snd_max;
        pop_to(&mut conn, &mut records, ack);
    }
    assert_eq!(records.capacity(), 0);
}

#[test]
fn records_are_limited_and_the_first_always_has_a_place() {
    let mut records = Records::new(64);
    let (mut one, mut other) = (Conn::default(), Conn::default());
    let sent = (0..100).take_while(|at| send(&mut one, &mut records, 1, *at)).count();
    assert_eq!(sent, 65);
    assert!(send(&mut other, &mut records, 1, 0), "a connection with nothing under way");
    assert!(!send(&mut other, &mut records, 1, 1));
    one.snd_una = WrappingSeq(1);
    pop_to(&mut one, &mut records, WrappingSeq(1));
    assert!(send(&mut other, &mut records, 1, 2));
    clear(&mut one, &mut records);
    clear(&mut other, &mut records);
    assert_eq!(records.len(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Send(u32),
    Ack(u32),
    Split(usize, u32),
    Merge(usize),
}

fn steps() -> impl Strategy<Value = alloc::vec::Vec<Step>> {
    let step = prop_oneof![
        4 => (1u32..50).prop_map(Step::Send),
        2 => (0u32..200).prop_map(Step::Ack),
        2 => (any::<usize>(), 1u32..50).prop_map(|(at, len)| Step::Split(at, len)),
        1 => any::<usize>().prop_map(Step::Merge),
    ];
    proptest::collection::vec(step, 1..120)
}

fn place(conn: &Conn, records: &Records, number: usize) -> u32 {
    (0..number).fold(FIRST, |at, _| get(conn, records, at).next)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_list_is_what_a_plain_vector_would_be(start: u32, steps in steps()) {
        let (mut conn, mut records) = (Conn::default(), Records::new(64));
        for seq in [&mut conn.snd_una, &mut conn.snd_max] {
            *seq = WrappingSeq(start);
        }
        let mut model = alloc::vec::Vec::<(u32, u32)>::new();
        for (time, step) in (0u32..).zip(steps) {
            match step {
                Step::Send(len) => {
                    if send(&mut conn, &mut records, len, time) {
                        model.push((conn.snd_max.0, time));
                    } else {
                        prop_assert!(records.len() == 64);
                    }
                }
                Step::Ack(len) => {
                    conn.snd_una = conn.snd_una.plus(len.min(conn.snd_max.since(conn.snd_una)));
                    let una = conn.snd_una;
                    pop_to(&mut conn, &mut records, una);
                    model.retain(|(end, _)| WrappingSeq(*end).after(una));
                }
                Step::Split(number, len) if !model.is_empty() => {
                    let number = number % model.len();
                    let begin = if number == 0 { conn.snd_una.0 } else { model[number - 1].0 };
                    let cut = WrappingSeq(begin).plus(len);
                    let at = place(&conn, &records, number);
                    if cut.before(WrappingSeq(model[number].0)) && split(&mut conn, &mut records, at, cut) {
                        model.insert(number, (cut.0, model[number].1));
                    }
                }
                Step::Merge(number) if model.len() > 1 => {
                    let number = number % (model.len() - 1);
                    let at = place(&conn, &records, number);
                    merge(&mut conn, &mut records, at);
                    let (end, time) = model.remove(number + 1);
                    model[number] = (end, model[number].1.max(time));
                }
                _ => {}
            }
            prop_assert_eq!(&listed(&conn, &records), &model);
            prop_assert_eq!(records.len() as usize, model.len().saturating_sub(1));
        }
    }
}
