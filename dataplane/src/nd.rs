//! Neighbour discovery messages (RFC 4861): checks of what arrives (§6.1, §7.1), and what we send, as
//! whole frames. Sans-IO; who does what with them is in `input::nd` and [`crate::slaac`].
use crate::checksum;
use crate::ipv6::{self, ALL_NODES, ALL_ROUTERS, Address, HOPS_ON_LINK, UNSPECIFIED};
use arrayvec::ArrayVec;

#[cfg(test)]
mod tests;

/// An Ethernet address.
pub type Mac = [u8; 6];
/// A frame as `tx::Staged` takes it.
pub type Frame = ArrayVec<u8, 96>;

/// ICMPv6 types.
pub const ROUTER_SOLICITATION: u8 = 133;
/// See above.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// See above.
pub const NEIGHBOR_SOLICITATION: u8 = 135;
/// See above.
pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// See above.
pub const REDIRECT: u8 = 137;
/// A multicast listener report of version 2 (RFC 3810 §5.2).
const LISTENER_REPORT: u8 = 143;

/// Whether messages of a type are exempt from rules, as ARP is: without them there is no IPv6.
pub const fn is_exempt(kind: u8) -> bool {
    matches!(kind, ROUTER_SOLICITATION..=REDIRECT | LISTENER_REPORT)
}

const ETHERNET: usize = 14;
/// Where ICMPv6 begins in a frame that we build.
const BODY: usize = ETHERNET + ipv6::HEADER;

const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;
const PREFIX: u8 = 3;
const MTU: u8 = 5;

/// A lifetime that does not end.
pub const INFINITE_S: u32 = u32::MAX;

/// A prefix of the link (RFC 4861 §4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Its address; bits behind its length are 0.
    pub address: Address,
    /// At most 128.
    pub len: u8,
    /// Its hosts are on the link.
    pub on_link: bool,
    /// Hosts may make addresses of it.
    pub autonomous: bool,
    /// How long both hold.
    pub valid_s: u32,
    /// How long such addresses are preferred.
    pub preferred_s: u32,
}

/// The options of a message, already checked for their lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// Refuses options of length 0 or beyond the message (RFC 4861 §4.6).
    fn check(bytes: &'a [u8]) -> Option<Options<'a>> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = usize::from(*rest.get(1)?) * 8;
            rest = rest.get(len..).filter(|_| len > 0)?;
        }
        Some(Options(bytes))
    }

    fn iter(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let len = usize::from(*rest.get(1)?) * 8;
            let (option, behind) = rest.split_at_checked(len)?;
            rest = behind;
            Some((option[0], option))
        })
    }

    fn link(self, kind: u8) -> Option<Mac> {
        let found = self.iter().find(|(of, option)| *of == kind && option.len() == 8)?;
        let mac: Mac = *found.1.get(2..)?.first_chunk()?;
        (mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
    }

    /// The MTU that a router names.
    pub fn mtu(self) -> Option<u32> {
        let (_, option) = self.iter().find(|(of, option)| *of == MTU && option.len() == 8)?;
        Some(u32::from_be_bytes(*option.get(4..)?.first_chunk()?))
    }

    /// The prefixes that a router names.
    pub fn prefixes(self) -> impl Iterator<Item = Prefix> {
        self.iter().filter(|(of, _)| *of == PREFIX).filter_map(|(_, option)| {
            let o: &[u8; 32] = option.try_into().ok()?;
            let word = |at: usize| u32::from_be_bytes([o[at], o[at + 1], o[at + 2], o[at + 3]]);
            let len = o[2];
            let host_bits = 128_u32.checked_sub(u32::from(len))?;
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            let address = u128::from_be_bytes(*o[16..].first_chunk()?);
            Some(Prefix {
                address: (address & mask).to_be_bytes(),
                len,
                on_link: o[3] & 0x80 != 0,
                autonomous: o[3] & 0x40 != 0,
                valid_s: word(4),
                preferred_s: word(8),
            })
        })
    }
}

