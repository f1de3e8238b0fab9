//! The rules, by what they are about. Each opens devices of its own, and panics where one is broken.
pub mod doorbells;
pub mod interrupts;
pub mod offload;
pub mod receive;
pub mod restart;
pub mod steering;
pub mod transmit;
pub mod walk;

use crate::Verdict;
use ix_dataplane::device::Capabilities;

/// For rules about several queues.
fn without_queues(capabilities: &Capabilities) -> Option<Verdict> {
    if capabilities.queue_pairs < 2 {
        return Some(Verdict::NotOffered("one queue pair"));
    }
    without_rss(capabilities)
}

fn without_rss(capabilities: &Capabilities) -> Option<Verdict> {
    (!capabilities.rss).then_some(Verdict::NotOffered("no indirection table"))
}
