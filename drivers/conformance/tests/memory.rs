//! The in-memory NIC keeps the contract: with all that it can offer, with less, and behind the kernel's kind of enum.
extern crate alloc;

mod full {
    use ix_driver_conformance::in_memory::InMemory;
    ix_driver_conformance::conformance!(InMemory::open);
}

/// One queue, and a card that knows nothing of frames.
mod bare {
    use ix_driver_conformance::in_memory::InMemory;
    use ix_driver_conformance::{Open, Wishes};

    fn open(wishes: &Wishes) -> Open<InMemory> {
        InMemory::open_with(wishes, |capabilities| {
            capabilities.tx_checksum = false;
            capabilities.rx_checksum = false;
            capabilities.hash_report = false;
            capabilities.rss = false;
            capabilities.queue_pairs = 1;
            capabilities.mtu = 1500;
            capabilities.tso = 0;
        })
    }

    ix_driver_conformance::conformance!(open, not offered: [
        frames_over_several_buffers_arrive_whole,
        checksums_are_good_only_where_both_are_right,
        the_hash_is_the_engines,
        what_has_no_ports_has_no_hash_and_comes_to_queue_0,
        checksums_that_are_asked_for_are_filled_in,
        large_frames_leave_as_segments,
        flows_come_to_the_queues_that_the_table_names,
        a_change_of_the_table_moves_a_flow_and_loses_nothing,
        entries_and_queues_that_do_not_exist_are_refused,
        one_change_at_a_time_whose_end_is_said_once,
        what_is_staged_during_a_change_waits_for_the_next,
        the_table_is_the_same_after_a_restart,
    ]);
}

/// The dispatch that the kernel has over its drivers.
mod dispatched {
    use ix_abi::CoreId;
    use ix_dataplane::device::BusAddr;
    use ix_dataplane::mbuf::Pool;
    use ix_dataplane::time::Instant;
    use ix_driver_conformance::in_memory::InMemory;
    use ix_driver_conformance::{Bench, Open, Wishes};
    use ix_memory_nic::Port;

    ix_dataplane::nics! {
        One(Port),
        Other(Port),
    }

    struct Dispatched(InMemory);

    fn open(wishes: &Wishes) -> Open<Dispatched> {
        let Open { device, rx, tx, control, capabilities, area } = InMemory::open(wishes);
        Open {
            device: Dispatched(device),
            rx: rx.into_iter().map(Rx::Other).collect(),
            tx: tx.into_iter().map(Queue::Other).collect(),
            control: Control::Other(control),
            capabilities,
            area,
        }
    }

    impl Bench for Dispatched {
        type Nic = Card;
        fn deliver(&mut self, frame: &[u8]) -> bool {
            self.0.deliver(frame)
        }
        fn sent(&mut self) -> Vec<Vec<u8>> {
            self.0.sent()
        }
        fn doorbells(&mut self) -> u64 {
            self.0.doorbells()
        }
        fn interrupts(&mut self) -> Vec<usize> {
            self.0.interrupts()
        }
        fn hold(&mut self, on: bool) {
            self.0.hold(on);
        }
        fn complete_out_of_turn(&mut self, queue: usize, nth: usize) -> bool {
            self.0.complete_out_of_turn(queue, nth)
        }
        fn settle(&mut self) {
            self.0.settle();
        }
        fn clock(&self) -> Box<dyn Fn() -> Instant> {
            self.0.clock()
        }
        fn memory(&mut self, len: usize) -> BusAddr {
            self.0.memory(len)
        }
        fn write(&mut self, at: BusAddr, bytes: &[u8]) {
            self.0.write(at, bytes);
        }
    }

    ix_driver_conformance::conformance!(open);

    #[test]
    fn a_proof_of_another_card_is_none() {
        let wishes = Wishes::default();
        let (mut one, mut other) = (InMemory::open(&wishes), InMemory::open(&wishes));
        let clock = one.device.clock();
        let mut pool = Pool::new(one.area, CoreId(0));
        let mut rx = Rx::One(one.rx.remove(0));
        rx.replenish(&mut pool);
        let stopped = Stopped::Other(other.control.reset(&*clock).expect("it stops"));
        rx.rewind(&stopped, &mut pool);
        assert_eq!(rx.held(), 256, "the buffers stay the card's");
        let refused = Control::One(one.control).restart(stopped, &*clock);
        assert_eq!(refused, Err("another card's proof".to_string()));
    }
}
