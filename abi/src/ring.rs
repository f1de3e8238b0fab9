//! Index arithmetic of the shared rings: free-running 32-bit counters, masked by the capacity.
//!
//! The indices are pure numbers here. Whoever reads one from memory that the other side can write
//! must pass it through [`readable`] before using it.

/// Records in `[consumer, producer)`, if the alleged `producer` is possible at all.
///
/// `None` if it claims more records than the ring has slots: the other side is broken or hostile.
pub const fn readable(producer: u32, consumer: u32, capacity: u32) -> Option<u32> {
    let count = producer.wrapping_sub(consumer);
    if count <= capacity { Some(count) } else { None }
}

/// Free slots for the producer, given the alleged `consumer`; 0 if it is impossible.
pub const fn writable(producer: u32, consumer: u32, capacity: u32) -> u32 {
    capacity.saturating_sub(producer.wrapping_sub(consumer))
}

/// The slot of a free-running index; `capacity` is a power of two.
pub const fn slot(index: u32, capacity: u32) -> usize {
    (index & (capacity - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_ahead_by_more_than_the_capacity_is_refused() {
        assert_eq!(readable(16, 0, 16), Some(16));
        assert_eq!(readable(17, 0, 16), None);
        assert_eq!(readable(0, 1, 16), None);
    }

    #[test]
    fn indices_wrap() {
        assert_eq!(readable(3, u32::MAX - 1, 16), Some(5));
        assert_eq!(writable(3, u32::MAX - 1, 16), 11);
        assert_eq!(slot(u32::MAX, 16), 15);
    }

    #[test]
    fn an_impossible_consumer_leaves_no_room() {
        assert_eq!(writable(0, 1, 16), 0);
    }
}
