//! The neighbour cache: link addresses of the hosts on the link, and what waits for them.
//!
//! Sans-IO: it says which request to send when, and is told of the answers; whether these are ARP
//! (RFC 826) or neighbour discovery (RFC 4861, whose state names are used here) is its caller's
//! matter. Sets of eight ways under a keyed hash, so that look-up is O(1) and bounded and nobody on
//! the link can choose what collides. What waits is bounded per entry and in all.
//!
//! An address in use is confirmed again when it is older than [`FRESH`] by a request while it goes
//! on being used (RFC 1122 §2.3.2.1 asks for some such time-out); one that stays unanswered
//! three times is forgotten.
use crate::rng::SipKey;
use crate::time::{Duration, Instant};
use alloc::vec::Vec;
use ix_abi::addr::IpAddress;
use smoltcp::wire::EthernetAddress;

mod queue;
#[cfg(test)]
mod tests;

use queue::{Fifo, Pending};

/// Between two requests for one address (RFC 1122 §2.3.2.1: at most one a second).
pub const RETRY: Duration = Duration::from_s(1);
/// Unanswered requests until an address is given up.
pub const TRIES: u8 = 3;
/// How long an answer counts without being confirmed.
pub const FRESH: Duration = Duration::from_s(60);
/// How long an address that was only heard of is used before it is asked for (RFC 4861 §10,
/// DELAY_FIRST_PROBE_TIME).
pub const DELAY: Duration = Duration::from_s(5);
/// Entries of one set.
const WAYS: usize = 8;

/// Limits of a table.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Addresses that it remembers; rounded up to eight times a power of two.
    pub entries: usize,
    /// Packets that wait in all.
    pub pending: usize,
    /// Packets that wait for one address.
    pub pending_per_entry: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 1024, pending: 256, pending_per_entry: 16 }
    }
}

/// A request to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whose link address is wanted.
    pub ip: IpAddress,
    /// To whom: the address to be confirmed, or nobody known, that is broadcast.
    pub to: Option<EthernetAddress>,
}

/// Where a packet can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// To this link address.
    Found(EthernetAddress),
    /// Nowhere yet: [`Table::pend`].
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// Asked for, never answered.
    Incomplete {
        tries: u8,
        next: Instant,
    },
    Reachable {
        since: Instant,
    },
    /// Heard of, never confirmed.
    Stale,
    /// Known, being confirmed.
    Probe {
        tries: u8,
        next: Instant,
    },
}

#[derive(Clone, Debug)]
struct Entry {
    ip: IpAddress,
    mac: EthernetAddress,
    state: State,
    used: Instant,
    waiting: Fifo,
}

impl Entry {
    /// Whether it says something of `ip`.
    #[inline]
    fn is_of(&self, ip: IpAddress) -> bool {
        self.ip == ip && self.state != State::Free
    }
}

/// The cache, with packets `P` waiting in it.
#[derive(Debug)]
pub struct Table<P> {
    key: SipKey,
    entries: Vec<Entry>,
    /// Where `lookup` found what it was asked for last: nearly always the router.
    last: usize,
    /// Entries that are Incomplete or Probe: those with a request due some time.
    asking: Vec<u32>,
    /// Where `poll` goes on among them; 0 whenever they change otherwise.
    scan: usize,
    pending: Pending<P>,
    pending_per_entry: usize,
    /// What waited for an address that has come, oldest first, and for one that has not.
    ready: Fifo,
    failed: Fifo,
    next: Instant,
}

impl<P> Table<P> {
    /// An empty table. The only allocation.
    pub fn new(limits: Limits, key: SipKey) -> Table<P> {
        let count = limits.entries.div_ceil(WAYS).max(1).next_power_of_two() * WAYS;
        let free = Entry {
            ip: IpAddress::UNSPECIFIED,
            mac: EthernetAddress([0; 6]),
            state: State::Free,
            used: Instant(0),
            waiting: Fifo::EMPTY,
        };
        let mut entries = Vec::new();
        entries.resize(count, free);
        Table {
            key,
            entries,
            last: 0,
            asking: Vec::with_capacity(count),
            scan: 0,
            pending: Pending::new(limits.pending),
            pending_per_entry: limits.pending_per_entry,
            ready: Fifo::EMPTY,
            failed: Fifo::EMPTY,
            next: Instant::NEVER,
        }
    }

