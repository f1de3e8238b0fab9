//! Interrupts: causes, masks, vectors, moderation (§7.3).
use crate::Outside;
use crate::map::Map;
use crate::regs::Id;

/// Causes that are not queues': flow director to other (§8.2.3.5.1).
const OTHERS: u32 = 0x7fff_0000;
/// Receive miss.
pub(crate) const RX_MISS: u32 = 1 << 17;
/// Link status change.
pub(crate) const LINK_CHANGE: u32 = 1 << 20;
/// The X540's thermal sensor.
pub(crate) const SENSOR: u32 = 1 << 23;
/// The pin SDP0.
pub(crate) const SDP0: u32 = 1 << 24;
/// PCI exception.
pub(crate) const PCI_EXCEPTION: u32 = 1 << 18;

/// GPIE.Multiple_MSIX.
const MULTIPLE: u32 = 1 << 4;
/// GPIE.OCD: a read of EICR clears the other causes only.
const OTHER_CLEAR_DISABLE: u32 = 1 << 5;
/// GPIE.EIAME: a message masks its vector.
const AUTO_MASK: u32 = 1 << 30;

/// A moderation interval of 1 in EITR's bits 11:3 (§7.3.2.1.1: 2.048 µs at 10 Gb/s).
const INTERVAL_NS: u64 = 2_048;
const VECTORS: usize = crate::Chip::MSIX_VECTORS as usize;

/// Causes and masks. By vector, as EICS_EX and its like have them; the first 16 are those of EICR too.
#[derive(Debug)]
pub(crate) struct Interrupts {
    causes: u64,
    mask: u64,
    auto_mask: u64,
    others: u32,
    other_mask: u32,
    other_auto_mask: u32,
    /// A message was sent for the cause, which is still there.
    told: u64,
    others_told: bool,
    /// When each vector may send again.
    next_ns: [u64; VECTORS],
    /// What waits for that.
    waiting: u64,
}

impl Interrupts {
    pub const fn new() -> Interrupts {
        Interrupts {
            causes: 0,
            mask: 0,
            auto_mask: 0,
            others: 0,
            other_mask: 0,
            other_auto_mask: 0,
            told: 0,
            others_told: false,
            next_ns: [0; VECTORS],
            waiting: 0,
        }
    }

    pub fn reset(&mut self) {
        *self = Interrupts::new();
    }

    /// A queue's cause, by its byte of an IVAR register.
    pub fn raise_entry(&mut self, entry: u32) {
        if entry & 0x80 != 0 {
            self.causes |= 1 << (entry & 0x3f);
        }
    }

    pub const fn raise_other(&mut self, cause: u32) {
        self.others |= cause & OTHERS;
    }

    pub fn next_tick_ns(&self) -> Option<u64> {
        let waiting = (0..VECTORS).filter(|v| self.waiting >> v & 1 != 0);
        waiting.map(|v| self.next_ns[v]).min()
    }

    fn cause_register(&self) -> u32 {
        self.others | self.causes as u32 & 0xffff
    }

    fn clear(&mut self, vectors: u64, others: u32) {
        self.causes &= !vectors;
        self.told &= !vectors;
        self.others &= !others;
        if others & OTHERS != 0 {
            self.others_told = false;
        }
    }

    fn enable(&mut self, vectors: u64, others: u32) {
        self.mask |= vectors;
        self.told &= !vectors;
        self.other_mask |= others;
        if others & OTHERS != 0 {
            self.others_told = false;
        }
    }

