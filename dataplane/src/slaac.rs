//! Stateless address autoconfiguration (RFC 4862): which IPv6 addresses the station has, and what routers
//! say of the link. Sans-IO, one client on core 0: it says which frames to send when and what to
//! configure, and is told of advertisements and of others who have an address.
//!
//! There is always a link-local address; with [`Mode::Auto`] one more for each prefix that a router
//! announces for it. Interface identifiers are hashes (RFC 7217) or made of the hardware address (RFC 4291,
//! appendix A). No address is used before it was asked for in vain (§5.4). Routers are asked for until one
//! speaks (RFC 7559). Left out: temporary addresses (RFC 8981), DHCPv6, route information (RFC 4191).
use crate::addresses::{Generations, HOPS_DEFAULT, Ipv6Config, Slot};
use crate::ipv6::{self, Address, LINK_LOCAL, MTU_MIN, UNSPECIFIED};
use crate::limits::{IPV6_ADDRESSES_MAX, IPV6_PREFIXES_MAX, IPV6_ROUTERS_MAX};
use crate::nd::{self, Frame, INFINITE_S, Mac, RouterAdvert};
use crate::rng::{Rng, SipKey};
use crate::time::{Duration, Instant};
use alloc::boxed::Box;
use arrayvec::ArrayVec;

#[cfg(test)]
mod tests;

/// Between a probe and the use of an address (RFC 4861 §10, RETRANS_TIMER).
const PROBE_WAIT: Duration = Duration::from_s(1);
/// Addresses are probed for at a random moment within this (§5.4.2).
const DELAY_MAX: Duration = Duration::from_s(1);
/// Identifiers that are tried for one prefix (RFC 7217 §6).
const CONFLICTS_MAX: u8 = 3;
/// RFC 7559 §2.
const SOLICIT_MIN: Duration = Duration::from_s(4);
const SOLICIT_MAX: Duration = Duration::from_s(3600);
/// What an unauthenticated router may shorten a lifetime to (§5.5.3 e).
const TWO_HOURS: Duration = Duration::from_s(7200);
/// Bits of an interface identifier (RFC 4291 §2.5.1).
const IDENTIFIER_BITS: u8 = 64;

/// How interface identifiers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identifiers {
    /// By a keyed hash (RFC 7217): the same for one prefix as long as the key is, and no trace of us.
    Stable,
    /// Of the hardware address.
    Eui64,
}

/// Where IPv6 addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No IPv6.
    Off,
    /// From routers.
    Auto(Identifiers),
    /// This one; routers are not listened to.
    Static {
        /// The address.
        address: Address,
        /// Bits of the network part, which is on the link.
        prefix: u8,
        /// Where everything else goes.
        gateway: Option<Address>,
    },
}

/// What the caller shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "moved once, a few times an hour")]
pub enum Action {
    /// Send this.
    Send(Frame),
    /// This is the configuration from now on.
    Configure(Box<Ipv6Config>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    LinkLocal,
    Given,
    /// Of this prefix.
    Router(Address),
}

/// What is to be done next for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Say that we listen to its group.
    Report,
    /// Ask whether anyone has it.
    Probe,
    /// Nobody has answered yet.
    Wait,
    /// Announce it.
    Announce,
    /// Nothing: it is in use.
    Used,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    address: Address,
    prefix: u8,
    origin: Origin,
    stage: Stage,
    /// When the stage is due.
    at: Instant,
    preferred_until: Instant,
    valid_until: Instant,
    deprecated: bool,
    conflicts: u8,
}

impl Held {
    fn is_tentative(&self) -> bool {
        matches!(self.stage, Stage::Report | Stage::Probe | Stage::Wait)
    }

    fn next(&self) -> Instant {
        let due = if self.stage == Stage::Used { Instant::NEVER } else { self.at };
        let aging = if self.deprecated { Instant::NEVER } else { self.preferred_until };
        due.min(aging).min(self.valid_until)
    }
}

/// The client of one port.
#[derive(Debug)]
pub struct Client {
    mac: Mac,
    mode: Mode,
    key: SipKey,
    rng: Rng,
    link_mtu: u16,
    held: [Option<Held>; IPV6_ADDRESSES_MAX],
    prefixes: ArrayVec<(Address, u8, Instant), IPV6_PREFIXES_MAX>,
    routers: ArrayVec<(Address, Instant), IPV6_ROUTERS_MAX>,
    mtu: u16,
    hops: u8,
    solicit_at: Instant,
    solicit_gap: Duration,
    /// What was configured last, of slots.
    shown: [Address; IPV6_ADDRESSES_MAX],
    generations: Generations,
    changed: bool,
    duplicates: u64,
    next: Instant,
}

