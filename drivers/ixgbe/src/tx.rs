//! A transmit queue: advanced descriptors (§7.2.3.2.4), one per piece. The chip is asked to report (RS) at the end of what
//! each doorbell shows, and every 16 descriptors; it answers in the descriptor itself (DD), in order. So a batch is seen to
//! be complete by a few looks.
//!
//! A frame whose checksum shall be filled in needs a context (§7.2.3.2.3), of which the chip keeps two: one is written only when a
//! frame wants another than both. So it is for frames that it cuts into segments.
use crate::chip::Chip;
use crate::memory::{Descriptor, Ring, Table};
use crate::port::Stopped;
use crate::regs::{Reg, TDT};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::fence;
use ix_dataplane::device::{Fragment, Gso, Mmio, NicTx, TxChecksum, TxFrame, TxFull, TxQueue};
use ix_dataplane::limits::TX_FRAGS_MAX;

/// §8.2.3.9.10: RS at least once in 40 descriptors. A frame asks for a report if so many have gone by at its end.
const REPORT_EVERY: u32 = 16;
const _: () = assert!(REPORT_EVERY - 1 + FRAME_DESCRIPTORS_MAX as u32 <= 40);
/// The longest piece (§7.2.3.2.2: 15.5 KB).
const PIECE_MAX: u32 = 15_872;
/// Descriptors of the largest frame: a context, a piece for each fragment, and one more for each 15.5 KB of 64.
pub(crate) const FRAME_DESCRIPTORS_MAX: u16 = TX_FRAGS_MAX as u16 + 1 + 5;
/// Bytes of an Ethernet header.
const HEADER: u16 = 14;

/// The second word of a data descriptor.
mod word {
    pub const END: u64 = 1 << 24;
    pub const INSERT_FCS: u64 = 1 << 25;
    pub const REPORT: u64 = 1 << 27;
    pub const ADVANCED: u64 = 1 << 29;
    pub const DONE: u64 = 1 << 32;
    pub const DATA: u64 = 3 << 20 | ADVANCED | INSERT_FCS;
    pub const CONTEXT: u64 = 2 << 20 | ADVANCED;
    /// The chip cuts it into segments, and fills in IPv4's sum and length, too.
    pub const SEGMENT: u64 = 1 << 31;
    pub const IP_SUM: u64 = 1 << 40;
    /// Which of both contexts.
    pub const INDEX_SHIFT: u32 = 36;
    /// A context is to be looked at, and the transport's sum filled in.
    pub const CHECKSUM: u64 = 1 << 39 | 1 << 41;
    pub const LEN_SHIFT: u32 = 46;
    /// The context's tag is inserted; a context is to be looked at, for that alone.
    pub const TAG: u64 = 1 << 30;
    pub const CONTEXT_USED: u64 = 1 << 39;
    /// Of a context, in its first word.
    pub const CONTEXT_TAG_SHIFT: u32 = 16;
    /// Of a context: IPv4; TCP, not UDP.
    pub const V4: u64 = 1 << 10;
    pub const TCP: u64 = 1 << 11;
    /// Of a context: bytes of the TCP header, payload of a segment.
    pub const L4_LEN_SHIFT: u32 = 40;
    pub const MSS_SHIFT: u32 = 48;
}

/// No frame has this as its wishes.
const NO_CONTEXT: u64 = u64::MAX;
/// The wishes of a frame that has none but the port's tag.
const NO_CHECKSUM: u64 = 0;
/// Where TCP has its sum.
const TCP_FIELD: u16 = 16;
/// And UDP.
const UDP_FIELD: u16 = 6;

/// A descriptor that the chip was asked to report.
#[derive(Clone, Copy, Debug, Default)]
struct Report {
    /// Descriptors, and frames, ever pushed up to its end.
    end: u32,
    frames: u32,
}

