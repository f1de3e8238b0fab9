//! What module is in the cage: its EEPROM, read over the two lines of I2CCTL bit by bit (§8.2.3.1.5; SFF-8472 says what is in
//! it). Takes some milliseconds: for reports, not for opening.
use crate::chip::{Chip, Clock, pause};
use crate::regs::{ESDP, I2CCTL, STATUS, SW_FW_SYNC, SWSM};
use core::fmt;
use ix_dataplane::device::Mmio;
use ix_dataplane::time::Duration;

/// I2CCTL: the clock as it is, the clock let go; the data line as it is, let go.
const CLOCK_IN: u32 = 1;
const CLOCK_OUT: u32 = 1 << 1;
const DATA_IN: u32 = 1 << 2;
const DATA_OUT: u32 = 1 << 3;
/// Half a period at 100 kHz.
const HALF: Duration = Duration::from_us(5);
/// A target may hold the clock down so long.
const STRETCH: Duration = Duration::from_ms(1);
/// Addresses with the direction bit off: identification, diagnostics.
const IDENTIFICATION: u8 = 0xa0;
const DIAGNOSTICS: u8 = 0xa2;

const ESDP_MODULE: u32 = 1 << 2;
/// SWSM (§8.2.3.4.9): taken by reading 0; software's before firmware.
const SMBI: u32 = 1;
const SWESMBI: u32 = 1 << 1;
/// §10.5.4: what firmware takes for as long as it likes.
const SEMAPHORE_DEADLINE: Duration = Duration::from_ms(100);

/// Why there is nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleError {
    /// The cage is empty, or there is none.
    Absent,
    /// Firmware, or the other port, uses the lines and does not let them go.
    Busy,
    /// The module does not answer.
    NoAnswer,
}

impl fmt::Display for ModuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "ixgbe: no SFP+ module is in the cage",
            Self::Busy => "ixgbe: the card's firmware does not let go of the module's lines",
            Self::NoAnswer => {
                "ixgbe: the SFP+ module does not answer; seat it again, or try another"
            }
        })
    }
}

impl core::error::Error for ModuleError {}

/// What carries the bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// 10GBASE-SR: multi-mode fibre.
    ShortRange,
    /// 10GBASE-LR: single-mode fibre.
    LongRange,
    /// A copper cable that is part of the module, without or with electronics.
    DirectAttach {
        /// With electronics.
        active: bool,
    },
    /// None that this card is for.
    Other,
}

/// What a module says of itself. Texts are ASCII, padded with blanks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// What carries the bits.
    pub medium: Medium,
    /// Who made it.
    pub vendor: [u8; 16],
    /// What they call it.
    pub part: [u8; 16],
    /// Its number.
    pub serial: [u8; 16],
    /// How warm it is, if it measures that.
    pub celsius: Option<i8>,
}

/// Reads the module.
pub(crate) fn read<M: Mmio>(chip: &Chip<M>, clock: Clock<'_>) -> Result<Module, ModuleError> {
    if chip.read(ESDP) & ESDP_MODULE == 0 {
        return Err(ModuleError::Absent);
    }
    let lan = chip.read(STATUS) >> 2 & 1;
    take(chip, clock, lan)?;
    let mut lines = Lines { chip, clock, out: CLOCK_OUT | DATA_OUT };
    let module = identify(&mut lines);
    // SW_PHY_SM of this port is given back.
    if semaphore(chip, clock).is_ok() {
        chip.change(SW_FW_SYNC, 0, 2 << lan);
        chip.change(SWSM, 0, SMBI | SWESMBI);
    }
    module.ok_or(ModuleError::NoAnswer)
}

/// §10.5.4: the semaphore of the semaphores.
fn semaphore<M: Mmio>(chip: &Chip<M>, clock: Clock<'_>) -> Result<(), ModuleError> {
    let free = chip.wait(clock, SEMAPHORE_DEADLINE, SWSM, |value| value & SMBI == 0);
    free.map_err(|_| ModuleError::Busy)?;
    chip.change(SWSM, SMBI | SWESMBI, 0);
    let ours = chip.wait(clock, SEMAPHORE_DEADLINE, SWSM, |value| value & SWESMBI != 0);
    ours.map_err(|_| {
        chip.change(SWSM, 0, SMBI | SWESMBI);
        ModuleError::Busy
    })
}

