//! A chip, memory, a wire; one queue in each direction.
use ix_model_ixgbe::{Chip, Memory, Options, Outside};
use std::cell::RefCell;

pub struct Ram(RefCell<Vec<u8>>);

/// Where RAM begins on the bus.
pub const BASE: u64 = 0x1_0000_0000;
pub const RX_RING: u64 = BASE;
pub const TX_RING: u64 = BASE + 0x1000;
pub const BUFFERS: u64 = BASE + 0x10000;
/// Descriptors of each ring.
pub const RING: u64 = 32;
pub const ENABLE: u32 = 1 << 25;

impl Ram {
    fn range(&self, at: u64, len: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(at.checked_sub(BASE)?).ok()?;
        (start + len <= self.0.borrow().len()).then_some(start..start + len)
    }
}

impl Memory for Ram {
    fn read(&self, at: u64, to: &mut [u8]) -> bool {
        let range = self.range(at, to.len());
        if let Some(range) = range.clone() {
            to.copy_from_slice(&self.0.borrow()[range]);
        }
        range.is_some()
    }

    fn write(&self, at: u64, from: &[u8]) -> bool {
        let range = self.range(at, from.len());
        if let Some(range) = range.clone() {
            self.0.borrow_mut()[range].copy_from_slice(from);
        }
        range.is_some()
    }
}

#[derive(Default)]
pub struct Wire {
    pub sent: Vec<Vec<u8>>,
    pub interrupts: Vec<u16>,
}

impl Outside for Wire {
    fn transmit(&mut self, frame: &[u8]) {
        self.sent.push(frame.to_vec());
    }
    fn interrupt(&mut self, vector: u16) {
        self.interrupts.push(vector);
    }
}

pub struct Rig {
    pub chip: Chip,
    pub ram: Ram,
    pub wire: Wire,
    pub tail: u64,
}

impl Rig {
    /// A chip whose link is up, and nothing else.
    pub fn new(options: Options) -> Rig {
        let ram = Ram(RefCell::new(vec![0; 0x100000]));
        let mut rig = Rig { chip: Chip::new(options), ram, wire: Wire::default(), tail: 0 };
        rig.tick(10_000_000);
        rig
    }

    /// With reception and transmission on queue 0 enabled.
    pub fn running() -> Rig {
        let mut rig = Rig::new(Options::default());
        rig.enable();
        rig
    }

    pub fn enable(&mut self) {
        for (base, ring) in [(0x1000, RX_RING), (0x6000, TX_RING)] {
            self.write(base, ring as u32);
            self.write(base + 4, (ring >> 32) as u32);
            self.write(base + 8, 16 * RING as u32);
        }
        self.write(0x1014, 2 | 1 << 25 | 1 << 28);
        self.write(0x1028, ENABLE);
        self.write(0x4a80, 1);
        self.write(0x6028, ENABLE);
        self.write(0x5080, 1 << 10);
        for slot in 0..RING {
            self.post(slot, BUFFERS + 2048 * slot);
        }
        self.write(0x1018, RING as u32 - 1);
        self.write(0x3000, 1);
    }

    /// A receive descriptor.
    pub fn post(&self, slot: u64, address: u64) {
        self.store(RX_RING + 16 * slot, address);
        self.store(RX_RING + 16 * slot + 8, 0);
    }

    pub fn read(&mut self, offset: u32) -> u32 {
        self.chip.read32(offset)
    }

    pub fn write(&mut self, offset: u32, value: u32) {
        self.chip.write32(offset, value, &self.ram, &mut self.wire);
    }

    pub fn tick(&mut self, now: u64) {
        self.chip.tick(now, &self.ram, &mut self.wire);
    }

    pub fn receive(&mut self, frame: &[u8]) -> bool {
        self.chip.receive(frame, &self.ram, &mut self.wire)
    }

    pub fn store(&self, at: u64, word: u64) {
        assert!(self.ram.write(at, &word.to_le_bytes()));
    }

    pub fn load(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        assert!(self.ram.read(at, &mut bytes));
        u64::from_le_bytes(bytes)
    }

    pub fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert!(self.ram.read(at, &mut bytes));
        bytes
    }

    /// Both words of a receive descriptor.
    pub fn received(&self, slot: u64) -> [u64; 2] {
        [self.load(RX_RING + 16 * slot), self.load(RX_RING + 16 * slot + 8)]
    }

    /// Queues transmit descriptors and shows them; what left.
    pub fn send(&mut self, descriptors: &[[u64; 2]]) -> Vec<Vec<u8>> {
        for [low, high] in descriptors {
            let at = TX_RING + 16 * (self.tail % RING);
            self.store(at, *low);
            self.store(at + 8, *high);
            self.tail += 1;
        }
        self.write(0x6018, (self.tail % RING) as u32);
        std::mem::take(&mut self.wire.sent)
    }

    /// Bytes in memory for the chip to read; where.
    pub fn place(&self, bytes: &[u8]) -> u64 {
        assert!(self.ram.write(BUFFERS + 0x80000, bytes));
        BUFFERS + 0x80000
    }
}

/// The one's complement sum.
pub fn sum(bytes: &[u8]) -> u16 {
    let total = bytes
        .chunks(2)
        .fold(0_u32, |s, p| s + (u32::from(p[0]) << 8) + u32::from(*p.get(1).unwrap_or(&0)));
    let total = (total & 0xffff) + (total >> 16);
    ((total & 0xffff) + (total >> 16)) as u16
}

/// TCP over IPv4 from 10.0.0.1 to 10.0.0.2 with this payload; no sums.
pub fn tcp(payload: &[u8]) -> Vec<u8> {
    let mut f = vec![0; 54];
    f.extend(payload);
    f[..6].copy_from_slice(&Options::default().mac);
    f[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    f[12..14].copy_from_slice(&[8, 0]);
    f[14] = 0x45;
    let total = f.len() as u16 - 14;
    f[16..18].copy_from_slice(&total.to_be_bytes());
    f[18..20].copy_from_slice(&[0x12, 0x34]);
    (f[22], f[23]) = (64, 6);
    f[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    f[34..38].copy_from_slice(&[0x12, 0x34, 0, 80]);
    f[38..42].copy_from_slice(&1000_u32.to_be_bytes());
    f[46] = 0x50;
    f[47] = 0x19; // ACK, PSH, FIN
    f
}

/// Whether both sums of a frame of [`tcp`]'s kind are right.
pub fn is_right(f: &[u8]) -> bool {
    let len = (f.len() - 34) as u16;
    let mut pseudo = f[26..34].to_vec();
    pseudo.extend([0, 6]);
    pseudo.extend(len.to_be_bytes());
    pseudo.extend(&f[34..]);
    sum(&f[14..34]) == 0xffff && sum(&pseudo) == 0xffff
}
