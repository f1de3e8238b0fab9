//! A machine of three functions, of which a dataplane has one, and a kernel that looks for it.

use super::*;
use std::collections::BTreeMap;
use std::format;

const NIC: Bdf = Bdf(0x0018);

/// A NIC with a 128 KiB 64-bit BAR above 4 GiB, I/O ports, a 16 KiB BAR, MSI-X, PCIe and power
/// management.
fn space() -> [u32; 64] {
    let mut s = [0u32; 64];
    s[0] = 0x10FB_8086;
    s[1] = 0x0010_0007;
    s[2] = 0x0200_0001;
    s[4] = 0xE000_000C;
    s[5] = 0x0000_0012;
    s[6] = 0x0000_C001;
    s[7] = 0xFEBC_0000;
    s[0x34 / 4] = 0x40;
    s[0x40 / 4] = 0x0003_5001;
    s[0x50 / 4] = 0x0080_7005;
    s[0x70 / 4] = 0x8003_A011;
    s[0xA0 / 4] = 0x0002_0010;
    s
}

fn lens(slot: u8) -> u64 {
    [0x2_0000, 0, 0, 0x4000, 0, 0][usize::from(slot)]
}

struct Machine {
    filter: Filter,
    spaces: BTreeMap<Bdf, [u32; 64]>,
    dropped: u32,
}

impl Machine {
    fn new() -> Self {
        let spaces = BTreeMap::from([(Bdf(0x10), [7; 64]), (NIC, space()), (Bdf(0x19), [9; 64])]);
        let mut filter = Filter::new();
        let nic = Function::owned(NIC, |o| spaces[&NIC][usize::from(o) / 4], lens);
        assert!(filter.add(nic));
        Self { filter, spaces, dropped: 0 }
    }

