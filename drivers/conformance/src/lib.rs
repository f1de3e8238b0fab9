//! The contract with network drivers (`ix_dataplane::device`, `docs/drivers.md`) as tests: rules that every driver keeps,
//! each run against a device in software behind a [`Bench`].
//!
//! ```text
//! ix_driver_conformance::conformance!(|wishes| MyBench::open(wishes), not offered: [
//!     frames_complete_in_the_order_of_pushes_whatever_order_the_device_has,
//! ]);
//! ```
//!
//! makes one `#[test]` of each rule. What a device cannot have is *not offered*: a rule says so by its verdict, and the
//! list must name exactly those rules, so that none is skipped in silence. Not a word here is about one device.
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod bench;
pub mod frames;
pub mod in_memory;
mod rig;
pub mod rules;

pub use bench::{Bench, KEY, Make, Open, Wishes};
pub use rig::{Got, Rig};

/// What a rule has found, if it has not failed by a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The driver keeps it.
    Kept,
    /// The device has not what it is about.
    NotOffered(&'static str),
}

/// A rule for one kind of device.
pub type Rule<B> = fn(&Make<'_, B>) -> Verdict;

/// Calls a macro with all rules, each as `module::name`, behind whatever else it is to be given.
#[macro_export]
macro_rules! for_each_rule {
    ($($callback:ident)::+, $($more:tt)*) => {
        $($callback)::+! { { $($more)* }
            receive::frames_of_all_lengths_arrive_as_they_were,
            receive::a_receive_ring_wraps_many_times_and_keeps_the_order,
            receive::a_poll_takes_no_more_than_it_may_and_what_fits,
            receive::frames_over_several_buffers_arrive_whole,
            receive::an_empty_pool_posts_what_there_is_and_goes_on_later,
            receive::a_ring_without_buffers_drops_and_goes_on,
            offload::checksums_are_good_only_where_both_are_right,
            offload::the_hash_is_the_engines,
            offload::what_has_no_ports_has_no_hash_and_comes_to_queue_0,
            offload::checksums_that_are_asked_for_are_filled_in,
            offload::large_frames_leave_as_segments,
            transmit::frames_of_any_number_of_pieces_leave_as_they_are,
            transmit::the_smallest_and_the_largest_frame_leave_as_they_are,
            transmit::nothing_leaves_before_a_kick,
            transmit::a_pair_is_a_frame_of_two_pieces,
            transmit::a_transmit_ring_wraps_many_times_and_keeps_the_order,
            transmit::a_full_ring_says_so_and_loses_nothing,
            transmit::frames_are_complete_when_the_device_says_so_and_not_before,
            transmit::frames_complete_in_the_order_of_pushes_whatever_order_the_device_has,
            doorbells::one_doorbell_shows_a_batch_of_frames_and_none_shows_nothing,
            doorbells::one_doorbell_posts_a_batch_of_buffers_and_none_posts_nothing,
            steering::flows_come_to_the_queues_that_the_table_names,
            steering::a_change_of_the_table_moves_a_flow_and_loses_nothing,
            steering::entries_and_queues_that_do_not_exist_are_refused,
            steering::one_change_at_a_time_whose_end_is_said_once,
            steering::what_is_staged_during_a_change_waits_for_the_next,
            interrupts::a_queue_that_is_polled_is_not_woken,
            interrupts::an_armed_queue_is_woken_by_its_next_frame_and_no_other_is,
            interrupts::arming_says_exactly_whether_frames_wait,
            restart::a_restart_gives_every_buffer_and_every_frame_back_once,
            restart::what_was_delivered_is_polled_after_the_stop,
            restart::a_stopped_device_takes_and_sends_nothing,
            restart::what_is_published_before_the_start_is_told_after_it,
            restart::the_table_is_the_same_after_a_restart,
            walk::a_random_walk_accounts_for_every_frame_and_buffer,
        }
    };
}

/// See [`rules_of`].
#[doc(hidden)]
#[macro_export]
macro_rules! list_rules {
    ({ $bench:ty } $($module:ident::$rule:ident,)+) => {
        vec![$((stringify!($rule), $crate::rules::$module::$rule::<$bench> as $crate::Rule<$bench>)),+]
    };
}

/// See [`conformance`].
#[doc(hidden)]
#[macro_export]
macro_rules! test_rules {
    ({ $make:expr, $($not_offered:ident),* } $($module:ident::$rule:ident,)+) => {
        /// Rules about what the device has not.
        const NOT_OFFERED: &[&str] = &[$(stringify!($not_offered)),*];

        $(
            #[test]
            fn $rule() {
                $crate::check(stringify!($rule), $crate::rules::$module::$rule, &$make, NOT_OFFERED);
            }
        )+

        #[test]
        fn rules_that_are_not_offered_exist() {
            let rules = [$(stringify!($rule)),+];
            assert!(NOT_OFFERED.iter().all(|name| rules.contains(name)), "{NOT_OFFERED:?}");
        }
    };
}

/// One `#[test]` for each rule, against the devices that an expression of type `impl Fn(&Wishes) -> Open<B>` makes. Behind it, the
/// rules that are not offered: exactly those.
#[macro_export]
macro_rules! conformance {
    ($make:expr) => {
        $crate::conformance!($make, not offered: []);
    };
    ($make:expr, not offered: [$($rule:ident),* $(,)?]) => {
        $crate::for_each_rule! { $crate::test_rules, $make, $($rule),* }
    };
}

/// All rules by name.
pub fn rules_of<B: Bench>() -> Vec<(&'static str, Rule<B>)> {
    for_each_rule! { list_rules, B }
}

/// Runs a rule, and holds its verdict against what is said to be not offered.
pub fn check<B: Bench>(name: &str, rule: Rule<B>, make: &Make<'_, B>, not_offered: &[&str]) {
    let expected = not_offered.contains(&name);
    match rule(make) {
        Verdict::Kept => {
            assert!(!expected, "{name}: it is offered after all: take it from the list");
        }
        Verdict::NotOffered(why) => {
            println!("{name}: NOT OFFERED: {why}");
            assert!(
                expected,
                "{name}: not offered ({why}), and not in the list of those that are not"
            );
        }
    }
}