/// What a router says of itself and the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterAdvert<'a> {
    /// Who.
    pub router: Address,
    /// 0: not said.
    pub hops: u8,
    /// How long it is a default router; 0: it is none.
    pub lifetime_s: u16,
    /// Its link address.
    pub link: Option<Mac>,
    /// What else it says.
    pub options: Options<'a>,
}

/// A message that has passed its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Somebody asks for the link address of `target`, or, if nobody in particular (`from` is `None`),
    /// whether anyone has that address.
    Solicit {
        /// The asker.
        from: Option<Address>,
        /// Its link address.
        link: Option<Mac>,
        /// Whom it seeks.
        target: Address,
    },
    /// Somebody tells of `target`, itself.
    Advert {
        /// Whose link address it is.
        target: Address,
        /// That address.
        link: Option<Mac>,
        /// It is a router.
        router: bool,
        /// It was asked.
        solicited: bool,
        /// To be believed even against what is known.
        takes_over: bool,
    },
    /// A router speaks.
    Router(RouterAdvert<'a>),
    /// Of a kind that does not concern a host, or that we leave alone.
    Other,
}

/// Reads the ICMPv6 message `icmp` of a neighbour-discovery type; its checksum is right. `None`: it is
/// to be dropped (RFC 4861 §6.1.2, §7.1.1, §7.1.2).
pub fn parse<'a>(icmp: &'a [u8], from: &Address, to: &Address, hops: u8) -> Option<Message<'a>> {
    if hops != HOPS_ON_LINK || *icmp.get(1)? != 0 {
        return None;
    }
    match icmp[0] {
        NEIGHBOR_SOLICITATION => {
            let target = *icmp.get(8..)?.first_chunk()?;
            let options = Options::check(icmp.get(24..)?)?;
            let link = options.link(SOURCE_LINK);
            let nobody = *from == UNSPECIFIED;
            let probe_of = ipv6::solicited_node(&target);
            if !ipv6::is_host(&target) || nobody && (*to != probe_of || link.is_some()) {
                return None;
            }
            Some(Message::Solicit { from: (!nobody).then_some(*from), link, target })
        }
        NEIGHBOR_ADVERTISEMENT => {
            let target = *icmp.get(8..)?.first_chunk()?;
            let options = Options::check(icmp.get(24..)?)?;
            let flags = icmp[4];
            let solicited = flags & 0x40 != 0;
            if !ipv6::is_host(&target) || solicited && ipv6::is_multicast(to) {
                return None;
            }
            Some(Message::Advert {
                target,
                link: options.link(TARGET_LINK),
                router: flags & 0x80 != 0,
                solicited,
                takes_over: flags & 0x20 != 0,
            })
        }
        ROUTER_ADVERTISEMENT => {
            let options = Options::check(icmp.get(16..)?)?;
            let lifetime_s = u16::from_be_bytes([icmp[6], icmp[7]]);
            let advert = RouterAdvert {
                router: *from,
                hops: icmp[4],
                lifetime_s,
                link: options.link(SOURCE_LINK),
                options,
            };
            ipv6::is_link_local(from).then_some(Message::Router(advert))
        }
        _ => Some(Message::Other),
    }
}

/// A frame around an ICMPv6 message whose checksum is still 0.
fn frame(mac: Mac, to_mac: Mac, from: &Address, to: &Address, icmp: &[u8]) -> Frame {
    let mut f = Frame::new();
    let len = icmp.len() as u16;
    let mut head = [0; BODY];
    head[0..6].copy_from_slice(&to_mac);
    head[6..12].copy_from_slice(&mac);
    head[12..14].copy_from_slice(&[0x86, 0xdd]);
    ipv6::emit(&mut head[ETHERNET..], from, to, ipv6::ICMP, len, HOPS_ON_LINK);
    let fits = f.try_extend_from_slice(&head).and_then(|()| f.try_extend_from_slice(icmp));
    debug_assert!(fits.is_ok(), "the largest has 86 bytes");
    if let Some(body) = f.get_mut(BODY..) {
        let sum = checksum::sum(body);
        let pseudo = checksum::pseudo_v6(from, to, ipv6::ICMP, len);
        let field = checksum::finish(checksum::add(pseudo, sum));
        if let Some(at) = body.get_mut(2..4) {
            at.copy_from_slice(&field);
        }
    }
    f
}

