//! The server as a client sees it, over a real socket, with a chip of a few lines in it: what works, and what a client
//! that lies gets.
use ix_model_ixgbe::{Memory, Outside};
use ixgbe_vfio_user::Device;

mod client;
mod hostile;
mod ordinary;

/// Registers: 0x10 the address of the next transfer, 0x14 its length, 0x18 the first four bytes there inverted, 0x1c sends an interrupt,
/// 0x20 sends what is at the address as a frame, 0x24 asks for an interrupt in so many nanoseconds, 0x28 counts resets,
/// 0x2c is 1 after a frame that could not be written to memory, 2 after one that was.
#[derive(Debug, Default)]
struct Toy {
    registers: [u32; 32],
    now_ns: u64,
    due_ns: Option<u64>,
    done: u32,
}

impl Device for Toy {
    fn read32(&mut self, offset: u32) -> u32 {
        self.registers.get(offset as usize / 4).copied().unwrap_or(offset)
    }

    fn write32(&mut self, offset: u32, value: u32, memory: &dyn Memory, outside: &mut dyn Outside) {
        let at = u64::from(self.registers[4]);
        let mut bytes = vec![0; self.registers[5] as usize];
        match offset {
            0x18 => {
                let read = memory.read(at, &mut bytes);
                bytes.iter_mut().for_each(|b| *b = !*b);
                self.done = u32::from(read && memory.write(at, &bytes));
                self.registers[6] = self.done;
                return;
            }
            0x1c => outside.interrupt(value as u16),
            0x20 if memory.read(at, &mut bytes) => outside.transmit(&bytes),
            0x24 => self.due_ns = Some(self.now_ns + u64::from(value)),
            _ => {}
        }
        if let Some(register) = self.registers.get_mut(offset as usize / 4) {
            *register = value;
        }
    }

    fn receive(&mut self, frame: &[u8], memory: &dyn Memory, outside: &mut dyn Outside) -> bool {
        let written = memory.write(u64::from(self.registers[4]), frame);
        self.registers[11] = 1 + u32::from(written);
        outside.interrupt(1);
        written
    }

    fn tick(&mut self, now_ns: u64, _: &dyn Memory, outside: &mut dyn Outside) {
        self.now_ns = now_ns;
        if self.due_ns.is_some_and(|due| due <= now_ns) {
            self.due_ns = None;
            outside.interrupt(2);
        }
    }

    fn next_tick_ns(&self) -> Option<u64> {
        self.due_ns
    }

    fn reset(&mut self) {
        let resets = self.registers[10] + 1;
        *self = Toy { now_ns: self.now_ns, ..Toy::default() };
        self.registers[10] = resets;
    }
}
