//! Opening a port: what goes in, what comes out, and what is said if it fails.
use crate::fake::memory::{Buffers, FakeDma};
use crate::fake::{Fake, MAC, Model, Rng};
use crate::rig::{Rig, config, open, ticking};
use ix_virtio_net::{CommandError, Config, Features, InitError, Port};

fn fails(model: Model, adjust: impl FnOnce(&mut Config<'_>)) -> InitError {
    let buffers = Buffers::new(1, 16);
    let fake = Fake::new(buffers.memory.clone(), model);
    let clock = ticking();
    let mut config = config(&buffers, &clock);
    adjust(&mut config);
    let error = open(&fake, &buffers.memory, &config).expect_err("it must fail");
    assert!(error.to_string().len() > 40, "one can act on it: {error}");
    error
}

#[test]
fn a_port_has_what_both_sides_can_do() {
    let rig = Rig::without(Features::empty());
    let capabilities = rig.port.capabilities;
    assert!(capabilities.tx_checksum && capabilities.rx_checksum);
    assert!(capabilities.rss && capabilities.hash_report);
    assert_eq!((capabilities.queue_pairs, capabilities.mtu), (4, 1500));
    assert_eq!((rig.port.rx.len(), rig.port.tx.len(), rig.port.mac), (4, 4, MAC));
    assert_eq!(rig.fake.with(|d| d.status), 1 | 2 | 4 | 8);
    assert!(!rig.fake.with(|d| d.has(Features::EVENT_IDX)));
}

#[test]
fn the_least_device_makes_a_port_with_one_pair_and_no_offloads() {
    let offered = Features::VERSION_1.bits();
    let rig = Rig::new(Model { offered, ..Model::default() }, |_| ());
    let capabilities = rig.port.capabilities;
    assert!(!capabilities.tx_checksum && !capabilities.rx_checksum && !capabilities.rss);
    assert_eq!((capabilities.queue_pairs, capabilities.groups, capabilities.mtu), (1, 128, 1500));
    assert_eq!(rig.port.mac, [2, 0, 0, 0, 0, 1], "the fallback");
    assert_eq!(rig.fake.with(|d| d.commands), 0);
}

#[test]
fn fewer_pairs_than_the_device_has_leave_the_control_queue_where_it_is() {
    let rig = Rig::new(Model::default(), |c| c.queue_pairs = 2);
    assert_eq!(rig.port.rx.len(), 2);
    let enabled = |i: usize| rig.fake.with(|d| d.queues[i].enabled);
    assert!((0..4).all(enabled) && !(4..8).any(enabled) && enabled(8));
    assert_eq!(rig.fake.with(|d| d.steering.pairs), 2);
}

#[test]
fn receive_queues_get_their_vectors_and_no_other_queue_has_one() {
    let rig = Rig::without(Features::empty());
    let vectors = rig.fake.with(|d| d.queues[..9].iter().map(|q| q.vector).collect::<Vec<_>>());
    let no = 0xffff;
    assert_eq!(vectors, [1, no, 2, no, 3, no, 4, no, no]);
    let rig = Rig::new(Model::default(), |c| c.first_vector = None);
    assert!(rig.fake.with(|d| d.queues.iter().all(|q| q.vector == no)));
}

#[test]
fn a_larger_mtu_than_the_buffers_take_is_not_agreed_to_and_a_smaller_one_is_kept() {
    let one_buffer = |c: &mut Config<'_>| c.decline = Features::MRG_RXBUF;
    for mtu in [2015, 9000] {
        let rig = Rig::new(Model { mtu, ..Model::default() }, one_buffer);
        assert_eq!(rig.port.capabilities.mtu, 1500);
        assert!(!rig.fake.with(|d| d.has(Features::MTU)));
    }
    for mtu in [68, 1400, 2014] {
        let rig = Rig::new(Model { mtu, ..Model::default() }, one_buffer);
        assert_eq!(rig.port.capabilities.mtu, mtu);
        assert!(rig.fake.with(|d| d.has(Features::MTU)));
    }
    for mtu in [2015, 9000, 65_535] {
        let rig = Rig::new(Model { mtu, ..Model::default() }, |_| ());
        assert_eq!(rig.port.capabilities.mtu, mtu);
        assert!(rig.fake.with(|d| d.has(Features::MTU) && d.has(Features::MRG_RXBUF)));
    }
}

#[test]
fn the_mtu_that_is_asked_for_is_had_up_to_what_the_device_takes() {
    let with = |offered: Features, mtu: u16, wanted: Option<u16>| {
        let model =
            Model { mtu, offered: (offered | Features::VERSION_1).bits(), ..Model::default() };
        Rig::new(model, |c| c.mtu = wanted).port.capabilities.mtu
    };
    let merge = Features::MRG_RXBUF;
    assert_eq!(with(merge, 0, None), 1500);
    assert_eq!(with(merge, 0, Some(9000)), 9000);
    assert_eq!(with(Features::empty(), 0, Some(9000)), 2014, "what a buffer takes");
    assert_eq!(with(merge | Features::MTU, 4000, Some(9000)), 4000, "what the device names");
    assert_eq!(with(merge | Features::MTU, 9000, Some(1500)), 1500);
    assert_eq!(with(merge | Features::MTU, 9000, Some(1)), 68);
}

#[test]
fn mergeable_buffers_are_had_only_where_they_serve() {
    let merges = |decline: Features, mtu: Option<u16>| {
        let rig = Rig::new(Model::default(), |c| (c.decline, c.mtu) = (decline, mtu));
        rig.fake.with(|d| d.has(Features::MRG_RXBUF))
    };
    let large = Features::GUEST_TSO4 | Features::GUEST_TSO6;
    assert!(merges(Features::empty(), None));
    assert!(!merges(large, None));
    assert!(!merges(Features::GUEST_CSUM, None), "no large receive without checksums");
    let model = Model { mtu: 9000, ..Model::default() };
    let rig = Rig::new(model, |c| c.decline = large);
    assert!(rig.fake.with(|d| d.has(Features::MRG_RXBUF)));
}

#[test]
fn each_failure_names_its_cause() {
    let legacy = Model { offered: Features::MAC.bits(), ..Model::default() };
    assert_eq!(fails(legacy, |_| ()), InitError::Missing { features: Features::VERSION_1 });
    let stuck = Model { reset_reads: u32::MAX, ..Model::default() };
    assert_eq!(fails(stuck, |_| ()), InitError::ResetTimeout { status: 0x40 });
    let refuses = Model { refuse_features: true, ..Model::default() };
    assert!(matches!(fails(refuses, |_| ()), InitError::FeaturesRefused { .. }));
    let restless = Model { config_changes_always: true, ..Model::default() };
    assert_eq!(fails(restless, |_| ()), InitError::ConfigUnstable);
    let no_pairs = Model { pairs_max: 0, ..Model::default() };
    let bad = InitError::BadConfig { field: "max_virtqueue_pairs", value: 0 };
    assert_eq!(fails(no_pairs, |_| ()), bad);
    let small = Model { mtu: 67, ..Model::default() };
    assert_eq!(fails(small, |_| ()), InitError::BadConfig { field: "mtu", value: 67 });
    let short = Model { queue_size: 16, ..Model::default() };
    assert_eq!(fails(short, |_| ()), InitError::Queue { index: 1, size: 16, needed: 19 });
    let few = Model { vectors: 3, ..Model::default() };
    assert_eq!(fails(few, |_| ()), InitError::Vector { queue: 4, vector: 3 });
    let what = "setting RSS up";
    let refuses = Model { ack: Some(1), ..Model::default() };
    let error = CommandError::Refused { ack: 1 };
    assert_eq!(fails(refuses, |_| ()), InitError::Command { what, error });
    let silent = Model { ack: None, ..Model::default() };
    let error = CommandError::TimedOut;
    assert_eq!(fails(silent, |_| ()), InitError::Command { what, error });
    assert!(matches!(fails(Model::default(), |c| c.queue_pairs = 0), InitError::BadRequest { .. }));
}

#[test]
fn running_out_of_memory_at_any_point_is_an_error_and_leaves_the_device_failed() {
    for allocations_left in 0.. {
        let buffers = Buffers::new(1, 16);
        let fake = Fake::new(buffers.memory.clone(), Model::default());
        let clock = ticking();
        let mut dma = FakeDma { memory: buffers.memory.clone(), allocations_left };
        match Port::open(fake.transport(), &mut dma, &config(&buffers, &clock)) {
            Ok(_) => return assert!(allocations_left > 10),
            Err(InitError::NoMemory { .. }) => assert_eq!(fake.with(|d| d.status), 0x80),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn registers_that_lie_never_make_it_panic_or_wait_for_ever() {
    let buffers = Buffers::new(1, 16);
    let mut opened = 0;
    for seed in 0..20_000 {
        let mut rng = Rng(seed);
        buffers.clear();
        let model = Model {
            noise: Some(rng.clone()),
            offered: Model::default().offered & (rng.next() | rng.next() | 1 << 32),
            ack: None,
            ..Model::default()
        };
        let fake = Fake::new(buffers.memory.clone(), model);
        let clock = ticking();
        opened += u32::from(open(&fake, &buffers.memory, &config(&buffers, &clock)).is_ok());
    }
    assert!(opened > 50, "some must get through, or this tests little: {opened}");
}
