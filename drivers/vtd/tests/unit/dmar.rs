use ix_vtd::SourceId;
use ix_vtd::dmar::{UnitPlace, unit_of, units};
use proptest::prelude::*;

/// A table of such structures.
fn table(structures: &[Vec<u8>]) -> Vec<u8> {
    let mut table = b"DMAR\0\0\0\0\x01".to_vec();
    table.resize(48, 0);
    table.extend(structures.concat());
    let len = table.len() as u32;
    table[4..8].copy_from_slice(&len.to_le_bytes());
    table
}

fn drhd(base: u64, segment: u16, all: bool, scopes: &[Vec<u8>]) -> Vec<u8> {
    let scopes = scopes.concat();
    let len = 16 + scopes.len() as u16;
    let mut s =
        [&[0, 0][..], &len.to_le_bytes(), &[u8::from(all), 0], &segment.to_le_bytes()].concat();
    s.extend(base.to_le_bytes());
    s.extend(scopes);
    s
}

fn scope(kind: u8, bus: u8, path: &[(u8, u8)]) -> Vec<u8> {
    let mut s = vec![kind, 6 + 2 * path.len() as u8, 0, 0, 0, bus];
    s.extend(path.iter().flat_map(|(device, function)| [*device, *function]));
    s
}

/// 00:1c.0 leads to buses 1 to 4, 01:02.0 to bus 3.
fn bridges(at: SourceId) -> Option<(u8, u8)> {
    match at {
        a if a == SourceId::new(0, 0x1c, 0) => Some((1, 4)),
        a if a == SourceId::new(1, 2, 0) => Some((3, 3)),
        _ => None,
    }
}

#[test]
fn the_unit_is_the_one_that_names_the_function_or_its_bridge_else_the_one_for_the_rest() {
    let rmrr = vec![1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let table = table(&[
        drhd(0xfed9_0000, 0, true, &[]),
        drhd(0xfed9_1000, 0, false, &[scope(1, 0, &[(2, 0)]), scope(3, 0, &[(31, 0)])]),
        rmrr,
        drhd(0xfed9_2000, 0, false, &[scope(1, 0, &[(0x1c, 0), (2, 0), (5, 1)])]),
        drhd(0xfed9_3000, 0, false, &[scope(2, 0, &[(0x1c, 0)])]),
        drhd(0xfed9_4000, 1, true, &[]),
        drhd(0xfed9_4004, 0, true, &[]),
    ]);
    let base = |segment, bus, device, function| {
        let unit = unit_of(&table, segment, SourceId::new(bus, device, function), &bridges);
        unit.map(|unit| unit.base & 0xffff)
    };
    assert_eq!(base(0, 0, 2, 0), Some(0x1000));
    assert_eq!(base(0, 3, 5, 1), Some(0x2000), "by its path through two bridges");
    assert_eq!(base(0, 3, 5, 0), Some(0x3000), "behind the first");
    assert_eq!(base(0, 2, 1, 0), Some(0x3000));
    assert_eq!(base(0, 5, 0, 0), Some(0x0000));
    assert_eq!(base(0, 0, 31, 0), Some(0x0000), "an interrupt controller's scope is no function's");
    assert_eq!(base(1, 0, 2, 0), Some(0x4000));
    assert_eq!(base(2, 0, 2, 0), None);
    assert_eq!(units(&table).count(), 5, "the last one's registers are no page");
}

#[test]
fn what_the_intel_iommu_of_qemu_says() {
    // One unit for everything, an I/O APIC named.
    let table = table(&[drhd(0xfed9_0000, 0, true, &[scope(3, 0xff, &[(0, 0)])])]);
    let unit = UnitPlace { base: 0xfed9_0000, segment: 0, sees_rest: true };
    assert_eq!(unit_of(&table, 0, SourceId::new(0, 2, 0), &|_| None), Some(unit));
}

proptest! {
    #[test]
    fn nonsense_is_survived(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        small in any::<bool>(),
        who in any::<u16>(),
    ) {
        if small {
            // Types and lengths of which some are sensible.
            bytes.iter_mut().skip(48).for_each(|byte| *byte &= 0x1b);
        }
        let _ = unit_of(&bytes, 0, SourceId(who), &|at| Some((at.bus(), 255)));
        for (unit, _) in units(&bytes) {
            prop_assert!(unit.base.is_multiple_of(4096) && unit.base != 0);
        }
    }
}
