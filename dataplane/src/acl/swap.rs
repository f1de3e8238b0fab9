//! How a set comes into force. Core 0 makes a [`Firewall`] for each core and sends it; every core takes its
//! own over at its quiescent point, between two packets, and sends back what it had. When all have
//! answered, nobody uses the old set any more, and core 0 frees it: no other core allocates or frees.
use super::sources::{Connections, Rates};
use super::{Counts, Firewall, Hits, UNLIMITED, flow, judge};
use crate::conn::{Conn, FORM, Flags};
use crate::dhcp;
use crate::engine::Engine;
use crate::group::FlowGroup;
use crate::input::eth::HEADER as ETHERNET;
use crate::local::Local;
use crate::message::Message;
use crate::rng::SipKey;
use crate::tx::Staged;
use crate::{ipv4, ipv6, nd};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use ix_abi::{CoreId, IpAddress};
use ix_acl::{AclError, Compiler, Direction, Flow, Protocol, RuleSet};

/// What core 0 knows of the set in force.
#[derive(Debug, Default)]
pub struct Registry {
    rules: Option<Arc<RuleSet>>,
    hits: Vec<Arc<Hits>>,
    generation: u32,
    /// Cores that have not answered, a bit each.
    waiting: u64,
    /// Of cores that are away, what they are to have: the last set, once each.
    parked: Vec<(CoreId, Box<Firewall>)>,
}

impl Registry {
    /// What a core is to have that was away when it came into force; it answers.
    pub(crate) fn parked(&mut self, core: CoreId) -> Option<Box<Firewall>> {
        let at = self.parked.iter().position(|(of, _)| *of == core)?;
        self.waiting |= 1 << core.0;
        Some(self.parked.swap_remove(at).1)
    }

    /// Nobody waits for the answer of a core that was stopped.
    pub(crate) fn forget(&mut self, core: CoreId) {
        self.waiting &= !(1 << core.0);
    }

    /// Makes what each core needs of a set.
    fn make(
        &mut self,
        rules: RuleSet,
        cores: u16,
        mut key: impl FnMut() -> SipKey,
    ) -> Result<Vec<Firewall>, AclError> {
        let verdicts = rules.verdicts();
        let has = |of: fn(&ix_acl::Rule) -> bool| rules.rules().iter().any(of);
        let rates =
            if has(|rule| rule.rate.is_some()) { Some(Arc::new(Rates::new(key())?)) } else { None };
        let mut connections = if has(|rule| rule.connections.is_some()) {
            Connections::new(key(), cores)?
        } else {
            Vec::new()
        };
        let rules = Arc::new(rules);
        let mut hits = Vec::new();
        for _ in 0..cores {
            let mut own = Vec::new();
            own.try_reserve_exact(verdicts).map_err(|_| AclError::Memory)?;
            own.resize_with(verdicts, AtomicU64::default);
            hits.push(Arc::new(Hits(own.into())));
        }
        self.generation = (self.generation.wrapping_add(1) & !FORM).max(1);
        let generation = self.generation;
        let made = hits.iter().rev().map(|hits| Firewall {
            rules: Arc::clone(&rules),
            hits: Arc::clone(hits),
            rates: rates.clone(),
            connections: connections.pop(),
            generation,
        });
        let mut made: Vec<_> = made.collect();
        made.reverse();
        self.hits = hits;
        self.rules = Some(rules);
        Ok(made)
    }
}

impl Engine {
    /// Core 0: makes the parts of all cores for a set of rules that is in force from the first packet.
    /// Each is for the engine of its core, before it runs: [`Engine::begin_with_rules`].
    pub fn make_rules(&mut self, rules: RuleSet) -> Result<Vec<Firewall>, AclError> {
        let Engine { acl, local, .. } = self;
        acl.make(rules, local.cores, || local.rng.key())
    }

    /// Rules from the first packet on.
    pub fn begin_with_rules(&mut self, firewall: Firewall) {
        self.stir();
        let _there_was_none = self.take_rules(Box::new(firewall));
    }

