//! What the server asks of a chip: the public interface of `ix-model-ixgbe`, so that tests can put something small
//! in its place.
use ix_model_ixgbe::{Chip, Memory, Outside};

/// A chip with registers of 32 bits in BAR 0. See [`Chip`] for what the functions mean.
pub trait Device {
    /// Reads a register.
    fn read32(&mut self, offset: u32) -> u32;
    /// Writes a register.
    fn write32(&mut self, offset: u32, value: u32, memory: &dyn Memory, outside: &mut dyn Outside);
    /// A frame arrives.
    fn receive(&mut self, frame: &[u8], memory: &dyn Memory, outside: &mut dyn Outside) -> bool;
    /// Time goes on.
    fn tick(&mut self, now_ns: u64, memory: &dyn Memory, outside: &mut dyn Outside);
    /// When time matters next.
    fn next_tick_ns(&self) -> Option<u64>;
    /// A reset of the function.
    fn reset(&mut self);
    /// From now on it sends nothing, until a reset.
    fn hang(&mut self) {}
}

impl Device for Chip {
    fn read32(&mut self, offset: u32) -> u32 {
        Chip::read32(self, offset)
    }

    fn write32(&mut self, offset: u32, value: u32, memory: &dyn Memory, outside: &mut dyn Outside) {
        Chip::write32(self, offset, value, memory, outside);
    }

    fn receive(&mut self, frame: &[u8], memory: &dyn Memory, outside: &mut dyn Outside) -> bool {
        Chip::receive(self, frame, memory, outside)
    }

    fn tick(&mut self, now_ns: u64, memory: &dyn Memory, outside: &mut dyn Outside) {
        Chip::tick(self, now_ns, memory, outside);
    }

    fn next_tick_ns(&self) -> Option<u64> {
        Chip::next_tick_ns(self)
    }

    fn reset(&mut self) {
        Chip::reset(self);
    }

    fn hang(&mut self) {
        self.faults.stuck_tx = true;
    }
}

/// A chip whose register accesses are told, a line each.
#[derive(Debug)]
pub struct Traced<D>(pub D);

impl<D: Device> Device for Traced<D> {
    fn read32(&mut self, offset: u32) -> u32 {
        let value = self.0.read32(offset);
        eprintln!("read  {offset:05x} = {value:08x}");
        value
    }

    fn write32(&mut self, offset: u32, value: u32, memory: &dyn Memory, outside: &mut dyn Outside) {
        eprintln!("write {offset:05x} = {value:08x}");
        self.0.write32(offset, value, memory, outside);
    }

    fn receive(&mut self, frame: &[u8], memory: &dyn Memory, outside: &mut dyn Outside) -> bool {
        let taken = self.0.receive(frame, memory, outside);
        eprintln!("frame of {} bytes {}", frame.len(), if taken { "taken" } else { "dropped" });
        taken
    }

    fn tick(&mut self, now_ns: u64, memory: &dyn Memory, outside: &mut dyn Outside) {
        self.0.tick(now_ns, memory, outside);
    }

    fn next_tick_ns(&self) -> Option<u64> {
        self.0.next_tick_ns()
    }

    fn reset(&mut self) {
        eprintln!("reset");
        self.0.reset();
    }

    fn hang(&mut self) {
        eprintln!("hang");
        self.0.hang();
    }
}
