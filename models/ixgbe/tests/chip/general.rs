//! Resets, EEPROM, semaphores, link, unknown registers.
use crate::rig::{BUFFERS, ENABLE, Rig, tcp};
use ix_model_ixgbe::{Faults, Options};

fn word(rig: &mut Rig, at: u32) -> u16 {
    rig.write(0x10014, at << 2 | 1);
    let value = rig.read(0x10014);
    assert_eq!(value & 2, 2, "done");
    (value >> 16) as u16
}

#[test]
fn the_eeproms_checksum_is_right_unless_it_is_to_be_wrong() {
    for bad_eeprom in [false, true] {
        let faults = Faults { bad_eeprom, ..Faults::default() };
        let mut rig = Rig::new(Options { faults, ..Options::default() });
        let mut sum = (0..0x40).fold(0_u16, |sum, at| sum.wrapping_add(word(&mut rig, at)));
        for pointer in 3..0xf {
            let at = u32::from(word(&mut rig, pointer));
            if at != 0 && at != 0xffff {
                let len = u32::from(word(&mut rig, at));
                sum = (1..=len).fold(sum, |sum, i| sum.wrapping_add(word(&mut rig, at + i)));
            }
        }
        assert_eq!(sum == 0xbaba, !bad_eeprom);
    }
}

#[test]
fn a_reset_clears_all_but_what_firmware_shares_and_reloads_the_address() {
    for by_function in [false, true] {
        let mut rig = Rig::running();
        rig.write(0x10160, 2);
        rig.write(0xeb00, 7);
        rig.write(0x5400, 0);
        if by_function {
            rig.chip.reset();
        } else {
            rig.write(0, 1 << 26);
        }
        assert_eq!(rig.read(0) & 1 << 26, 0);
        assert_eq!((rig.read(0xeb00), rig.read(0x1028) & ENABLE, rig.read(0x3000)), (0, 0, 0));
        assert_eq!(rig.read(0x10160), if by_function { 0 } else { 2 });
        assert_eq!(rig.read(0x5400), 0x9059_8202);
        assert!(!rig.chip.is_link_up() && !rig.receive(&tcp(&[])));
        rig.tick(30_000_000);
        assert!(rig.chip.is_link_up());
        rig.enable();
        assert!(rig.receive(&tcp(&[])));
    }
}

#[test]
fn the_software_semaphore_is_taken_by_its_first_read() {
    let mut rig = Rig::new(Options::default());
    assert_eq!((rig.read(0x10140) & 1, rig.read(0x10140) & 1), (0, 1));
    rig.write(0x10140, 0);
    assert_eq!(rig.read(0x10140) & 1, 0);
}

#[test]
fn the_link_follows_laser_partner_and_restart() {
    let mut rig = Rig::new(Options { link_delay_ns: 1_000, ..Options::default() });
    let links = |rig: &mut Rig| rig.read(0x42a4) & 0x7000_0080;
    assert_eq!(links(&mut rig), 0x7000_0080);
    rig.write(0x20, 1 << 3);
    rig.tick(11_000_000);
    assert_eq!(links(&mut rig), 0, "the laser is off");
    rig.write(0x20, 0);
    rig.tick(12_000_000);
    assert_eq!(links(&mut rig), 0x7000_0080);
    let autoc = rig.read(0x42a0);
    rig.write(0x42a0, autoc | 1 << 12);
    assert_eq!((links(&mut rig), rig.read(0x42a0) & 1 << 12), (0, 0), "it is negotiated anew");
    rig.tick(13_000_000);
    assert_eq!(links(&mut rig), 0x7000_0080);
}

#[test]
fn offsets_without_a_register_read_0_and_are_counted() {
    let mut rig = Rig::new(Options::default());
    assert_eq!(rig.read(0x7fffc), 0);
    rig.write(0x7fff8, 1);
    assert_eq!(rig.read(u32::MAX), 0);
    assert_eq!(rig.read(0x9), 0);
    let counts = rig.chip.counts;
    assert_eq!((counts.unknown_reads, counts.unknown_writes, counts.last_unknown), (3, 1, 9));
}

#[test]
fn registers_and_descriptors_can_be_anything_in_any_order() {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..800 {
        let mut rig = Rig::running();
        for step in 0..200 {
            let word = next();
            // Mostly where queues and interrupts are.
            let offset = match word % 8 {
                0..3 => word >> 8 & 0x7fffc,
                3..5 => 0x1000 | word >> 8 & 0x3c,
                5 => 0x6000 | word >> 8 & 0x3c,
                _ => 0x800 | word >> 8 & 0x3fc,
            };
            match word >> 40 & 15 {
                0 | 1 => _ = rig.read(offset as u32),
                2 | 3 => _ = rig.receive(&tcp(&[1; 200])[..(word >> 50) as usize % 255]),
                4 => rig.tick(20_000_000 + step * 1000),
                5..8 => {
                    rig.write(
                        offset as u32,
                        [0, u32::MAX, 0xffff_ff80, 1 << 25][step as usize % 4],
                    );
                }
                8..11 => rig.write(offset as u32, next() as u32),
                _ => {
                    // Contexts, data and what is neither; where there is memory, mostly.
                    let at = if next() % 8 == 0 { next() } else { BUFFERS + next() % 0x1000 };
                    let kind = [2 << 20 | 1 << 29, 3 << 20 | 1 << 29, 0, next() & 0x2ff0_0000];
                    let short = if step % 4 == 0 { 0 } else { 0xff00 };
                    let high = next() & !(0x2ff0_0000 | short) | kind[step as usize % 4] | 1 << 24;
                    let context = next() & 0xffff_3e3f;
                    rig.send(&[[if step % 4 == 0 { context } else { at }, high & !(0xc0 << 40)]]);
                }
            }
        }
        rig.tick(1 << 40);
        let _ = rig.chip.next_tick_ns();
    }
}

#[test]
fn faults_have_names() {
    for name in Faults::NAMES {
        let mut faults = Faults::default();
        assert!(faults.add(name) && faults != Faults::default(), "{name}");
    }
    assert!(!Faults::default().add("none"));
}
