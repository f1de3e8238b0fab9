//! The link: AUTOC, LINKS, the module's cage (§3.7.4, §8.2.3.22.19 to 22).
use crate::map::Map;
use crate::regs::Id;

/// AUTOC.FLU: force the link up.
const FORCE_LINK_UP: u32 = 1;
/// AUTOC.LMS, and the only mode that the partner speaks: 10 Gb/s, serial.
const MODE: u32 = 7 << 13;
const MODE_SERIAL: u32 = 3 << 13;
/// AUTOC.LMS for 1 Gb/s.
pub(crate) const MODE_SLOW: u32 = 2 << 13;
/// AUTOC.Restart_AN: clears itself.
const RESTART: u32 = 1 << 12;
/// LINKS: up, 10 Gb/s, and the same in the bits of the serial interface.
const LINKS_UP: u32 = 0x7000_0080;
/// ESDP.SDP2_DATA: a module is in the cage.
pub(crate) const MODULE_PRESENT: u32 = 1 << 2;
/// ESDP.SDP3_DATA: the laser is off.
const LASER_OFF: u32 = 1 << 3;

/// The state of the link.
#[derive(Debug)]
pub(crate) struct Link {
    up: bool,
    /// When it will be up.
    rises_at: Option<u64>,
    /// When it goes down by itself, and for how long.
    flap: Option<(u64, u64)>,
    delay_ns: u64,
    /// Wire and partner are there.
    pub partner: bool,
    /// A module is in the cage, or there is no cage.
    pub module: bool,
}

impl Link {
    pub const fn new(delay_ns: u64, partner: bool, module: bool) -> Link {
        Link { up: false, rises_at: Some(delay_ns), flap: None, delay_ns, partner, module }
    }

    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// It is negotiated anew.
    pub const fn restart(&mut self, now: u64) {
        self.up = false;
        self.rises_at = Some(now.saturating_add(self.delay_ns));
    }

    /// It goes down at once, and comes back so much later.
    pub const fn flap(&mut self, now: u64, for_ns: u64) {
        self.flap = Some((now, for_ns));
    }

    pub fn next_ns(&self) -> Option<u64> {
        let flap = self.flap.map(|(at, _)| at);
        self.rises_at.into_iter().chain(flap).min()
    }

    /// Lets time pass. Whether the link has changed.
    pub fn tick(&mut self, now: u64, map: &Map) -> bool {
        let before = self.up;
        if let Some((_, for_ns)) = self.flap.take_if(|(at, _)| *at <= now) {
            self.up = false;
            self.rises_at = Some(now.saturating_add(for_ns));
        }
        let autoc = map.get(Id::AUTOC);
        let heard = self.partner && self.module && map.get(Id::ESDP) & LASER_OFF == 0;
        let possible = heard && autoc & MODE == MODE_SERIAL || autoc & FORCE_LINK_UP != 0;
        if !possible {
            self.up = false;
            // Looked at again with the next tick.
            self.rises_at = self.rises_at.map(|at| at.max(now.saturating_add(self.delay_ns)));
            if before {
                self.rises_at = Some(now.saturating_add(self.delay_ns));
            }
        } else if self.rises_at.take_if(|at| *at <= now).is_some() {
            self.up = true;
        }
        self.up != before
    }

    /// AUTOC is written. What of it stays.
    pub const fn write_autoc(&mut self, value: u32, now: u64) -> u32 {
        if value & (RESTART | FORCE_LINK_UP) != 0 {
            self.restart(now);
        }
        value & !RESTART
    }

    pub const fn links(&self) -> u32 {
        if self.up { LINKS_UP } else { 0 }
    }
}
