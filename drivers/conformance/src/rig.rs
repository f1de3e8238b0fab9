//! An open port with its buffers, and the counts that they are held against.
use crate::bench::{Bench, KEY, Make, Open, Wishes};
use crate::frames::Flow;
use ix_abi::CoreId;
use ix_dataplane::device::{
    Capabilities, Fragment, Nic, NicControl, NicRx, NicTx, Progress, RxBatch, RxFrame, RxQueue,
    TxFrame, TxQueue,
};
use ix_dataplane::limits::MBUF_BYTES;
use ix_dataplane::mbuf::{Area, Mbuf, Pool, Rest};
use ix_dataplane::rss::{Toeplitz, group_of};

/// A frame that was polled, and its bytes.
#[derive(Debug)]
pub struct Got {
    /// The frame.
    pub frame: RxFrame,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// A port under test.
pub struct Rig<B: Bench> {
    /// The device.
    pub device: B,
    /// Receive queues.
    pub rx: Vec<<B::Nic as Nic>::Rx>,
    /// Transmit queues.
    pub tx: Vec<<B::Nic as Nic>::Tx>,
    /// The control part.
    pub control: <B::Nic as Nic>::Control,
    /// What it offers.
    pub capabilities: Capabilities,
    /// Where the buffers are.
    pub area: &'static Area,
    /// Those that are free.
    pub pool: Pool,
    /// The hash.
    pub toeplitz: Toeplitz,
    /// Frames that a queue has shown alone: every other one is taken there, and the rest by a poll.
    pub shown: u64,
}

impl<B: Bench> std::fmt::Debug for Rig<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rig").field("capabilities", &self.capabilities).finish_non_exhaustive()
    }
}

impl<B: Bench> Rig<B> {
    /// Opens a port as wished.
    pub fn new(make: &Make<'_, B>, wishes: Wishes) -> Rig<B> {
        let Open { device, rx, tx, control, capabilities, area } = make(&wishes);
        assert!(!rx.is_empty() && rx.len() == tx.len(), "a pair is two queues");
        assert_eq!(usize::from(capabilities.queue_pairs), rx.len());
        assert_eq!(usize::from(control.pairs()), rx.len());
        assert_eq!(control.reta().len(), usize::from(capabilities.groups));
        assert_eq!(area.buffers(), wishes.buffers);
        let pool = Pool::new(area, CoreId(0));
        let toeplitz = Toeplitz::new(&KEY);
        Rig { device, rx, tx, control, capabilities, area, pool, toeplitz, shown: 0 }
    }

    /// The same with buffers posted.
    pub fn ready(make: &Make<'_, B>, wishes: Wishes) -> Rig<B> {
        let mut rig = Rig::new(make, wishes);
        rig.replenish();
        rig
    }

    /// Posts buffers to all queues.
    pub fn replenish(&mut self) {
        self.rx.iter_mut().for_each(|queue| queue.replenish(&mut self.pool));
    }

    /// A frame arrives and is there. Whether the device took it.
    pub fn arrive(&mut self, frame: &[u8]) -> bool {
        let taken = self.device.deliver(frame);
        self.device.settle();
        taken
    }

    /// Polls a queue once.
    pub fn poll(&mut self, queue: usize, max: usize) -> Vec<Got> {
        let mut batch = RxBatch::new();
        let shown = self.rx[queue].lone().map(|frame| RxFrame {
            mbuf: Mbuf::from_raw(frame.mbuf.index()),
            rest: Rest::from_raw(frame.rest.first()),
            ..*frame
        });
        self.shown += u64::from(shown.is_some());
        if let Some(frame) = shown
            && max > 0
        {
            let bytes = bytes(self.area, &frame);
            if self.shown % 2 == 1 {
                self.rx[queue].took_lone();
                return vec![Got { bytes, frame }];
            }
            let count = self.rx[queue].poll(max, &mut batch);
            assert_eq!((count, batch.len()), (1, 1), "what is shown is there alone");
            assert_eq!(format!("{:?}", batch[0]), format!("{frame:?}"), "and is what is polled");
            return vec![Got { bytes, frame }];
        }
        let count = self.rx[queue].poll(max, &mut batch);
        assert_eq!(count, batch.len(), "a poll says how many frames it took");
        assert!(count <= max, "a poll took {count} frames and might take {max}");
        let area = self.area;
        batch.into_iter().map(|frame| Got { bytes: bytes(area, &frame), frame }).collect()
    }

    /// Polls all queues.
    pub fn poll_all(&mut self) -> Vec<Got> {
        (0..self.rx.len()).flat_map(|queue| self.poll(queue, 64)).collect()
    }

    /// Gives frames' buffers back.
    pub fn free(&mut self, got: impl IntoIterator<Item = Got>) {
        for Got { frame, .. } in got {
            self.pool.free(frame.mbuf);
            frame.rest.free(&mut self.pool);
        }
    }

