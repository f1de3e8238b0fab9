//! Feature bits and what is made of an offer, as a pure function (virtio 1.2 §2.2, §5.1.3, §6).
use crate::error::InitError;

bitflags::bitflags! {
    /// Feature bits that this driver knows.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// The device completes transport checksums of transmitted frames.
        const CSUM = 1 << 0;
        /// The driver takes frames with partial checksums.
        const GUEST_CSUM = 1 << 1;
        /// The configuration holds the MTU.
        const MTU = 1 << 3;
        /// The configuration holds the MAC address.
        const MAC = 1 << 5;
        /// The driver takes TCP over IPv4 that the device has merged, or never cut.
        const GUEST_TSO4 = 1 << 7;
        /// The same over IPv6.
        const GUEST_TSO6 = 1 << 8;
        /// The device cuts TCP over IPv4 into segments.
        const HOST_TSO4 = 1 << 11;
        /// The device cuts TCP over IPv6 into segments.
        const HOST_TSO6 = 1 << 12;
        /// A received frame may take several buffers.
        const MRG_RXBUF = 1 << 15;
        /// The configuration holds the link status.
        const STATUS = 1 << 16;
        /// There is a control queue.
        const CTRL_VQ = 1 << 17;
        /// More than one queue pair, with automatic receive steering.
        const MQ = 1 << 22;
        /// Descriptors may point to tables of descriptors.
        const INDIRECT_DESC = 1 << 28;
        /// Suppression by ring index. Not used: `docs/drivers.md`.
        const EVENT_IDX = 1 << 29;
        /// Virtio 1.0 or later.
        const VERSION_1 = 1 << 32;
        /// Addresses are bus addresses, behind an IOMMU perhaps.
        const ACCESS_PLATFORM = 1 << 33;
        /// Memory is ordered as the platform's devices need it.
        const ORDER_PLATFORM = 1 << 36;
        /// The receive header carries the Toeplitz hash.
        const HASH_REPORT = 1 << 57;
        /// Receive steering by hash and indirection table.
        const RSS = 1 << 60;
    }
}

/// Cannot do without.
const REQUIRED: Features = Features::VERSION_1;

/// Taken when offered. The addresses given to the device come from a `Dma` service, so that they
/// are right with an IOMMU too; x86's store order satisfies `ORDER_PLATFORM`.
const WANTED: Features = Features::CSUM
    .union(Features::GUEST_CSUM)
    .union(Features::MTU)
    .union(Features::MAC)
    .union(Features::GUEST_TSO4)
    .union(Features::GUEST_TSO6)
    .union(Features::HOST_TSO4)
    .union(Features::HOST_TSO6)
    .union(Features::MRG_RXBUF)
    .union(Features::STATUS)
    .union(Features::CTRL_VQ)
    .union(Features::MQ)
    .union(Features::INDIRECT_DESC)
    .union(Features::VERSION_1)
    .union(Features::ACCESS_PLATFORM)
    .union(Features::ORDER_PLATFORM)
    .union(Features::HASH_REPORT)
    .union(Features::RSS);

/// Large receive.
pub const LARGE_RECEIVE: Features = Features::GUEST_TSO4.union(Features::GUEST_TSO6);

/// What to answer to an offer. `decline` is what the caller does not want.
pub fn negotiate(offered: u64, decline: Features) -> Result<Features, InitError> {
    let offered = Features::from_bits_truncate(offered);
    let missing = REQUIRED - offered;
    if !missing.is_empty() {
        return Err(InitError::Missing { features: missing });
    }
    let mut chosen = (offered & WANTED & !decline) | REQUIRED;
    // §5.1.3.1: segments need checksums; and one way to cut is of use only with the other.
    let tso = Features::HOST_TSO4 | Features::HOST_TSO6;
    if !chosen.contains(tso | Features::CSUM) {
        chosen -= tso;
    }
    // The same; and without mergeable buffers each posted buffer would have to take 64 KiB.
    if !chosen.contains(Features::GUEST_CSUM | Features::MRG_RXBUF) {
        chosen -= LARGE_RECEIVE;
    }
    // §5.1.3.1: these need the control queue.
    if !chosen.contains(Features::CTRL_VQ) {
        chosen -= Features::MQ | Features::RSS | Features::HASH_REPORT;
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_without_version_1_is_refused_by_name() {
        let error = negotiate((Features::MAC | Features::CSUM).bits(), Features::empty());
        assert_eq!(error, Err(InitError::Missing { features: Features::VERSION_1 }));
    }

    #[test]
    fn multi_queue_and_rss_fall_with_the_control_queue() {
        let offer = Features::VERSION_1 | Features::MQ | Features::RSS | Features::HASH_REPORT;
        assert_eq!(negotiate(offer.bits(), Features::empty()), Ok(Features::VERSION_1));
        let with_control = (offer | Features::CTRL_VQ).bits();
        assert_eq!(negotiate(with_control, Features::empty()).unwrap().bits(), with_control);
        assert_eq!(negotiate(with_control, Features::CTRL_VQ), Ok(Features::VERSION_1));
    }

    #[test]
    fn segmentation_falls_without_checksums_or_with_one_half_of_it() {
        let tso = Features::HOST_TSO4 | Features::HOST_TSO6;
        let all = (Features::VERSION_1 | Features::CSUM | tso).bits();
        assert_eq!(negotiate(all, Features::empty()).unwrap().bits(), all);
        for decline in [Features::CSUM, Features::HOST_TSO4, Features::HOST_TSO6] {
            assert!(!negotiate(all, decline).unwrap().intersects(tso), "{decline:?}");
        }
    }

    #[test]
    fn large_receive_falls_without_checksums_or_mergeable_buffers() {
        let needs = Features::GUEST_CSUM | Features::MRG_RXBUF;
        for large in [Features::GUEST_TSO4, LARGE_RECEIVE] {
            let all = (Features::VERSION_1 | needs | large).bits();
            assert_eq!(negotiate(all, Features::empty()).unwrap().bits(), all);
            for decline in [Features::GUEST_CSUM, Features::MRG_RXBUF] {
                let chosen = negotiate(all, decline).unwrap();
                assert!(!chosen.intersects(LARGE_RECEIVE), "{decline:?}");
            }
        }
    }

    #[test]
    fn unknown_and_unwanted_bits_are_never_acknowledged() {
        let chosen = negotiate(u64::MAX, Features::empty()).unwrap();
        assert_eq!(chosen, WANTED);
        assert!(!chosen.contains(Features::EVENT_IDX));
        // GUEST_ECN, GUEST_UFO, packed rings, NOTIFICATION_DATA.
        assert_eq!(chosen.bits() & (1 << 9 | 1 << 10 | 1 << 34 | 1 << 38), 0);
    }
}
