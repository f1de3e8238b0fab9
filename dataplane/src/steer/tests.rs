use super::*;
use crate::device::{BusAddr, Fragment};
use alloc::rc::Rc;
use core::cell::Cell;
use proptest::prelude::*;
extern crate std;
use std::collections::BTreeMap;

/// A ring that completes as many frames as it is told.
#[derive(Debug)]
struct Hardware {
    capacity: usize,
    ring: VecDeque<u64>,
    unseen: usize,
    sent: Vec<u64>,
    may_complete: u32,
    kicks: u32,
    /// Frames that came as a pair.
    pairs: u32,
}

fn hardware(capacity: usize) -> Hardware {
    let (ring, sent) = (VecDeque::new(), Vec::new());
    Hardware { capacity, ring, unseen: 0, sent, may_complete: 0, kicks: 0, pairs: 0 }
}

impl TxQueue for Hardware {
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        if self.ring.len() >= self.capacity {
            return Err(TxFull);
        }
        self.ring.push_back(frame.fragments[0].bus.0);
        self.unseen += 1;
        Ok(())
    }

    fn push_pair(
        &mut self,
        headers: Fragment,
        payload: Fragment,
        checksum: Option<TxChecksum>,
    ) -> Result<(), TxFull> {
        self.push(&TxFrame::of_two(headers, payload, checksum))?;
        self.pairs += 1;
        Ok(())
    }

    fn kick(&mut self) {
        self.kicks += 1;
        self.unseen = 0;
    }

    fn reclaim(&mut self) -> u32 {
        let count = (self.may_complete as usize).min(self.ring.len() - self.unseen);
        self.may_complete -= count as u32;
        self.sent.extend(self.ring.drain(..count));
        count as u32
    }
}

/// A frame of `core` with the number `n`.
fn frame(core: u64, n: u64) -> TxFrame {
    let mut frame = TxFrame::default();
    frame.fragments.push(Fragment { bus: BusAddr(core << 32 | n), len: 60 });
    frame
}

type Tx = RemoteTx<alloc::boxed::Box<dyn FnMut(CoreId)>>;

fn shared(hw: usize, capacity: usize, remotes: usize, ring: usize) -> (MuxTx<Hardware>, Vec<Tx>) {
    let pairs = (0..remotes).map(|_| {
        let wake: alloc::boxed::Box<dyn FnMut(CoreId)> = alloc::boxed::Box::new(|_| ());
        RemoteTx::new(CoreId(0), ring, wake)
    });
    let (remotes, sources) = pairs.unzip();
    (MuxTx::new(hardware(hw), capacity, sources), remotes)
}

#[test]
fn a_remote_frame_leaves_with_the_owners_kick_and_is_reported_when_the_hardware_is_done() {
    let woken = Rc::new(Cell::new(0));
    let count = Rc::clone(&woken);
    let (mut remote, source) = RemoteTx::new(CoreId(3), 4, move |core| {
        assert_eq!(core, CoreId(3));
        count.set(count.get() + 1);
    });
    let mut mux = MuxTx::new(hardware(8), 8, alloc::vec![source]);
    remote.push(&frame(1, 0)).unwrap();
    remote.push(&frame(1, 1)).unwrap();
    assert_eq!(woken.get(), 0);
    remote.kick();
    remote.kick();
    assert_eq!(woken.get(), 1);
    mux.push(&frame(0, 0)).unwrap();
    mux.kick();
    assert_eq!((mux.queue().ring.len(), mux.queue().kicks), (3, 1));
    mux.kick();
    assert_eq!(mux.queue().kicks, 1);
    assert_eq!((mux.reclaim(), remote.reclaim()), (0, 0));
    mux.queue_mut().may_complete = 2;
    assert_eq!((mux.reclaim(), remote.reclaim()), (1, 1));
    mux.queue_mut().may_complete = 1;
    assert_eq!((mux.reclaim(), remote.reclaim(), remote.reclaim()), (0, 1, 0));
}

#[test]
fn a_full_ring_refuses_and_takes_again_when_the_owner_has_drained_it() {
    let (mut mux, mut remotes) = shared(8, 2, 1, 2);
    for n in 0..2 {
        remotes[0].push(&frame(1, n)).unwrap();
    }
    assert_eq!(remotes[0].push(&frame(1, 2)), Err(TxFull));
    mux.kick();
    remotes[0].push(&frame(1, 2)).unwrap();
    // The owner's share of the hardware is used up, though the hardware has room.
    assert_eq!(mux.push(&frame(0, 0)), Err(TxFull));
    mux.kick();
    assert_eq!(mux.queue().ring.len(), 2);
}