    fn read(&mut self, bdf: Bdf, offset: u8) -> u32 {
        assert_eq!(self.filter.output(0xCF8, 4, bdf.address(offset)), Action::Dropped);
        match self.filter.input(0xCFC, 4) {
            Action::Answer(v) => v,
            Action::Read { function, offset: o } => {
                assert_eq!((function, o), (bdf, offset));
                self.spaces[&function][usize::from(o) / 4]
            }
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, bdf: Bdf, offset: u8, value: u32) -> Action {
        self.filter.output(0xCF8, 4, bdf.address(offset));
        let action = self.filter.output(0xCFC, 4, value);
        match action {
            Action::Write { function, offset: o, value } => {
                assert_eq!((function, o), (bdf, offset));
                self.spaces.get_mut(&bdf).unwrap()[usize::from(o) / 4] = value;
            }
            Action::Dropped => self.dropped += 1,
            _ => {}
        }
        action
    }
}

#[test]
fn a_scan_finds_what_is_listed_and_nothing_else() {
    let mut m = Machine::new();
    let all: std::vec::Vec<Bdf> =
        (0..=0xFFFF).map(Bdf).filter(|b| m.read(*b, 0) as u16 != 0xFFFF).collect();
    assert_eq!(all, [NIC]);
    assert_eq!(m.read(Bdf(0x10), 0x3C), u32::MAX);
    for offset in (0..=0xFC).step_by(4) {
        assert_eq!(m.write(Bdf(0x10), offset, 0), Action::Dropped, "somebody else's");
        assert_eq!(m.write(Bdf(0x19), offset, 0), Action::Dropped);
    }
}

/// What pci_types does to find a BAR's size, in its order.
#[test]
fn sizing_finds_the_sizes_and_touches_nothing() {
    let mut m = Machine::new();
    let before = m.spaces.clone();
    assert_eq!((m.read(NIC, 0x10), m.read(NIC, 0x14)), (0xE000_000C, 0x12));
    assert_eq!(m.write(NIC, 0x10, u32::MAX), Action::Dropped);
    assert_eq!(m.write(NIC, 0x14, u32::MAX), Action::Dropped);
    assert_eq!((m.read(NIC, 0x10), m.read(NIC, 0x14)), (0xFFFE_000C, u32::MAX));
    assert_eq!(m.write(NIC, 0x10, 0xE000_0000), Action::Dropped, "without the type bits");
    assert_eq!(m.write(NIC, 0x14, 0x12), Action::Dropped);
    assert_eq!((m.read(NIC, 0x10), m.read(NIC, 0x14)), (0xE000_000C, 0x12));
    assert_eq!(m.read(NIC, 0x18), 0, "I/O ports are hidden");
    assert_eq!(m.write(NIC, 0x18, u32::MAX), Action::Dropped);
    assert_eq!(m.read(NIC, 0x18), 0);
    m.write(NIC, 0x1C, u32::MAX);
    assert_eq!(m.read(NIC, 0x1C), 0xFFFF_C000);
    m.filter.reset();
    assert_eq!(m.read(NIC, 0x1C), 0xFEBC_0000, "a new life sees it as it was");
    assert_eq!(m.spaces, before);
}

#[test]
fn a_bar_cannot_be_moved() {
    for (offset, value) in [(0x10, 0xE010_0000), (0x14, 0), (0x14, 0x13), (0x1C, 0xFEBC_4000)] {
        let mut m = Machine::new();
        let want = Refusal::MovesBar { function: NIC, offset, value };
        assert_eq!(m.write(NIC, offset, value), Action::Refuse(want), "{offset:#x}");
        assert_eq!(m.spaces[&NIC], space());
        m.filter.output(0xCF8, 4, NIC.address(offset));
        assert_eq!(m.filter.output(0xCFC, 2, 0), Action::Refuse(Refusal::Crooked), "by halves");
    }
}

#[test]
fn bus_master_and_msi_x_get_through_and_the_rest_does_not() {
    let mut m = Machine::new();
    let write = |offset, value| Action::Write { function: NIC, offset, value };
    assert_eq!(m.write(NIC, 4, 0x0010_0407), write(4, 0x0010_0407));
    assert_eq!(m.write(NIC, 4, 0xFFFF), write(4, 0x0557), "no VGA snooping, no reserved bits");
    assert_eq!(m.write(NIC, 0x70, 0xC003_A011), write(0x70, 0xC003_A011));
    assert_eq!(m.write(NIC, 0x44, 0), write(0x44, 0), "power state");
    for offset in (0x50..0x60).step_by(4) {
        assert_eq!(m.write(NIC, offset, 1), write(offset, 1), "MSI");
    }
    let open = [4, 0x44, 0x50, 0x54, 0x58, 0x5C, 0x70];
    for offset in (0..=0xFCu8).step_by(4).filter(|o| !open.contains(o)) {
        let action = m.write(NIC, offset, 0xFFFF_FFFF);
        assert_eq!(action, Action::Dropped, "{offset:#x}");
    }
    // The upper half of the command's dword is not masked by the lower half's bits.
    m.filter.output(0xCF8, 4, NIC.address(4));
    assert_eq!(m.filter.output(0xCFE, 2, 0xFFFF), write(6, 0xFFFF));
    assert_eq!(m.filter.output(0xCFD, 1, 0xFF), write(5, 5));
}

#[test]
fn crooked_accesses_and_resets() {
    let mut m = Machine::new();
    m.filter.output(0xCF8, 4, NIC.address(0x10));
    for (port, width) in [(0xCFD, 2), (0xCFD, 4), (0xCFE, 4), (0xCFF, 2), (0xCFC, 3), (0xCFF, 4)] {
        assert_eq!(m.filter.input(port, width), Action::Answer(ones(width)), "{port:#x} {width}");
        let refused = Action::Refuse(Refusal::Crooked);
        assert_eq!(m.filter.output(port, width, 0), refused, "{port:#x} {width}");
    }
    assert_eq!(m.filter.output(0xCF9, 1, 6), Action::Refuse(Refusal::Reset));
    assert_eq!(m.filter.output(0xCF8, 2, 0x600), Action::Refuse(Refusal::Reset));
    assert_eq!(m.filter.output(0xCFB, 1, 0x80), Action::Refuse(Refusal::Crooked));
    assert_eq!(m.filter.input(0xCF9, 1), Action::Answer(0xFF));
    assert_eq!(m.filter.input(0xCF8, 4), Action::Answer(NIC.address(0x10)));
    assert_eq!(m.filter.input(0xCFE, 2), Action::Answer(0xE000), "half of a BAR");
    assert_eq!(m.filter.input(0xCFD, 1), Action::Answer(0));
    m.filter.output(0xCF8, 4, NIC.address(0));
    assert_eq!(m.filter.input(0xCFE, 2), Action::Read { function: NIC, offset: 2 });
    m.filter.output(0xCF8, 4, NIC.address(0) & !ENABLE);
    assert_eq!(m.filter.input(0xCFC, 4), Action::Answer(u32::MAX), "not enabled");
    m.filter.output(0xCF8, 4, NIC.address(0) | 1 << 24);
    assert_eq!(m.filter.input(0xCFC, 4), Action::Answer(u32::MAX), "extended registers");
}

#[test]
fn bridges_can_be_read_only() {
    let mut f = Filter::new();
    assert!(f.add(Function::bridge(Bdf::new(0, 1, 0))));
    assert!(!f.add(Function::bridge(Bdf::new(0, 1, 0))), "twice");
    f.output(0xCF8, 4, Bdf::new(0, 1, 0).address(0x18));
    assert_eq!(f.input(0xCFC, 4), Action::Read { function: Bdf(8), offset: 0x18 });
    for offset in (0..=0xFCu8).step_by(4) {
        f.output(0xCF8, 4, Bdf(8).address(offset));
        assert_eq!(f.output(0xCFC, 4, 0x1234), Action::Dropped);
    }
}

#[test]
fn a_function_1_is_found_behind_an_empty_function_0() {
    let mut m = Machine::new();
    m.filter.functions[0].bdf = Bdf(0x19);
    assert_eq!(m.read(Bdf(0x18), 0), 0x0001_FFFE);
    assert_eq!(m.read(Bdf(0x18), 0xC) >> 23 & 1, 1, "multifunction");
    assert_eq!(m.read(Bdf(0x18), 0x8) >> 24, 0xFF);
    assert_eq!(m.read(Bdf(0x1A), 0), u32::MAX);
    assert_eq!(m.write(Bdf(0x18), 4, 7), Action::Dropped);
}

#[test]
fn names_of_functions() {
    assert_eq!(Bdf::parse("00:03.0"), Some(NIC));
    assert_eq!(Bdf::parse("ff:1f.7"), Some(Bdf(0xFFFF)));
    for bad in ["", "0:3.0", "00:20.0", "00:03.8", "00:03", "00:03.00", "+0:03.0", "0000:00:03.0"] {
        assert_eq!(Bdf::parse(bad), None, "{bad}");
    }
    assert_eq!(format!("{}", Bdf(0x3A19)), "3a:03.1");
}

/// Whatever a guest does to the ports: only its function is touched, and never a BAR.
#[test]
fn random_accesses_never_leave_the_function() {
    let mut x = 0x2545_F491_4F6C_DD1Du64;
    let mut rnd = |n: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x % n
    };
    let mut m = Machine::new();
    let mut writes = 0;
    for _ in 0..300_000 {
        let near = NIC.address(0) ^ (rnd(0x400) as u32);
        let (port, width) = (0xCF8 + rnd(8) as u16, [1, 2, 4][rnd(3) as usize]);
        let value = if rnd(2) == 0 { near } else { rnd(1 << 32) as u32 };
        if rnd(3) == 0 {
            if let Action::Read { function, .. } = m.filter.input(port, width) {
                assert_eq!(function, NIC);
            }
        } else if let Action::Write { function, offset, value } =
            m.filter.output(port, width, value)
        {
            writes += 1;
            assert_eq!(function, NIC);
            assert!(offset & 0xFC == 4 || offset >= 0x40, "{offset:#x}");
            assert_eq!(value & !ones(width), 0);
        }
        m.filter.output(0xCF8, 4, near);
    }
    assert!(writes > 1000, "{writes}");
}
