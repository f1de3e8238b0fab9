//! What can be wrong with a chip, on request.

/// Faults to begin with; [`crate::Chip::faults`] changes them later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// CTRL.RST and CTRL.LRST never clear.
    pub stuck_reset: bool,
    /// STATUS.PCIe Master Enable stays set.
    pub stuck_master: bool,
    /// EEC.Auto_RD stays clear: the EEPROM is not read.
    pub stuck_auto_read: bool,
    /// RDRXCTL.DMAIDONE stays clear.
    pub stuck_dma_init: bool,
    /// RXDCTL.ENABLE of no queue becomes set.
    pub stuck_rx_enable: bool,
    /// TXDCTL.ENABLE of no queue becomes set.
    pub stuck_tx_enable: bool,
    /// No transmit descriptor is taken, until the next reset cures it.
    pub stuck_tx: bool,
    /// EERD never says that it is done.
    pub stuck_eeprom: bool,
    /// A bit of the EEPROM has flipped: its checksum is wrong.
    pub bad_eeprom: bool,
    /// The EEPROM starts the link in another mode than the module's: 1 Gb/s.
    pub other_link_mode: bool,
    /// What the datasheet calls undefined after a reset is anything, not 0.
    pub undefined_is_anything: bool,
    /// The cage is empty.
    pub no_module: bool,
    /// The other end is not there.
    pub no_partner: bool,
    /// A descriptor is written back up to so much later, in the order of its queue; the queues overtake each
    /// other. The datasheet promises no time (§7.1.5, §7.2.3.5).
    pub write_back_delay_ns: u64,
    /// So many of the next accesses to memory are answered with an error.
    pub dma_errors: u32,
    /// For what is drawn.
    pub seed: u64,
}

/// A small generator (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}