/// Asks for the link address of `target`: `known` if it is only to be confirmed, else all who may have
/// it. From `::`: whether anyone has it at all (RFC 4862 §5.4.2).
pub fn solicit(mac: Mac, from: &Address, target: &Address, known: Option<Mac>) -> Frame {
    let mut icmp = [0; 32];
    icmp[0] = NEIGHBOR_SOLICITATION;
    icmp[8..24].copy_from_slice(target);
    icmp[24..26].copy_from_slice(&[SOURCE_LINK, 1]);
    icmp[26..].copy_from_slice(&mac);
    let len = if *from == UNSPECIFIED { 24 } else { 32 };
    let group = ipv6::solicited_node(target);
    let (to_mac, to) = match known {
        Some(known) => (known, target),
        None => (ipv6::group_mac(&group), &group),
    };
    frame(mac, to_mac, from, to, &icmp[..len])
}

/// Tells `to` that `target`, an address of ours, is here; or tells all, if it asked from nowhere.
pub fn advert(mac: Mac, target: &Address, to: Option<(Address, Mac)>) -> Frame {
    let flags = if to.is_some() { 0x60 } else { 0x20 };
    let (to, to_mac) = to.unwrap_or((ALL_NODES, ipv6::group_mac(&ALL_NODES)));
    frame(mac, to_mac, target, &to, &telling(flags, target, mac))
}

/// Tells routers of a new address before they have to ask (RFC 9131 §4.1): overrides nothing.
pub fn announce(mac: Mac, target: &Address) -> Frame {
    let group = ipv6::group_mac(&ALL_ROUTERS);
    frame(mac, group, target, &ALL_ROUTERS, &telling(0, target, mac))
}

fn telling(flags: u8, target: &Address, mac: Mac) -> [u8; 32] {
    let mut icmp = [0; 32];
    icmp[0] = NEIGHBOR_ADVERTISEMENT;
    icmp[4] = flags;
    icmp[8..24].copy_from_slice(target);
    icmp[24..26].copy_from_slice(&[TARGET_LINK, 1]);
    icmp[26..].copy_from_slice(&mac);
    icmp
}

/// Asks routers to speak (RFC 4861 §4.1).
pub fn router_solicit(mac: Mac, from: &Address) -> Frame {
    let mut icmp = [0; 16];
    icmp[0] = ROUTER_SOLICITATION;
    icmp[8..10].copy_from_slice(&[SOURCE_LINK, 1]);
    icmp[10..].copy_from_slice(&mac);
    let group = ipv6::group_mac(&ALL_ROUTERS);
    frame(mac, group, from, &ALL_ROUTERS, &icmp)
}

/// Tells switches that snoop that we listen for solicitations of `address` (RFC 3810 §5.2, RFC 4862
/// §5.4.2): one record "changed to exclude nothing", behind a router alert.
pub fn report(mac: Mac, from: &Address, address: &Address) -> Frame {
    const TO: Address = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 22];
    const ALERT: [u8; 8] = [ipv6::ICMP, 0, 5, 2, 0, 0, 1, 0];
    let mut icmp = [0; 28];
    icmp[0] = LISTENER_REPORT;
    icmp[7] = 1;
    icmp[8] = 4;
    icmp[12..].copy_from_slice(&ipv6::solicited_node(address));
    let pseudo = checksum::pseudo_v6(from, &TO, ipv6::ICMP, icmp.len() as u16);
    let field = checksum::finish(checksum::add(pseudo, checksum::sum(&icmp)));
    icmp[2..4].copy_from_slice(&field);
    let mut f = frame(mac, ipv6::group_mac(&TO), from, &TO, &[]);
    let payload = (ALERT.len() + icmp.len()) as u8;
    f[ETHERNET + 4..ETHERNET + 8].copy_from_slice(&[0, payload, 0, 1]);
    let fits = f.try_extend_from_slice(&ALERT).and_then(|()| f.try_extend_from_slice(&icmp));
    debug_assert!(fits.is_ok(), "it has 90 bytes");
    f
}
