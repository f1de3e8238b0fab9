//! The states that a dataplane's cores begin in and a kernel's in 64-bit mode are valid; each with one
//! field spoiled is not, and that field is named.

use super::*;
use std::collections::BTreeMap;
use std::string::ToString;

type State = BTreeMap<Field, u64>;

const LIMITS: Limits = Limits {
    cr0: Fixed { must: 0x20, may: 0xFFFF_FFFF },
    cr4: Fixed { must: 0x2000, may: 0x0037_67FF },
    physical_bits: 39,
};

const SEGMENTS: [Segment; 5] = [DS, ES, FS, GS, SS];

fn put(s: &mut State, fields: Segment, values: [u64; 4]) {
    s.extend(fields.into_iter().zip(values));
}

/// What both beginnings have in common.
fn reset() -> State {
    let mut s = State::from([
        (f::ENTRY_CONTROLS, 0x11FB | 1 << 2 | 1 << 14 | 1 << 15),
        (f::GUEST_CR4, 0x2000),
        (f::GUEST_PAT, 0x0007_0406_0007_0406),
        (f::GUEST_DR7, 0x400),
        (f::GUEST_RFLAGS, 2),
        (f::GUEST_GDTR_LIMIT, 0xFFFF),
        (f::GUEST_IDTR_LIMIT, 0xFFFF),
        (f::VMCS_LINK, u64::MAX),
    ]);
    put(&mut s, TR, [0, 0, 0xFFFF, 0x8B]);
    put(&mut s, LDTR, [0, 0, 0, 0x1_0000]);
    s
}

fn pvh() -> State {
    let mut s = reset();
    put(&mut s, CS, [8, 0, 0xFFFF_FFFF, 0xC09B]);
    SEGMENTS.into_iter().for_each(|d| put(&mut s, d, [0x10, 0, 0xFFFF_FFFF, 0xC093]));
    s.extend([(f::GUEST_CR0, 0x31), (f::GUEST_RIP, 0x20_0000)]);
    s
}

fn startup() -> State {
    let mut s = reset();
    put(&mut s, CS, [0x9E00, 0x9_E000, 0xFFFF, 0x9B]);
    SEGMENTS.into_iter().for_each(|d| put(&mut s, d, [0, 0, 0xFFFF, 0x93]));
    s.insert(f::GUEST_CR0, 0x30);
    s
}

/// The kernel in 64-bit mode, data segments unusable.
fn long() -> State {
    let mut s = reset();
    put(&mut s, CS, [8, 0, 0xFFFF_FFFF, 0xA09B]);
    SEGMENTS.into_iter().for_each(|d| put(&mut s, d, [0, 0, 0, 0x1_0000]));
    put(&mut s, TR, [0x28, 0xFFFF_FFFF_8030_0000, 0x67, 0x8B]);
    s.insert(f::ENTRY_CONTROLS, s[&f::ENTRY_CONTROLS] | 1 << 9);
    s.extend([
        (f::GUEST_CR0, 0x8001_0033),
        (f::GUEST_CR3, 0x41_5000),
        (f::GUEST_CR4, 0x0030_26E0),
        (f::GUEST_EFER, 0xD01),
        (f::GUEST_RIP, 0xFFFF_FFFF_8020_1234),
        (f::GUEST_RFLAGS, 0x202),
        (f::GUEST_GS_BASE, 0xFFFF_8000_0000_0000),
        (f::GUEST_ACTIVITY, 1),
    ]);
    s
}

fn v86() -> State {
    let mut s = pvh();
    for d in SEGMENTS.into_iter().chain([CS]) {
        put(&mut s, d, [0x1234, 0x1_2340, 0xFFFF, 0xF3]);
    }
    s.extend([(f::GUEST_RFLAGS, 0x2_0002), (f::GUEST_RIP, 0x10)]);
    s
}

fn verdict(s: &State) -> Checked {
    check(&|field| s.get(&field).copied().unwrap_or(0), &LIMITS)
}

#[test]
fn valid_states_are_valid() {
    for s in [pvh(), startup(), long(), v86()] {
        assert_eq!(verdict(&s), Ok(()));
    }
    let mut injecting = long();
    injecting.insert(f::ENTRY_INTERRUPTION_INFO, 0x8000_0202);
    assert_eq!(verdict(&injecting), Ok(()));
}

fn spoil(base: fn() -> State, spoils: &[(Field, u64)]) {
    for &(field, value) in spoils {
        let mut s = base();
        s.insert(field, value);
        let found = verdict(&s).expect_err(field.name());
        assert_eq!((found.field, found.value), (field, value), "{found}");
    }
}

