//! The link: bringing it up, and what it is (§4.6.4.3, §8.2.3.22.19 to 22).
use crate::chip::{Chip, Clock, pause};
use crate::error::LinkError;
use crate::pci::Media;
use crate::regs::{AUTOC, AUTOC2, ESDP, LINKS};
use ix_dataplane::device::Mmio;
use ix_dataplane::time::{Duration, Instant};

/// Within which a link comes up: modules with 10GBASE-R need tens of milliseconds, 10GBASE-T some seconds.
pub const LINK_DEADLINE: Duration = Duration::from_s(5);

const AUTOC_MODE: u32 = 7 << 13;
/// 10 Gb/s over the serial interface, without negotiation.
const AUTOC_MODE_SERIAL: u32 = 3 << 13;
const AUTOC_RESTART: u32 = 1 << 12;
const AUTOC2_SERIAL: u32 = 3 << 16;
const AUTOC2_SERIAL_SFI: u32 = 2 << 16;
/// SDP2: a module is in the cage. SDP3, as an output: the laser is off.
const ESDP_MODULE: u32 = 1 << 2;
const ESDP_LASER_OFF: u32 = 1 << 3;
const LINKS_UP: u32 = 1 << 30;
const LINKS_SPEED: u32 = 3 << 28;

/// What the link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Frames come and go, at so many Mb/s.
    Up {
        /// 10,000, 1,000 or 100.
        mbps: u32,
    },
    /// They do not, yet: it was started not long ago.
    Coming,
    /// They do not.
    Down(LinkError),
}

/// Starts the link. Where there is no cage, EEPROM and firmware have.
pub(crate) fn start<M: Mmio>(chip: &Chip<M>, media: Media) {
    if media != Media::SfpPlus {
        return;
    }
    chip.change(ESDP, 0, ESDP_LASER_OFF);
    // §4.6.4.3: serial mode, SFI, and restart.
    chip.change(AUTOC2, AUTOC2_SERIAL_SFI, AUTOC2_SERIAL);
    chip.change(AUTOC, AUTOC_MODE_SERIAL, AUTOC_MODE);
    chip.change(AUTOC, AUTOC_RESTART, 0);
}

/// What the link is now; `since` is when it was started, or was up last.
pub(crate) fn read<M: Mmio>(chip: &Chip<M>, media: Media, since: Instant, now: Instant) -> Link {
    let links = chip.read(LINKS);
    if links & LINKS_UP != 0 && links != u32::MAX {
        let mbps = match links & LINKS_SPEED {
            LINKS_SPEED => 10_000,
            0x2000_0000 => 1_000,
            _ => 100,
        };
        return Link::Up { mbps };
    }
    if media == Media::SfpPlus && chip.read(ESDP) & ESDP_MODULE == 0 {
        return Link::Down(LinkError::NoModule);
    }
    if now.since(since) <= LINK_DEADLINE {
        Link::Coming
    } else {
        Link::Down(LinkError::NoSignal { links })
    }
}

/// Waits for the link, up to its deadline.
pub(crate) fn wait<M: Mmio>(
    chip: &Chip<M>,
    media: Media,
    since: Instant,
    clock: Clock<'_>,
) -> Result<u32, LinkError> {
    loop {
        match read(chip, media, since, clock()) {
            Link::Up { mbps } => return Ok(mbps),
            Link::Down(error) => return Err(error),
            Link::Coming => pause(clock, Duration::from_ms(1)),
        }
    }
}
