//! What reads and writes of single registers do.
use crate::faults::Random;
use crate::map::Map;
use crate::pause::Pause;
use crate::regs::Id;
use crate::rx::QUEUE_ENABLE;
use crate::{Chip, Memory, Outside, eeprom, filter, link};

/// CTRL (§8.2.3.1.1).
const MASTER_DISABLE: u32 = 1 << 2;
const LINK_RESET: u32 = 1 << 3;
const DEVICE_RESET: u32 = 1 << 26;
/// STATUS.LinkUp, STATUS.PCIe Master Enable (§8.2.3.1.2).
const STATUS_LINK_UP: u32 = 1 << 7;
const STATUS_MASTER: u32 = 1 << 19;
/// EEC (§8.2.3.2.1): request and grant, present, read by itself, all parts configured.
const EEC_REQUEST: u32 = 1 << 6;
const EEC_GRANT: u32 = 1 << 7;
const EEC_PRESENT: u32 = 1 << 8;
const EEC_AUTO_READ: u32 = 1 << 9;
const EEC_PARTS_DONE: u32 = 0x7f << 15;
/// EERD (§8.2.3.2.2).
const EERD_START: u32 = 1;
const EERD_DONE: u32 = 1 << 1;
/// RDRXCTL.DMAIDONE (§8.2.3.8.8).
const DMA_INIT_DONE: u32 = 1 << 3;
/// SECRXCTRL.RX_DIS, SECRXSTAT.SECRX_RDY (§8.2.3.12.5, .6).
const SEC_RX_DISABLE: u32 = 1 << 1;
const SEC_RX_READY: u32 = 1;
/// HLREG0.LPBK.
const LOOPBACK: u32 = 1 << 15;
/// MSCA.MDI command, which clears itself when it is done.
const MDI_COMMAND: u32 = 1 << 30;
/// FDIRCTRL.INIT-Done.
const FDIR_INIT_DONE: u32 = 1 << 3;

/// Whether the device has a cage for SFP+ modules.
pub(crate) const fn has_cage(device_id: u16) -> bool {
    matches!(device_id, 0x10fb | 0x1529 | 0x1507 | 0x154d | 0x1557 | 0x154a | 0x1558)
}

impl Chip {
    pub(crate) fn is_loopback(&self) -> bool {
        self.map.get(Id::HLREG0) & LOOPBACK != 0
    }

    pub(crate) fn read_register(&mut self, id: Id, index: usize) -> u32 {
        let value = self.map.at(id, index);
        match id {
            Id::STATUS => self.status(),
            Id::CTRL if self.faults.stuck_reset => value,
            Id::CTRL => value & !(DEVICE_RESET | LINK_RESET),
            Id::ESDP if has_cage(self.options.device_id) => {
                let present = if self.link.module { link::MODULE_PRESENT } else { 0 };
                value & !link::MODULE_PRESENT | present
            }
            Id::I2CCTL => self.sfp.read(value),
            Id::EEC => self.eec(),
            Id::FRTIMER => (self.now_ns / 1_000) as u32,
            Id::SWSM => {
                // SMBI: the first read takes the semaphore (§8.2.3.4.9).
                self.map.change(Id::SWSM, 1, 0);
                value
            }
            Id::RDRXCTL if self.faults.stuck_dma_init => value & !DMA_INIT_DONE,
            Id::SECRXSTAT => {
                let disabled = self.map.get(Id::SECRXCTRL) & SEC_RX_DISABLE != 0;
                value | if disabled { SEC_RX_READY } else { 0 }
            }
            Id::LINKS => self.link.links(),
            Id::EICR
            | Id::EICS
            | Id::EIMS
            | Id::EIAM
            | Id::EIMC
            | Id::EICS_EX
            | Id::EIMS_EX
            | Id::EIMC_EX
            | Id::EIAM_EX => self.interrupts.read(id, index, self.map.get(Id::GPIE)),
            _ => self.map.read(id, index),
        }
    }

    /// Whether the chip makes requests (§5.2.5.3.2).
    pub(crate) fn is_master(&self) -> bool {
        self.map.get(Id::CTRL) & MASTER_DISABLE == 0 || self.faults.stuck_master
    }

    fn status(&self) -> u32 {
        let master = self.is_master();
        let link = if self.link.is_up() { STATUS_LINK_UP } else { 0 };
        link | if master { STATUS_MASTER } else { 0 }
    }

    fn eec(&self) -> u32 {
        let value = self.map.get(Id::EEC);
        let grant = if value & EEC_REQUEST != 0 { EEC_GRANT } else { 0 };
        let read = if self.faults.stuck_auto_read { 0 } else { EEC_AUTO_READ };
        value & 0x7f | grant | read | EEC_PRESENT | EEC_PARTS_DONE | eeprom::SIZE_CODE << 11
    }

