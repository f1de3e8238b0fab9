//! The module's EEPROM, read over the two lines of I2CCTL as drivers do.
use crate::rig::Rig;
use ix_model_ixgbe::{Faults, Options};

const I2CCTL: u32 = 0x28;
const CLOCK: u32 = 1 << 1;
const DATA: u32 = 1 << 3;

struct Bus<'a>(&'a mut Rig, u32);

impl Bus<'_> {
    fn set(&mut self, line: u32, high: bool) {
        self.1 = if high { self.1 | line } else { self.1 & !line };
        self.0.write(I2CCTL, self.1);
    }

    fn start(&mut self) {
        self.set(DATA, true);
        self.set(CLOCK, true);
        self.set(DATA, false);
        self.set(CLOCK, false);
    }

    fn stop(&mut self) {
        self.set(DATA, false);
        self.set(CLOCK, true);
        self.set(DATA, true);
    }

    fn bit(&mut self, high: bool) -> bool {
        self.set(DATA, high);
        self.set(CLOCK, true);
        assert!(self.0.read(I2CCTL) & 1 != 0, "the clock is not stretched");
        let bit = self.0.read(I2CCTL) & 1 << 2 != 0;
        self.set(CLOCK, false);
        bit
    }

    /// Whether it was acknowledged.
    fn send(&mut self, byte: u8) -> bool {
        (0..8).for_each(|i| _ = self.bit(byte << i & 0x80 != 0));
        !self.bit(true)
    }

    fn receive(&mut self, more: bool) -> u8 {
        let byte = (0..8).fold(0, |byte, _| byte << 1 | u8::from(self.bit(true)));
        self.bit(!more);
        byte
    }

    fn read(&mut self, target: u8, offset: u8, len: usize) -> Option<Vec<u8>> {
        self.start();
        if !self.send(target) {
            return None;
        }
        assert!(self.send(offset));
        self.start();
        assert!(self.send(target | 1));
        let bytes = (0..len).map(|i| self.receive(i + 1 < len)).collect();
        self.stop();
        Some(bytes)
    }
}

#[test]
fn the_module_says_what_it_is() {
    let mut rig = Rig::new(Options::default());
    let mut bus = Bus(&mut rig, CLOCK | DATA);
    assert_eq!(bus.read(0xa0, 0, 1), Some(vec![3]), "SFP");
    assert_eq!(bus.read(0xa0, 3, 1), Some(vec![0x10]), "10GBASE-SR");
    assert_eq!(bus.read(0xa0, 37, 3), Some(vec![0x00, 0x1b, 0x21]), "Intel's");
    let all = bus.read(0xa0, 0, 96).unwrap();
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!((all[63], all[95]), (sum(&all[..63]), sum(&all[64..95])));
    assert_eq!(bus.read(0xa2, 96, 1), Some(vec![35]), "degrees");
    assert_eq!(bus.read(0x50, 0, 1), None, "nobody else is there");
    assert_eq!(bus.read(0xa0, 0, 1), Some(vec![3]));
    assert_eq!(bus.0.read(I2CCTL) & 5, 5, "both lines are free");
}

#[test]
fn an_empty_cage_does_not_answer() {
    let faults = Faults { no_module: true, ..Faults::default() };
    let mut rig = Rig::new(Options { faults, ..Options::default() });
    assert_eq!(rig.read(0x20) & 4, 0, "ESDP");
    assert_eq!(Bus(&mut rig, CLOCK | DATA).read(0xa0, 0, 1), None);
    rig.chip.set_module(true);
    assert_eq!(rig.read(0x20) & 4, 4);
    assert_eq!(Bus(&mut rig, CLOCK | DATA).read(0xa0, 0, 1), Some(vec![3]));
}
