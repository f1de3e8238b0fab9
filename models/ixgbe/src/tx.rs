//! The transmit side: descriptors, data, write-back (§7.2).
use crate::regs::Id;
use crate::rx::QUEUE_ENABLE;
use crate::segment::{self, Context, Wishes};
use crate::write_back::{Item, QUEUES, WriteBacks};
use crate::{Chip, Memory, Outside, filter, statistics};

/// DMATXCTL.TE.
const TX_ENABLE: u32 = 1;
/// TDWBAL.Head_WB_En.
const HEAD_WRITE_BACK: u32 = 1;
/// A report is to be asked for once in so many descriptors (§8.2.3.9.10).
const REPORT_WITHIN: u32 = 40;
/// The longest frame before segmentation (§7.2.4: 256 KiB).
const FRAME_MAX: usize = 256 * 1024;

/// The upper word of a descriptor (§7.2.3.2).
mod word {
    pub const END: u64 = 1 << 24;
    pub const CHECKSUM: u64 = 1 << 26;
    pub const REPORT: u64 = 1 << 27;
    pub const ADVANCED: u64 = 1 << 29;
    pub const VLAN: u64 = 1 << 30;
    pub const SEGMENT: u64 = 1 << 31;
    pub const DONE: u64 = 1 << 32;
    pub const KIND_CONTEXT: u64 = 2;
    pub const KIND_DATA: u64 = 3;
}

/// A queue's frame under way and its contexts.
#[derive(Debug, Default)]
struct Queue {
    frame: Vec<u8>,
    /// The upper word of the frame's first data descriptor.
    first: Option<u64>,
    bad: bool,
    contexts: [Context; 2],
    /// Descriptors since the last report was asked for.
    unreported: u32,
}

/// The transmit side's own state.
#[derive(Debug)]
pub(crate) struct Tx {
    queues: Box<[Queue]>,
    pub write_backs: WriteBacks,
    /// Frames on their way round, when the MAC is in loopback.
    pub loopback: Vec<Vec<u8>>,
}

impl Tx {
    pub fn new(seed: u64) -> Tx {
        let queues = (0..QUEUES).map(|_| Queue::default()).collect();
        Tx { queues, write_backs: WriteBacks::new(seed ^ 0x7478), loopback: Vec::new() }
    }

    pub fn reset(&mut self) {
        self.queues.iter_mut().for_each(|queue| *queue = Queue::default());
        self.write_backs.clear();
        self.loopback.clear();
    }
}

impl Chip {
    /// Sends what all queues have: the link has come up, or the side was enabled.
    pub(crate) fn run_all_tx(&mut self, memory: &dyn Memory, outside: &mut dyn Outside) {
        for queue in 0..QUEUES {
            if self.map.at(Id::TXDCTL, queue) & QUEUE_ENABLE != 0 {
                self.run_tx(queue, memory, outside);
            }
        }
    }

