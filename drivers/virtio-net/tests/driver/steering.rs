//! RSS, the indirection table, hash report, the control queue.
use crate::fake::Model;
use crate::rig::{KEY, Rig, ticking};
use ix_dataplane::device::NicControl;
use ix_dataplane::time::Instant;
use ix_virtio_net::{CommandError, Features, Progress};

#[test]
fn rss_is_set_up_with_key_table_and_pairs_before_the_port_is_handed_out() {
    let rig = Rig::without(Features::empty());
    let steering = rig.fake.with(|d| d.steering.clone());
    assert_eq!(steering.pairs, 4);
    assert_eq!(steering.key, KEY);
    assert_eq!(steering.table, (0..128).map(|i| i % 4).collect::<Vec<u16>>());
    assert_eq!(steering.hash_types, 0b11_0110, "TCP and UDP over IPv4 and IPv6");
    assert!(rig.port.capabilities.rss && rig.port.capabilities.groups == 128);
}

#[test]
fn without_rss_the_pairs_are_enabled_by_number() {
    let rig = Rig::without(Features::RSS);
    let steering = rig.fake.with(|d| d.steering.clone());
    assert_eq!((steering.pairs, steering.table.len()), (4, 0));
    assert_eq!(steering.key, KEY, "by the hash configuration");
    assert!(!rig.port.capabilities.rss && rig.port.capabilities.hash_report);
}

#[test]
fn table_entries_and_queues_that_do_not_exist_are_refused() {
    let mut rig = Rig::without(Features::empty());
    let control = &mut rig.port.control;
    assert_eq!(control.set_reta(128, 0), Err(CommandError::OutOfRange));
    assert_eq!(control.set_reta(0, 4), Err(CommandError::OutOfRange));
    assert_eq!(control.reta()[0], 0);
    let mut rig = Rig::without(Features::RSS);
    assert_eq!(rig.port.control.set_reta(0, 0), Err(CommandError::Unsupported));
    assert_eq!(rig.port.control.commit(Instant(0)), Err(CommandError::Unsupported));
}

#[test]
fn a_command_that_gets_no_answer_fails_at_its_deadline_and_no_other_is_sent() {
    let mut rig = Rig::without(Features::empty());
    rig.fake.with(|d| d.model.ack = None);
    let control = &mut rig.port.control;
    control.commit(Instant(5)).unwrap();
    assert_eq!(control.commit(Instant(5)), Err(CommandError::Busy));
    assert_eq!(control.poll(Instant(2_000_000_005)), Progress::Pending);
    assert_eq!(control.poll(Instant(2_000_000_006)), Progress::Failed(CommandError::TimedOut));
    assert_eq!(control.commit(Instant(3_000_000_000)), Err(CommandError::Dead));
    assert_eq!(control.poll(Instant(3_000_000_000)), Progress::Idle);
}

#[test]
fn a_refused_command_says_so_and_the_next_may_succeed() {
    let mut rig = Rig::without(Features::empty());
    rig.fake.with(|d| d.model.ack = Some(1));
    let control = &mut rig.port.control;
    control.commit(Instant(0)).unwrap();
    let refused = Progress::Failed(CommandError::Refused { ack: 1 });
    assert_eq!(control.poll(Instant(0)), refused);
    rig.fake.with(|d| d.model.ack = Some(0));
    control.commit(Instant(0)).unwrap();
    assert_eq!(control.poll(Instant(0)), Progress::Done);
}

#[test]
fn an_answer_to_what_was_not_asked_ends_the_control_queue() {
    for lie in 0..2 {
        let mut rig = Rig::without(Features::empty());
        let memory = rig.buffers.memory.clone();
        rig.fake.with(|d| d.model.ack = None);
        rig.port.control.commit(Instant(0)).unwrap();
        rig.fake.with(|d| {
            let queue = d.control_queue();
            match lie {
                0 => d.queues[queue].jump(&memory, 2),
                _ => d.queues[queue].complete(&memory, 1, 1),
            }
        });
        let failed = Progress::Failed(CommandError::Nonsense);
        assert_eq!(rig.port.control.poll(Instant(0)), failed);
        assert_eq!(rig.port.control.commit(Instant(0)), Err(CommandError::Dead));
    }
}

#[test]
fn the_link_is_what_the_device_says_or_up() {
    let rig = Rig::without(Features::empty());
    assert!(rig.port.control.read_link_up());
    rig.fake.with(|d| d.model.link_up = false);
    assert!(!rig.port.control.read_link_up());
    let rig = Rig::new(Model { link_up: false, ..Model::default() }, |c| {
        c.decline = Features::STATUS;
    });
    assert!(rig.port.control.read_link_up());
}

#[test]
fn a_device_that_asks_for_a_reset_is_heard_and_one_that_does_not_reset_is_reported() {
    let mut rig = Rig::without(Features::empty());
    assert!(!rig.port.control.read_needs_reset());
    rig.fake.with(|d| d.status |= 64);
    assert!(rig.port.control.read_needs_reset());
    rig.fake.with(|d| d.model.reset_reads = u32::MAX);
    let error = rig.port.control.reset(&ticking()).expect_err("it is stuck");
    assert!(error.to_string().contains("reset did not finish (status 0x40)"), "{error}");
    rig.fake.with(|d| d.model.reset_reads = 1);
    assert!(rig.port.control.reset(&ticking()).is_ok());
    let refused = rig.port.control.commit(Instant(0));
    assert_eq!(refused, Err(CommandError::Unsupported), "the control queue went with the reset");
}
