//! What a self-test of the card needs beyond its work: the way round in the MAC, and registers tried by patterns.
use super::Control;
use crate::chip::{Chip, Clock, pause};
use crate::pci::Media;
use crate::port::Stopped;
use crate::regs::*;
use core::fmt;
use ix_dataplane::device::Mmio;
use ix_dataplane::time::Duration;

/// HLREG0.LPBK (§8.2.3.22.8): what is sent is received, and nothing else.
const HLREG0_LOOPBACK: u32 = 1 << 15;
/// AUTOC.FLU (§8.2.3.22.19): the link counts as up, whatever is heard.
const AUTOC_FORCE_LINK_UP: u32 = 1;
/// The datasheet has no time for it; Linux waits as long.
const LOOPBACK_PAUSE: Duration = Duration::from_ms(10);
/// Alternating bits, both ways, and all of them.
const PATTERNS: [u32; 4] = [0x5555_5555, 0xaaaa_aaaa, 0xffff_ffff, 0];

/// A register that does not keep what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterFault {
    /// Bytes from the start of BAR 0.
    pub offset: usize,
    /// What was written, without bits that need not be kept.
    pub wrote: u32,
    /// What was read, without those.
    pub read: u32,
}

impl fmt::Display for RegisterFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RegisterFault { offset, wrote, read } = self;
        write!(f, "register {offset:#07x} reads {read:#010x} after {wrote:#010x} was written")
    }
}

/// Registers of which a driver may write anything while queues and reception are off, and the bits that they keep.
fn kept(pairs: u32) -> impl Iterator<Item = (Reg, u32)> {
    let arrays = [
        (FCTTV, 0, FCTTV.count, u32::MAX),
        // The first receive address is the card's own.
        (RAL, 1, 16, u32::MAX),
        (RAH, 1, 16, 0x8000_ffff),
        (MTA, 0, MTA.count, u32::MAX),
        (VFTA, 0, VFTA.count, u32::MAX),
        (RSSRK, 0, RSSRK.count, u32::MAX),
        (RETA, 0, RETA.count, 0x0f0f_0f0f),
        (RDBAL, 0, pairs, 0xffff_ff80),
        (RDBAH, 0, pairs, u32::MAX),
        (RDLEN, 0, pairs, 0x000f_ff80),
        (TDBAL, 0, pairs, 0xffff_ff80),
        (TDBAH, 0, pairs, u32::MAX),
        (TDLEN, 0, pairs, 0x000f_ff80),
    ];
    arrays
        .into_iter()
        .flat_map(|(array, from, to, mask)| (from..to).map(move |i| (array.at(i), mask)))
}

/// Tries one; leaves it as it was.
fn try_register<M: Mmio>(chip: &Chip<M>, register: Reg, mask: u32) -> Result<(), RegisterFault> {
    let before = chip.read(register);
    let tried = PATTERNS.iter().try_for_each(|pattern| {
        let wrote = pattern & mask;
        chip.write(register, wrote);
        let read = chip.read(register) & mask;
        let fault = RegisterFault { offset: register.offset(), wrote, read };
        if read == wrote { Ok(()) } else { Err(fault) }
    });
    chip.write(register, before);
    tried
}

impl<M: Mmio> Control<M> {
    /// What kind of chip it is.
    pub fn media(&self) -> Media {
        self.settings.media
    }

    /// Has the MAC lead what is sent back to where it receives, or no longer. Restarts the link either way; a reset and restart of
    /// the port ends it, too. `false`: this chip does it in another way that this driver does not know.
    pub fn set_loopback(&mut self, on: bool, clock: Clock<'_>) -> bool {
        if self.settings.media == Media::BaseT {
            return false;
        }
        let change = |register, bits| {
            let (set, clear) = if on { (bits, 0) } else { (0, bits) };
            self.chip.change(register, set, clear);
        };
        change(HLREG0, HLREG0_LOOPBACK);
        change(AUTOC, AUTOC_FORCE_LINK_UP);
        self.chip.flush();
        pause(clock, LOOPBACK_PAUSE);
        true
    }

    /// Writes patterns to registers and reads them back; how many were tried. The port is stopped, and all are left as they
    /// were.
    pub fn try_registers(&self, _stopped: &Stopped) -> Result<u32, RegisterFault> {
        let mut count = 0;
        for (register, mask) in kept(u32::from(self.settings.pairs)) {
            try_register(&self.chip, register, mask)?;
            count += 1;
        }
        Ok(count)
    }
}