#[test]
fn every_field_that_is_not_valid_is_named() {
    spoil(
        long,
        &[
            (f::GUEST_CR0, 0x8001_0013),
            (f::GUEST_CR0, 0x1_8001_0033),
            (f::GUEST_CR0, 0x8001_0032),
            (f::GUEST_CR0, 0x1_0033),
            (f::GUEST_CR4, 0x0030_06E0),
            (f::GUEST_CR4, 0x0030_26C0),
            (f::GUEST_CR4, 0x8030_26E0),
            (f::GUEST_CR3, 1 << 39),
            (f::GUEST_DEBUGCTL, 1 << 16),
            (f::GUEST_DR7, 1 << 32),
            (f::GUEST_SYSENTER_EIP, 1 << 47),
            (f::GUEST_SYSENTER_ESP, 1 << 62),
            (f::GUEST_PAT, 2),
            (f::GUEST_PAT, 3 << 56),
            (f::GUEST_EFER, 0x1D01),
            (f::GUEST_EFER, 0x901),
            (f::GUEST_EFER, 0xC01),
            (f::GUEST_TR_SELECTOR, 0x2C),
            (f::GUEST_TR_BASE, 1 << 47),
            (f::GUEST_TR_ACCESS, 0x83),
            (f::GUEST_TR_ACCESS, 0x1_008B),
            (f::GUEST_TR_ACCESS, 0x0B),
            (f::GUEST_TR_ACCESS, 0x9B),
            (f::GUEST_TR_LIMIT, 0x10_0000),
            (f::GUEST_GS_BASE, 1 << 47),
            (f::GUEST_FS_BASE, 1 << 50),
            (f::GUEST_CS_BASE, 1 << 32),
            (f::GUEST_CS_ACCESS, 0xE09B),
            (f::GUEST_CS_ACCESS, 0xA093 & !1),
            (f::GUEST_CS_ACCESS, 0x1_A09B),
            (f::GUEST_CS_ACCESS, 0xA01B),
            (f::GUEST_CS_ACCESS, 0xA19B),
            (f::GUEST_CS_ACCESS, 0xA08B),
            (f::GUEST_CS_ACCESS, 0xA0FB),
            (f::GUEST_GDTR_BASE, 1 << 47),
            (f::GUEST_IDTR_LIMIT, 0x1_0000),
            (f::GUEST_RIP, 1 << 47),
            (f::GUEST_RFLAGS, 0x200),
            (f::GUEST_RFLAGS, 0x40_0202),
            (f::GUEST_RFLAGS, 0x20A),
            (f::GUEST_ACTIVITY, 4),
            (f::GUEST_INTERRUPTIBILITY, 0x20),
            (f::GUEST_INTERRUPTIBILITY, 4),
            (f::GUEST_PENDING_DEBUG, 0x10),
            (f::GUEST_PENDING_DEBUG, 1 << 14),
            (f::VMCS_LINK, 0),
        ],
    );
    spoil(
        pvh,
        &[
            (f::GUEST_CR0, 0x8000_0030),
            (f::GUEST_CR4, 0x2_2000),
            (f::GUEST_EFER, 0x400),
            (f::GUEST_RIP, 1 << 32),
            (f::GUEST_SS_ACCESS, 0xC091),
            (f::GUEST_SS_LIMIT, 0xFFFF_FFFE),
            (f::GUEST_DS_ACCESS, 0xC092),
            (f::GUEST_DS_ACCESS, 0xC099),
            (f::GUEST_ES_ACCESS, 0xC083),
            (f::GUEST_DS_BASE, 1 << 32),
            (f::GUEST_FS_LIMIT, 0xFFFF_F000),
            (f::GUEST_LDTR_ACCESS, 0x8B),
            (f::GUEST_INTERRUPTIBILITY, 3),
            (f::GUEST_INTERRUPTIBILITY, 1),
        ],
    );
    spoil(startup, &[(f::GUEST_SS_ACCESS, 0xF3), (f::GUEST_RFLAGS, 0)]);
    spoil(v86, &[(f::GUEST_DS_BASE, 0), (f::GUEST_CS_LIMIT, 1), (f::GUEST_GS_ACCESS, 0x93)]);
}

#[test]
fn what_is_injected_must_fit() {
    for (spoils, field) in [
        (&[(f::ENTRY_INTERRUPTION_INFO, 0x8000_0030)][..], f::GUEST_RFLAGS),
        (
            &[(f::ENTRY_INTERRUPTION_INFO, 0x8000_0202), (f::GUEST_INTERRUPTIBILITY, 8)],
            f::GUEST_INTERRUPTIBILITY,
        ),
        (
            &[(f::ENTRY_INTERRUPTION_INFO, 0x8000_0202), (f::GUEST_INTERRUPTIBILITY, 2)],
            f::GUEST_INTERRUPTIBILITY,
        ),
    ] {
        let mut s = pvh();
        s.extend(spoils.iter().copied());
        assert_eq!(verdict(&s).unwrap_err().field, field);
    }
}

#[test]
fn it_is_said_for_people() {
    let mut s = long();
    s.insert(f::GUEST_RIP, 1 << 47);
    let said = verdict(&s).unwrap_err().to_string();
    assert_eq!(said, "GUEST_RIP is 0x800000000000: not canonical");
}