    /// What a register of this part reads.
    pub fn read(&mut self, id: Id, index: usize, gpie: u32) -> u32 {
        let half = |word: u64| (word >> (32 * index)) as u32;
        match id {
            Id::EICR => {
                let value = self.cause_register();
                if gpie & OTHER_CLEAR_DISABLE == 0 {
                    self.clear(u64::MAX, OTHERS);
                    self.mask &= !(self.auto_mask & 0xffff);
                    self.other_mask &= !self.other_auto_mask;
                } else {
                    self.clear(0, OTHERS);
                }
                value
            }
            Id::EICS => self.cause_register(),
            Id::EIMS => self.other_mask | self.mask as u32 & 0xffff,
            Id::EIAM => self.other_auto_mask | self.auto_mask as u32 & 0xffff,
            Id::EICS_EX => half(self.causes),
            Id::EIMS_EX => half(self.mask),
            Id::EIAM_EX => half(self.auto_mask),
            _ => 0,
        }
    }

    /// A register of this part is written.
    pub fn write(&mut self, id: Id, index: usize, value: u32) {
        let (low, others) = (u64::from(value & 0xffff), value & OTHERS);
        let wide = u64::from(value) << (32 * index);
        match id {
            Id::EICR => self.clear(low, others),
            Id::EICS => {
                self.causes |= low;
                self.others |= others;
            }
            Id::EIMS => self.enable(low, others),
            Id::EIMC => {
                self.mask &= !low;
                self.other_mask &= !others;
            }
            Id::EIAM => {
                self.auto_mask = self.auto_mask & !0xffff | low;
                self.other_auto_mask = others;
            }
            Id::EICS_EX => self.causes |= wide,
            Id::EIMS_EX => self.enable(wide, 0),
            Id::EIMC_EX => self.mask &= !wide,
            Id::EIAM_EX => {
                self.auto_mask = self.auto_mask & !(0xffff_ffff << (32 * index)) | wide;
            }
            _ => {}
        }
    }

    /// Sends the messages that are due.
    #[inline]
    pub fn deliver(&mut self, now: u64, map: &Map, outside: &mut dyn Outside) {
        let vectors = self.causes & self.mask & !self.told;
        let others = self.others & self.other_mask != 0 && !self.others_told;
        self.waiting = 0;
        if vectors != 0 || others {
            self.deliver_some(vectors, others, now, map, outside);
        }
    }

    fn deliver_some(
        &mut self,
        vectors: u64,
        others: bool,
        now: u64,
        map: &Map,
        outside: &mut dyn Outside,
    ) {
        let gpie = map.get(Id::GPIE);
        if gpie & MULTIPLE == 0 {
            // One message or line for all: moderated by EITR(0).
            if !self.may_send(0, now, map) {
                return;
            }
            self.told |= vectors;
            self.others_told |= others;
            outside.interrupt(0);
            return;
        }
        for vector in (0..VECTORS).filter(|v| vectors >> v & 1 != 0) {
            if !self.may_send(vector, now, map) {
                continue;
            }
            let bit = 1 << vector;
            self.told |= bit;
            // §7.3.1.4: EIAC has bits for the first 16 vectors; the others always clear.
            if vector >= 16 || map.get(Id::EIAC) >> vector & 1 != 0 {
                self.clear(bit, 0);
            }
            if gpie & AUTO_MASK != 0 {
                self.mask &= !(self.auto_mask & bit);
            }
            outside.interrupt(vector as u16);
        }
        let entry = map.get(Id::IVAR_MISC) >> 8;
        let vector = (entry & 0x3f) as usize;
        if others && entry & 0x80 != 0 && self.may_send(vector, now, map) {
            self.others_told = true;
            let cleared = map.get(Id::EIAC) & self.others;
            self.clear(0, cleared);
            if gpie & AUTO_MASK != 0 {
                self.other_mask &= !self.other_auto_mask;
            }
            outside.interrupt(vector as u16);
        }
    }

    /// Whether the moderation of a vector lets it send now, which then begins its interval.
    fn may_send(&mut self, vector: usize, now: u64, map: &Map) -> bool {
        let interval = u64::from(map.at(Id::EITR, vector) >> 3 & 0x1ff) * INTERVAL_NS;
        if now < self.next_ns[vector] && interval != 0 {
            self.waiting |= 1 << vector;
            return false;
        }
        self.next_ns[vector] = now + interval;
        true
    }
}
