//! A CPU that has all (numbers put together by hand, reserved bits as SDM appendix A tells), and the same
//! with each control taken away.

use super::*;
use crate::vmx::control::{entry, exit, pin, primary, secondary};
use std::format;
use std::string::ToString;
use std::vec::Vec;

/// Reserved controls that must be 1 even with the "TRUE" MSRs (SDM A.3.1, A.3.2, A.4, A.5).
const PIN_MUST: u32 = 0x16;
const PRIMARY_MUST: u32 = 0x0400_6172;
const EXIT_MUST: u32 = 0x0003_6DFB;
const ENTRY_MUST: u32 = 0x0000_11FB;

fn allowed(must: u32, may: u32) -> u64 {
    u64::from(may) << 32 | u64::from(must)
}

fn good() -> Msrs {
    Msrs {
        basic: 0x00D8_1000_0000_0012 | 1 << 55,
        misc: 0x7004_C1E5,
        pin: allowed(PIN_MUST, 0xFF),
        primary: allowed(PRIMARY_MUST, 0xFFF9_FFFE),
        secondary: allowed(0, 0x00BB_FFFF),
        exit: allowed(EXIT_MUST, 0x01FF_FFFF),
        entry: allowed(ENTRY_MUST, 0x0003_FFFF),
        ept_vpid: 0xF01_0673_4141,
    }
}

const ALL: Instructions = Instructions { rdtscp: true, invpcid: true, xsaves: true };

#[test]
fn a_cpu_that_has_all_gets_what_is_wanted() {
    let c = choose(&good(), ALL).unwrap();
    assert_eq!(c.pin, PIN_MUST | 1 << 3 | 1 << 5 | 1 << 6);
    let primary_on = 1 << 10 | 1 << 11 | 1 << 23 | 1 << 25 | 1 << 28 | 1 << 29 | 1 << 31;
    assert_eq!(c.primary, PRIMARY_MUST | primary_on);
    assert_eq!(
        c.secondary,
        1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 12 | 1 << 15 | 1 << 20
    );
    assert_eq!(c.exit, EXIT_MUST | 1 << 2 | 1 << 9 | 0x1F << 18);
    assert_eq!(c.entry, ENTRY_MUST | 1 << 2 | 1 << 14 | 1 << 15);
}

#[test]
fn optional_instructions_follow_cpuid_and_the_cpu() {
    let none = choose(&good(), Instructions::default()).unwrap();
    assert!(!none.has_secondary(secondary::RDTSCP));
    assert_eq!(none.secondary & (secondary::INVPCID | secondary::XSAVES), 0);
    let mut old = good();
    old.secondary = allowed(0, secondary::EPT | secondary::UNRESTRICTED);
    let c = choose(&old, ALL).unwrap();
    assert_eq!(c.secondary, secondary::EPT | secondary::UNRESTRICTED, "no VPID: it goes without");
}

/// Each control that is asked for, taken away: named, and nothing else is.
#[test]
fn whatever_is_missing_is_named() {
    for (group, bit, name) in [
        (Group::Pin, pin::NMI, "NMI exiting"),
        (Group::Pin, pin::VIRTUAL_NMIS, "virtual NMIs"),
        (Group::Pin, pin::PREEMPTION_TIMER, "VMX-preemption timer"),
        (Group::Primary, primary::MSR_BITMAPS, "MSR bitmaps"),
        (Group::Primary, primary::IO_BITMAPS, "I/O bitmaps"),
        (Group::Primary, primary::NMI_WINDOW, "NMI-window exiting"),
        (Group::Secondary, secondary::EPT, "EPT"),
        (Group::Secondary, secondary::UNRESTRICTED, "unrestricted guest"),
        (Group::Exit, exit::LOAD_EFER, "loading of IA32_EFER at exits"),
        (Group::Exit, exit::SAVE_TIMER, "saving of the preemption timer at exits"),
        (Group::Entry, entry::GUEST_64, "IA-32e mode guest"),
    ] {
        let mut m = good();
        let msr = match group {
            Group::Pin => &mut m.pin,
            Group::Primary => &mut m.primary,
            Group::Secondary => &mut m.secondary,
            Group::Exit => &mut m.exit,
            Group::Entry => &mut m.entry,
        };
        *msr &= !(u64::from(bit) << 32);
        assert_eq!(choose(&m, ALL).unwrap_err().to_string(), name);
    }
}

#[test]
fn what_cannot_be_switched_off_is_named() {
    let mut m = good();
    m.primary |= u64::from(primary::HLT | primary::CR3_LOAD);
    m.pin |= u64::from(pin::EXTERNAL_INTERRUPT);
    m.secondary &= !(u64::from(secondary::EPT) << 32);
    let said = choose(&m, ALL).unwrap_err().to_string();
    let want = "no way to switch off external-interrupt exiting, no way to switch off HLT exiting, \
                no way to switch off CR3-load exiting, EPT";
    assert_eq!(said, want);
}

#[test]
fn what_is_no_control_is_named_too() {
    for (spoil, want) in [
        (
            (|m: &mut Msrs| m.basic &= !(1 << 55)) as fn(&mut Msrs),
            "capability MSRs with the default-1 controls",
        ),
        (|m| m.ept_vpid &= !(1 << 6), "EPT of four levels"),
        (|m| m.ept_vpid &= !(1 << 14), "write-back EPT tables"),
        (|m| m.ept_vpid &= !(1 << 20), "INVEPT"),
        (|m| m.misc &= !(1 << 6), "entry of a halted guest"),
        (|m| m.basic &= !(0xF << 50), "a write-back VMCS"),
    ] {
        let mut m = good();
        spoil(&mut m);
        assert_eq!(format!("{}", choose(&m, ALL).unwrap_err()), want);
    }
}

