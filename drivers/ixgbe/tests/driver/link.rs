//! The link: up, down, up again, and what is said of it.
use crate::frames::{Flow, frame};
use crate::memory;
use crate::rig::{Rig, World, open};
use ix_dataplane::device::{NicControl, RxQueue, TxQueue};
use ix_dataplane::time::Instant;
use ix_ixgbe::sfp::{Medium, ModuleError};
use ix_ixgbe::{Events, Link, LinkError};
use ix_model_ixgbe::{Faults, Options};

fn opened_with(faults: Faults) -> (std::rc::Rc<World>, ix_ixgbe::Port<crate::rig::Bar>) {
    let world = World::new(Options { faults, ..Options::default() });
    let area = memory::area(&world.memory, 1, 64);
    let port = open(&world, area, |_| {}).expect("it opens without a link");
    (world, port)
}

#[test]
fn the_link_comes_up_at_ten_gigabits() {
    let options = Options { link_delay_ns: 300_000_000, ..Options::default() };
    let world = World::new(options);
    let area = memory::area(&world.memory, 1, 64);
    let mut port = open(&world, area, |_| {}).expect("it opens");
    assert_eq!(port.control.read_link(Instant(world.now.get())), Link::Coming);
    let clock = world.clock();
    assert_eq!(port.control.wait_for_link(&clock), Ok(10_000));
    assert_eq!(port.control.read_link(clock()), Link::Up { mbps: 10_000 });
}

#[test]
fn an_empty_cage_and_a_silent_partner_are_told_apart() {
    let (world, mut port) = opened_with(Faults { no_module: true, ..Faults::default() });
    let error = port.control.wait_for_link(&world.clock()).expect_err("the cage is empty");
    assert_eq!(error, LinkError::NoModule);
    assert!(error.to_string().contains("no SFP+ module"), "{error}");

    let (world, mut port) = opened_with(Faults { no_partner: true, ..Faults::default() });
    let error = port.control.wait_for_link(&world.clock()).expect_err("nobody is there");
    assert!(matches!(error, LinkError::NoSignal { .. }));
    assert!(error.to_string().contains("cable"), "{error}");
    assert!(world.now.get() > 5_000_000_000, "it had its time");

    // And then somebody comes.
    world.chip.borrow_mut().set_partner(true);
    let up = port.control.wait_for_link(&world.clock());
    world.advance(10_000_000);
    assert!(up.is_ok() || port.control.read_link_up());
}

#[test]
fn frames_wait_while_the_link_flaps_and_leave_when_it_is_back() {
    let mut rig = Rig::plain();
    rig.world.chip.borrow_mut().flap_link(50_000_000);
    rig.world.advance(1_000_000);
    assert_eq!(rig.port.control.read_link(Instant(rig.world.now.get())), Link::Coming);
    let bytes = frame(Flow::tcp(1), &[7; 40]);
    let queued = rig.frame(&bytes, &[bytes.len()]);
    rig.port.tx[0].push(&queued).unwrap();
    rig.port.tx[0].kick();
    assert_eq!((rig.port.tx[0].reclaim(), rig.sent().len()), (0, 0));
    rig.world.advance(60_000_000);
    assert_eq!((rig.port.tx[0].reclaim(), rig.sent()), (1, vec![bytes]));
    assert!(rig.port.control.read_link_up());
}

#[test]
fn a_card_that_was_taken_out_is_noticed() {
    let rig = Rig::plain();
    assert!(!rig.port.control.read_needs_reset());
    rig.world.gone.set(true);
    assert!(rig.port.control.read_needs_reset());
}

#[test]
fn events_are_said_once_and_do_not_take_the_queues_causes_with_them() {
    for device_id in [0x10fb, 0x1528] {
        let mut rig = Rig::new(Options { device_id, ..Options::default() }, |_| {});
        let _the_link_came_up = rig.port.control.read_events();
        assert_eq!(rig.port.control.read_events(), Events::default());
        rig.replenish();
        let bytes = frame(Flow::tcp(1), &[]);
        assert!(rig.world.receive(&bytes));
        rig.world.chip.borrow_mut().overheat();
        rig.world.chip.borrow_mut().flap_link(1_000);
        rig.world.advance(10_000_000);
        let seen = Events { link_changed: true, overheated: true, ..Events::default() };
        assert_eq!(rig.port.control.read_events(), seen);
        assert_eq!(rig.port.control.read_events(), Events::default());
        rig.port.rx.iter_mut().for_each(|queue| _ = queue.arm_interrupt());
        assert_eq!(rig.interrupts().len(), 1, "its cause is still there");
        rig.world.gone.set(true);
        assert_eq!(rig.port.control.read_events(), Events::default());
    }
}

#[test]
fn the_module_says_who_made_it_and_how_warm_it_is() {
    let rig = Rig::plain();
    let clock = rig.world.clock();
    let module = rig.port.control.read_module(&clock).expect("one is there");
    assert_eq!((module.medium, module.celsius), (Medium::ShortRange, Some(35)));
    assert_eq!(&module.vendor, b"Intel Corp      ");
    assert_eq!((&module.part, &module.serial), (b"FTLX8571D3BCV-IT", b"IX0000000000001 "));
    assert_eq!(rig.port.control.read_module(&clock), Ok(module), "the semaphores were given back");
    assert_eq!(rig.world.read(0x10160), 0);
    // Firmware has the lines.
    let bar = crate::rig::Bar(rig.world.clone());
    ix_dataplane::device::Mmio::write32(&bar, 0x10160, 0x40);
    let busy = rig.port.control.read_module(&clock).expect_err("they are taken");
    assert!(busy == ModuleError::Busy && busy.to_string().contains("firmware"), "{busy}");
    rig.world.chip.borrow_mut().set_module(false);
    assert_eq!(rig.port.control.read_module(&clock), Err(ModuleError::Absent));
    rig.assert_clean();
    let copper = Rig::new(Options { device_id: 0x1528, ..Options::default() }, |_| {});
    assert_eq!(copper.port.control.read_module(&clock), Err(ModuleError::Absent));
}