/// A transmit queue of a port.
#[derive(Debug)]
pub struct IxgbeTx<M> {
    ring: Ring,
    /// Descriptors ever written, shown, and completed; modulo 2^32.
    written: u32,
    shown: u32,
    completed: u32,
    /// Frames ever pushed and completed.
    pushed: u32,
    reclaimed: u32,
    /// Where the last report is asked for: descriptors up to there.
    asked: u32,
    /// The second word of the last descriptor, which may still be asked to report.
    last: u64,
    reports: Table<Report>,
    reports_asked: u32,
    reports_seen: u32,
    /// The tag of all frames, 0 if they have none, and what their descriptors have for it.
    vlan: u16,
    tag: u64,
    /// What descriptors have for a checksum, and for the tag.
    checksum: u64,
    /// What both contexts of the chip are, see [`wishes`]; the one used last.
    contexts: [u64; 2],
    recent: usize,
    /// Frames of before a reset that are to be reported as complete.
    owed: u32,
    errors: u64,
    chip: Chip<M>,
    tail: Reg,
}

#[inline(always)]
fn set(descriptor: &Descriptor, first: u64, second: u64) {
    descriptor[0].store(first, Relaxed);
    descriptor[1].store(second, Relaxed);
}

/// What a frame wants of a context: the checksum, the TCP header's length and a segment's payload.
#[inline(always)]
fn wishes(checksum: TxChecksum, gso: Option<Gso>) -> u64 {
    let plain = u64::from(checksum.start) << 16 | u64::from(checksum.offset);
    gso.map_or(plain, |gso| {
        let l4 = gso.header_len.wrapping_sub(checksum.start) & 0xff;
        plain | u64::from(l4) << 32 | u64::from(gso.size) << word::MSS_SHIFT
    })
}

impl<M: Mmio + Clone> IxgbeTx<M> {
    pub(crate) fn new(chip: &Chip<M>, ring: Ring, queue: u16, vlan: Option<u16>) -> IxgbeTx<M> {
        let tag = if vlan.is_some() { word::TAG } else { 0 };
        IxgbeTx {
            ring,
            written: 0,
            shown: 0,
            completed: 0,
            pushed: 0,
            reclaimed: 0,
            asked: 0,
            last: 0,
            reports: Table::new(ring.len() as u16, Report::default()),
            reports_asked: 0,
            reports_seen: 0,
            vlan: vlan.unwrap_or(0),
            tag,
            checksum: word::CHECKSUM | tag,
            contexts: [NO_CONTEXT; 2],
            recent: 0,
            owed: 0,
            errors: 0,
            chip: chip.clone(),
            tail: TDT.at(u32::from(queue)),
        }
    }
}

impl<M: Mmio> IxgbeTx<M> {
    /// Descriptors of the ring.
    pub fn ring_len(&self) -> u16 {
        self.ring.len() as u16
    }

    /// Frames that could not be sent as they were: pieces of impossible length, checksums that are neither TCP's nor UDP's. They
    /// left without.
    pub fn device_errors(&self) -> u64 {
        self.errors
    }

    /// Ends the queue after the port was reset: the frames in flight, whose memory is the
    /// sender's again. Whether they were sent is unknown.
    pub fn abandon(self, _stopped: &Stopped) -> u32 {
        u32::from(self.in_flight()).wrapping_add(self.owed)
    }

    fn tell(&self) {
        fence(Release);
        self.chip.write(self.tail, self.ring.slot(self.shown));
    }

    #[inline(always)]
    fn room(&self) -> u32 {
        self.ring.len() - 1 - self.written.wrapping_sub(self.completed)
    }

    /// The bits of a data descriptor for a checksum, whose context is the chip's then. A descriptor of room was seen to be there.
    #[inline(always)]
    fn checksum_bits(&mut self, checksum: TxChecksum, gso: Option<Gso>) -> u64 {
        let wishes = wishes(checksum, gso);
        if self.contexts[self.recent] != wishes {
            let other = 1 - self.recent;
            if self.contexts[other] != wishes && !self.write_context(other, checksum, wishes, gso) {
                return self.plain_bits();
            }
            self.recent = other;
        }
        self.checksum | (self.recent as u64) << word::INDEX_SHIFT
    }

    /// The same for a frame whose checksum is not the chip's to fill in.
    #[inline(always)]
    fn plain_bits(&mut self) -> u64 {
        if self.tag == 0 { 0 } else { self.tag_bits() }
    }

