//! Numbers and layouts typed from the SDM a second time.

use super::*;

#[test]
fn reasons_have_the_manuals_numbers() {
    for (number, reason) in [
        (0, Reason::ExceptionOrNmi),
        (2, Reason::TripleFault),
        (3, Reason::Init),
        (8, Reason::NmiWindow),
        (10, Reason::Cpuid),
        (18, Reason::Vmcall),
        (28, Reason::ControlRegister),
        (30, Reason::Io),
        (31, Reason::Rdmsr),
        (32, Reason::Wrmsr),
        (33, Reason::EntryGuestState),
        (36, Reason::Mwait),
        (41, Reason::EntryMachineCheck),
        (48, Reason::EptViolation),
        (49, Reason::EptMisconfiguration),
        (52, Reason::PreemptionTimer),
        (54, Reason::Wbinvd),
        (55, Reason::Xsetbv),
        (63, Reason::Xsaves),
    ] {
        assert_eq!(Exit(number).reason(), Some(reason));
        assert_eq!(reason as u32, number);
        assert_eq!(counter_name(number as usize), reason.name());
    }
    for gap in [35, 38, 42, 71, 200, 0xFFFF] {
        assert_eq!(Exit(gap).reason(), None, "{gap}");
    }
}

#[test]
fn every_exit_has_a_counter() {
    for number in 0..=0xFFFFu32 {
        let c = Exit(number | 1 << 31).counter();
        assert!(c < COUNTERS);
        assert!(Exit(number).reason().is_none() || c == number as usize && c < COUNTERS - 1);
    }
    assert_eq!(counter_name(COUNTERS - 1), "another exit");
}

#[test]
fn entry_failures_are_told() {
    let e = Exit(0x8000_0021);
    assert!(e.is_entry_failure() && e.reason() == Some(Reason::EntryGuestState));
    assert!(!Exit(33).is_entry_failure());
    assert_ne!(entry_failure_detail(4), entry_failure_detail(0));
}

#[test]
fn ept_violations() {
    // A write to a page that is mapped read-only, by way of a linear address.
    let v = EptViolation(0x18A);
    assert!(v.is_write() && !v.is_read() && v.is_mapped() && v.is_final());
    assert_eq!(v.verb(), "write to");
    let v = EptViolation(0x084);
    assert!(v.is_fetch() && !v.is_mapped() && v.has_linear_address() && !v.is_final());
    assert_eq!(EptViolation(1).verb(), "read of");
    assert!(EptViolation(0x1000).unblocks_nmi());
    assert!(!EptViolation(0x100).is_final(), "bit 8 means nothing without bit 7");
}

#[test]
fn io_instructions() {
    // in al, dx with dx = 3FDh; out dx, eax with CF8h; rep outsb.
    let i = Io(0x03FD_0008);
    assert_eq!((i.port(), i.width(), i.is_in(), i.is_string()), (0x3FD, 1, true, false));
    let o = Io(0x0CF8_0003);
    assert_eq!((o.port(), o.width(), o.is_in(), o.has_rep()), (0xCF8, 4, false, false));
    let s = Io(0x03F8_0070);
    assert!(s.is_string() && s.has_rep() && !s.is_in());
    let rax = 0x1122_3344_5566_7788;
    assert_eq!(Io(8).merge(rax, 0xFFFF_FFAB), 0x1122_3344_5566_77AB);
    assert_eq!(Io(9).merge(rax, 0xFFFF_CDAB), 0x1122_3344_5566_CDAB);
    assert_eq!(Io(11).merge(rax, 0xFFFF_CDAB), 0xFFFF_CDAB);
    assert_eq!([Io(0), Io(1), Io(3)].map(|i| i.outgoing(rax)), [0x88, 0x7788, 0x5566_7788]);
}

#[test]
fn control_register_accesses() {
    assert_eq!(CrAccess::decode(0x0000), CrAccess::To { cr: 0, register: 0 });
    assert_eq!(CrAccess::decode(0x0F04), CrAccess::To { cr: 4, register: 15 });
    assert_eq!(CrAccess::decode(0x0213), CrAccess::From { cr: 3, register: 2 });
    assert_eq!(CrAccess::decode(0x0020), CrAccess::Clts);
    assert_eq!(CrAccess::decode(0xABCD_0030), CrAccess::Lmsw(0xABCD));
}

#[test]
fn interruptions() {
    assert!(Interruption(0x8000_0202).is_nmi() && !Interruption(0x0000_0202).is_nmi());
    assert_eq!(Interruption::INJECT_NMI.0, 0x8000_0202);
    assert_eq!(Interruption::exception(13, true).0, 0x8000_0B0D);
    assert_eq!(Interruption::exception(6, false).0, 0x8000_0306);
    let page_fault = Interruption(0x8000_1B0E);
    assert_eq!((page_fault.vector(), page_fault.event()), (14, Event::HardwareException));
    assert!(page_fault.has_error() && page_fault.unblocks_nmi());
    assert_eq!(
        page_fault.again(),
        Some(Interruption(0x8000_0B0E)),
        "bit 12 is reserved at entries"
    );
    assert_eq!(Interruption(0x0E).again(), None);
    assert!(Interruption(0x8000_0680).needs_length() && !page_fault.needs_length());
    assert_eq!(Interruption(0x8000_0400).event(), Event::SoftwareInterrupt);
}

#[test]
fn instruction_errors_have_names() {
    assert_eq!(instruction_error(7), "VM entry with invalid control fields");
    assert_eq!(instruction_error(8), "VM entry with invalid host-state fields");
    for reserved in [0, 14, 21, 27, 29, u32::MAX] {
        assert_eq!(instruction_error(reserved), "an error that is not known");
    }
}
