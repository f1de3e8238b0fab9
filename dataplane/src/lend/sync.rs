//! What a core is told that has missed messages: all that every core has to know, as it is now.
use crate::acl::Firewall;
use crate::addresses::Ipv6Config;
use crate::config::Ipv4Config;
use crate::engine::Engine;
use crate::local::Local;
use crate::message::Message;
use crate::ports::Port;
use alloc::boxed::Box;
use alloc::vec::Vec;
use ix_abi::addr::IpAddress;
use ix_abi::{CoreId, GroupId};
use smoltcp::wire::EthernetAddress;

/// See above.
#[derive(Debug)]
pub struct Sync {
    /// Cores that are away, a bit each.
    absent: u64,
    /// Those of them that were stopped.
    taken: u64,
    /// Of each group, whose it is, and how old that is.
    owners: Vec<(CoreId, u64)>,
    /// TCP ports that are listened on, and UDP ports that are bound.
    listeners: Vec<Port>,
    bindings: Vec<Port>,
    ipv4: Option<Ipv4Config>,
    ipv6: Ipv6Config,
    /// Link addresses that were learnt: an answer to the core's own request may have come meanwhile.
    neighbors: Vec<(IpAddress, EthernetAddress)>,
    /// Rules that have come into force meanwhile.
    rules: Option<Box<Firewall>>,
}

impl Sync {
    /// All that core 0 has, if there is memory for it.
    fn of(local: &Local, (absent, taken): (u64, u64)) -> Option<Box<[Sync]>> {
        let mut sync = Vec::new();
        sync.try_reserve_exact(1).ok()?;
        sync.push(Sync {
            absent,
            taken,
            owners: listed(local.owners.iter().copied().zip(local.ages.iter().copied()))?,
            listeners: listed(local.listeners.all().copied())?,
            bindings: listed(local.udp.ports.all().copied())?,
            ipv4: local.ipv4,
            ipv6: local.v6.config.clone(),
            neighbors: listed(local.neighbors.all())?,
            rules: None,
        });
        Some(sync.into_boxed_slice())
    }
}

/// A list of them, if there is memory for it.
fn listed<T>(of: impl Iterator<Item = T> + Clone) -> Option<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(of.clone().count()).ok()?;
    list.extend(of);
    Some(list)
}

impl Engine {
    /// Core 0: tells a core that is back what it has missed. Without memory for it, not now.
    pub(super) fn bring_up_to_date(&mut self, core: CoreId) -> bool {
        let absent = (self.lend.absent(), self.lend.taken);
        let Some(mut sync) = Sync::of(&self.local, absent) else { return false };
        sync[0].rules = self.acl.parked(core);
        self.tell(core, Message::Sync(sync));
        while let Some(message) = self.lend.book.kept_for(core) {
            self.tell(core, message);
        }
        true
    }

    /// Takes it over. What came from other cores in between may be newer.
    pub(super) fn take_sync(&mut self, sync: Sync) {
        self.lend.taken = sync.taken;
        self.hear(sync.absent, 0);
        for (group, (owner, age)) in sync.owners.into_iter().enumerate() {
            self.hear_owner(GroupId(group as u16), owner, age);
        }
        let local = &mut self.local;
        local.listeners.replace(&sync.listeners, local.app_ended);
        local.udp.ports.replace(&sync.bindings, local.app_ended);
        if local.ipv4 != sync.ipv4 {
            self.set_address(sync.ipv4);
        }
        if self.local.v6.config != sync.ipv6 {
            self.set_ipv6(sync.ipv6);
        }
        let local = &mut self.local;
        for (ip, mac) in sync.neighbors {
            if local.neighbors.hear(ip, mac, local.now) {
                local.age_neighbors(true);
            }
        }
        if let Some(rules) = sync.rules {
            self.change_rules(rules);
        }
        (self.lend.out, self.lend.stopped) = (false, false);
    }
}