/// Takes SW_PHY_SM of this port, which neither firmware nor other software has.
fn take<M: Mmio>(chip: &Chip<M>, clock: Clock<'_>, lan: u32) -> Result<(), ModuleError> {
    semaphore(chip, clock)?;
    let (software, firmware) = (2 << lan, 0x40 << lan);
    let free = chip.read(SW_FW_SYNC) & (software | firmware) == 0;
    if free {
        chip.change(SW_FW_SYNC, software, 0);
    }
    chip.change(SWSM, 0, SMBI | SWESMBI);
    if free { Ok(()) } else { Err(ModuleError::Busy) }
}

/// SFF-8472, tables 4-1 and 4-2.
fn identify<M: Mmio>(lines: &mut Lines<'_, M>) -> Option<Module> {
    let mut bytes = [0; 96];
    lines.read(IDENTIFICATION, 0, &mut bytes)?;
    let medium = match (bytes[3] & 0x30, bytes[8] & 0x0c) {
        (_, 0x04) => Medium::DirectAttach { active: false },
        (_, 0x08) => Medium::DirectAttach { active: true },
        (0x10 | 0x30, _) => Medium::ShortRange,
        (0x20, _) => Medium::LongRange,
        _ => Medium::Other,
    };
    let text = |at: usize| core::array::from_fn(|i| bytes[at + i]);
    let mut celsius = [0];
    // Byte 92, bit 6: it measures.
    let measures = bytes[92] & 0x40 != 0 && lines.read(DIAGNOSTICS, 96, &mut celsius).is_some();
    Some(Module {
        medium,
        vendor: text(20),
        part: text(40),
        serial: text(68),
        celsius: measures.then_some(celsius[0] as i8),
    })
}

/// The two lines.
struct Lines<'a, M> {
    chip: &'a Chip<M>,
    clock: Clock<'a>,
    out: u32,
}

impl<M: Mmio> Lines<'_, M> {
    fn set(&mut self, line: u32, high: bool) {
        self.out = if high { self.out | line } else { self.out & !line };
        self.chip.write(I2CCTL, self.out);
        self.chip.flush();
        pause(self.clock, HALF);
    }

    /// Lets the clock go; `None` if it is held down.
    fn rise(&mut self) -> Option<()> {
        self.set(CLOCK_OUT, true);
        self.chip.wait(self.clock, STRETCH, I2CCTL, |lines| lines & CLOCK_IN != 0).ok()
    }

    fn start(&mut self) -> Option<()> {
        self.set(DATA_OUT, true);
        self.rise()?;
        self.set(DATA_OUT, false);
        self.set(CLOCK_OUT, false);
        Some(())
    }

    fn stop(&mut self) {
        self.set(DATA_OUT, false);
        self.set(CLOCK_OUT, true);
        self.set(DATA_OUT, true);
    }

    fn bit(&mut self, high: bool) -> Option<bool> {
        self.set(DATA_OUT, high);
        self.rise()?;
        let bit = self.chip.read(I2CCTL) & DATA_IN != 0;
        self.set(CLOCK_OUT, false);
        Some(bit)
    }

    /// `None` if nobody acknowledges.
    fn send(&mut self, byte: u8) -> Option<()> {
        for i in 0..8 {
            self.bit(byte << i & 0x80 != 0)?;
        }
        (!self.bit(true)?).then_some(())
    }

    fn receive(&mut self, more: bool) -> Option<u8> {
        let mut byte = 0;
        for _ in 0..8 {
            byte = byte << 1 | u8::from(self.bit(true)?);
        }
        self.bit(!more)?;
        Some(byte)
    }

    fn read(&mut self, target: u8, offset: u8, to: &mut [u8]) -> Option<()> {
        let done = self.transfer(target, offset, to);
        self.stop();
        done
    }

    fn transfer(&mut self, target: u8, offset: u8, to: &mut [u8]) -> Option<()> {
        self.start()?;
        self.send(target)?;
        self.send(offset)?;
        self.start()?;
        self.send(target | 1)?;
        let last = to.len() - 1;
        for (i, byte) in to.iter_mut().enumerate() {
            *byte = self.receive(i < last)?;
        }
        Some(())
    }
}