    /// Sends what a queue has from its head to its tail.
    pub(crate) fn run_tx(&mut self, queue: usize, memory: &dyn Memory, outside: &mut dyn Outside) {
        let enabled = self.is_master()
            && !self.faults.stuck_tx
            && self.map.get(Id::DMATXCTL) & TX_ENABLE != 0
            && self.map.at(Id::TXDCTL, queue) & QUEUE_ENABLE != 0
            && (self.link.is_up() && !self.pause.holds() || self.is_loopback());
        let len = self.map.at(Id::TDLEN, queue) / 16;
        let tail = self.map.at(Id::TDT, queue);
        let mut head = self.map.at(Id::TDH, queue);
        if !enabled {
            return;
        }
        if head >= len || tail >= len {
            self.counts.bad_rings += u64::from(head != tail);
            return;
        }
        let base = u64::from(self.map.at(Id::TDBAL, queue))
            | u64::from(self.map.at(Id::TDBAH, queue)) << 32;
        while head != tail {
            let at = base.wrapping_add(16 * u64::from(head));
            let mut descriptor = [0; 16];
            if !self.dma_read(memory, at, &mut descriptor) {
                break;
            }
            head = (head + 1) % len;
            self.map.set_at(Id::TDH, queue, head);
            let word = |i: usize| {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&descriptor[i..i + 8]);
                u64::from_le_bytes(bytes)
            };
            let (low, high) = (word(0), word(8));
            self.take_descriptor(queue, low, high, memory, outside);
            let state = &mut self.tx.queues[queue];
            state.unreported += 1;
            if state.unreported > REPORT_WITHIN {
                self.counts.late_reports += 1;
                state.unreported = 0;
            }
            if high & word::REPORT != 0 {
                state.unreported = 0;
                self.report(queue, at, head, low, high, memory);
            }
        }
    }

    fn take_descriptor(
        &mut self,
        queue: usize,
        low: u64,
        high: u64,
        memory: &dyn Memory,
        outside: &mut dyn Outside,
    ) {
        let advanced = high & word::ADVANCED != 0;
        if advanced && high >> 20 & 0xf == word::KIND_CONTEXT {
            let index = (high >> 36 & 1) as usize;
            self.tx.queues[queue].contexts[index] = Context::new(low, high);
            return;
        }
        let known = !advanced || high >> 20 & 0xf == word::KIND_DATA;
        let len = (high & 0xffff) as usize;
        let held = self.tx.queues[queue].frame.len();
        if !known || len == 0 || held + len > FRAME_MAX {
            self.counts.bad_descriptors += 1;
            self.tx.queues[queue].bad = true;
        } else {
            let mut frame = core::mem::take(&mut self.tx.queues[queue].frame);
            frame.resize(held + len, 0);
            let good = self.dma_read(memory, low, &mut frame[held..]);
            let state = &mut self.tx.queues[queue];
            state.frame = frame;
            state.bad |= !good;
        }
        let state = &mut self.tx.queues[queue];
        state.first.get_or_insert(high);
        if high & word::END != 0 {
            self.end_frame(queue, high, outside);
        }
    }

    /// A frame is complete.
    fn end_frame(&mut self, queue: usize, last: u64, outside: &mut dyn Outside) {
        let state = &mut self.tx.queues[queue];
        let mut frame = core::mem::take(&mut state.frame);
        let first = state.first.take().unwrap_or(last);
        if core::mem::take(&mut state.bad) {
            self.counts.dropped_tx += 1;
            frame.clear();
            self.tx.queues[queue].frame = frame;
            return;
        }
        let wishes = wishes(first, last, &state.contexts);
        let flags = (self.map.get(Id::DTXTCPFLGL), self.map.get(Id::DTXTCPFLGH));
        let loopback = self.is_loopback();
        let mut sizes = (0, 0);
        let (map, tx) = (&mut self.map, &mut self.tx);
        let good = segment::frames(&mut frame, &wishes, flags, |frame| {
            let cast = frame.first_chunk().map_or(filter::Cast::Uni, filter::cast);
            statistics::sent(map, queue, frame.len().max(60), cast);
            sizes = (sizes.0 + 1, sizes.1 + frame.len());
            if loopback {
                tx.loopback.push(frame.to_vec());
            } else {
                outside.transmit(frame);
            }
        });
        if !good {
            self.counts.bad_descriptors += 1;
        }
        frame.clear();
        self.tx.queues[queue].frame = frame;
    }

    /// RS: the descriptor is written back with DD, or the head is (§7.2.3.5).
    fn report(
        &mut self,
        queue: usize,
        at: u64,
        head: u32,
        low: u64,
        high: u64,
        memory: &dyn Memory,
    ) {
        let entry = self.map.at(Id::IVAR, queue / 2) >> (16 * (queue % 2) + 8);
        let head_address = self.map.at(Id::TDWBAL, queue);
        let mut bytes = [0; 16];
        let item = if head_address & HEAD_WRITE_BACK != 0 {
            bytes[..4].copy_from_slice(&head.to_le_bytes());
            let at = u64::from(head_address & !3) | u64::from(self.map.at(Id::TDWBAH, queue)) << 32;
            Item { at, bytes, len: 4, entry }
        } else {
            bytes[..8].copy_from_slice(&low.to_le_bytes());
            bytes[8..].copy_from_slice(&(high | word::DONE).to_le_bytes());
            Item { at, bytes, len: 16, entry }
        };
        let delay = self.faults.write_back_delay_ns;
        if let Some(item) = self.tx.write_backs.keep(queue, item, self.now_ns, delay) {
            self.finish(item, memory);
        }
    }

    /// TXDCTL is written (§4.6.8.1, §4.6.8.2).
    pub(crate) fn write_txdctl(&mut self, queue: usize, value: u32) {
        let before = self.map.at(Id::TXDCTL, queue);
        // SWFLSH clears itself.
        let mut value = value & !(1 << 26);
        if self.faults.stuck_tx_enable {
            value &= !QUEUE_ENABLE;
        }
        if before & !value & QUEUE_ENABLE != 0 {
            self.map.set_at(Id::TDH, queue, 0);
            self.map.set_at(Id::TDT, queue, 0);
            self.tx.queues[queue] = Queue::default();
            self.tx.write_backs.hurry(queue);
        }
        self.map.set_at(Id::TXDCTL, queue, value);
    }
}

/// What a frame's descriptors ask for: its first says it, legacy ones too (§7.2.3.2.2, §7.2.3.2.4).
fn wishes(first: u64, last: u64, contexts: &[Context; 2]) -> Wishes {
    if first & word::ADVANCED == 0 {
        let offset = (first >> 16 & 0xff) as usize;
        let start = (first >> 40 & 0xff) as usize;
        return Wishes {
            legacy_sum: (first & word::CHECKSUM != 0).then_some((start, offset)),
            vlan: (last & word::VLAN != 0).then_some((last >> 48) as u16),
            ..Wishes::default()
        };
    }
    let context = contexts[(first >> 36 & 1) as usize];
    Wishes {
        context,
        ip_sum: first >> 40 & 1 != 0,
        transport_sum: first >> 41 & 1 != 0,
        segment: first & word::SEGMENT != 0,
        vlan: (first & word::VLAN != 0).then_some(context.vlan),
        legacy_sum: None,
    }
}
