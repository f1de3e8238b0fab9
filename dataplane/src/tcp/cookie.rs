//! SYN cookies (RFC 4987 §3.6): what a SYN said, in the numbers of our answer, so that nothing need be
//! kept until the peer has shown that it receives what is sent to it.
//!
//! The initial sequence number is `mac:27 | slot:2 | mss:3`, high to low. The MAC is SipHash over the
//! addresses, ports, the peer's initial sequence number, the slot of time, and all that the cookie says.
//! Of the 2^32 numbers that a forger may try, 16 are good at any time: one in 2^28.
//!
//! What does not fit goes into the low bits of our timestamp, which comes back as the echo: window shift,
//! SACK, ECN. They are under the MAC too, and so is whether there were timestamps at all.
use crate::rng::SipKey;
use crate::tcp::seq::WrappingSeq;
use crate::time::Instant;
use ix_abi::SocketAddress;

#[cfg(test)]
mod tests;

/// log2 of a slot of time in nanoseconds: 34 s.
const SLOT_SHIFT: u32 = 35;
/// A cookie is good in its slot and in the one that follows: for 34 to 69 s.
const SLOTS_VALID: u64 = 2;
const SLOT_MASK: u64 = 3;
const MSS_BITS: u32 = 3;
const SLOT_AT: u32 = MSS_BITS;
const MAC_AT: u32 = SLOT_AT + 2;

/// What a cookie can say of the peer's segment size, which is rounded down to one of these: the smallest we
/// take, the defaults of IPv4 and IPv6 (RFC 9293 §3.7.1), Ethernet with tunnels, options, IPv6, IPv4,
/// and jumbo frames.
pub const SEGMENT_SIZES: [u16; 1 << MSS_BITS] =
    [crate::limits::MSS_MIN, 536, 1220, 1360, 1400, 1440, 1460, 8960];

/// Bits of a timestamp that hold [`Extras`].
const EXTRAS_BITS: u32 = 6;
const EXTRAS_MASK: u32 = (1 << EXTRAS_BITS) - 1;
/// In the place of the window shift: the peer does not scale. Shifts are at most 14.
const NO_SHIFT: u32 = 15;
/// In the place of the extras under the MAC: there were no timestamps.
const NO_TIMESTAMPS: u64 = 1 << EXTRAS_BITS;

/// The two ends, and the peer's initial sequence number.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Ours.
    pub local: SocketAddress,
    /// The peer's.
    pub remote: SocketAddress,
    /// Sequence number of its SYN.
    pub irs: WrappingSeq,
}

/// What a peer with timestamps has offered besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extras {
    /// Shift of its windows, at most 14.
    pub shift: Option<u8>,
    /// It understands selective acknowledgements.
    pub sack: bool,
    /// It asked for ECN.
    pub ecn: bool,
}

impl Extras {
    fn to_bits(self) -> u32 {
        let shift = self.shift.map_or(NO_SHIFT, |shift| u32::from(shift.min(14)));
        shift | u32::from(self.sack) << 4 | u32::from(self.ecn) << 5
    }

    fn from_bits(bits: u32) -> Extras {
        let shift = bits & 15;
        Extras {
            shift: (shift != NO_SHIFT).then_some(shift as u8),
            sack: bits & 1 << 4 != 0,
            ecn: bits & 1 << 5 != 0,
        }
    }

    /// The timestamp to send at `clock`: at most 63 units before it, so that those that follow are not
    /// smaller.
    pub fn stamp(self, clock: u32) -> u32 {
        let stamp = clock & !EXTRAS_MASK | self.to_bits();
        let ahead = self.to_bits() > clock & EXTRAS_MASK;
        if ahead { stamp.wrapping_sub(1 << EXTRAS_BITS) } else { stamp }
    }

    /// What the echo of such a timestamp says.
    pub fn from_echo(echo: u32) -> Extras {
        Extras::from_bits(echo & EXTRAS_MASK)
    }
}

/// Until when a cookie made now may come back.
pub fn valid_until(now: Instant) -> Instant {
    Instant(((now.0 >> SLOT_SHIFT) + SLOTS_VALID) << SLOT_SHIFT)
}

/// The initial sequence number for a SYN with segment size `mss`; `extras` if it had timestamps.
pub fn make(
    key: &SipKey,
    flow: &Flow,
    mss: u16,
    extras: Option<Extras>,
    now: Instant,
) -> WrappingSeq {
    let fits = SEGMENT_SIZES.partition_point(|size| *size <= mss);
    number(key, flow, fits.saturating_sub(1) as u32, extras, now.0 >> SLOT_SHIFT)
}

/// The segment size that the cookie `iss` says, if it is one, made for this flow and these extras
/// and not too long ago.
pub fn open(
    key: &SipKey,
    flow: &Flow,
    iss: WrappingSeq,
    extras: Option<Extras>,
    now: Instant,
) -> Option<u16> {
    let present = now.0 >> SLOT_SHIFT;
    let age = present.wrapping_sub(u64::from(iss.0 >> SLOT_AT)) & SLOT_MASK;
    let slot = present.checked_sub(age).filter(|_| age < SLOTS_VALID)?;
    let size = iss.0 & (SEGMENT_SIZES.len() as u32 - 1);
    let good = number(key, flow, size, extras, slot) == iss;
    if good { SEGMENT_SIZES.get(size as usize).copied() } else { None }
}

/// The cookie of `slot` that names the segment size `size`.
fn number(key: &SipKey, flow: &Flow, size: u32, extras: Option<Extras>, slot: u64) -> WrappingSeq {
    let [l0, l1] = flow.local.ip.to_words();
    let [r0, r1] = flow.remote.ip.to_words();
    let ports = u64::from(flow.local.port) << 16 | u64::from(flow.remote.port);
    let extras = extras.map_or(NO_TIMESTAMPS, |extras| u64::from(extras.to_bits()));
    let says = extras << MSS_BITS | u64::from(size);
    // The key is that of initial sequence numbers, whose input is of two words or five: no input of
    // one is ever an input of the other.
    let mac = key.hash([l0, l1, r0, r1, ports << 32 | u64::from(flow.irs.0), slot << 16 | says]);
    WrappingSeq((mac as u32) << MAC_AT | ((slot & SLOT_MASK) as u32) << SLOT_AT | size)
}