    /// And on a port with a VLAN, whose tag comes from a context, too.
    #[inline(never)]
    fn tag_bits(&mut self) -> u64 {
        if self.contexts[self.recent] != NO_CHECKSUM {
            let other = 1 - self.recent;
            if self.contexts[other] != NO_CHECKSUM {
                self.put_context(other, NO_CHECKSUM, 0, 0);
            }
            self.recent = other;
        }
        self.tag | word::CONTEXT_USED | (self.recent as u64) << word::INDEX_SHIFT
    }

    /// Writes a context. `false`: the chip has no such checksum.
    #[cold]
    #[inline(never)]
    fn write_context(
        &mut self,
        index: usize,
        checksum: TxChecksum,
        wishes: u64,
        gso: Option<Gso>,
    ) -> bool {
        let l3 = checksum.start.wrapping_sub(HEADER);
        let known = matches!(checksum.offset, TCP_FIELD | UDP_FIELD) && (20..0x200).contains(&l3);
        if !known {
            self.errors += 1;
            return false;
        }
        let tcp = if checksum.offset == TCP_FIELD { word::TCP } else { 0 };
        // For sums the family matters little, since the pseudo-header is in the field already: IPv4 with 20 bytes of
        // options or more is taken for IPv6.
        let is_v4 = gso.map_or(l3 < 40, |gso| !gso.ipv6);
        let v4 = if is_v4 { word::V4 } else { 0 };
        let cut = (wishes >> 32 & 0xff) << word::L4_LEN_SHIFT | wishes >> 48 << word::MSS_SHIFT;
        self.put_context(index, wishes, l3, tcp | v4 | cut);
        true
    }

    /// Writes a context's descriptor (§7.2.3.2.3).
    fn put_context(&mut self, index: usize, wishes: u64, l3: u16, bits: u64) {
        let tag = u64::from(self.vlan) << word::CONTEXT_TAG_SHIFT;
        let second = word::CONTEXT | bits | (index as u64) << word::INDEX_SHIFT;
        set(self.ring.at(self.written), tag | u64::from(HEADER) << 9 | u64::from(l3), second);
        self.written = self.written.wrapping_add(1);
        self.contexts[index] = wishes;
    }

    /// Writes the pieces of a frame, the last of which ends it. There is room.
    #[inline(always)]
    fn write_pieces(&mut self, fragments: &[Fragment], bits: u64, total: u32) {
        let bits = bits | word::DATA | u64::from(total) << word::LEN_SHIFT;
        let mut at = self.written;
        let mut second = 0;
        for fragment in fragments {
            second = bits | u64::from(fragment.len);
            set(self.ring.at(at), fragment.bus.0, second);
            at = at.wrapping_add(1);
        }
        self.end_frame(at, second);
    }

    /// The descriptor before `at`, whose second word this is, ends a frame.
    #[inline(always)]
    fn end_frame(&mut self, at: u32, second: u64) {
        let second = second | word::END;
        self.written = at;
        self.pushed = self.pushed.wrapping_add(1);
        if at.wrapping_sub(self.asked) >= REPORT_EVERY {
            self.ask(second);
        } else {
            self.ring.at(at.wrapping_sub(1))[1].store(second, Relaxed);
            self.last = second;
        }
    }

    /// A frame that the chip cuts into segments (§7.2.4); pieces of more than 15.5 KB are several.
    #[cold]
    #[inline(never)]
    fn push_large(&mut self, frame: &TxFrame, gso: Gso) -> Result<(), TxFull> {
        let pieces: u32 = frame.fragments.iter().map(|f| f.len.div_ceil(PIECE_MAX)).sum();
        if self.room() <= pieces {
            return Err(TxFull);
        }
        let mut bits = word::SEGMENT | if gso.ipv6 { 0 } else { word::IP_SUM };
        bits |= match frame.checksum {
            Some(checksum) => self.checksum_bits(checksum, Some(gso)),
            None => self.plain_bits(),
        };
        let payload = (frame.len() as u64).saturating_sub(u64::from(gso.header_len));
        bits |= word::DATA | payload << word::LEN_SHIFT;
        let mut at = self.written;
        let mut second = 0;
        for fragment in &frame.fragments {
            let mut from = 0;
            while from < fragment.len {
                let len = (fragment.len - from).min(PIECE_MAX);
                second = bits | u64::from(len);
                set(self.ring.at(at), fragment.bus.0 + u64::from(from), second);
                at = at.wrapping_add(1);
                from += len;
            }
        }
        self.end_frame(at, second);
        Ok(())
    }

