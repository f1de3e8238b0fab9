//! A remapping unit: taken over from the firmware, switched on, its caches flushed, its faults read.
use crate::regs::{
    CAP, CCMD, CCMD_GLOBAL, Capabilities, ECAP, FAULT, FECTL, FECTL_MASK, FSTS, FSTS_OVERFLOW,
    FSTS_PENDING, GCMD, GSTS, Global, IOTLB_GLOBAL, KEPT, PMEN, PMEN_ENABLE, RTADDR, UNDER_WAY,
    VER,
};
use crate::{Domain, Fault, Memory, VtdError};
use ix_dataplane::device::Mmio;
use ix_dataplane::time::{Duration, Instant};

/// How long the unit may take for anything. Draining requests takes microseconds.
const PATIENCE: Duration = Duration::from_ms(100);

/// The time, for deadlines.
pub type Clock<'a> = &'a dyn Fn() -> Instant;

/// A unit.
#[derive(Debug)]
pub struct Unit<M> {
    regs: M,
    capabilities: Capabilities,
    /// The root table, once it is on.
    root: Option<u64>,
    /// Which fault record is looked at next.
    next_fault: usize,
}

impl<M: Mmio> Unit<M> {
    /// Looks at a unit; changes nothing.
    pub fn open(regs: M) -> Result<Unit<M>, VtdError> {
        let version = regs.read32(VER);
        if version == 0 || version == u32::MAX {
            return Err(VtdError::Absent);
        }
        let capabilities = Capabilities::new(regs.read64(CAP), regs.read64(ECAP));
        Ok(Unit { regs, capabilities, root: None, next_fault: 0 })
    }

    /// Whether it sees what processors have in their caches: if not, tables have to be written to memory.
    pub fn is_coherent(&self) -> bool {
        self.capabilities.is_coherent()
    }

    /// Bytes of registers: fault records and the invalidation register may lie beyond the first page.
    pub fn register_bytes(&self) -> u64 {
        let (faults, count) = self.capabilities.faults();
        (faults + 16 * count).max(self.capabilities.iotlb() + 8) as u64
    }

    /// An empty domain with tables that the unit knows: of four levels, or three.
    pub fn domain(&self, memory: &mut impl Memory) -> Result<Domain, VtdError> {
        let c = self.capabilities;
        let levels = match c.widths() {
            w if w & 4 != 0 => 4,
            w if w & 2 != 0 => 3,
            sagaw => return Err(VtdError::Tables { sagaw }),
        };
        let domain = Domain::new(memory, levels, c.address_bits(), c.has_large_pages());
        domain.ok_or(VtdError::NoMemory)
    }

    /// Switches translation on by a root table (§11.4.4.1): functions that have no entry there reach nothing. What the firmware
    /// had set up ends: its translation, its queue, its remapping of interrupts.
    pub fn enable(&mut self, root: u64, clock: Clock<'_>) -> Result<(), VtdError> {
        self.regs.write32(FECTL, FECTL_MASK);
        self.switch(Global::TRANSLATION, false, clock, "its translation is switched off")?;
        self.switch(Global::INTERRUPTS, false, clock, "its interrupts are switched off")?;
        self.switch(Global::QUEUE, false, clock, "its queue is switched off")?;
        self.regs.write64(RTADDR, root);
        self.switch(Global::ROOT, true, clock, "it takes its root table")?;
        self.flush_everything(clock)?;
        self.switch(Global::TRANSLATION, true, clock, "its translation is switched on")?;
        self.root = Some(root);
        if self.regs.read32(PMEN) & 1 != 0 {
            self.regs.write32(PMEN, self.regs.read32(PMEN) & !PMEN_ENABLE);
            let open = || self.regs.read32(PMEN) & 1 == 0;
            wait(open, clock, "protected memory is opened")?;
        }
        Ok(())
    }

    /// Whether memory that is given has to be flushed as well as memory that is taken.
    pub fn must_flush_what_is_given(&self) -> bool {
        self.capabilities.caches_absence() || self.capabilities.has_write_buffer()
    }

    /// Forgets all translations; requests under way are over then (§6.5).
    pub fn flush(&self, clock: Clock<'_>) -> Result<(), VtdError> {
        self.flush_write_buffer(clock)?;
        let iotlb = self.capabilities.iotlb();
        self.regs.write64(iotlb, IOTLB_GLOBAL);
        let done = || self.regs.read64(iotlb) & UNDER_WAY == 0;
        wait(done, clock, "it forgets translations")
    }

    /// Forgets which function has which tables, too.
    pub fn flush_everything(&self, clock: Clock<'_>) -> Result<(), VtdError> {
        self.flush_write_buffer(clock)?;
        self.regs.write64(CCMD, CCMD_GLOBAL);
        let done = || self.regs.read64(CCMD) & UNDER_WAY == 0;
        wait(done, clock, "it forgets its functions")?;
        self.flush(clock)
    }

    fn flush_write_buffer(&self, clock: Clock<'_>) -> Result<(), VtdError> {
        if !self.capabilities.has_write_buffer() {
            return Ok(());
        }
        self.command(Global::WRITE_BUFFER, true);
        let done = || !self.status().contains(Global::WRITE_BUFFER);
        wait(done, clock, "it flushes its write buffer")
    }

    /// The next fault that it has recorded, and whether it has lost some before. Bounded: asked again, it may find more.
    pub fn next_fault(&mut self) -> Option<(Fault, bool)> {
        let status = self.regs.read32(FSTS);
        if status & (FSTS_PENDING | FSTS_OVERFLOW) == 0 {
            return None;
        }
        let lost = status & FSTS_OVERFLOW != 0;
        let (base, count) = self.capabilities.faults();
        for _ in 0..count {
            let at = base + 16 * self.next_fault;
            self.next_fault = (self.next_fault + 1) % count;
            if self.regs.read32(at + 12) & FAULT != 0 {
                let fault = Fault::decode(self.regs.read64(at), self.regs.read64(at + 8));
                self.regs.write32(at + 12, FAULT);
                return Some((fault, lost));
            }
        }
        // None is left: now that they are read, more may be recorded.
        self.regs.write32(FSTS, FSTS_OVERFLOW);
        None
    }

    fn status(&self) -> Global {
        Global::from_bits_retain(self.regs.read32(GSTS))
    }

    /// One bit at a time, the others as they are.
    fn command(&self, bit: Global, on: bool) {
        let kept = self.status().bits() & KEPT & !bit.bits();
        self.regs.write32(GCMD, if on { kept | bit.bits() } else { kept });
    }

    fn switch(
        &self,
        bit: Global,
        on: bool,
        clock: Clock<'_>,
        doing: &'static str,
    ) -> Result<(), VtdError> {
        if on || self.status().contains(bit) {
            self.command(bit, on);
        }
        wait(|| self.status().contains(bit) == on, clock, doing)
    }
}

fn wait(done: impl Fn() -> bool, clock: Clock<'_>, doing: &'static str) -> Result<(), VtdError> {
    let deadline = clock() + PATIENCE;
    while !done() {
        if clock() > deadline {
            return if done() { Ok(()) } else { Err(VtdError::Stuck { doing }) };
        }
        core::hint::spin_loop();
    }
    Ok(())
}