    /// Core 0: sets rules for all cores. [`Engine::rules_settled`] tells when all have them.
    pub fn set_rules(&mut self, rules: RuleSet) -> Result<(), AclError> {
        self.stir();
        debug_assert!(self.local.core == CoreId(0) && self.rules_settled());
        if self.local.mesh.broadcast_room() == 0 {
            return Err(AclError::Memory);
        }
        let mut parts = self.make_rules(rules)?.into_iter();
        let own = parts.next();
        for (core, part) in (1..self.local.cores).map(CoreId).zip(parts) {
            if self.local.mesh.is_absent(core) {
                self.acl.parked.retain(|(of, _)| *of != core);
                self.acl.parked.push((core, Box::new(part)));
            } else if self.local.mesh.send(core, Message::Rules(Box::new(part))).is_ok() {
                self.acl.waiting |= 1 << core.0;
            }
        }
        // Core 0 is at its quiescent point now. The old set goes here, with the others' that come back.
        drop(own.and_then(|own| self.take_rules(Box::new(own))));
        Ok(())
    }

    /// Whether there is room to send rules to every core now.
    pub fn can_set_rules(&self) -> bool {
        self.rules_settled() && self.local.mesh.broadcast_room() > 0
    }

    /// Core 0: whether every core has the rules that were set last.
    pub fn rules_settled(&self) -> bool {
        self.acl.waiting == 0
    }

    /// Core 0: the rules in force, and how many sets there have been.
    pub fn rules(&self) -> Option<(&RuleSet, u32)> {
        self.acl.rules.as_deref().map(|rules| (rules, self.acl.generation))
    }

    /// Core 0: rules about our own address are compiled for the one that we had. If it is another now, what
    /// compiles them for the one that we have: until that is in force, look-ups are right but slow.
    pub fn recompile_rules(&self) -> Option<Compiler> {
        let here = self.ipv4().map_or(IpAddress::UNSPECIFIED, |v4| IpAddress::v4(v4.address));
        let (rules, _) = self.rules().filter(|(rules, _)| !rules.is_for(here))?;
        let mut source = Vec::new();
        source.try_reserve_exact(rules.source().len()).ok()?;
        source.extend_from_slice(rules.source());
        Compiler::new(source, here).ok()
    }

    /// Core 0: how often a rule has decided since its set is in force, on all cores.
    pub fn rule_hits(&self, rule: usize) -> u64 {
        let of = |hits: &Arc<Hits>| hits.0.get(rule).map_or(0, |n| n.load(Ordering::Relaxed));
        self.acl.hits.iter().map(of).fold(0, u64::wrapping_add)
    }

    /// At the quiescent point: other rules from here on. Gives the old ones back.
    pub(crate) fn take_rules(&mut self, firewall: Box<Firewall>) -> Option<Box<Firewall>> {
        let local = &mut self.local;
        local.acl_generation = firewall.generation;
        local.form_at_rest = Conn::form_at_rest(firewall.generation);
        let old = local.acl.replace(firewall);
        // So that each connection comes by `resolve` before it sends, where it is judged.
        local.age_neighbors(true);
        judge_staged(local);
        old
    }

    /// Another core than 0: takes rules over and answers.
    pub(crate) fn change_rules(&mut self, firewall: Box<Firewall>) {
        let old = self.take_rules(firewall);
        self.local.acl_answer = Some(old);
        self.answer_rules();
    }

    /// Sends the old rules to core 0, as soon as there is room.
    #[cold]
    pub(crate) fn answer_rules(&mut self) {
        let Some(old) = self.local.acl_answer.take() else { return };
        let (core, generation) = (self.local.core, self.local.acl_generation);
        if let Err(Message::RulesTaken { old, .. }) =
            self.local.mesh.send(CoreId(0), Message::RulesTaken { core, generation, old })
        {
            self.local.acl_answer = Some(old);
        }
    }

