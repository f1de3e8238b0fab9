//! Flow control of the link by pause frames (IEEE 802.3 annex 31B): those that come stop the transmit side, and the fill of the
//! packet buffer sends some (§8.2.3.3, §8.2.3.22.34). Frames that are held wait in their rings: the chip's own buffer for
//! them is not modelled.
use crate::regs::Id;
use crate::{Chip, Memory, Outside, statistics};

/// To whom they go, and what they begin with behind the addresses: MAC control, pause.
const GROUP: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 1];
const KIND: [u8; 4] = [0x88, 0x08, 0, 1];
/// MFLCN.DPF, MFLCN.RFCE.
const DISCARD: u32 = 1 << 1;
const OBEY: u32 = 1 << 3;
/// FCCFG.TFCE, and the link's flow control in it.
const SEND: u32 = 3 << 3;
const SEND_LINK: u32 = 1 << 3;
/// FCRTH.FCEN, FCRTL.XONE, and both thresholds in bytes.
const ENABLE: u32 = 1 << 31;
const THRESHOLD: u32 = 0x3fff << 5;

/// Both directions.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    /// Until when the partner wants no frames; 0: it does.
    held_until: u64,
    /// The partner was told to stop; when to tell it again.
    told: Option<u64>,
}

impl Pause {
    pub const fn holds(&self) -> bool {
        self.held_until != 0
    }

    pub fn next_ns(&self) -> Option<u64> {
        let held = Some(self.held_until).filter(|until| *until != 0);
        held.into_iter().chain(self.told).min()
    }
}

/// A unit of pause is the time of 512 bits: at 10 Gb/s.
const fn nanoseconds(quanta: u32) -> u64 {
    quanta as u64 * 512 / 10
}

/// How long a pause frame wants.
fn quanta(frame: &[u8], own: [u8; 6]) -> Option<u16> {
    let (to, rest) = frame.split_first_chunk::<6>()?;
    let kind = rest.get(6..10)?;
    let time = rest.get(10..12)?;
    let is_pause = (*to == GROUP || *to == own) && *kind == KIND;
    is_pause.then(|| u16::from_be_bytes([time[0], time[1]]))
}

impl Chip {
    fn own_address(&self) -> [u8; 6] {
        let [a, b, c, d] = self.map.get(Id::RAL).to_le_bytes();
        let [e, f, ..] = self.map.get(Id::RAH).to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Takes a pause frame. Whether it ends here: otherwise it is one like any other.
    pub(crate) fn take_pause(
        &mut self,
        frame: &[u8],
        memory: &dyn Memory,
        outside: &mut dyn Outside,
    ) -> bool {
        let Some(quanta) = quanta(frame, self.own_address()) else { return false };
        let counter = if quanta == 0 { Id::LXONRXCNT } else { Id::LXOFFRXCNT };
        self.map.count(counter, 0, 1);
        let control = self.map.get(Id::MFLCN);
        if control & OBEY == 0 || self.is_loopback() {
            return false;
        }
        self.pause.held_until = match quanta {
            0 => 0,
            some => self.now_ns + nanoseconds(u32::from(some)),
        };
        if quanta == 0 {
            self.run_all_tx(memory, outside);
        }
        control & DISCARD != 0
    }

    /// Sends pause frames as the packet buffer fills and empties.
    pub(crate) fn judge_buffer(&mut self, outside: &mut dyn Outside) {
        let (high, low) = (self.map.get(Id::FCRTH), self.map.get(Id::FCRTL));
        let sends = self.map.get(Id::FCCFG) & SEND == SEND_LINK && high & ENABLE != 0;
        if !sends || !self.link.is_up() || self.is_loopback() {
            self.pause.told = None;
            return;
        }
        let used = self.rx.waiting_bytes() as u32;
        if self.pause.told.is_none() && used >= high & THRESHOLD {
            self.tell_to_stop(outside);
        } else if self.pause.told.is_some() && used <= low & THRESHOLD {
            self.pause.told = None;
            if low & ENABLE != 0 {
                self.map.count(Id::LXONTXC, 0, 1);
                self.send_pause(0, outside);
            }
        }
    }

    fn tell_to_stop(&mut self, outside: &mut dyn Outside) {
        let time = self.map.get(Id::FCTTV) & 0xffff;
        self.map.count(Id::LXOFFTXC, 0, 1);
        self.send_pause(time as u16, outside);
        // §8.2.3.3.5: again before the time is over.
        let before = self.map.get(Id::FCRTV) & 0xffff;
        let period = nanoseconds(time.saturating_sub(before).max(1));
        self.pause.told = Some(self.now_ns + period);
    }

    fn send_pause(&mut self, quanta: u16, outside: &mut dyn Outside) {
        let mut frame = [0; 60];
        frame[..6].copy_from_slice(&GROUP);
        frame[6..12].copy_from_slice(&self.own_address());
        frame[12..16].copy_from_slice(&KIND);
        frame[16..18].copy_from_slice(&quanta.to_be_bytes());
        statistics::control_sent(&mut self.map, frame.len());
        outside.transmit(&frame);
    }

    /// Lets time pass.
    pub(crate) fn tick_pause(&mut self, memory: &dyn Memory, outside: &mut dyn Outside) {
        if self.pause.holds() && self.pause.held_until <= self.now_ns {
            self.pause.held_until = 0;
            self.run_all_tx(memory, outside);
        }
        if self.pause.told.is_some_and(|at| at <= self.now_ns) {
            self.tell_to_stop(outside);
        }
    }
}