impl Client {
    /// A client that begins at `now` with its link-local address. `key` makes stable identifiers.
    pub fn new(mac: Mac, mode: Mode, link_mtu: u16, key: SipKey, rng: Rng, now: Instant) -> Client {
        let mut client = Client {
            mac,
            mode,
            key,
            rng,
            link_mtu,
            held: [None; IPV6_ADDRESSES_MAX],
            prefixes: ArrayVec::new(),
            routers: ArrayVec::new(),
            mtu: link_mtu,
            hops: HOPS_DEFAULT,
            solicit_at: Instant::NEVER,
            solicit_gap: SOLICIT_MIN,
            shown: [UNSPECIFIED; IPV6_ADDRESSES_MAX],
            generations: [0; IPV6_ADDRESSES_MAX],
            changed: false,
            duplicates: 0,
            next: Instant::NEVER,
        };
        if mode != Mode::Off {
            let own = client.make(&LINK_LOCAL, 0);
            client.hold(own, 64, Origin::LinkLocal, Instant::NEVER, Instant::NEVER, now);
        }
        if let Mode::Static { address, prefix, gateway } = mode {
            client.hold(address, prefix, Origin::Given, Instant::NEVER, Instant::NEVER, now);
            client.prefixes.push((address, prefix, Instant::NEVER));
            client.routers.extend(gateway.map(|gateway| (gateway, Instant::NEVER)));
        }
        client.rearm();
        client
    }

    /// When to poll next.
    #[inline]
    pub fn next_deadline(&self) -> Instant {
        self.next
    }

    /// Addresses that somebody else had.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Whether the address is ours, or is about to be: then it is asked for on the link.
    pub fn is_tentative(&self, address: &Address) -> bool {
        self.held.iter().flatten().any(|held| held.address == *address && held.is_tentative())
    }

