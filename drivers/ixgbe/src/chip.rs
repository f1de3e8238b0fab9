//! The registers of a port, mapped, and waiting for them.
use crate::error::InitError;
use crate::regs::{Array, Reg};
use ix_dataplane::device::Mmio;
use ix_dataplane::time::Duration;

pub use ix_dataplane::device::Clock;

/// A port's BAR 0.
#[derive(Clone, Debug)]
pub(crate) struct Chip<M>(pub M);

impl<M: Mmio> Chip<M> {
    pub fn read(&self, register: Reg) -> u32 {
        self.0.read32(register.offset())
    }

    pub fn write(&self, register: Reg, value: u32) {
        self.0.write32(register.offset(), value);
    }

    /// Sets and clears bits.
    pub fn change(&self, register: Reg, set: u32, clear: u32) {
        self.write(register, self.read(register) & !clear | set);
    }

    /// The same value into all of an array from `first` on.
    pub fn fill(&self, array: Array, first: u32, value: u32) {
        (first..array.count).for_each(|i| self.write(array.at(i), value));
    }

    /// What was written before has reached the chip when this returns (§8.1: reads push writes).
    pub fn flush(&self) {
        let _ = self.read(crate::regs::STATUS);
    }

    /// Reads a register until `done` likes it; what it read last as the error. One look after the deadline, so that
    /// a core that was away for long does not blame the chip.
    pub fn wait(
        &self,
        clock: Clock<'_>,
        within: Duration,
        register: Reg,
        done: impl Fn(u32) -> bool,
    ) -> Result<(), u32> {
        let deadline = clock() + within;
        loop {
            let late = clock() > deadline;
            let value = self.read(register);
            if done(value) {
                return Ok(());
            }
            if late {
                return Err(value);
            }
            core::hint::spin_loop();
        }
    }

    /// Fails if nobody is there. `value` was read of a register that never has all bits set.
    pub fn present(&self) -> Result<(), InitError> {
        if self.read(crate::regs::STATUS) == u32::MAX { Err(InitError::Gone) } else { Ok(()) }
    }
}

/// Lets time pass.
pub(crate) fn pause(clock: Clock<'_>, time: Duration) {
    let end = clock() + time;
    while clock() < end {
        core::hint::spin_loop();
    }
}
