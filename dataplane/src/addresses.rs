//! The IPv6 addresses of a station, as every core knows them: what is ours, from where something is
//! sent, through whom.
//!
//! Connections remember their own address by a small number, its slot. Slot 0 is the IPv4 address, of which
//! there is one. A slot that gets another address, or none, gets another generation, by which a group
//! that was on its way between cores meanwhile notices that its connections have lost theirs.
use crate::ipv6::{self, Address};
use crate::limits::{
    ICMP_ERRORS_BURST, ICMP_ERRORS_EVERY, IPV6_ADDRESSES_MAX, IPV6_PREFIXES_MAX, IPV6_ROUTERS_MAX,
};
use crate::time::Instant;
use arrayvec::ArrayVec;
use ix_abi::IpAddress;

#[cfg(test)]
mod tests;

/// Bytes of IPv6 and TCP headers.
const HEADERS: u16 = 60;
/// Hop limit until a router names one (RFC 1700's default).
pub const HOPS_DEFAULT: u8 = 64;

/// Generations of all slots.
pub type Generations = [u16; IPV6_ADDRESSES_MAX];

/// An address in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The address; `::` if the slot is free.
    pub address: Address,
    /// Its prefix length.
    pub prefix: u8,
    /// Not to be used for what is new, if there is another (RFC 4862 §5.5.4).
    pub deprecated: bool,
}

impl Slot {
    /// Nothing in it.
    pub const FREE: Slot = Slot { address: ipv6::UNSPECIFIED, prefix: 0, deprecated: false };

    /// Whether there is an address in it.
    pub fn is_used(&self) -> bool {
        self.address != ipv6::UNSPECIFIED
    }
}

/// A station's IPv6 configuration, made by core 0, the same on all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv6Config {
    /// Addresses, with slot 1 first.
    pub slots: [Slot; IPV6_ADDRESSES_MAX],
    /// See [`Generations`].
    pub generations: Generations,
    /// Prefixes whose hosts are on the link.
    pub on_link: ArrayVec<(Address, u8), IPV6_PREFIXES_MAX>,
    /// Default routers, the preferred first.
    pub routers: ArrayVec<Address, IPV6_ROUTERS_MAX>,
    /// Bytes of the largest packet.
    pub mtu: u16,
    /// Hop limit of what is sent.
    pub hops: u8,
}

impl Ipv6Config {
    /// No address.
    pub fn new(mtu: u16) -> Ipv6Config {
        Ipv6Config {
            slots: [Slot::FREE; IPV6_ADDRESSES_MAX],
            generations: [0; IPV6_ADDRESSES_MAX],
            on_link: ArrayVec::new(),
            routers: ArrayVec::new(),
            mtu,
            hops: HOPS_DEFAULT,
        }
    }

    /// The addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| slot.is_used())
    }
}

/// What a core has of IPv6.
#[derive(Clone, Debug)]
pub struct Ipv6 {
    /// Whether it is on.
    pub on: bool,
    /// See [`Ipv6Config`].
    pub config: Ipv6Config,
    /// Which of the routers is used: the first that answers.
    router: usize,
    /// When the bucket of ICMPv6 errors is full again.
    errors_full_at: Instant,
}

impl Ipv6 {
    /// No address yet, on a link of `mtu` bytes.
    pub fn new(on: bool, mtu: u16) -> Ipv6 {
        Ipv6 { on, config: Ipv6Config::new(mtu), router: 0, errors_full_at: Instant(0) }
    }

    /// Takes a configuration; slots whose address has gone are told by their generations.
    pub fn take(&mut self, config: Ipv6Config) {
        self.config = config;
        self.router = 0;
    }

    /// The slot of an address of ours; 0: it is none.
    #[inline]
    pub fn slot_of(&self, address: &Address) -> u8 {
        let wanted = u128::from_ne_bytes(*address);
        let ours = |slot: &Slot| u128::from_ne_bytes(slot.address) == wanted;
        match self.config.slots.iter().position(ours) {
            Some(at) if wanted != 0 => at as u8 + 1,
            _ => 0,
        }
    }

    /// The address of a slot from 1 on.
    #[inline]
    pub fn address(&self, slot: u8) -> Address {
        let at = usize::from(slot).wrapping_sub(1);
        self.config.slots.get(at).map_or(ipv6::UNSPECIFIED, |slot| slot.address)
    }

    /// Whether a group is one that we are in: all nodes', or an address of ours listens there.
    pub fn is_in_group(&self, group: &Address) -> bool {
        let listens = |slot: &Slot| ipv6::solicited_node(&slot.address) == *group;
        *group == ipv6::ALL_NODES || self.config.addresses().any(listens)
    }

    /// Largest TCP payload.
    #[inline]
    pub fn mss(&self) -> u16 {
        self.config.mtu - HEADERS
    }

    /// From which address something is sent: RFC 6724 §5, rules 1 (the same), 2 (scope), 3 (not
    /// deprecated) and 8 (longest prefix). Its slot; `None` if there is no address at all.
    pub fn source_for(&self, to: &Address) -> Option<u8> {
        let wanted = ipv6::scope(to);
        let rank = |slot: &Slot| {
            let scope = ipv6::scope(&slot.address);
            // The smallest scope that is wide enough, else the widest.
            let fits = if scope >= wanted { 32 - scope } else { scope };
            let shared = ipv6::common_prefix(&slot.address, to).min(u32::from(slot.prefix));
            (slot.address == *to, fits, !slot.deprecated, shared)
        };
        let used = self.config.slots.iter().enumerate().filter(|(_, slot)| slot.is_used());
        // The first of equals.
        let best = used.rev().max_by_key(|(_, slot)| rank(slot))?;
        Some(best.0 as u8 + 1)
    }

    /// The neighbour through which `to` is reached, if it is reachable at all (RFC 4861 §5.2).
    pub fn next_hop(&self, to: &Address) -> Option<Address> {
        let near = |(prefix, len): &(Address, u8)| ipv6::in_prefix(to, prefix, *len);
        let on_link = ipv6::is_link_local(to) || self.config.on_link.iter().any(near);
        if on_link { Some(*to) } else { self.config.routers.get(self.router).copied() }
    }

    /// A neighbour did not answer. If it is the router in use, the next one's turn has come.
    pub fn unreachable(&mut self, neighbor: IpAddress) -> bool {
        let routers = &self.config.routers;
        let ours = routers.get(self.router).is_some_and(|router| *router == neighbor.0);
        if ours && routers.len() > 1 {
            self.router = (self.router + 1) % routers.len();
        }
        ours
    }

    /// Whether an ICMPv6 error may be sent now (RFC 4443 §2.4 f).
    pub fn may_tell(&mut self, now: Instant) -> bool {
        let full_at = self.errors_full_at.max(now) + ICMP_ERRORS_EVERY;
        if full_at.since(now) > ICMP_ERRORS_BURST {
            return false;
        }
        self.errors_full_at = full_at;
        true
    }
}

/// The scope that the ABI gives with an address: 1, our only link, for what is link-local, else 0.
pub const fn scope_of(ip: &IpAddress) -> u32 {
    ipv6::is_link_local(&ip.0) as u32
}
