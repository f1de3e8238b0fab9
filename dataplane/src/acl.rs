//! The firewall: what the rules in force say about packets and connections.
//!
//! Connections are judged when they are opened; the verdict stays with them, together with the number of
//! the set that gave it. When other rules come into force, each is judged anew before its next packet in
//! either direction. Everything else is judged packet by packet, on the core that handles it, in
//! both directions; ARP and the kernel's own DHCP client are not subject to rules (`docs/acl.md`).
//!
//! - here: judging; [`answers`]: what a rejected sender is told;
//! - [`sources`]: rates and numbers of connections by source;
//! - [`swap`]: how a set comes into force on all cores.
pub mod answers;
pub mod sources;
pub mod swap;

use crate::conn::{Conn, Flags, State};
use crate::group::FlowGroup;
use crate::local::Local;
use crate::tcp::close;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use ix_abi::stats::Drop;
use ix_abi::{DeadReason, IpAddress};
use ix_acl::{Action, Direction, Flow, Protocol, RuleSet};
use sources::{Connections, Rates};

/// No rule with limits: nothing to be counted.
pub const UNLIMITED: u16 = u16::MAX;
const _: () = assert!(ix_abi::acl::RULES_MAX < UNLIMITED as usize);

/// How often each rule has decided on one core: written by that core alone.
#[derive(Debug)]
pub struct Hits(Box<[AtomicU64]>);