    /// The link address of `ip`. One that has got old is used on, and asked for again.
    #[inline]
    pub fn lookup(&mut self, ip: IpAddress, now: Instant) -> Lookup {
        if !self.entries.get(self.last).is_some_and(|entry| entry.is_of(ip)) {
            let Some(at) = self.find(ip) else { return Lookup::Unknown };
            self.last = at;
        }
        let at = self.last;
        let entry = &mut self.entries[at];
        entry.used = now;
        match entry.state {
            State::Reachable { since } if now.since(since) <= FRESH => Lookup::Found(entry.mac),
            State::Reachable { .. } => {
                entry.state = State::Probe { tries: 0, next: now };
                let mac = entry.mac;
                self.asks(at, now);
                Lookup::Found(mac)
            }
            State::Stale => {
                entry.state = State::Probe { tries: 0, next: now + DELAY };
                let mac = entry.mac;
                self.asks(at, now + DELAY);
                Lookup::Found(mac)
            }
            State::Probe { .. } => Lookup::Found(entry.mac),
            State::Incomplete { .. } | State::Free => Lookup::Unknown,
        }
    }

    /// Keeps a packet until the address is known ([`Table::pop_ready`]) or given up
    /// ([`Table::pop_failed`]); asks for it if nobody has. Gives it back if too many wait.
    pub fn pend(&mut self, ip: IpAddress, packet: P, now: Instant) -> Result<(), P> {
        let at = match self.find(ip) {
            Some(at) => at,
            None if self.pending.is_full() => return Err(packet),
            None => match self.make(ip, now) {
                Some(at) => at,
                None => return Err(packet),
            },
        };
        let entry = &mut self.entries[at];
        entry.used = now;
        match entry.state {
            // It came between the look-up and this: at once.
            State::Reachable { .. } | State::Stale | State::Probe { .. } => {
                self.pending.push(&mut self.ready, ip, entry.mac, packet)
            }
            _ if entry.waiting.len() >= self.pending_per_entry => Err(packet),
            _ => self.pending.push(&mut entry.waiting, ip, entry.mac, packet),
        }
    }

    /// Starts to ask for an address for which nothing waits.
    pub fn solicit(&mut self, ip: IpAddress, now: Instant) {
        if self.find(ip).is_none() {
            self.make(ip, now);
        }
    }

    /// An answer to a request, or word from another core of one: the link address of `ip` is `mac`.
    /// Whether that is news: an address that was unknown or another one.
    pub fn confirm(&mut self, ip: IpAddress, mac: EthernetAddress, now: Instant) -> bool {
        if !mac.is_unicast() {
            return false;
        }
        let Some(at) = self.find(ip).or_else(|| self.vacate(ip)) else { return false };
        let entry = &mut self.entries[at];
        let news =
            matches!(entry.state, State::Free | State::Incomplete { .. }) || entry.mac != mac;
        if entry.state == State::Free {
            entry.used = now;
        }
        entry.ip = ip;
        entry.mac = mac;
        entry.state = State::Reachable { since: now };
        let waiting = core::mem::replace(&mut entry.waiting, Fifo::EMPTY);
        self.pending.resolve(&waiting, mac);
        self.pending.append(&mut self.ready, waiting);
        self.asks_no_more(at);
        news
    }

    /// Word of a host that did not answer us: a request of its own, an announcement. Updates what is
    /// known and what is asked for, but remembers nobody anew (RFC 826's merge), so that noise on
    /// the link displaces nothing. Whether it was news.
    pub fn overhear(&mut self, ip: IpAddress, mac: EthernetAddress, now: Instant) -> bool {
        self.find(ip).is_some() && self.confirm(ip, mac, now)
    }

    /// Word of a host that wants to talk to us (RFC 4861 §7.2.3): remembered, and used, but confirmed
    /// when it is. Whether it was news.
    pub fn hear(&mut self, ip: IpAddress, mac: EthernetAddress, now: Instant) -> bool {
        if self.known(ip) == Some(Some(mac)) {
            return false;
        }
        let news = self.confirm(ip, mac, now);
        if news && let Some(at) = self.find(ip) {
            self.entries[at].state = State::Stale;
        }
        news
    }

    /// What is known of `ip`: nothing, that it is being asked for, or its link address.
    pub fn known(&self, ip: IpAddress) -> Option<Option<EthernetAddress>> {
        let entry = &self.entries[self.find(ip)?];
        let asked = matches!(entry.state, State::Incomplete { .. });
        Some((!asked).then_some(entry.mac))
    }

    /// All whose link addresses are known.
    pub fn all(&self) -> impl Iterator<Item = (IpAddress, EthernetAddress)> + Clone {
        let known = |entry: &&Entry| !matches!(entry.state, State::Free | State::Incomplete { .. });
        self.entries.iter().filter(known).map(|entry| (entry.ip, entry.mac))
    }

