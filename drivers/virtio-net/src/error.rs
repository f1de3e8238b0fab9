//! What can go wrong, said so that someone can act on it.
use crate::features::Features;
use core::fmt;

/// Why a port could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// The status register did not read 0 within the deadline after a reset.
    ResetTimeout {
        /// What it read last.
        status: u8,
    },
    /// The device lacks a feature that the driver cannot do without.
    Missing {
        /// The features.
        features: Features,
    },
    /// The device took `FEATURES_OK` back.
    FeaturesRefused {
        /// What was asked for.
        features: Features,
    },
    /// The device configuration kept changing while it was read.
    ConfigUnstable,
    /// A value of the device configuration is outside what the specification allows.
    BadConfig {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// A queue that the device says it has is not there or too small.
    Queue {
        /// Its index.
        index: u16,
        /// Entries that the device offers.
        size: u16,
        /// Entries needed.
        needed: u16,
    },
    /// A queue's notification register lies outside the notification window.
    NotifyWindow {
        /// The queue.
        index: u16,
        /// Where its register would be.
        offset: usize,
    },
    /// The device would not assign the interrupt vector.
    Vector {
        /// The queue.
        queue: u16,
        /// The entry of the MSI-X table that was asked for.
        vector: u16,
    },
    /// The DMA service has no memory left.
    NoMemory {
        /// For what.
        what: &'static str,
        /// How much.
        bytes: usize,
    },
    /// A command of the set-up failed.
    Command {
        /// Which.
        what: &'static str,
        /// How.
        error: CommandError,
    },
    /// The caller's configuration makes no sense.
    BadRequest {
        /// Why.
        what: &'static str,
    },
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("virtio-net: ")?;
        match self {
            Self::ResetTimeout { status } => write!(
                f,
                "reset did not finish (status {status:#04x}); the device is stuck: restart the \
                 virtual machine, or check that the BARs are mapped uncached at the right address"
            ),
            Self::Missing { features } => write!(
                f,
                "the device does not offer {features:?}; start QEMU with disable-legacy=on (or \
                 without disable-modern=on)"
            ),
            Self::FeaturesRefused { features } => write!(
                f,
                "the device refused the feature set {features:?}; decline some of them \
                 (Config::decline), hash report and RSS first"
            ),
            Self::ConfigUnstable => f.write_str(
                "the device configuration changed each time it was read; the device is faulty",
            ),
            Self::BadConfig { field, value } => write!(
                f,
                "configuration field {field} is {value}, which the specification does not allow; \
                 the device is faulty, or its configuration window is mapped wrongly"
            ),
            Self::Queue { index, size, needed } => write!(
                f,
                "queue {index} has {size} entries and {needed} are needed; raise the device's \
                 rx_queue_size or tx_queue_size"
            ),
            Self::NotifyWindow { index, offset } => write!(
                f,
                "the notification register of queue {index} would be at {offset:#x}, outside its \
                 window; the device is faulty"
            ),
            Self::Vector { queue, vector } => write!(
                f,
                "queue {queue} cannot have MSI-X entry {vector}; give the device more vectors \
                 (vectors=2*queues+2), or open the port without interrupts"
            ),
            Self::NoMemory { what, bytes } => write!(
                f,
                "no DMA memory for {what} ({bytes} bytes); give the machine more memory or use \
                 smaller rings"
            ),
            Self::Command { what, error } => write!(f, "{what}: {error}"),
            Self::BadRequest { what } => f.write_str(what),
        }
    }
}

impl core::error::Error for InitError {}

/// Why a control command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The device has no control queue, or not the feature that the command needs.
    Unsupported,
    /// The device answered with an error.
    Refused {
        /// The answer, `VIRTIO_NET_ERR` (1) from a sound device.
        ack: u8,
    },
    /// No answer within the deadline. The control queue is not used again.
    TimedOut,
    /// The device answered what was never asked. The control queue is not used again.
    Nonsense,
    /// The control queue is out of use since an earlier failure: reset the port.
    Dead,
    /// A command is under way: poll it to its end first.
    Busy,
    /// The entry or the queue does not exist.
    OutOfRange,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str("the device does not offer the feature for this"),
            Self::Refused { ack } => write!(
                f,
                "the device refused the command (answer {ack}); its back end may lack what the \
                 device offers: decline the feature"
            ),
            Self::TimedOut => f.write_str("no answer within the deadline; reset the port"),
            Self::Nonsense => f.write_str("the device answered what was not asked; reset the port"),
            Self::Dead => f.write_str("the control queue failed earlier; reset the port"),
            Self::Busy => f.write_str("a command is under way"),
            Self::OutOfRange => f.write_str("no such table entry or queue"),
        }
    }
}

impl core::error::Error for CommandError {}