impl Hits {
    #[inline(always)]
    fn count(&self, rule: usize) {
        if let Some(hits) = self.0.get(rule) {
            hits.store(hits.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }
}

/// The rules in force on one core.
#[derive(Debug)]
pub struct Firewall {
    rules: Arc<RuleSet>,
    hits: Arc<Hits>,
    rates: Option<Arc<Rates>>,
    connections: Option<Connections>,
    /// Of the set; from 1.
    generation: u32,
}

impl Firewall {
    /// The rule that decides, if it is one with limits.
    fn limited(&self, rule: usize) -> u16 {
        match self.rules.rule(rule) {
            Some(found) if found.rate.is_some() || found.connections.is_some() => rule as u16,
            _ => UNLIMITED,
        }
    }
}

/// A packet or connection of our address `local`.
#[inline(always)]
pub fn flow(
    local: IpAddress,
    direction: Direction,
    protocol: Protocol,
    remote: IpAddress,
    (remote_port, local_port): (u16, u16),
) -> Flow {
    Flow { direction, protocol, remote, local, remote_port, local_port }
}

/// What opens something that a rate counts: a connection, or a packet of what has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// Yes.
    Rate,
    /// And it will be a connection.
    Connection,
    /// No: a segment that belongs to nothing, an answer of ours.
    Nothing,
}

/// Judges; counts what is refused. `Ok`: the rule, if it is one with limits.
#[inline]
pub fn judge(local: &mut Local, flow: &Flow, counts: Counts) -> Result<u16, Action> {
    if local.acl.is_none() { Ok(UNLIMITED) } else { by_rules(local, flow, counts) }
}

/// The same, where there are rules. A call, so that the path of packets stays short without them.
#[inline(never)]
fn by_rules(local: &mut Local, flow: &Flow, counts: Counts) -> Result<u16, Action> {
    let Some(firewall) = &local.acl else { return Ok(UNLIMITED) };
    let decision = firewall.rules.decide(flow);
    firewall.hits.count(decision.rule);
    if decision.action != Action::Allow {
        local.stats.drop(match flow.direction {
            Direction::In => Drop::AclDeniedIn,
            Direction::Out => Drop::AclDeniedOut,
        });
        return Err(decision.action);
    }
    match firewall.limited(decision.rule) {
        UNLIMITED => Ok(UNLIMITED),
        rule if counts == Counts::Nothing => Ok(rule),
        rule => within_limits(local, rule, flow.remote, counts),
    }
}

/// Takes a source's rate and connections into account. What is too much is denied.
#[cold]
fn within_limits(
    local: &mut Local,
    number: u16,
    remote: IpAddress,
    counts: Counts,
) -> Result<u16, Action> {
    let Some(firewall) = &local.acl else { return Ok(UNLIMITED) };
    let Some(rule) = firewall.rules.rule(usize::from(number)) else { return Ok(UNLIMITED) };
    // Connections first: an attempt that is refused for them uses nothing of the rate up.
    if let (Some(most), Some(table)) = (rule.connections, &firewall.connections)
        && counts == Counts::Connection
        && table.sum(number, remote) >= most
    {
        local.stats.drop(Drop::AclConnections);
        return Err(Action::Deny);
    }
    if let (Some((rate, burst)), Some(rates)) = (rule.rate, &firewall.rates)
        && !rates.admit(number, remote, rate, burst, local.now)
    {
        local.stats.drop(Drop::AclRate);
        return Err(Action::Deny);
    }
    Ok(number)
}

/// Whether a source may have one connection more by `rule`, by which [`judge`] has let pass what opens it and
/// has counted its rate before: with its SYN.
pub fn may_open(local: &mut Local, rule: u16, remote: IpAddress) -> bool {
    let Some(firewall) = local.acl.as_ref().filter(|_| rule != UNLIMITED) else { return true };
    let most = firewall.rules.rule(usize::from(rule)).and_then(|rule| rule.connections);
    let many = most
        .zip(firewall.connections.as_ref())
        .is_some_and(|(most, table)| table.sum(rule, remote) >= most);
    if many {
        local.stats.drop(Drop::AclConnections);
    }
    !many
}

/// A connection was entered that [`judge`] has let pass by `rule`. `false`: it cannot be counted, so
/// it cannot be had.
#[inline]
pub fn opened(conn: &mut Conn, local: &mut Local, rule: u16) -> bool {
    conn.acl = local.acl_generation;
    conn.acl_rule = rule;
    if rule != UNLIMITED && !count(conn, local, true) {
        conn.acl_rule = UNLIMITED;
        return false;
    }
    true
}

/// A connection is over.
#[inline]
pub fn closed(conn: &mut Conn, local: &mut Local) {
    if conn.acl_rule != UNLIMITED {
        count(conn, local, false);
        conn.acl_rule = UNLIMITED;
    }
}

/// Counts a connection of a rule with limits, or counts it no more.
#[cold]
pub fn count(conn: &Conn, local: &mut Local, comes: bool) -> bool {
    let Some(firewall) = local.acl.as_mut().filter(|f| f.generation == conn.acl) else {
        return true;
    };
    let number = conn.acl_rule;
    let limited = |f: &Firewall| {
        f.rules.rule(usize::from(number)).is_some_and(|rule| rule.connections.is_some())
    };
    if !limited(firewall) {
        return true;
    }
    let Some(table) = &mut firewall.connections else { return true };
    if !comes {
        table.leave(number, conn.remote);
        return true;
    }
    let counted = table.enter(number, conn.remote);
    if !counted {
        local.stats.drop(Drop::AclConnections);
    }
    counted
}

/// A connection's flow, as it was opened.
fn flow_of(conn: &Conn, local: &Local) -> Flow {
    let active = conn.flags.contains(Flags::ACTIVE);
    let direction = if active { Direction::Out } else { Direction::In };
    let ports = (conn.remote_port(), conn.local_port());
    flow(local.ip_at(conn.local), direction, Protocol::Tcp, conn.remote, ports)
}

/// Judges a connection by rules that have come into force since it was last judged. `false`: they do not
/// let it be, it has been ended, and nothing may be sent for it.
#[cold]
pub fn still_allowed(group: &mut FlowGroup, local: &mut Local, index: u32) -> bool {
    let conn = &mut group.conns[index];
    conn.acl = local.acl_generation;
    conn.acl_rule = UNLIMITED;
    let flow = flow_of(conn, local);
    let Some(firewall) = &local.acl else { return true };
    let decision = firewall.rules.decide(&flow);
    firewall.hits.count(decision.rule);
    if decision.action == Action::Allow {
        let limited = firewall.limited(decision.rule);
        let conn = &mut group.conns[index];
        if conn.flags.contains(Flags::IN_TABLE) {
            // It is there already: it counts, but no limit ends it.
            let _counted_if_there_is_room = opened(conn, local, limited);
        }
        return true;
    }
    local.stats.drop(Drop::AclEnded);
    end(group, local, index, decision.action);
    false
}

fn end(group: &mut FlowGroup, local: &mut Local, index: u32, action: Action) {
    match group.conns[index].state {
        // Over already; what it may have wanted to say is not said.
        State::Closed => {
            group.conns[index].flags -= Flags::RESET;
            group.free_if_done(index, local);
        }
        State::TimeWait => {
            close::time_wait_over(group, local, index);
        }
        _ if action == Action::Reject => close::abort(group, local, index, DeadReason::Evicted),
        _ => close::end(group, local, index, DeadReason::Evicted),
    }
}
