//! Reception: legacy descriptors, VLAN tags, the packet buffer, filters.
use crate::rig::{BUFFERS, ENABLE, RING, Rig, tcp};

const DD_EOP: u64 = 3;

#[test]
fn a_legacy_descriptor_has_length_status_and_errors() {
    let mut rig = Rig::running();
    rig.write(0x1014, 2 | 1 << 28);
    let bytes = tcp(&[9; 40]);
    assert!(rig.receive(&bytes));
    let [address, word] = rig.received(0);
    assert_eq!(address, BUFFERS, "it stays");
    assert_eq!(word as u16, bytes.len() as u16);
    // DD, EOP, both sums checked, and both wrong.
    assert_eq!((word >> 32 & 0xff, word >> 40 & 0xff), (0x63, 0xc0));
    assert_eq!(rig.bytes(BUFFERS, bytes.len()), bytes);
}

#[test]
fn a_vlan_tag_is_stripped_into_the_descriptor_and_filtered() {
    let mut rig = Rig::running();
    let mut bytes = tcp(&[1; 20]);
    let plain = bytes.clone();
    bytes.splice(12..12, [0x81, 0, 0x20, 0x05]);
    assert!(rig.receive(&bytes));
    assert_eq!(rig.received(0)[1] & 8, 0, "not stripped: VP is not set");
    rig.write(0x1028, ENABLE | 1 << 30);
    assert!(rig.receive(&bytes));
    let [_, word] = rig.received(1);
    assert_eq!((word & 0xf, word >> 48), (DD_EOP | 8, 0x2005));
    assert_eq!(rig.bytes(BUFFERS + 2048, plain.len()), plain);
    rig.write(0x5088, 0x8100 | 1 << 30);
    assert!(!rig.receive(&bytes), "no such VLAN here");
    rig.write(0xa000, 1 << 5);
    assert!(rig.receive(&bytes) && rig.receive(&plain));
}

#[test]
fn without_drop_the_packet_buffer_keeps_frames_until_there_are_descriptors() {
    let mut rig = Rig::running();
    rig.write(0x1014, 2 | 1 << 25);
    let bytes = tcp(&[7; 900]);
    let count = (0..10_000).take_while(|_| rig.receive(&bytes)).count();
    let room = 512 * 1024 / bytes.len();
    assert_eq!(count, RING as usize - 1 + room);
    assert_eq!(rig.read(0x3fa0), 1, "RXMPC");
    for slot in 0..10 {
        rig.post(slot, BUFFERS + 2048 * slot);
    }
    rig.write(0x1018, 9);
    assert_eq!(rig.read(0x1010), 9, "RDH: ten more were written");
    assert_eq!(rig.received(8)[1] & 3, DD_EOP);
    assert!(rig.receive(&bytes));
}

#[test]
fn multicast_by_table_with_each_choice_of_bits() {
    let mut rig = Rig::running();
    let mut bytes = tcp(&[]);
    bytes[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0xab, 0xcd]);
    let top = 0xcdab_u32;
    for (choice, vector) in [(0, top >> 4), (1, top >> 3), (2, top >> 2), (3, top)] {
        let vector = vector & 0xfff;
        let register = 0x5200 + 4 * (vector >> 5);
        rig.write(0x5090, 1 << 2 | choice);
        assert!(!rig.receive(&bytes));
        rig.write(register, 1 << (vector & 31));
        assert!(rig.receive(&bytes), "choice {choice}");
        rig.write(register, 0);
    }
}

#[test]
fn buffers_that_memory_refuses_are_reported_and_not_followed() {
    let mut rig = Rig::running();
    rig.post(0, 0xdead_0000);
    assert!(rig.receive(&tcp(&[])));
    assert_eq!(rig.chip.counts.last_refused, (0xdead_0000, 60));
    assert!(rig.receive(&tcp(&[])), "the next one is good");
    assert_eq!(rig.chip.counts.refused, 1);
}

#[test]
fn loopback_brings_back_what_is_sent_without_a_link() {
    let mut rig = Rig::running();
    rig.chip.set_partner(false);
    rig.tick(20_000_000);
    let bytes = tcp(&[3; 30]);
    assert!(!rig.receive(&bytes));
    let hlreg0 = rig.read(0x4240);
    rig.write(0x4240, hlreg0 | 1 << 15);
    let at = rig.place(&bytes);
    assert!(rig.send(&[[at, bytes.len() as u64 | 9 << 24]]).is_empty());
    assert_eq!(rig.bytes(BUFFERS, bytes.len()), bytes);
}

#[test]
fn the_fcs_comes_too_if_it_is_not_stripped() {
    let mut rig = Rig::running();
    let bytes = tcp(b"123456789");
    let hlreg0 = rig.read(0x4240);
    rig.write(0x4240, hlreg0 & !2);
    assert!(rig.receive(&bytes));
    let [_, word] = rig.received(0);
    assert_eq!((word >> 32) as u16 as usize, bytes.len() + 4);
    // A frame with its FCS has the same remainder, whatever it is.
    let crc = |bytes: &[u8]| {
        let step = |crc: u32| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xedb8_8320 };
        bytes.iter().fold(u32::MAX, |crc, b| (0..8).fold(crc ^ u32::from(*b), |crc, _| step(crc)))
    };
    assert_eq!(crc(&rig.bytes(BUFFERS, bytes.len() + 4)), 0xdebb_20e3);
    assert_eq!(rig.chip.counts.contradictions, 0);
    rig.write(0x4240, hlreg0);
    assert!(rig.receive(&bytes));
    assert_eq!(rig.chip.counts.contradictions, 1);
}