#[test]
fn a_pair_reaches_the_hardware_as_one_and_counts_as_a_frame() {
    let (mut mux, _remotes) = shared(8, 2, 1, 2);
    let piece = |n| Fragment { bus: BusAddr(n), len: 60 };
    for n in 0..2 {
        mux.push_pair(piece(n), piece(9), None).unwrap();
    }
    assert_eq!(mux.push_pair(piece(2), piece(9), None), Err(TxFull));
    mux.kick();
    assert_eq!((mux.queue().pairs, mux.queue().kicks), (2, 1));
    mux.queue_mut().may_complete = 2;
    assert_eq!(mux.reclaim(), 2);
}

#[test]
fn neither_the_owner_nor_a_remote_is_shut_out_of_a_full_queue() {
    let (mut mux, mut remotes) = shared(8, 8, 3, 64);
    let mut numbers = [0_u64; 4];
    for _ in 0..400 {
        mux.queue_mut().may_complete = 2;
        mux.reclaim();
        for (i, remote) in remotes.iter_mut().enumerate() {
            while remote.push(&frame(i as u64 + 1, numbers[i + 1])).is_ok() {
                numbers[i + 1] += 1;
            }
        }
        while mux.push(&frame(0, numbers[0])).is_ok() {
            numbers[0] += 1;
        }
        mux.kick();
    }
    let mut sent = BTreeMap::<u64, u32>::new();
    for frame in &mux.queue().sent {
        *sent.entry(frame >> 32).or_default() += 1;
    }
    assert!((0..4).all(|core| sent[&core] >= 80), "{sent:?}");
}

#[test]
fn a_queue_that_claims_more_than_was_pushed_is_not_believed() {
    struct Liar;
    impl TxQueue for Liar {
        fn push(&mut self, _: &TxFrame) -> Result<(), TxFull> {
            Ok(())
        }
        fn kick(&mut self) {}
        fn reclaim(&mut self) -> u32 {
            1_000
        }
    }
    let mut mux = MuxTx::new(Liar, 8, Vec::new());
    mux.push(&frame(0, 0)).unwrap();
    assert_eq!((mux.reclaim(), mux.reclaim()), (1, 0));
}

#[derive(Clone, Debug)]
enum Step {
    OwnPush,
    RemotePush(usize),
    Kick,
    Complete(u32),
    Reclaim(usize),
}

proptest! {
    #[test]
    fn nothing_is_lost_doubled_reordered_or_reported_early(
        hw in 1_usize..12, capacity in 1_usize..12, ring in 1_usize..9, others in 0_usize..4,
        steps in proptest::collection::vec(prop_oneof![
            3 => Just(Step::OwnPush),
            6 => (0_usize..3).prop_map(Step::RemotePush),
            2 => Just(Step::Kick),
            3 => (0_u32..6).prop_map(Step::Complete),
            3 => (0_usize..3).prop_map(Step::Reclaim),
        ], 0..300),
    ) {
        let (mut mux, mut remotes) = shared(hw, capacity, others, ring);
        let mut pushed = [0_u64; 4];
        let mut reported = [0_u64; 4];
        let sent_of = |mux: &MuxTx<Hardware>, core: u64| {
            mux.queue().sent.iter().filter(|frame| *frame >> 32 == core).count() as u64
        };
        let drain = (0..100).flat_map(|_| {
            [Step::Kick, Step::Complete(3), Step::Reclaim(0), Step::Reclaim(1), Step::Reclaim(2)]
        });
        for step in steps.into_iter().chain(drain) {
            match step {
                Step::OwnPush => pushed[0] += u64::from(mux.push(&frame(0, pushed[0])).is_ok()),
                Step::RemotePush(i) | Step::Reclaim(i) if i >= others => {}
                Step::RemotePush(i) => {
                    let n = pushed[i + 1];
                    pushed[i + 1] += u64::from(remotes[i].push(&frame(i as u64 + 1, n)).is_ok());
                }
                Step::Kick => mux.kick(),
                Step::Complete(n) => {
                    mux.queue_mut().may_complete = n;
                    reported[0] += u64::from(mux.reclaim());
                }
                Step::Reclaim(i) => reported[i + 1] += u64::from(remotes[i].reclaim()),
            }
            prop_assert!(mux.queue().ring.len() <= hw.min(capacity));
            for core in 0..4 {
                prop_assert!(reported[core as usize] <= sent_of(&mux, core));
            }
            prop_assert_eq!(reported[0], sent_of(&mux, 0));
        }
        prop_assert_eq!(reported, pushed);
        for core in 0..4 {
            let of_core = mux.queue().sent.iter().filter(|frame| *frame >> 32 == core);
            prop_assert!(of_core.copied().eq((0..pushed[core as usize]).map(|n| core << 32 | n)));
        }
    }
}
