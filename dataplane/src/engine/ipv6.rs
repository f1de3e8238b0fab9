//! IPv6 of an engine: core 0 runs [`slaac`] and tells the others what to configure; every core ends the
//! connections of addresses that are gone.
use super::Engine;
use crate::addresses::Ipv6Config;
use crate::conn::Flags;
use crate::group::FlowGroup;
use crate::input::nd;
use crate::ipv6::Address;
use crate::limits::IPV6_ADDRESSES_MAX;
use crate::local::Local;
use crate::message::Message;
use crate::rng::SipKey;
use crate::slaac::{Action, Client, Mode};
use crate::tcp::close;
use alloc::boxed::Box;
use ix_abi::stats::Counter;
use ix_abi::{CoreId, DeadReason};

/// Tells the key of interface identifiers from what else is made of the boot's secret.
const IDENTIFIERS: [u64; 2] = [u64::from_be_bytes(*b"slaac id"), u64::from_be_bytes(*b"rfc 7217")];

impl Engine {
    /// The IPv6 configuration in force.
    pub fn ipv6(&self) -> &Ipv6Config {
        &self.local.v6.config
    }

    pub(super) fn start_ipv6(&mut self) {
        let local = &mut self.local;
        if self.ipv6 == Mode::Off || local.core != CoreId(0) {
            return;
        }
        let [a, b] = IDENTIFIERS.map(|tag| local.isn_key.hash([tag]));
        let (mtu, now) = (local.v6.config.mtu, local.now);
        let rng = local.rng.fork();
        self.slaac = Some(Client::new(local.mac, self.ipv6, mtu, SipKey([a, b]), rng, now));
    }

    /// What is to be done for addresses. Whether there was anything.
    pub(super) fn run_slaac(&mut self) -> bool {
        let now = self.local.now;
        let mut busy = false;
        while let Some(action) = self.slaac.as_mut().and_then(|slaac| slaac.poll(now)) {
            busy = true;
            match action {
                Action::Send(frame) => nd::stage(&mut self.local, frame),
                Action::Configure(config) => {
                    self.set_ipv6(*config);
                    self.ipv6_untold =
                        self.local.mesh.others().fold(0, |cores, c| cores | 1 << c.0);
                    self.tell_ipv6();
                }
            }
        }
        busy
    }

    /// Somebody else has an address that we wanted.
    pub(crate) fn conflict(&mut self, address: &Address) {
        let now = self.local.now;
        if let Some(slaac) = &mut self.slaac {
            slaac.conflict(address, now);
            self.local.stats.add(Counter::Ipv6Duplicates, 1);
        }
    }

    /// Takes a configuration into use. Connections of addresses that are gone cannot go on.
    pub(crate) fn set_ipv6(&mut self, config: Ipv6Config) {
        let Engine { local, groups, .. } = self;
        local.v6.take(config);
        for group in groups.iter_mut().flatten() {
            end_lost(group, local);
        }
        local.age_neighbors(true);
    }

    /// Tells the other cores, as far as there is room for messages; the rest later.
    pub(super) fn tell_ipv6(&mut self) {
        let local = &mut self.local;
        let mut cores = core::mem::take(&mut self.ipv6_untold);
        while cores != 0 {
            let core = CoreId(cores.trailing_zeros() as u16);
            cores &= cores - 1;
            let message = Message::Ipv6(Box::new(local.v6.config.clone()));
            if local.mesh.send(core, message).is_err() {
                self.ipv6_untold |= 1 << core.0;
            }
        }
    }
}

/// Ends the connections of a group whose address is not ours any more. Nothing is said to their peers:
/// there is no address to say it from.
pub(super) fn end_lost(group: &mut FlowGroup, local: &mut Local) {
    let before = group.addresses;
    // A group from a core that has heard of more than this one has lost nothing.
    let is_lost = |at: usize, now: u16| (now.wrapping_sub(before[at]) as i16) > 0;
    let now = local.v6.config.generations;
    let mut lost = [false; IPV6_ADDRESSES_MAX];
    for (at, generation) in now.into_iter().enumerate() {
        lost[at] = is_lost(at, generation);
        if lost[at] {
            group.addresses[at] = generation;
        }
    }
    if lost == [false; IPV6_ADDRESSES_MAX] {
        return;
    }
    for index in 0..group.conns.capacity() {
        group.conns.settle(index);
        let conn = &mut group.conns[index];
        let slot = usize::from(conn.local).wrapping_sub(1);
        if conn.flags.contains(Flags::FREED) || !lost.get(slot).is_some_and(|lost| *lost) {
            continue;
        }
        conn.flags -= Flags::RESET;
        if conn.flags.contains(Flags::IN_TABLE) {
            close::end(group, local, index, DeadReason::Evicted);
        } else {
            group.want_output(index, local);
        }
    }
}
