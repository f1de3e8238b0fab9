//! The device's side of a split queue, written from virtio 1.2 §2.7 and not from the driver. What
//! the driver may not do ends the test.
use super::memory::Memory;
use std::sync::Arc;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A descriptor chain that the device has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub head: u16,
    pub readable: Vec<(u64, u32)>,
    pub writable: Vec<(u64, u32)>,
}

#[derive(Default)]
pub struct Queue {
    pub size: u16,
    pub vector: u16,
    pub enabled: bool,
    pub desc: u64,
    pub driver: u64,
    pub device: u64,
    /// The device has lied in this queue: it can no longer hold the driver to the ring's limits, but
    /// still to the memory that it was given.
    pub lied: bool,
    taken: u16,
    used: u16,
}

struct Descriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

fn descriptor(memory: &Memory, at: u64) -> Descriptor {
    let bytes = memory.read(at, 16);
    Descriptor {
        addr: u64::from_le_bytes(bytes[..8].try_into().unwrap()),
        len: u32::from_le_bytes(bytes[8..12].try_into().unwrap()),
        flags: u16::from_le_bytes(bytes[12..14].try_into().unwrap()),
        next: u16::from_le_bytes(bytes[14..16].try_into().unwrap()),
    }
}

impl Queue {
    pub fn enable(&mut self, memory: &Memory) {
        let n = u64::from(self.size);
        assert!(self.size.is_power_of_two());
        assert!(
            self.desc.is_multiple_of(16)
                && self.driver.is_multiple_of(2)
                && self.device.is_multiple_of(4),
            "§2.7"
        );
        memory.check(self.desc, 16 * n as usize);
        memory.check(self.driver, 6 + 2 * n as usize);
        memory.check(self.device, 6 + 8 * n as usize);
        self.enabled = true;
    }

    /// Entries that the driver has made available and the device has not taken.
    pub fn available(&self, memory: &Memory) -> u16 {
        let count = memory.load16(self.driver + 2).wrapping_sub(self.taken);
        assert!(self.lied || count <= self.size, "more entries available than the queue has");
        count
    }

    pub fn take(&mut self, memory: &Memory) -> Option<Chain> {
        if !self.enabled || self.available(memory) == 0 {
            return None;
        }
        let entry = self.driver + 4 + 2 * u64::from(self.taken % self.size);
        let head = memory.load16(entry);
        self.taken = self.taken.wrapping_add(1);
        Some(self.walk(memory, head))
    }

    fn walk(&self, memory: &Memory, head: u16) -> Chain {
        let mut chain = Chain { head, readable: Vec::new(), writable: Vec::new() };
        let (mut table, mut entries, mut at) = (self.desc, u64::from(self.size), u64::from(head));
        let mut count = 0;
        loop {
            assert!(at < entries, "descriptor index {at} of {entries}");
            let d = descriptor(memory, table + 16 * at);
            if d.flags & INDIRECT != 0 {
                assert!(d.flags & NEXT == 0, "§2.7.5.3.1: INDIRECT and NEXT");
                assert!(table == self.desc, "§2.7.5.3.1: a table in a table");
                assert!(d.len.is_multiple_of(16) && d.len > 0);
                memory.check(d.addr, d.len as usize);
                (table, entries, at) = (d.addr, u64::from(d.len / 16), 0);
                continue;
            }
            count += 1;
            if self.lied && count > self.size {
                return chain;
            }
            assert!(count <= self.size, "chain longer than the queue");
            assert!(d.len > 0, "a buffer without bytes");
            memory.check(d.addr, d.len as usize);
            if d.flags & WRITE != 0 {
                chain.writable.push((d.addr, d.len));
            } else {
                assert!(chain.writable.is_empty(), "§2.7.4.2: readable behind writable");
                chain.readable.push((d.addr, d.len));
            }
            if d.flags & NEXT == 0 {
                return chain;
            }
            at = u64::from(d.next);
        }
    }

    /// Completes a chain. Any id and length will do, so that a device can lie.
    pub fn complete(&mut self, memory: &Memory, id: u32, len: u32) {
        self.write_used(memory, self.used, id, len);
        self.used = self.used.wrapping_add(1);
        memory.store16(self.device + 2, self.used);
    }

    /// Writes an entry of the used ring without telling.
    pub fn write_used(&self, memory: &Memory, position: u16, id: u32, len: u32) {
        let at = self.device + 4 + 8 * u64::from(position % self.size);
        let bytes = [id.to_le_bytes(), len.to_le_bytes()].concat();
        memory.write(at, &bytes);
    }

    /// Moves the used index by any number.
    pub fn jump(&mut self, memory: &Memory, by: u16) {
        self.used = self.used.wrapping_add(by);
        memory.store16(self.device + 2, self.used);
    }

    pub fn used(&self) -> u16 {
        self.used
    }

    /// Says whether the device wants notifications.
    pub fn want_notifications(&self, memory: &Memory, wanted: bool) {
        memory.store16(self.device, u16::from(!wanted));
    }

    pub fn wants_interrupt(&self, memory: &Memory) -> bool {
        memory.load16(self.driver) & 1 == 0
    }
}

/// Copies of what a transmit chain holds.
pub fn gather(memory: &Arc<Memory>, chain: &Chain) -> Vec<u8> {
    chain.readable.iter().flat_map(|(bus, len)| memory.read(*bus, *len as usize)).collect()
}

/// Writes bytes into a receive chain; how many fitted.
pub fn scatter(memory: &Arc<Memory>, chain: &Chain, mut bytes: &[u8]) -> u32 {
    let mut written = 0;
    for (bus, len) in &chain.writable {
        let part = bytes.len().min(*len as usize);
        memory.write(*bus, &bytes[..part]);
        bytes = &bytes[part..];
        written += part as u32;
    }
    written
}