#[test]
fn only_msrs_that_exist_are_read() {
    let read = |msrs: &Msrs| {
        let mut asked = Vec::new();
        let found = Msrs::read(|msr| {
            asked.push(msr);
            match msr {
                0x480 => msrs.basic,
                0x485 => msrs.misc,
                0x48B => msrs.secondary,
                0x48C => msrs.ept_vpid,
                0x48D => msrs.pin,
                0x48E => msrs.primary,
                0x48F => msrs.exit,
                0x490 => msrs.entry,
                _ => panic!("{msr:#x}"),
            }
        });
        (asked, found)
    };
    assert_eq!(read(&good()).1, good());
    let old = Msrs { basic: 1, ..good() };
    assert_eq!(read(&old).0, [0x480, 0x485]);
    let mut plain = good();
    plain.primary &= !(u64::from(primary::SECONDARY) << 32);
    let (asked, found) = read(&plain);
    assert!(!asked.contains(&0x48B) && !asked.contains(&0x48C));
    let said = choose(&found, ALL).unwrap_err().to_string();
    assert_eq!(said, "secondary controls, EPT, unrestricted guest");
}

/// The value never has a bit that the CPU does not allow, nor lacks one that it demands.
#[test]
fn adjusted_values_are_always_allowed() {
    let mut x = 0x9E37_79B9_7F4A_7C15u64;
    let mut rnd = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u32
    };
    let mut fits = 0;
    for _ in 0..100_000 {
        let may = rnd() | rnd() | rnd();
        let must = rnd() & rnd() & rnd() & may;
        let off = rnd() & rnd() & rnd() & rnd();
        let on = rnd() & rnd() & rnd() & rnd() & !off;
        let later = rnd() & rnd() & rnd() & rnd() & rnd() & !off & !on;
        let want = Wanted { on, optional: rnd() & !off & !later, later, off };
        match want.adjust(Allowed(allowed(must, may))) {
            Ok(v) => {
                fits += 1;
                assert_eq!((v & !may, must & !v, on & !v, v & (off | later)), (0, 0, 0, 0));
                assert_eq!(want.optional & may & !v, 0);
            }
            Err(l) => {
                assert_eq!(l.missing, (on | later) & !may);
                assert_eq!(l.forced, (off | later) & must);
                assert!(l != Lacking::default());
            }
        }
    }
    assert!(fits > 100, "{fits}");
}

#[test]
fn feature_control_says_what_to_do() {
    assert_eq!(FeatureControl::from_msr(5), FeatureControl::On);
    assert_eq!(FeatureControl::from_msr(0xFF07), FeatureControl::On);
    assert_eq!(FeatureControl::from_msr(1), FeatureControl::LockedOff);
    assert_eq!(FeatureControl::from_msr(3), FeatureControl::LockedOff);
    assert_eq!(FeatureControl::from_msr(0), FeatureControl::Write(5));
    assert_eq!(FeatureControl::from_msr(1 << 20), FeatureControl::Write(1 << 20 | 5));
}

#[test]
fn control_registers_are_fixed_as_the_msrs_say() {
    let cr0 = Fixed::from_msrs(0x8000_0021, 0xFFFF_FFFF);
    assert_eq!(cr0.apply(0), 0x8000_0021);
    assert!(!cr0.allows(0x20) && cr0.unrestricted().allows(0x20));
    assert!(!cr0.unrestricted().allows(0), "NE stays");
    assert!(!cr0.allows(1 << 40 | 0x8000_0021));
    let cr4 = Fixed::from_msrs(0x2000, 0x0037_67FF);
    assert_eq!(cr4.apply(0x1000_0020), 0x2020);
}

#[test]
fn the_numbers_of_a_skylake_are_read() {
    // IA32_VMX_EPT_VPID_CAP as this model has it.
    let e = EptVpid(0xF01_0673_4141);
    assert!(e.execute_only() && e.four_levels() && e.tables_write_back() && e.tables_uncached());
    assert!(e.large_pages() && e.huge_pages() && e.accessed_and_dirty());
    assert!(e.invept_single() && e.invept_all() && e.invvpid_single() && e.invvpid_all());
    // And an older one: neither huge pages nor accessed and dirty bits.
    let e = EptVpid(0xF01_0611_4141);
    assert!(e.large_pages() && !e.huge_pages() && !e.accessed_and_dirty());
    let b = Basic(0x00DA_0400_0000_0004);
    assert_eq!((b.revision(), b.region_bytes()), (4, 1024));
    assert!(b.regions_are_write_back() && b.has_true_controls() && b.tells_string_io());
    assert!(!b.addresses_are_32_bit());
}

#[test]
fn the_timer_is_never_zero_and_never_wraps() {
    let m = Misc(5);
    assert_eq!(m.timer_value(100_000, 3_000_000), 9_375_000);
    assert_eq!(m.timer_value(0, 3_000_000), 1);
    assert_eq!(m.timer_value(1, 1), 1);
    assert_eq!(m.timer_value(u64::MAX, u32::MAX), u32::MAX);
    assert_eq!(Misc(0).timer_value(10, 1000), 10);
    assert_eq!(Misc(31).timer_value(10_000_000, 3_000_000), 14);
}
