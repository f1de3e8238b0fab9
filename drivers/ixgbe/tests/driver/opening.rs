//! Opening: what is set up, and what can fail.
use crate::memory::{self, TestDma};
use crate::rig::{Bar, KEY, Rig, World, config, open};
use ix_dataplane::device::NicControl;
use ix_ixgbe::pci::{Media, media};
use ix_ixgbe::{InitError, Port};
use ix_model_ixgbe::{Faults, Options};
use std::rc::Rc;

fn with(faults: Faults) -> Rc<World> {
    World::new(Options { faults, ..Options::default() })
}

/// The error of opening over a chip with these faults.
fn error(faults: Faults) -> InitError {
    let world = with(faults);
    let area = memory::area(&world.memory, 1, 64);
    open(&world, area, |_| {}).expect_err("it cannot be opened")
}

#[test]
fn a_port_opens_with_the_address_of_the_eeprom_and_all_that_it_can() {
    let rig = Rig::plain();
    assert_eq!(rig.port.mac, Options::default().mac);
    let can = rig.port.capabilities;
    assert!(can.tx_checksum && can.rx_checksum && can.rss && can.hash_report);
    assert_eq!((can.queue_pairs, can.groups, can.mtu, can.tso), (4, 128, 1500, 0));
    rig.assert_clean();
}

#[test]
fn key_and_table_are_the_chips_before_the_port_is_handed_out() {
    let rig = Rig::plain();
    let world = &rig.world;
    for i in 0..10 {
        let word = u32::from_le_bytes(KEY[4 * i..4 * i + 4].try_into().unwrap());
        assert_eq!(world.read(0xeb80 + 4 * i as u32), word);
    }
    assert!((0..32).all(|i| world.read(0xeb00 + 4 * i) == 0x0302_0100));
    assert_eq!(world.read(0xec80), 0x00e1_0001, "RSS, TCP and UDP over both");
}

#[test]
fn all_sixteen_queues_and_other_chips_of_the_family_open() {
    for device_id in [0x10fb, 0x1557, 0x1528, 0x1560, 0x10f7] {
        let options = Options { device_id, ..Options::default() };
        let rig = Rig::new(options, |config| config.queue_pairs = 40);
        assert_eq!((rig.port.rx.len(), rig.port.tx.len()), (16, 16));
        rig.assert_clean();
    }
    assert_eq!(media(0x8086, 0x1528), Some(Media::BaseT));
    assert_eq!(media(0x8086, 0x10ed), None, "a virtual function");
    assert_eq!(media(0x1af4, 0x10fb), None);
}

#[test]
fn every_fault_of_a_chip_is_an_error_that_says_what_to_do() {
    let with = |set: fn(&mut Faults)| {
        let mut faults = Faults::default();
        set(&mut faults);
        error(faults)
    };
    let stuck = with(|f| f.stuck_reset = true);
    assert!(matches!(stuck, InitError::ResetTimeout { ctrl } if ctrl & 1 << 26 != 0), "{stuck:?}");
    assert!(stuck.to_string().contains("power the machine off and on"), "{stuck}");
    assert!(matches!(with(|f| f.stuck_auto_read = true), InitError::EepromAutoRead { .. }));
    assert_eq!(with(|f| f.stuck_eeprom = true), InitError::EepromTimeout { word: 0 });
    let damaged = with(|f| f.bad_eeprom = true);
    assert!(damaged.to_string().contains("checksum is wrong (0x"), "{damaged}");
    assert_eq!(with(|f| f.stuck_dma_init = true), InitError::DmaInitTimeout);
    let queue = |what| InitError::QueueTimeout { what, queue: 0 };
    assert_eq!(with(|f| f.stuck_rx_enable = true), queue("receive"));
    assert_eq!(with(|f| f.stuck_tx_enable = true), queue("transmit"));
    assert!(queue("receive").to_string().contains("bus mastering"));
}

#[test]
fn a_chip_whose_requests_do_not_end_is_flushed_and_reset_twice() {
    let world = with(Faults { stuck_master: true, ..Faults::default() });
    *world.writes.borrow_mut() = Some(Vec::new());
    let area = memory::area(&world.memory, 1, 64);
    open(&world, area, |_| {}).expect("it opens all the same");
    let writes = world.writes.take().unwrap();
    let resets = writes.iter().filter(|(at, value)| *at == 0 && value & 1 << 26 != 0).count();
    assert_eq!(resets, 2);
    assert!(writes.iter().any(|(at, value)| *at == 0x11050 && value & 1 << 30 != 0));
}

