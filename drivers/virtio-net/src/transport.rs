//! The modern PCI transport: registers by name over mapped windows (virtio 1.2 §4.1.4).
use crate::error::InitError;
use crate::pci::{Layout, Window};
use ix_dataplane::device::{BusAddr, Mmio};
use ix_dataplane::time::Duration;

pub use ix_dataplane::device::Clock;

/// How long a device may take to reset. QEMU does it at once; hardware may drain DMA first.
pub const RESET_DEADLINE: Duration = Duration::from_s(1);

/// `struct virtio_pci_common_cfg` (§4.1.4.3).
mod common {
    pub const DEVICE_FEATURE_SELECT: usize = 0;
    pub const DEVICE_FEATURE: usize = 4;
    pub const DRIVER_FEATURE_SELECT: usize = 8;
    pub const DRIVER_FEATURE: usize = 12;
    pub const CONFIG_MSIX_VECTOR: usize = 16;
    pub const NUM_QUEUES: usize = 18;
    pub const DEVICE_STATUS: usize = 20;
    pub const CONFIG_GENERATION: usize = 21;
    pub const QUEUE_SELECT: usize = 22;
    pub const QUEUE_SIZE: usize = 24;
    pub const QUEUE_MSIX_VECTOR: usize = 26;
    pub const QUEUE_ENABLE: usize = 28;
    pub const QUEUE_NOTIFY_OFF: usize = 30;
    pub const QUEUE_DESC: usize = 32;
    pub const QUEUE_DRIVER: usize = 40;
    pub const QUEUE_DEVICE: usize = 48;
}

/// Device status bits (§2.1).
pub(crate) mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
    pub const FAILED: u8 = 128;
}

/// No interrupt (§4.1.4.3).
pub(crate) const NO_VECTOR: u16 = 0xffff;

/// The register windows of one device, mapped.
#[derive(Clone, Debug)]
pub struct Transport<M> {
    common: M,
    notify: M,
    notify_length: usize,
    notify_multiplier: u32,
    isr: M,
    device: M,
}

/// A queue, as the device has to be told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueSetup {
    pub queue: u16,
    pub size: u16,
    pub vector: u16,
    pub descriptors: BusAddr,
    pub driver: BusAddr,
    pub device: BusAddr,
}

impl<M: Mmio + Clone> Transport<M> {
    /// Maps the four windows of `layout`, each by a call of `map`, which yields the registers from
    /// the window's start on, uncached.
    pub fn map<E>(
        layout: &Layout,
        mut map: impl FnMut(Window) -> Result<M, E>,
    ) -> Result<Transport<M>, E> {
        Ok(Transport {
            common: map(layout.common)?,
            notify: map(layout.notify)?,
            notify_length: layout.notify.length as usize,
            notify_multiplier: layout.notify_multiplier,
            isr: map(layout.isr)?,
            device: map(layout.device)?,
        })
    }

    /// Resets the device (§4.1.4.3.2: write 0, then wait until it reads 0) and waits for it.
    pub(crate) fn reset(&self, clock: Clock<'_>) -> Result<(), InitError> {
        self.common.write8(common::DEVICE_STATUS, 0);
        let deadline = clock() + RESET_DEADLINE;
        loop {
            let status = self.read_status();
            if status == 0 {
                return Ok(());
            }
            if clock() > deadline {
                return Err(InitError::ResetTimeout { status });
            }
            core::hint::spin_loop();
        }
    }

    pub(crate) fn read_status(&self) -> u8 {
        self.common.read8(common::DEVICE_STATUS)
    }

    /// Sets bits of the status; the others stay (§2.1.1: never cleared but by reset).
    pub(crate) fn add_status(&self, bits: u8) {
        self.common.write8(common::DEVICE_STATUS, self.read_status() | bits);
    }

    pub(crate) fn read_features(&self) -> u64 {
        let half = |select: u32| {
            self.common.write32(common::DEVICE_FEATURE_SELECT, select);
            u64::from(self.common.read32(common::DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    pub(crate) fn write_features(&self, features: u64) {
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.common.write32(common::DRIVER_FEATURE_SELECT, select);
            self.common.write32(common::DRIVER_FEATURE, half);
        }
    }

    pub(crate) fn read_queue_count(&self) -> u16 {
        self.common.read16(common::NUM_QUEUES)
    }

    /// Configuration changes do not interrupt: the control part looks when asked.
    pub(crate) fn disable_config_interrupt(&self) {
        self.common.write16(common::CONFIG_MSIX_VECTOR, NO_VECTOR);
    }

    /// Entries that the device offers for a queue; 0 if it has none such.
    pub(crate) fn read_queue_size(&self, queue: u16) -> u16 {
        self.common.write16(common::QUEUE_SELECT, queue);
        self.common.read16(common::QUEUE_SIZE)
    }

    /// Where in the notification window a queue's register is (§4.1.4.4).
    pub(crate) fn notify_offset(&self, queue: u16) -> Result<usize, InitError> {
        self.common.write16(common::QUEUE_SELECT, queue);
        let unit = self.common.read16(common::QUEUE_NOTIFY_OFF);
        let offset = usize::from(unit) * self.notify_multiplier as usize;
        if offset + 2 > self.notify_length {
            return Err(InitError::NotifyWindow { index: queue, offset });
        }
        Ok(offset)
    }

    pub(crate) fn notify_window(&self) -> M {
        self.notify.clone()
    }

    /// Gives the device a queue's rings and starts it (§4.1.5.1.3).
    pub(crate) fn enable_queue(&self, setup: &QueueSetup) -> Result<(), InitError> {
        let common = &self.common;
        let QueueSetup { queue, size, vector, descriptors, driver, device } = *setup;
        common.write16(common::QUEUE_SELECT, queue);
        common.write16(common::QUEUE_SIZE, size);
        common.write16(common::QUEUE_MSIX_VECTOR, vector);
        // §4.1.5.1.2.2: a device without resources for the vector answers NO_VECTOR.
        if common.read16(common::QUEUE_MSIX_VECTOR) != vector {
            return Err(InitError::Vector { queue, vector });
        }
        common.write64(common::QUEUE_DESC, descriptors.0);
        common.write64(common::QUEUE_DRIVER, driver.0);
        common.write64(common::QUEUE_DEVICE, device.0);
        common.write16(common::QUEUE_ENABLE, 1);
        Ok(())
    }

    /// Interrupt status; reading it clears it and takes the INTx line back (§4.1.4.5).
    pub(crate) fn read_isr(&self) -> u8 {
        self.isr.read8(0)
    }

    /// Reads fields of the device configuration that belong together (§2.5.1: again if it changed
    /// meanwhile, a bounded number of times).
    pub(crate) fn read_config<T>(&self, read: impl Fn(&M) -> T) -> Result<T, InitError> {
        const TRIES: usize = 16;
        for _ in 0..TRIES {
            let before = self.common.read8(common::CONFIG_GENERATION);
            let value = read(&self.device);
            if self.common.read8(common::CONFIG_GENERATION) == before {
                return Ok(value);
            }
        }
        Err(InitError::ConfigUnstable)
    }

    /// A field that needs no consistency with others.
    pub(crate) fn device_config(&self) -> &M {
        &self.device
    }
}