    /// What is to be done by `now`; to be called until `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        if now < self.next {
            return None;
        }
        self.expire(now);
        let action = self.turn(now);
        self.rearm();
        action
    }

    fn turn(&mut self, now: Instant) -> Option<Action> {
        // Before what is sent: the answers must find the address in use.
        for at in 0..self.held.len() {
            if let Some(held) = &mut self.held[at]
                && held.stage == Stage::Wait
                && held.at <= now
            {
                held.stage = Stage::Announce;
                self.changed = true;
                if held.origin == Origin::LinkLocal && matches!(self.mode, Mode::Auto(_)) {
                    self.solicit_at = now;
                }
            }
        }
        if core::mem::take(&mut self.changed) {
            return Some(Action::Configure(Box::new(self.config())));
        }
        let from = self.link_local();
        for held in self.held.iter_mut().flatten() {
            if held.at > now {
                continue;
            }
            let (stage, wait, frame) = match held.stage {
                Stage::Report => {
                    (Stage::Probe, Duration(0), nd::report(self.mac, &from, &held.address))
                }
                Stage::Probe => {
                    let frame = nd::solicit(self.mac, &UNSPECIFIED, &held.address, None);
                    (Stage::Wait, PROBE_WAIT, frame)
                }
                Stage::Announce => {
                    (Stage::Used, Duration(0), nd::announce(self.mac, &held.address))
                }
                Stage::Wait | Stage::Used => continue,
            };
            held.stage = stage;
            held.at = now + wait;
            return Some(Action::Send(frame));
        }
        if self.solicit_at <= now {
            // A tenth more or less, so that stations that started together do not stay together.
            let tenth = self.solicit_gap.0 / 10;
            let gap = self.solicit_gap.0 - tenth + self.rng.below(2 * tenth);
            self.solicit_at = now + Duration(gap);
            self.solicit_gap = Duration(self.solicit_gap.0 * 2).min(SOLICIT_MAX);
            return Some(Action::Send(nd::router_solicit(self.mac, &from)));
        }
        None
    }

    /// Our link-local address, once it may be used.
    fn link_local(&self) -> Address {
        let own = |h: &&Held| h.origin == Origin::LinkLocal && !h.is_tentative();
        self.held.iter().flatten().find(own).map_or(UNSPECIFIED, |held| held.address)
    }

    /// What time takes away.
    fn expire(&mut self, now: Instant) {
        for slot in &mut self.held {
            let Some(held) = slot else { continue };
            if held.valid_until <= now {
                self.changed |= !held.is_tentative();
                *slot = None;
            } else if !held.deprecated && held.preferred_until <= now {
                held.deprecated = true;
                self.changed |= !held.is_tentative();
            }
        }
        let before = (self.prefixes.len(), self.routers.len());
        self.prefixes.retain(|(.., until)| *until > now);
        self.routers.retain(|(_, until)| *until > now);
        self.changed |= before != (self.prefixes.len(), self.routers.len());
        if before.1 > 0 && self.routers.is_empty() {
            self.solicit_gap = SOLICIT_MIN;
            self.solicit_at = now;
        }
    }

    fn rearm(&mut self) {
        let held = self.held.iter().flatten().map(Held::next);
        let prefixes = self.prefixes.iter().map(|(.., until)| *until);
        let routers = self.routers.iter().map(|(_, until)| *until);
        let next = held.chain(prefixes).chain(routers).min().unwrap_or(Instant::NEVER);
        self.next = if self.changed { Instant(0) } else { next.min(self.solicit_at) };
    }

    fn config(&mut self) -> Ipv6Config {
        let mut config = Ipv6Config::new(self.mtu);
        for (at, held) in self.held.iter().enumerate() {
            if let Some(held) = held.as_ref().filter(|held| !held.is_tentative()) {
                let Held { address, prefix, deprecated, .. } = *held;
                config.slots[at] = Slot { address, prefix, deprecated };
            }
            let address = config.slots[at].address;
            if self.shown[at] != UNSPECIFIED && self.shown[at] != address {
                self.generations[at] = self.generations[at].wrapping_add(1);
            }
            self.shown[at] = address;
        }
        config.generations = self.generations;
        config.on_link.extend(self.prefixes.iter().map(|(address, len, _)| (*address, *len)));
        config.routers.extend(self.routers.iter().map(|(router, _)| *router));
        config.hops = self.hops;
        config
    }

    /// Takes a new address on, if there is a slot for it.
    fn hold(
        &mut self,
        address: Address,
        prefix: u8,
        origin: Origin,
        valid_until: Instant,
        preferred_until: Instant,
        now: Instant,
    ) {
        let at = now + Duration(self.rng.below(DELAY_MAX.0));
        if let Some(free) = self.held.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(Held {
                address,
                prefix,
                origin,
                stage: Stage::Report,
                at,
                preferred_until,
                valid_until,
                deprecated: false,
                conflicts: 0,
            });
        }
    }

    /// An address of a prefix of 64 bits.
    fn make(&self, prefix: &Address, conflicts: u8) -> Address {
        let [m0, m1, m2, m3, m4, m5] = self.mac;
        let identifier = match self.mode {
            Mode::Auto(Identifiers::Eui64) => [m0 ^ 2, m1, m2, 0xff, 0xfe, m3, m4, m5],
            _ => {
                let network = u64::from_be_bytes(*prefix.first_chunk().unwrap_or(&[0; 8]));
                let interface = u64::from_be_bytes([0, 0, m0, m1, m2, m3, m4, m5]);
                let mut round = u64::from(conflicts);
                loop {
                    let hash = self.key.hash([network, interface, round]).to_be_bytes();
                    if !is_reserved(&hash) {
                        break hash;
                    }
                    // Not a conflict with anybody: those are counted in the low byte.
                    round += 1 << 8;
                }
            }
        };
        let mut address = *prefix;
        address[8..].copy_from_slice(&identifier);
        address
    }

    /// Somebody else has, or wants, an address of ours that is not in use yet (§5.4.3, §5.4.4).
    pub fn conflict(&mut self, address: &Address, now: Instant) {
        let wanted = |held: &Held| held.address == *address && held.is_tentative();
        let Some(at) = self.held.iter().position(|slot| slot.as_ref().is_some_and(wanted)) else {
            return;
        };
        self.duplicates += 1;
        let Some(mut held) = self.held[at].take() else { return };
        held.conflicts += 1;
        let stable = self.mode == Mode::Auto(Identifiers::Stable)
            || held.origin == Origin::LinkLocal && matches!(self.mode, Mode::Static { .. });
        let prefix = match held.origin {
            Origin::LinkLocal => LINK_LOCAL,
            Origin::Router(prefix) => prefix,
            Origin::Given => UNSPECIFIED,
        };
        if stable && prefix != UNSPECIFIED && held.conflicts < CONFLICTS_MAX {
            held.address = self.make(&prefix, held.conflicts);
            held.stage = Stage::Report;
            held.at = now + Duration(self.rng.below(DELAY_MAX.0));
            self.held[at] = Some(held);
        }
        self.rearm();
    }

    /// A router has spoken (RFC 4861 §6.3.4).
    pub fn advert(&mut self, advert: &RouterAdvert<'_>, now: Instant) {
        if !matches!(self.mode, Mode::Auto(_)) {
            return;
        }
        self.expire(now);
        // It has answered, or would have.
        self.solicit_at = Instant::NEVER;
        self.solicit_gap = SOLICIT_MIN;
        self.router(advert.router, advert.lifetime_s, now);
        let mtu = advert.options.mtu().and_then(|mtu| u16::try_from(mtu).ok());
        if let Some(mtu) = mtu.filter(|mtu| (MTU_MIN..=self.link_mtu).contains(mtu)) {
            self.changed |= self.mtu != mtu;
            self.mtu = mtu;
        }
        if advert.hops != 0 {
            self.changed |= self.hops != advert.hops;
            self.hops = advert.hops;
        }
        for prefix in advert.options.prefixes() {
            if ipv6::is_link_local(&prefix.address) || ipv6::is_multicast(&prefix.address) {
                continue;
            }
            if prefix.on_link {
                self.on_link(&prefix, now);
            }
            if prefix.autonomous {
                self.autonomous(&prefix, now);
            }
        }
        self.rearm();
    }

    fn router(&mut self, router: Address, lifetime_s: u16, now: Instant) {
        let until = now + Duration::from_s(u64::from(lifetime_s));
        match self.routers.iter().position(|(known, _)| *known == router) {
            Some(at) if lifetime_s == 0 => {
                self.routers.remove(at);
                self.changed = true;
            }
            Some(at) => self.routers[at].1 = until,
            None if lifetime_s != 0 => {
                self.changed |= self.routers.try_push((router, until)).is_ok();
            }
            None => {}
        }
    }

    fn on_link(&mut self, prefix: &nd::Prefix, now: Instant) {
        let until = lifetime(prefix.valid_s, now);
        let same =
            |known: &(Address, u8, Instant)| (known.0, known.1) == (prefix.address, prefix.len);
        match self.prefixes.iter().position(same) {
            Some(at) if prefix.valid_s == 0 => {
                self.prefixes.remove(at);
                self.changed = true;
            }
            Some(at) => self.prefixes[at].2 = until,
            None if prefix.valid_s != 0 => {
                let new = (prefix.address, prefix.len, until);
                self.changed |= self.prefixes.try_push(new).is_ok();
            }
            None => {}
        }
    }

    /// §5.5.3.
    fn autonomous(&mut self, prefix: &nd::Prefix, now: Instant) {
        if prefix.preferred_s > prefix.valid_s || prefix.len != 128 - IDENTIFIER_BITS {
            return;
        }
        let (valid, preferred) = (lifetime(prefix.valid_s, now), lifetime(prefix.preferred_s, now));
        let origin = Origin::Router(prefix.address);
        let Some(held) = self.held.iter_mut().flatten().find(|held| held.origin == origin) else {
            if prefix.valid_s != 0 {
                let address = self.make(&prefix.address, 0);
                self.hold(address, prefix.len, origin, valid, preferred, now);
            }
            return;
        };
        let two_hours = now + TWO_HOURS;
        if valid > two_hours || valid > held.valid_until {
            held.valid_until = valid;
        } else if held.valid_until > two_hours {
            held.valid_until = two_hours;
        }
        held.preferred_until = preferred;
        let deprecated = preferred <= now;
        self.changed |= held.deprecated != deprecated && !held.is_tentative();
        held.deprecated = deprecated;
    }
}

fn lifetime(seconds: u32, now: Instant) -> Instant {
    if seconds == INFINITE_S { Instant::NEVER } else { now + Duration::from_s(u64::from(seconds)) }
}

/// Identifiers that are nobody's (RFC 5453 §3).
fn is_reserved(identifier: &[u8; 8]) -> bool {
    let value = u64::from_be_bytes(*identifier);
    value == 0
        || value >> 24 == 0x02_005e_fffe
        || (0xfdff_ffff_ffff_ff80..=0xfdff_ffff_ffff_ffff).contains(&value)
}
