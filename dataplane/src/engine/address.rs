//! The IPv4 address: taken into use, given up, told to the other cores.
use super::Engine;
use crate::config::Ipv4Config;
use crate::conn::Flags;
use crate::dhcp;
use crate::input::arp;
use crate::message::Message;
use crate::tcp::close;
use ix_abi::{CoreId, DeadReason};

impl Engine {
    /// Takes an address into use, or out of it: connections of another one cannot go on.
    pub(crate) fn set_address(&mut self, config: Option<Ipv4Config>) {
        let Engine { local, groups, .. } = self;
        let address = config.map_or([0; 4], |config| config.address);
        if local.address != address && local.address != [0; 4] {
            for group in groups.iter_mut().flatten() {
                for index in 0..group.conns.capacity() {
                    group.conns.settle(index);
                    let conn = &group.conns[index];
                    if conn.flags.contains(Flags::IN_TABLE) && conn.local == 0 {
                        close::abort(group, local, index, DeadReason::Evicted);
                    }
                }
            }
        }
        local.ipv4 = config;
        local.address = address;
        local.address_sum = crate::fast::emit::address_sum(address);
        local.address_hash = local.toeplitz.destination_v4(address);
        local.neighbors.clear();
        local.age_neighbors(true);
        if config.is_some() && local.core == CoreId(0) {
            arp::announce(local);
        }
    }

    /// A datagram for the DHCP client.
    pub(crate) fn dhcp_input(&mut self, payload: &[u8]) {
        let now = self.local.now;
        if let Some(action) = self.dhcp.as_mut().and_then(|dhcp| dhcp.handle(payload, now)) {
            self.dhcp_action(action);
        }
    }

    pub(super) fn dhcp_action(&mut self, action: dhcp::Action) {
        let config = match action {
            dhcp::Action::Send(message) => return crate::output::dhcp(&mut self.local, &message),
            dhcp::Action::Configure(lease) => Some(Ipv4Config {
                address: lease.address,
                prefix: lease.prefix,
                gateway: lease.router,
            }),
            dhcp::Action::Deconfigure => None,
        };
        self.set_address(config);
        self.address_untold = self.local.mesh.others().fold(0, |cores, core| cores | 1 << core.0);
        self.tell_address();
    }

    /// Tells the other cores of the address, as far as there is room for messages; the rest later.
    pub(super) fn tell_address(&mut self) {
        let mut cores = core::mem::take(&mut self.address_untold);
        while cores != 0 {
            let core = CoreId(cores.trailing_zeros() as u16);
            cores &= cores - 1;
            if self.local.mesh.send(core, Message::Address(self.local.ipv4)).is_err() {
                self.address_untold |= 1 << core.0;
            }
        }
    }
}
