//! What can go wrong, said so that someone can act on it.
use core::fmt;

/// Why a port could not be opened, stopped or started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// Registers read all ones: nobody is there.
    Gone,
    /// CTRL.RST did not clear within the deadline (§4.2.1.6.1).
    ResetTimeout {
        /// What CTRL read last.
        ctrl: u32,
    },
    /// The chip did not read its EEPROM within the deadline (§4.6.3).
    EepromAutoRead {
        /// What EEC read last.
        eec: u32,
    },
    /// EERD was not done within the deadline (§8.2.3.2.2).
    EepromTimeout {
        /// The word.
        word: u16,
    },
    /// The EEPROM's checksum is wrong.
    EepromChecksum {
        /// What the sum gives, instead of 0xbaba.
        sum: u16,
    },
    /// The MAC address of the EEPROM is none.
    BadMac {
        /// The address.
        mac: [u8; 6],
    },
    /// RDRXCTL.DMAIDONE did not become set within the deadline (§4.6.3).
    DmaInitTimeout,
    /// The receive path could not be paused to be enabled (SECRXSTAT.SECRX_RDY, §4.6.7).
    ReceivePathTimeout,
    /// A queue's ENABLE bit did not become what was written (§4.6.7.1, §4.6.8.1).
    QueueTimeout {
        /// `"receive"` or `"transmit"`.
        what: &'static str,
        /// Which.
        queue: u16,
    },
    /// The `Dma` service has not what is needed.
    NoMemory {
        /// What for.
        what: &'static str,
        /// How much.
        bytes: usize,
    },
    /// The caller's configuration makes no sense.
    BadRequest {
        /// Why.
        what: &'static str,
    },
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ixgbe: ")?;
        match self {
            Self::Gone => f.write_str(
                "registers read all ones; memory access is off in the command register, BAR 0 is mapped wrongly, \
                 or the card was taken out",
            ),
            Self::ResetTimeout { ctrl } => write!(
                f,
                "reset did not finish (CTRL {ctrl:#010x}); power the machine off and on, since a warm start does \
                 not reset the card"
            ),
            Self::EepromAutoRead { eec } => write!(
                f,
                "the card did not read its EEPROM (EEC {eec:#010x}); it is blank or faulty: program it with the \
                 vendor's tool"
            ),
            Self::EepromTimeout { word } => {
                write!(f, "word {word:#x} of the EEPROM could not be read; the card is faulty")
            }
            Self::EepromChecksum { sum } => write!(
                f,
                "the EEPROM's checksum is wrong ({sum:#06x} instead of 0xbaba); its contents are damaged: program \
                 it with the vendor's tool"
            ),
            Self::BadMac { mac } => write!(
                f,
                "the EEPROM's MAC address is {mac:02x?}, which is no station's; program the EEPROM"
            ),
            Self::DmaInitTimeout => {
                f.write_str("DMA initialisation did not finish; power the machine off and on")
            }
            Self::ReceivePathTimeout => {
                f.write_str("the receive path did not become idle; power the machine off and on")
            }
            Self::QueueTimeout { what, queue } => write!(
                f,
                "{what} queue {queue} did not change its state; is bus mastering on in the command register, and \
                 may the card reach its rings (IOMMU)?"
            ),
            Self::NoMemory { what, bytes } => write!(
                f,
                "no DMA memory for {what} ({bytes} bytes); give the machine more memory or use smaller rings"
            ),
            Self::BadRequest { what } => f.write_str(what),
        }
    }
}

impl core::error::Error for InitError {}

/// Why the indirection table was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The entry or the queue does not exist.
    OutOfRange,
    /// A change is under way: poll it to its end first.
    Busy,
    /// The port is stopped.
    Stopped,
    /// The table does not read what was written.
    Refused {
        /// The register.
        register: u16,
    },
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange => f.write_str("no such table entry or queue"),
            Self::Busy => f.write_str("a change is under way"),
            Self::Stopped => f.write_str("the port is stopped"),
            Self::Refused { register } => {
                write!(f, "RETA({register}) does not read what was written; reset the port")
            }
        }
    }
}

impl core::error::Error for CommandError {}

/// Why there is no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The cage is empty.
    NoModule,
    /// A module is there, and the other end is not heard.
    NoSignal {
        /// What LINKS read last.
        links: u32,
    },
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoModule => {
                f.write_str("ixgbe: no link: no SFP+ module is in the cage (or it is not seated)")
            }
            Self::NoSignal { links } => write!(
                f,
                "ixgbe: no link (LINKS {links:#010x}): nothing is heard from the other end; is the cable plugged \
                 in at both ends, is the other port up, and does it speak 10 Gb/s?"
            ),
        }
    }
}

impl core::error::Error for LinkError {}
