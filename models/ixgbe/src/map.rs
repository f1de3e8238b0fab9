//! The values of the registers, and which register an offset means.
use crate::regs::{Access, IDS, Id, REGISTERS};

/// No register is there.
const NOTHING: u32 = u32::MAX;
/// Words of BAR 0.
const WORDS: usize = crate::Chip::BAR0_BYTES as usize / 4;

/// All registers.
pub(crate) struct Map {
    /// By word of the BAR: position in `values`, and the register's number in the upper half.
    words: Box<[(u32, u16)]>,
    /// By register: where its first value is.
    starts: Box<[u32]>,
    values: Box<[u32]>,
}

impl core::fmt::Debug for Map {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Map").field("values", &self.values.len()).finish_non_exhaustive()
    }
}

impl Map {
    pub fn new() -> Map {
        let mut words = vec![(NOTHING, 0); WORDS].into_boxed_slice();
        let mut starts = Vec::new();
        let mut next = 0;
        for (number, spec) in REGISTERS.iter().enumerate() {
            starts.push(next);
            let mut count = 0;
            for bank in spec.banks {
                count = count.max(u32::from(bank.first + bank.count));
                for i in 0..u32::from(bank.count) {
                    let word = &mut words[((bank.address + i * bank.stride) / 4) as usize];
                    // QPRDC lies within the stride of the receive queues' registers from queue 16 on; the first named wins.
                    if word.0 == NOTHING {
                        *word = (next + u32::from(bank.first) + i, number as u16);
                    }
                }
            }
            next += count;
        }
        let values = vec![0; next as usize].into_boxed_slice();
        let mut map = Map { words, starts: starts.into_boxed_slice(), values };
        map.reset(|_| true);
        map
    }

    /// Gives the registers that `which` takes the values that they have after a reset.
    pub fn reset(&mut self, which: impl Fn(Id) -> bool) {
        let ends = self.starts.iter().skip(1).copied().chain([self.values.len() as u32]);
        for ((start, end), id) in self.starts.iter().zip(ends).zip(IDS) {
            if which(*id) {
                self.values[*start as usize..end as usize].fill(REGISTERS[*id as usize].reset);
            }
        }
    }

    /// The register at an offset, and its index.
    #[inline]
    pub fn decode(&self, offset: u32) -> Option<(Id, usize)> {
        let (at, number) = *self.words.get(offset as usize / 4)?;
        if at == NOTHING || !offset.is_multiple_of(4) {
            return None;
        }
        let id = IDS[usize::from(number)];
        Some((id, (at - self.starts[usize::from(number)]) as usize))
    }

    /// The value of a register of which there is one.
    #[inline]
    pub fn get(&self, id: Id) -> u32 {
        self.at(id, 0)
    }

    /// The value of register `index` of an array, below its number.
    #[inline]
    pub fn at(&self, id: Id, index: usize) -> u32 {
        self.values[self.starts[id as usize] as usize + index]
    }

    /// Replaces the value of a register of which there is one.
    #[inline]
    pub fn set(&mut self, id: Id, value: u32) {
        self.set_at(id, 0, value);
    }

    /// Replaces the value of register `index` of an array.
    #[inline]
    pub fn set_at(&mut self, id: Id, index: usize, value: u32) {
        self.values[self.starts[id as usize] as usize + index] = value;
    }

    /// Sets and clears bits of a register of which there is one.
    pub fn change(&mut self, id: Id, set: u32, clear: u32) {
        self.set(id, self.get(id) & !clear | set);
    }

    /// What a plain read gives.
    pub fn read(&mut self, id: Id, index: usize) -> u32 {
        let value = self.at(id, index);
        match REGISTERS[id as usize].access {
            Access::Wo => 0,
            Access::Rc => {
                self.set_at(id, index, 0);
                value
            }
            Access::Rw | Access::Ro | Access::Special => value,
        }
    }

    /// What a plain write does.
    pub fn write(&mut self, id: Id, index: usize, value: u32) {
        let spec = &REGISTERS[id as usize];
        if matches!(spec.access, Access::Rw | Access::Special | Access::Wo) {
            let kept = self.at(id, index) & !spec.writable;
            self.set_at(id, index, value & spec.writable | kept);
        }
    }

    /// Counts: a statistics register sticks at its end (§8.2.3.23).
    #[inline]
    pub fn count(&mut self, id: Id, index: usize, by: u32) {
        self.set_at(id, index, self.at(id, index).saturating_add(by));
    }

    /// Counts in a pair of registers, low and high, of 36 bits.
    #[inline]
    pub fn count_wide(&mut self, low: Id, high: Id, index: usize, by: u64) {
        let value = u64::from(self.at(low, index)) | u64::from(self.at(high, index)) << 32;
        let value = (value + by).min((1 << 36) - 1);
        self.set_at(low, index, value as u32);
        self.set_at(high, index, (value >> 32) as u32);
    }
}