    /// Asks for a report at the last descriptor, whose second word this is.
    #[inline]
    fn ask(&mut self, second: u64) {
        self.ring.at(self.written.wrapping_sub(1))[1].store(second | word::REPORT, Relaxed);
        self.reports.set(self.reports_asked, Report { end: self.written, frames: self.pushed });
        self.reports_asked = self.reports_asked.wrapping_add(1);
        self.asked = self.written;
    }

    #[inline(always)]
    fn push_fragments(
        &mut self,
        fragments: &[Fragment],
        checksum: Option<TxChecksum>,
        total: u32,
    ) -> Result<(), TxFull> {
        if self.room() <= fragments.len() as u32 {
            return Err(TxFull);
        }
        let bits = match checksum {
            Some(checksum) => self.checksum_bits(checksum, None),
            None => self.plain_bits(),
        };
        self.write_pieces(fragments, bits, total);
        Ok(())
    }
}

impl<M: Mmio> TxQueue for IxgbeTx<M> {
    #[inline]
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        debug_assert!(frame.fragments.iter().all(|f| f.len > 0) && !frame.is_empty());
        if let Some(gso) = frame.gso {
            return self.push_large(frame, gso);
        }
        debug_assert!(frame.fragments.iter().all(|f| f.len <= PIECE_MAX));
        match frame.fragments.as_slice() {
            // The constant lengths make straight lines of these.
            [a] => self.push_fragments(&[*a], frame.checksum, a.len),
            [a, b] => self.push_fragments(&[*a, *b], frame.checksum, a.len + b.len),
            [] => Ok(()),
            many => self.push_fragments(many, frame.checksum, frame.len() as u32),
        }
    }

    #[inline]
    fn push_pair(
        &mut self,
        headers: Fragment,
        payload: Fragment,
        checksum: Option<TxChecksum>,
    ) -> Result<(), TxFull> {
        self.push_fragments(&[headers, payload], checksum, headers.len + payload.len)
    }

    fn kick(&mut self) {
        if self.written == self.shown {
            return;
        }
        if self.asked != self.written {
            self.ask(self.last);
        }
        self.shown = self.written;
        self.tell();
    }

    fn reclaim(&mut self) -> u32 {
        let before = self.reclaimed;
        while self.reports_seen != self.reports_asked {
            let report = self.reports.get(self.reports_seen);
            let descriptor = self.ring.at(report.end.wrapping_sub(1));
            // What was not shown is not looked at: the chip has nothing to say about it.
            let shown = self.shown.wrapping_sub(report.end) < 1 << 31;
            if !shown || descriptor[1].load(Acquire) & word::DONE == 0 {
                break;
            }
            self.completed = report.end;
            self.reclaimed = report.frames;
            self.reports_seen = self.reports_seen.wrapping_add(1);
        }
        self.reclaimed.wrapping_sub(before) + core::mem::take(&mut self.owed)
    }
}

impl<M: Mmio> NicTx for IxgbeTx<M> {
    type Stopped = Stopped;

    fn in_flight(&self) -> u16 {
        self.pushed.wrapping_sub(self.reclaimed) as u16
    }

    /// Never, as on the receive side.
    fn is_quarantined(&self) -> bool {
        false
    }

    fn rewind(&mut self, _stopped: &Stopped) {
        self.owed = self.owed.wrapping_add(u32::from(self.in_flight()));
        (self.written, self.shown, self.completed, self.asked) = (0, 0, 0, 0);
        (self.pushed, self.reclaimed) = (0, 0);
        (self.reports_asked, self.reports_seen) = (0, 0);
        self.contexts = [NO_CONTEXT; 2];
    }

    fn restarted(&mut self) {
        if self.shown != 0 {
            self.tell();
        }
    }
}
