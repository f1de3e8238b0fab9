//! Interrupts: vectors, masks, moderation, the registers of a machine with one vector only.
use crate::rig::{Rig, tcp};
use ix_model_ixgbe::Options;

const EICR: u32 = 0x800;
const EICS: u32 = 0x808;
const EIMS: u32 = 0x880;
const GPIE: u32 = 0x898;
const LSC: u32 = 1 << 20;

/// Receive queue 0 has vector 3, with MSI-X.
fn vectored() -> Rig {
    let mut rig = Rig::running();
    rig.write(GPIE, 1 << 4);
    rig.write(0x900, 0x83);
    rig.write(0x810, 0xffff);
    rig.write(EIMS, 1 << 3);
    rig.wire.interrupts.clear();
    rig
}

#[test]
fn moderation_holds_a_message_back_until_its_interval_is_over() {
    let mut rig = vectored();
    // 50 units of 2.048 µs.
    rig.write(0x820 + 4 * 3, 50 << 3);
    let now = 20_000_000;
    rig.tick(now);
    (0..5).for_each(|_| assert!(rig.receive(&tcp(&[]))));
    assert_eq!(rig.wire.interrupts, [3], "the first at once, the others wait");
    let due = now + 50 * 2_048;
    assert_eq!(rig.chip.next_tick_ns(), Some(due));
    rig.tick(due - 1);
    assert_eq!(rig.wire.interrupts, [3]);
    rig.tick(due);
    assert_eq!(rig.wire.interrupts, [3, 3], "one for all of them");
    rig.tick(due + 10_000_000);
    assert_eq!((rig.wire.interrupts.len(), rig.chip.next_tick_ns()), (2, None));
}

#[test]
fn a_masked_vector_keeps_its_cause_and_sends_when_it_is_unmasked() {
    let mut rig = vectored();
    rig.write(0x888, 1 << 3);
    assert!(rig.receive(&tcp(&[])));
    assert!(rig.wire.interrupts.is_empty());
    rig.write(EIMS, 1 << 3);
    assert_eq!(rig.wire.interrupts, [3]);
}

#[test]
fn messages_mask_their_vector_by_themselves_if_asked_to() {
    let mut rig = vectored();
    rig.write(GPIE, 1 << 4 | 1 << 30);
    rig.write(0xad0, u32::MAX);
    assert!(rig.receive(&tcp(&[])) && rig.receive(&tcp(&[])));
    assert_eq!((rig.wire.interrupts.len(), rig.read(EIMS) & 8), (1, 0));
}

#[test]
fn vectors_above_15_have_the_second_registers() {
    let mut rig = vectored();
    rig.write(0x900, 0x80 | 40);
    rig.write(0xaa4, 1 << 8);
    assert!(rig.receive(&tcp(&[])));
    assert_eq!(rig.wire.interrupts, [40]);
    rig.write(0xa94, 1 << 8);
    assert_eq!(rig.wire.interrupts, [40, 40], "EICS of the second half");
}

#[test]
fn a_link_change_is_told_on_the_vector_for_other_causes() {
    let mut rig = vectored();
    rig.write(0xa00, 0x8500);
    rig.write(EIMS, LSC);
    rig.chip.flap_link(1_000_000);
    rig.tick(20_000_000);
    rig.tick(21_000_000);
    assert_eq!(rig.wire.interrupts, [5], "down; up is the same cause, which was not taken back");
    assert_ne!(rig.read(EICS) & LSC, 0);
    rig.write(EICR, LSC);
    rig.chip.flap_link(1_000_000);
    rig.tick(30_000_000);
    assert_eq!(rig.wire.interrupts, [5, 5]);
}

#[test]
fn without_msix_there_is_one_vector_and_reading_eicr_clears_it() {
    let mut rig = Rig::new(Options::default());
    rig.enable();
    rig.write(0x900, 0x80);
    rig.write(EIMS, 1 | LSC);
    assert_eq!(rig.wire.interrupts, [0], "the link has come up before");
    assert_eq!(rig.read(EICR), LSC);
    rig.wire.interrupts.clear();
    assert!(rig.receive(&tcp(&[])) && rig.receive(&tcp(&[])));
    assert_eq!(rig.wire.interrupts, [0]);
    assert_eq!((rig.read(EICR), rig.read(EICR)), (1, 0));
    assert!(rig.receive(&tcp(&[])));
    assert_eq!(rig.wire.interrupts, [0, 0]);
}