    /// A frame in memory of its own, in pieces of these lengths.
    pub fn frame(&mut self, bytes: &[u8], pieces: &[usize]) -> TxFrame {
        let mut frame = TxFrame::default();
        let mut at = 0;
        for len in pieces {
            let bus = self.device.memory(*len);
            self.device.write(bus, &bytes[at..at + len]);
            frame.fragments.push(Fragment { bus, len: *len as u32 });
            at += len;
        }
        assert_eq!(at, bytes.len(), "pieces make the frame");
        frame
    }

    /// Pushes a frame for which there is room.
    pub fn push(&mut self, queue: usize, frame: &TxFrame) {
        self.tx[queue].push(frame).expect("there is room");
    }

    /// The flow's group.
    pub fn group(&self, flow: Flow) -> u16 {
        group_of(flow.hash(&self.toeplitz), self.capabilities.groups).0
    }

    /// The queue that the table names for the flow.
    pub fn queue_of(&self, flow: Flow) -> usize {
        usize::from(self.control.queue_of(self.group(flow)).expect("a group of the table"))
    }

    /// Waits for the end of a change of the table.
    pub fn wait_for_table(&mut self) {
        let clock = self.device.clock();
        for _ in 0..1000 {
            match self.control.poll(clock()) {
                Progress::Pending => self.device.settle(),
                Progress::Done => return,
                other => panic!("the change of the table: {other:?}"),
            }
        }
        panic!("the change of the table does not end");
    }

    /// Sends a flow's group to another queue.
    pub fn steer(&mut self, group: u16, queue: u16) {
        let clock = self.device.clock();
        self.control.set_reta(group, queue).expect("both exist");
        self.control.commit(clock()).expect("no change is under way");
        self.wait_for_table();
    }

    /// Stops the port.
    pub fn stop(&mut self) -> <B::Nic as Nic>::Stopped {
        let clock = self.device.clock();
        self.control.reset(&*clock).expect("it stops")
    }

    /// Empties the queues of a stopped port.
    pub fn rewind(&mut self, stopped: &<B::Nic as Nic>::Stopped) {
        self.rx.iter_mut().for_each(|queue| queue.rewind(stopped, &mut self.pool));
        self.tx.iter_mut().for_each(|queue| queue.rewind(stopped));
        let held: usize = self.rx.iter().map(NicRx::held).sum();
        assert_eq!(held, 0, "a rewound queue holds no buffers");
    }

    /// Starts it again.
    pub fn start(&mut self, stopped: <B::Nic as Nic>::Stopped) {
        let clock = self.device.clock();
        self.control.restart(stopped, &*clock).expect("it starts again");
        self.rx.iter_mut().for_each(NicRx::restarted);
        self.tx.iter_mut().for_each(NicTx::restarted);
        self.device.settle();
    }

    /// Every buffer is in the pool or in a queue, `held` by the rule apart.
    #[track_caller]
    pub fn assert_conserved(&self, held: usize) {
        let in_queues: usize = self.rx.iter().map(NicRx::held).sum();
        let (free, all) = (self.pool.available(), self.pool.capacity());
        assert_eq!(free + in_queues + held, all, "{free} free, {in_queues} in queues, {held} held");
    }

    /// The end of a rule, which holds nothing any more: all that is under way ends, the port is stopped, each buffer is home
    /// and there once, and nobody complains.
    pub fn finish(mut self) {
        self.device.settle();
        let left = self.device.sent();
        assert!(left.is_empty(), "{} frames more have left than were pushed", left.len());
        let got = self.poll_all();
        assert!(got.is_empty(), "{} frames more are there than came", got.len());
        for queue in &mut self.tx {
            assert_eq!(queue.reclaim(), 0, "more frames are complete than were pushed");
            assert_eq!(queue.in_flight(), 0);
        }
        self.assert_conserved(0);
        for queue in &self.rx {
            assert_eq!(queue.device_errors(), 0, "an honest device is accused");
            assert!(!queue.is_quarantined());
        }
        assert!(self.control.read_link_up() && !self.control.read_needs_reset());
        self.device.audit();
        let stopped = self.stop();
        self.rewind(&stopped);
        assert!(self.tx.iter_mut().all(|queue| queue.reclaim() == 0));
        let mut seen = vec![false; self.area.buffers() as usize];
        while let Some(mbuf) = self.pool.alloc() {
            let seen = &mut seen[mbuf.into_raw() as usize];
            assert!(!std::mem::replace(seen, true), "a buffer is there twice");
        }
        assert!(seen.iter().all(|seen| *seen), "a buffer is missing");
    }
}

/// A frame's bytes, each within its buffer.
fn bytes(area: &Area, frame: &RxFrame) -> Vec<u8> {
    let within = |mbuf: &Mbuf, offset: u16, len: u16| {
        let start = usize::from(offset);
        assert!(start + usize::from(len) <= MBUF_BYTES, "bytes outside of their buffer");
        area.data(mbuf)[start..start + usize::from(len)].to_vec()
    };
    let mut bytes = within(&frame.mbuf, frame.offset, frame.len);
    assert!(bytes.len() >= crate::frames::ETHERNET, "a frame has a header");
    for piece in frame.rest.pieces(area) {
        assert!(!piece.is_empty(), "a buffer without bytes, or with bytes outside of it");
        bytes.extend(piece);
    }
    bytes
}