    pub(crate) fn write_register(
        &mut self,
        id: Id,
        index: usize,
        value: u32,
        memory: &dyn Memory,
        outside: &mut dyn Outside,
    ) {
        match id {
            Id::CTRL => self.write_ctrl(value),
            Id::I2CCTL => {
                self.map.set(id, value);
                self.sfp.write(value);
            }
            Id::EERD => self.write_eerd(value),
            Id::RDT => {
                self.map.set_at(id, index, value & 0xffff);
                self.drain_waiting(memory);
                self.judge_buffer(outside);
                self.deliver_interrupts(outside);
            }
            Id::TDT => {
                self.map.set_at(id, index, value & 0xffff);
                self.run_tx(index, memory, outside);
                self.drain_loopback(memory, outside);
                self.deliver_interrupts(outside);
            }
            // The heads are the chip's while a queue runs.
            Id::RDH if self.map.at(Id::RXDCTL, index) & QUEUE_ENABLE == 0 => {
                self.map.set_at(id, index, value & 0xffff);
            }
            Id::TDH if self.map.at(Id::TXDCTL, index) & QUEUE_ENABLE == 0 => {
                self.map.set_at(id, index, value & 0xffff);
            }
            Id::RDH | Id::TDH => {}
            Id::RXDCTL => {
                self.write_rxdctl(index, value, memory);
                self.drain_waiting(memory);
                self.judge_buffer(outside);
            }
            Id::TXDCTL => {
                self.write_txdctl(index, value);
                self.run_tx(index, memory, outside);
            }
            Id::RXCTRL => self.map.set(id, value & 1),
            Id::DMATXCTL => {
                self.map.set(id, value);
                self.run_all_tx(memory, outside);
            }
            Id::RDRXCTL => self.map.set(id, value & !DMA_INIT_DONE | DMA_INIT_DONE),
            Id::AUTOC => {
                let kept = self.link.write_autoc(value, self.now_ns);
                self.map.set(id, kept);
            }
            Id::RSSRK => {
                let stuck = u32::from(self.faults.stuck_register_bit) << 31;
                self.map.write(id, index, value & !stuck);
                self.rx.toeplitz = None;
            }
            Id::SECRXSTAT => {}
            Id::MSCA => self.map.set(id, value & !MDI_COMMAND),
            Id::FDIRCTRL => self.map.set(id, value | FDIR_INIT_DONE),
            Id::EICR
            | Id::EICS
            | Id::EIMS
            | Id::EIMC
            | Id::EIAM
            | Id::EICS_EX
            | Id::EIMS_EX
            | Id::EIMC_EX
            | Id::EIAM_EX => {
                self.interrupts.write(id, index, value);
                self.deliver_interrupts(outside);
            }
            _ => self.map.write(id, index, value),
        }
    }

    fn write_ctrl(&mut self, value: u32) {
        self.map.set(Id::CTRL, value);
        if value & (DEVICE_RESET | LINK_RESET) != 0 && !self.faults.stuck_reset {
            // §4.2.1.6.1: all but what firmware and software share.
            self.map.reset(|id| !matches!(id, Id::SWSM | Id::SW_FW_SYNC | Id::FWSM | Id::GCR));
            self.reset_rest();
        }
    }

    fn write_eerd(&mut self, value: u32) {
        let address = value >> 2 & 0x3fff;
        let mut result = value & 0xffff & !EERD_DONE;
        if value & EERD_START != 0 && !self.faults.stuck_eeprom {
            result |= EERD_DONE | u32::from(self.eeprom.word(address as usize)) << 16;
        }
        self.map.set(Id::EERD, result & !EERD_START);
    }

    fn drain_loopback(&mut self, memory: &dyn Memory, outside: &mut dyn Outside) {
        for frame in core::mem::take(&mut self.tx.loopback) {
            self.receive_frame(&frame, memory, outside);
        }
    }

    /// All that is not registers, after they were reset.
    pub(crate) fn reset_rest(&mut self) {
        self.interrupts.reset();
        self.rx.reset();
        self.tx.reset();
        self.pause = Pause::default();
        self.faults.stuck_tx = false;
        self.link.restart(self.now_ns);
        self.load_from_eeprom();
    }

    /// §4.6.3.2: the address comes from the EEPROM. And arrays of which the first differs.
    pub(crate) fn load_from_eeprom(&mut self) {
        let mac = self.options.mac;
        let low = u32::from_le_bytes([mac[0], mac[1], mac[2], mac[3]]);
        let high = u32::from(u16::from_le_bytes([mac[4], mac[5]]));
        self.map.set(Id::RAL, low);
        self.map.set(Id::RAH, high | filter::ADDRESS_VALID);
        clear_all_but_first(&mut self.map, &[Id::RXPBSIZE, Id::TXPBSIZE, Id::TXPBTHRESH]);
        if self.faults.other_link_mode {
            self.map.set(Id::AUTOC, link::MODE_SLOW | 4);
        }
        if self.faults.undefined_is_anything {
            self.spoil_undefined();
        }
    }
}

impl Chip {
    /// Tables whose reset value is "X" in the datasheet.
    fn spoil_undefined(&mut self) {
        let mut random = Random::new(self.faults.seed ^ self.now_ns);
        let tables = [
            (Id::RAL, 1, 128),
            (Id::RAH, 1, 128),
            (Id::MTA, 0, 128),
            (Id::VFTA, 0, 128),
            (Id::MPSAR, 0, 256),
            (Id::PFUTA, 0, 128),
            (Id::PFVLVF, 0, 64),
            (Id::FTQF, 0, 128),
            (Id::RETA, 0, 32),
            (Id::RSSRK, 0, 10),
            (Id::RDBAL, 0, 128),
            (Id::TDBAL, 0, 128),
        ];
        for (id, first, end) in tables {
            (first..end).for_each(|i| self.map.write(id, i, random.next() as u32));
        }
    }
}

fn clear_all_but_first(map: &mut Map, ids: &[Id]) {
    for id in ids {
        (1..8).for_each(|i| map.set_at(*id, i, 0));
    }
}