#[test]
fn a_card_that_is_not_there_is_said_so() {
    let world = World::new(Options::default());
    world.gone.set(true);
    let area = memory::area(&world.memory, 1, 64);
    let error = open(&world, area, |_| {}).expect_err("nobody is there");
    assert!(error.to_string().contains("registers read all ones"), "{error}");
}

#[test]
fn an_address_that_is_no_stations_is_refused() {
    for mac in [[0; 6], [1, 2, 3, 4, 5, 6]] {
        let world = World::new(Options { mac, ..Options::default() });
        let area = memory::area(&world.memory, 1, 64);
        assert_eq!(open(&world, area, |_| {}).err(), Some(InitError::BadMac { mac }));
    }
}

#[test]
fn wishes_that_make_no_sense_are_refused_before_the_chip_is_touched() {
    let world = World::new(Options::default());
    let area = memory::area(&world.memory, 1, 64);
    let refused = |adjust: fn(&mut ix_ixgbe::Config<'_>)| {
        let error = open(&world, area, adjust).expect_err("that makes no sense");
        assert!(matches!(error, InitError::BadRequest { .. }), "{error}");
    };
    refused(|c| c.queue_pairs = 0);
    refused(|c| c.rx_ring = 100);
    refused(|c| c.rx_ring = 4);
    refused(|c| c.tx_ring = 16);
    refused(|c| c.first_vector = Some(61));
    assert_eq!(world.chip.borrow().counts.register_writes, 0);
}

#[test]
fn without_memory_it_fails_at_each_allocation_and_the_chip_is_left_stopped() {
    for allowed in 0..8 {
        let world = World::new(Options::default());
        let area = memory::area(&world.memory, 1, 64);
        let clock = world.clock();
        let mut dma = TestDma { memory: world.memory.clone(), allocations_left: allowed };
        let opened = Port::open(Bar(world.clone()), &mut dma, &config(area, &clock));
        let error = opened.expect_err("there is no memory");
        assert!(matches!(error, InitError::NoMemory { bytes: 4096, .. }), "{error}");
        assert!((0..4).all(|q| world.read(0x1028 + 0x40 * q) & 1 << 25 == 0));
        assert_eq!(world.read(0x3000), 0, "RXCTRL");
    }
}

#[test]
fn every_write_of_opening_is_to_a_register_that_the_model_has() {
    let rig = Rig::new(Options::default(), |c| (c.queue_pairs, c.mtu) = (16, Some(9000)));
    rig.assert_clean();
    assert_eq!(rig.port.capabilities.mtu, 9000);
}

#[test]
fn what_is_undefined_after_a_reset_is_defined_when_the_port_is_open() {
    let faults = Faults { undefined_is_anything: true, seed: 7, ..Faults::default() };
    let mut rig = Rig::new(Options { faults, ..Options::default() }, |_| {});
    for again in [false, true] {
        let words =
            |first: u32, count: u32, stride: u32| (0..count).map(move |i| first + i * stride);
        // RAL, RAH but for the first; MTA, VFTA, MPSAR, PFUTA, PFVLVF, FTQF.
        let tables = words(0xa208, 127, 8)
            .chain(words(0xa20c, 127, 8))
            .chain(words(0x5200, 128, 4))
            .chain(words(0xa000, 128, 4))
            .chain(words(0xa604, 255, 4))
            .chain(words(0xf400, 128, 4))
            .chain(words(0xf100, 64, 4))
            .chain(words(0xe600, 128, 4));
        for at in tables {
            assert_eq!(rig.world.read(at), 0, "{at:#x}, after a restart: {again}");
        }
        rig.restart();
    }
}

#[test]
fn the_link_comes_up_whatever_mode_the_eeprom_has_begun() {
    let faults = Faults { other_link_mode: true, ..Faults::default() };
    let rig = Rig::new(Options { faults, ..Options::default() }, |_| {});
    assert!(rig.port.control.read_link_up());
}