    /// The next request that is due; to be called until `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Request> {
        if now < self.next {
            return None;
        }
        while let Some(&index) = self.asking.get(self.scan) {
            let entry = &mut self.entries[index as usize];
            let (State::Incomplete { tries, next } | State::Probe { tries, next }) =
                &mut entry.state
            else {
                self.asking.swap_remove(self.scan);
                continue;
            };
            if *next > now {
                self.scan += 1;
                continue;
            }
            if *tries < TRIES {
                *tries += 1;
                *next = now + RETRY;
                let known = matches!(entry.state, State::Probe { .. });
                return Some(Request { ip: entry.ip, to: known.then_some(entry.mac) });
            }
            entry.state = State::Free;
            let waiting = core::mem::replace(&mut entry.waiting, Fifo::EMPTY);
            self.pending.append(&mut self.failed, waiting);
            self.asking.swap_remove(self.scan);
        }
        self.scan = 0;
        let due = |index: &u32| match self.entries[*index as usize].state {
            State::Incomplete { next, .. } | State::Probe { next, .. } => Some(next),
            _ => None,
        };
        self.next = self.asking.iter().filter_map(due).min().unwrap_or(Instant::NEVER);
        None
    }

    /// Whether there is anything to poll or to pop.
    #[inline(always)]
    pub fn has_work(&self, now: Instant) -> bool {
        self.next <= now || self.ready.len() + self.failed.len() > 0
    }

    /// When to poll next.
    #[inline]
    pub fn next_deadline(&self) -> Instant {
        self.next
    }

    /// A packet that can go now, and where; in the order of [`Table::pend`] for one address.
    #[inline]
    pub fn pop_ready(&mut self) -> Option<(EthernetAddress, P)> {
        let waiter = self.pending.pop(&mut self.ready)?;
        Some((waiter.mac, waiter.packet))
    }

    /// A packet for an address that nobody answered for.
    #[inline]
    pub fn pop_failed(&mut self) -> Option<(IpAddress, P)> {
        let waiter = self.pending.pop(&mut self.failed)?;
        Some((waiter.ip, waiter.packet))
    }

    /// Packets that wait, or were not popped yet.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What waits has failed; addresses are asked for all the same.
    pub fn fail_waiting(&mut self) {
        for entry in &mut self.entries {
            let waiting = core::mem::replace(&mut entry.waiting, Fifo::EMPTY);
            self.pending.append(&mut self.failed, waiting);
        }
    }

    /// Forgets every address (the link's configuration has changed); what waits has failed.
    pub fn clear(&mut self) {
        for entry in &mut self.entries {
            entry.state = State::Free;
            let waiting = core::mem::replace(&mut entry.waiting, Fifo::EMPTY);
            self.pending.append(&mut self.failed, waiting);
        }
        self.asking.clear();
        self.scan = 0;
        self.next = Instant::NEVER;
    }

    #[inline]
    fn set(&self, ip: IpAddress) -> core::ops::Range<usize> {
        let sets = self.entries.len() / WAYS;
        let first = (self.key.hash(ip.to_words()) as usize & (sets - 1)) * WAYS;
        first..first + WAYS
    }

    #[inline]
    fn find(&self, ip: IpAddress) -> Option<usize> {
        self.set(ip).find(|at| self.entries[*at].is_of(ip))
    }

    /// A free entry of the set, or the least recently used one that has nothing waiting.
    fn vacate(&mut self, ip: IpAddress) -> Option<usize> {
        let idle = |at: &usize| self.entries[*at].waiting.len() == 0;
        let age = |at: &usize| {
            let entry = &self.entries[*at];
            (entry.state != State::Free, entry.used)
        };
        let at = self.set(ip).filter(idle).min_by_key(age)?;
        self.asks_no_more(at);
        self.entries[at].state = State::Free;
        Some(at)
    }

    fn make(&mut self, ip: IpAddress, now: Instant) -> Option<usize> {
        let at = self.vacate(ip)?;
        let entry = &mut self.entries[at];
        entry.ip = ip;
        entry.used = now;
        entry.state = State::Incomplete { tries: 0, next: now };
        self.asks(at, now);
        Some(at)
    }

    fn asks(&mut self, at: usize, now: Instant) {
        debug_assert!(self.asking.len() < self.asking.capacity());
        self.asking.push(at as u32);
        self.next = self.next.min(now);
    }

    fn asks_no_more(&mut self, at: usize) {
        self.asking.retain(|asking| *asking as usize != at);
        self.scan = 0;
    }
}
