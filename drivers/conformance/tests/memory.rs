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
        })
    }

    ix_driver_conformance::conformance!(open, not offered: [
        frames_over_several_buffers_arrive_whole,
        checksums_are_good_only_where_both_are_right,
        the_hash_is_the_engines,
        what_has_no_ports_has_no_hash_and_comes_to_queue_0,
        checksums_that_are_asked_for_are_filled_in,
        flows_come_to_the_queues_that_the_table_names,
        a_change_of_the_table_moves_a_flow_and_loses_nothing,
        entries_and_queues_that_do_not_exist_are_refused,
        one_change_at_a_time_whose_end_is_said_once,
        what_is_staged_during_a_change_waits_for_the_next,
        the_table_is_the_same_after_a_restart,
    ]);
}
