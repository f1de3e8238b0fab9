//! RSS: spread by flow, hashes, the indirection table.
use crate::frames::{Flow, TCP, UDP, frame};
use crate::rig::{KEY, Rig};
use ix_dataplane::device::NicControl;
use ix_dataplane::rss::{Toeplitz, group_of};
use ix_dataplane::time::Instant;
use ix_ixgbe::{CommandError, Progress};
use ix_model_ixgbe::Options;

fn hash(toeplitz: &Toeplitz, flow: Flow) -> u32 {
    let ([source, target], [sport, dport]) = (flow.addresses_v4(), flow.ports);
    if flow.v6 {
        let [source, target] = flow.addresses_v6();
        return toeplitz.hash_v6(source, target, sport, dport);
    }
    toeplitz.hash_v4(source, target, sport, dport)
}

#[test]
fn flows_of_both_families_spread_and_bring_the_hash_that_the_engine_has() {
    let toeplitz = Toeplitz::new(&KEY);
    for pairs in [1, 3, 4, 16] {
        let mut rig = Rig::new(Options::default(), |c| c.queue_pairs = pairs);
        let mut seen = vec![0; usize::from(pairs)];
        for number in 0..1000_u16 {
            let protocol = if number & 1 == 0 { TCP } else { UDP };
            let flow = Flow { v6: number & 2 != 0, protocol, source: 3, ports: [number, 11211] };
            rig.replenish();
            assert!(rig.world.receive(&frame(flow, &[1, 2, 3])));
            let expected = hash(&toeplitz, flow);
            let queue = usize::from(rig.port.control.reta()[expected as usize % 128]);
            let got = rig.poll(queue);
            assert_eq!((got.len(), got[0].0.hash), (1, Some(expected)));
            rig.free(got);
            seen[queue] += 1;
        }
        let least = 1000 / usize::from(pairs) / 2;
        assert!(seen.iter().all(|n| *n > least), "{seen:?}");
        rig.assert_conserved(0);
        rig.assert_clean();
    }
}

#[test]
fn a_frame_follows_its_group_to_the_queue_that_the_table_names() {
    let toeplitz = Toeplitz::new(&KEY);
    let mut rig = Rig::plain();
    for port in 0..300 {
        rig.replenish();
        let flow = Flow::tcp(port);
        let bytes = frame(flow, &[]);
        let group = group_of(hash(&toeplitz, flow), 128).0;
        let before = rig.port.control.reta()[usize::from(group)];
        let target = (before + 1 + port % 3) % 4;
        let control = &mut rig.port.control;
        control.set_reta(group, target).unwrap();
        control.commit(Instant(0)).unwrap();
        assert_eq!(control.commit(Instant(0)), Err(CommandError::Busy));
        assert_eq!(control.poll(Instant(99_999)), Progress::Pending);
        assert_eq!(control.poll(Instant(100_000)), Progress::Done);
        assert_eq!(control.poll(Instant(100_000)), Progress::Idle);
        assert!(rig.world.receive(&bytes));
        let got = rig.poll(usize::from(target));
        assert_eq!(got.len(), 1, "port {port}");
        rig.free(got);
    }
    rig.assert_conserved(0);
}

#[test]
fn a_change_writes_only_the_registers_that_it_touches() {
    let mut rig = Rig::plain();
    rig.watch();
    rig.port.control.set_reta(5, 3).unwrap();
    rig.port.control.set_reta(6, 3).unwrap();
    rig.port.control.set_reta(127, 0).unwrap();
    rig.port.control.commit(Instant(0)).unwrap();
    assert_eq!(rig.writes(), [(0xeb04, 0x0303_0300), (0xeb7c, 0x0002_0100)]);
}

#[test]
fn a_table_that_does_not_hold_what_was_written_is_said_so() {
    let mut rig = Rig::plain();
    rig.port.control.set_reta(5, 3).unwrap();
    rig.port.control.commit(Instant(0)).unwrap();
    rig.world.gone.set(true);
    let failed = Progress::Failed(CommandError::Refused { register: 1 });
    assert_eq!(rig.port.control.poll(Instant(1_000_000)), failed);
}

#[test]
fn table_entries_and_queues_that_do_not_exist_are_refused() {
    let mut rig = Rig::plain();
    let control = &mut rig.port.control;
    assert_eq!(control.set_reta(128, 0), Err(CommandError::OutOfRange));
    assert_eq!(control.set_reta(0, 4), Err(CommandError::OutOfRange));
    assert_eq!(control.reta()[0], 0);
}
