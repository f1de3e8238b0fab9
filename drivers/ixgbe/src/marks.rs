//! Where in the packet buffer pause frames are sent: it must take what still comes after one was decided on (IEEE 802.3 annex
//! 31B; §8.2.3.3.3, §8.2.3.3.4). Times are in bits of 10 Gb/s.

/// How long a pause frame asks for: as long as one can (§8.2.3.3.2). One to go on ends it before.
pub(crate) const TIME: u32 = 0xffff;
/// The pause frame itself, with what is before and behind it on the wire.
const FRAME: u32 = 84 * 8;
/// 100 m of cable, there and back.
const CABLE: u32 = 2 * 5_000;
/// MAC, XAUI and a 10GBASE-T PHY, the slowest, on both ends.
const INTERFACES: u32 = 2 * 25_600;
/// What the other end may take to obey: 60 units of 512 bits (31B.3.7).
const REACTION: u32 = 60 * 512;
/// The buffer is stored in lines, of which short frames fill few: half as much again.
const fn stored(bytes: u32) -> u32 {
    bytes + bytes / 2
}

/// Bytes in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    /// At which the other end is told to stop.
    pub high: u32,
    /// Down to which it has to be for it to be told to go on.
    pub low: u32,
}

/// For a buffer of so many bytes, and an MTU. One frame may be on its way out before the pause frame, one in behind it.
pub(crate) const fn marks(buffer: u32, mtu: u16) -> Marks {
    let frame = (mtu as u32 + 18 + 4) * 8;
    let bits = 2 * frame + FRAME + CABLE + INTERFACES + REACTION;
    // The registers count 32 bytes; whole kilobytes look better in dumps.
    let high = (buffer - stored(bits / 8)) / 1024 * 1024;
    Marks { high, low: high / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_still_comes_fits_above_the_mark() {
        for mtu in [68, 1500, 9710] {
            for buffer in [384 << 10, 512 << 10] {
                let Marks { high, low } = marks(buffer, mtu);
                // As much as at 10 Gb/s in 9.2 microseconds, and two frames.
                let rest = buffer - high;
                assert!(rest > 11_500 + 2 * (u32::from(mtu) + 22), "{mtu}: {rest}");
                assert!(rest < 64 << 10 && high.is_multiple_of(32) && low.is_multiple_of(32));
            }
        }
    }
}
