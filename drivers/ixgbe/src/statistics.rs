//! What the chip counts (§8.2.3.23). Its registers clear when they are read, so they are added up here.
use crate::chip::Chip;
use crate::regs::*;
use ix_dataplane::device::Mmio;

/// Counts since the port was opened; they go on over restarts. Bytes include the FCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames from the wire, whomever they were for.
    pub rx_all: u64,
    /// Frames that passed the filters.
    pub rx_good: u64,
    /// Their bytes.
    pub rx_good_bytes: u64,
    /// Of these, to a group.
    pub rx_multicast: u64,
    /// Of these, to all.
    pub rx_broadcast: u64,
    /// Lost because the packet buffer was full.
    pub rx_missed: u64,
    /// Lost because a queue had no descriptor.
    pub rx_no_descriptor: u64,
    /// With a wrong FCS.
    pub rx_crc_errors: u64,
    /// With an illegal byte.
    pub rx_illegal_bytes: u64,
    /// With a length that is not that of the header.
    pub rx_length_errors: u64,
    /// Too short.
    pub rx_undersize: u64,
    /// Too long.
    pub rx_oversize: u64,
    /// Faults of this end of the link, and of the other.
    pub local_faults: u64,
    /// See above.
    pub remote_faults: u64,
    /// Pause frames that have come: to go on, and to stop.
    pub rx_xon: u64,
    /// See above.
    pub rx_xoff: u64,
    /// Pause frames that the chip has sent: to go on, and to stop.
    pub tx_xon: u64,
    /// See above.
    pub tx_xoff: u64,
    /// Frames sent; pause frames may be among them.
    pub tx_good: u64,
    /// Their bytes.
    pub tx_good_bytes: u64,
}

impl Statistics {
    /// Adds what the chip has counted since the last time.
    pub(crate) fn add<M: Mmio>(&mut self, chip: &Chip<M>) {
        let read = |register| u64::from(chip.read(register));
        // The low half first: reading the high half ends the count (§8.2.3.23).
        let wide = |low, high| read(low) | read(high) << 32;
        let all = |array: Array| (0..array.count).map(|i| read(array.at(i))).sum::<u64>();
        self.rx_all += read(TPR);
        self.rx_good += read(GPRC);
        self.rx_good_bytes += wide(GORCL, GORCH);
        self.rx_multicast += read(MPRC);
        self.rx_broadcast += read(BPRC);
        self.rx_missed += all(RXMPC);
        self.rx_no_descriptor += all(QPRDC);
        self.rx_crc_errors += read(CRCERRS);
        self.rx_illegal_bytes += read(ILLERRC);
        self.rx_length_errors += read(RLEC);
        self.rx_undersize += read(RUC);
        self.rx_oversize += read(ROC);
        self.local_faults += read(MLFC);
        self.remote_faults += read(MRFC);
        self.rx_xon += read(LXONRXCNT);
        self.rx_xoff += read(LXOFFRXCNT);
        self.tx_xon += read(LXONTXC);
        self.tx_xoff += read(LXOFFTXC);
        self.tx_good += read(GPTC);
        self.tx_good_bytes += wide(GOTCL, GOTCH);
    }

    /// Frames that were lost for want of a descriptor or of room in the packet buffer.
    pub const fn missed(&self) -> u64 {
        self.rx_missed + self.rx_no_descriptor
    }

    /// Reads one of the counters of such frames: of the one packet buffer that is in use, or of a queue.
    pub(crate) fn add_missed<M: Mmio>(&mut self, chip: &Chip<M>, number: u32) {
        let (sum, register) = match number.checked_sub(1) {
            None => (&mut self.rx_missed, RXMPC.at(0)),
            Some(queue) => (&mut self.rx_no_descriptor, QPRDC.at(queue)),
        };
        // A chip that is gone reads all ones.
        *sum += Some(chip.read(register)).filter(|lost| *lost != u32::MAX).map_or(0, u64::from);
    }

    /// §4.6.5: clears the chip's, and gives each of 16 queues a counter of its own.
    pub(crate) fn start<M: Mmio>(chip: &Chip<M>) {
        Statistics::default().add(chip);
        for i in 0..4 {
            chip.write(RQSMR.at(i), 0x0302_0100 + 0x0404_0404 * i);
        }
    }
}