    /// Core 0: another core has the new rules.
    pub(crate) fn rules_taken(&mut self, core: CoreId, generation: u32) {
        if generation == self.acl.generation {
            self.acl.waiting &= !(1 << core.0);
        }
    }
}

/// Frames that were built under the old rules and have not left.
fn judge_staged(local: &mut Local) {
    for _ in 0..local.tx.staged() {
        let Some(staged) = local.tx.turn_staged() else { return };
        let flow = match &staged {
            Staged::Bytes(bytes) => sent_flow(local, bytes),
            Staged::Buffer { mbuf, offset, len } => {
                let at = usize::from(*offset);
                let frame = local.pool.area().data(mbuf).get(at..at + usize::from(*len));
                frame.and_then(|frame| sent_flow(local, frame))
            }
            // Judged when it is sent: `udp::Datagram::acl`.
            Staged::Datagram { .. } => None,
        };
        match flow {
            Some(flow) if judge(local, &flow, Counts::Nothing).is_err() => {
                if let Staged::Buffer { mbuf, .. } = staged {
                    local.pool.free(mbuf);
                }
            }
            _ => {
                let back = local.tx.stage(staged);
                debug_assert!(back.is_ok(), "there was room for it");
            }
        }
    }
}

/// The same of one of IPv6. Ours have no extension headers but before listener reports, which are, like
/// neighbour discovery, none of the rules' business.
fn sent_flow_v6(frame: &[u8]) -> Option<Flow> {
    let h: &[u8; ETHERNET + ipv6::HEADER + 4] = frame.first_chunk()?;
    let address = |at: usize| Some(IpAddress(*h.get(at..at + 16)?.first_chunk()?));
    let (here, remote) = (address(ETHERNET + 8)?, address(ETHERNET + 24)?);
    let [.., e, f, g, i] = *h;
    let ports = (u16::from_be_bytes([g, i]), u16::from_be_bytes([e, f]));
    match h[ETHERNET + 6] {
        ipv4::TCP => Some(flow(here, Direction::Out, Protocol::Tcp, remote, ports)),
        ipv6::ICMP if !nd::is_exempt(e) => Some(Flow::icmp(Direction::Out, remote, here, e, f)),
        _ => None,
    }
}

/// The flow of a frame that we have built; `None` if rules do not concern it.
fn sent_flow(local: &Local, frame: &[u8]) -> Option<Flow> {
    if frame.get(12..14) == Some(&[0x86, 0xdd]) {
        return sent_flow_v6(frame);
    }
    let h: &[u8; ETHERNET + ipv4::HEADER + 4] = frame.first_chunk()?;
    let [.., a, b, c, d, e, f, g, i] = *h;
    let remote = IpAddress::v4([a, b, c, d]);
    let (from, to) = (u16::from_be_bytes([e, f]), u16::from_be_bytes([g, i]));
    if h[12..14] != [8, 0] {
        return None;
    }
    match h[23] {
        ipv4::TCP => Some(flow(local.ip(), Direction::Out, Protocol::Tcp, remote, (to, from))),
        ipv4::UDP if (from, to) == (dhcp::CLIENT_PORT, dhcp::SERVER_PORT) => None,
        ipv4::UDP => Some(flow(local.ip(), Direction::Out, Protocol::Udp, remote, (to, from))),
        ipv4::ICMP => Some(Flow::icmp(Direction::Out, remote, local.ip(), e, f)),
        _ => None,
    }
}

/// A group leaves or comes: what its connections count for limits moves with it, and what was judged by
/// another set than this core's is judged again before it sends.
pub(crate) fn moved(group: &mut FlowGroup, local: &mut Local, comes: bool) {
    if local.acl.is_none() {
        return;
    }
    for index in 0..group.conns.capacity() {
        group.conns.settle(index);
        let conn = &mut group.conns[index];
        if comes && conn.acl != local.acl_generation {
            conn.mac_epoch = local.mac_epoch.wrapping_sub(1);
        }
        if conn.acl_rule != UNLIMITED && conn.flags.contains(Flags::IN_TABLE) {
            super::count(conn, local, comes);
        }
    }
}
