use super::*;
use alloc::vec;
use alloc::vec::Vec;

/// A queue that keeps what it was given until it is told to complete some.
#[derive(Default)]
struct Queue {
    pushed: Vec<Fragment>,
    done: u32,
}

impl TxQueue for Queue {
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        self.pushed.push(frame.fragments[0]);
        Ok(())
    }
    fn kick(&mut self) {}
    fn reclaim(&mut self) -> u32 {
        core::mem::take(&mut self.done)
    }
}

fn stage() -> Tx {
    let memory = vec![0; TX_HEADER_REGION_BYTES].leak();
    let ptr = NonNull::new(memory.as_mut_ptr()).expect("an address");
    Tx::new(&DmaRegion { ptr, bus: BusAddr(1 << 20), len: memory.len() })
}

fn send(tx: &mut Tx, queue: &mut Queue) -> BusAddr {
    assert!(tx.ready());
    let headers = tx.begin(54).fragments[0];
    assert_eq!(tx.slot().1, headers.bus, "written where it is sent from");
    tx.push(queue, &mut CoreStats::new()).expect("room");
    assert_eq!(queue.pushed.last(), Some(&headers));
    headers.bus
}

#[test]
fn no_two_frames_in_flight_share_a_slot_and_all_slots_are_used() {
    let (mut tx, mut queue) = (stage(), Queue::default());
    // Not from the first slot, so that they go round.
    let first = send(&mut tx, &mut queue);
    let mut flying = vec![first];
    for round in 1..TX_HEADER_SLOTS * 3 {
        if !tx.ready() {
            queue.done = 7;
            tx.reclaim(&mut queue);
            flying.drain(..7);
        }
        let bus = send(&mut tx, &mut queue);
        assert!(!flying.contains(&bus), "round {round}");
        flying.push(bus);
    }
    assert_eq!(flying.len() as u32, tx.in_flight());
}

#[test]
fn the_slots_that_were_used_last_are_used_again_when_nothing_is_in_flight() {
    let (mut tx, mut queue) = (stage(), Queue::default());
    let first = send(&mut tx, &mut queue);
    let second = send(&mut tx, &mut queue);
    assert_ne!(first, second);
    queue.done = 1;
    tx.reclaim(&mut queue);
    assert!(tx.has_left(0) && !tx.has_left(1));
    let third = send(&mut tx, &mut queue);
    assert!(third != second && third != first, "one is in flight: on it goes");
    queue.done = 2;
    tx.reclaim(&mut queue);
    assert_eq!(send(&mut tx, &mut queue), first);
    assert_eq!(tx.next(), 4, "frames are numbered on");
}

#[test]
fn what_was_staged_before_is_told_from_what_came_later() {
    let mut tx = stage();
    let bytes = |n: u8| Staged::Bytes(ArrayVec::try_from(&[n][..]).expect("it fits"));
    assert!(tx.is_unstaged(tx.staged_end()), "nothing is");
    (1..=2).for_each(|n| tx.stage(bytes(n)).expect("room"));
    let end = tx.staged_end();
    tx.stage(bytes(3)).expect("room");
    let first = tx.pop_staged().expect("staged");
    tx.unpop_staged(first);
    // All are looked at, as when rules change.
    for _ in 0..tx.staged() {
        let staged = tx.turn_staged().expect("staged");
        tx.stage(staged).expect("room");
    }
    tx.pop_staged();
    assert!(!tx.is_unstaged(end));
    tx.pop_staged();
    assert!(tx.is_unstaged(end), "the third came later");
    // One that is given up does not count as handed over; with the last of them all are done with.
    let end = tx.staged_end();
    tx.turn_staged();
    assert!(tx.is_unstaged(end));
}
