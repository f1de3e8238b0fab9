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
    /// A bit of each so manieth frame's last byte flips inside of the chip, behind the FCS's back; 0: of none.
    pub flip_every: u32,
    /// Each so manieth frame that should be received is lost, and not counted; 0: none.
    pub lose_every: u32,
    /// Interrupts are not sent.
    pub no_interrupts: bool,
    /// The highest bit of RSSRK's words is stuck at 0.
    pub stuck_register_bit: bool,
    /// Wrong checksums are called right.
    pub blind_checksums: bool,
    /// Statistics of frames received are not counted.
    pub stuck_statistics: bool,
    /// For what is drawn.
    pub seed: u64,
}

impl Faults {
    /// Names that [`Faults::add`] knows.
    pub const NAMES: [&str; 15] = [
        "stuck-reset",
        "stuck-auto-read",
        "stuck-dma-init",
        "stuck-rx-enable",
        "stuck-tx-enable",
        "stuck-eeprom",
        "bad-eeprom",
        "no-module",
        "no-partner",
        "flipped-bits",
        "lost-frames",
        "no-interrupts",
        "stuck-register-bit",
        "blind-checksums",
        "stuck-statistics",
    ];

    /// Adds a fault by its name. `false`: there is none of that name.
    pub fn add(&mut self, name: &str) -> bool {
        let fault = match name {
            "stuck-reset" => &mut self.stuck_reset,
            "stuck-auto-read" => &mut self.stuck_auto_read,
            "stuck-dma-init" => &mut self.stuck_dma_init,
            "stuck-rx-enable" => &mut self.stuck_rx_enable,
            "stuck-tx-enable" => &mut self.stuck_tx_enable,
            "stuck-eeprom" => &mut self.stuck_eeprom,
            "bad-eeprom" => &mut self.bad_eeprom,
            "no-module" => &mut self.no_module,
            "no-partner" => &mut self.no_partner,
            "no-interrupts" => &mut self.no_interrupts,
            "stuck-register-bit" => &mut self.stuck_register_bit,
            "blind-checksums" => &mut self.blind_checksums,
            "stuck-statistics" => &mut self.stuck_statistics,
            "flipped-bits" => {
                self.flip_every = 100;
                return true;
            }
            "lost-frames" => {
                self.lose_every = 100;
                return true;
            }
            _ => return false,
        };
        *fault = true;
        true
    }
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
