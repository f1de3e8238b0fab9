//! The EEPROM's words by EERD, and its checksum (§6.1, §8.2.3.2.2).
use crate::chip::{Chip, Clock};
use crate::error::InitError;
use crate::regs::EERD;
use ix_dataplane::device::Mmio;
use ix_dataplane::time::Duration;

const DEADLINE: Duration = Duration::from_ms(10);
const START: u32 = 1;
const DONE: u32 = 1 << 1;

/// Words 0 to this one, and what the pointers among them lead to, have this sum.
const CHECKSUM_WORD: u16 = 0x3f;
const SUM: u16 = 0xbaba;
/// Pointers to sections that are summed: PCIe analog to MAC, not the firmware's.
const POINTERS: core::ops::Range<u16> = 3..0xf;
/// Words that a section may have: more is damage.
const SECTION_MAX: u16 = 1024;

/// Reads a word.
pub(crate) fn read<M: Mmio>(chip: &Chip<M>, clock: Clock<'_>, word: u16) -> Result<u16, InitError> {
    chip.write(EERD, u32::from(word) << 2 | START);
    chip.wait(clock, DEADLINE, EERD, |value| value & DONE != 0)
        .map_err(|_| InitError::EepromTimeout { word })?;
    Ok((chip.read(EERD) >> 16) as u16)
}

/// Verifies the checksum.
pub(crate) fn verify<M: Mmio>(chip: &Chip<M>, clock: Clock<'_>) -> Result<(), InitError> {
    let mut sum = 0_u16;
    for word in 0..=CHECKSUM_WORD {
        let value = read(chip, clock, word)?;
        sum = sum.wrapping_add(value);
        if POINTERS.contains(&word) && value != 0 && value != 0xffff {
            let len = read(chip, clock, value)?;
            if len != 0xffff && len > SECTION_MAX {
                return Err(InitError::EepromChecksum { sum });
            }
            let len = if len == 0xffff { 0 } else { len };
            for i in 1..=len {
                sum = sum.wrapping_add(read(chip, clock, value.wrapping_add(i))?);
            }
        }
    }
    if sum == SUM { Ok(()) } else { Err(InitError::EepromChecksum { sum }) }
}
