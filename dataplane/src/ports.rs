//! Listeners and UDP bindings: every core's replica of the ports that are in use.
//!
//! One object per port and protocol. A table from port to slot makes the look-up one load.
use crate::message::Change;
use crate::settings::Settings;
use alloc::boxed::Box;
use ix_abi::limits::LISTENERS_MAX;
use ix_abi::{Cookie, GroupId, Handle, IpAddress, SocketAddress, Status};

/// Slots of one table: the index of a handle is the slot, plus this for UDP.
pub const SLOTS: usize = LISTENERS_MAX;
const _: () = assert!(SLOTS == ix_abi::limits::UDP_BINDINGS_MAX && SLOTS < 255);

/// Every IPv4 address.
pub const ANY_V4: IpAddress = IpAddress::v4([0; 4]);

/// Index of the first UDP handle among dataplane-wide handles; timers come behind.
pub const UDP_BASE: u32 = SLOTS as u32;
/// Index of the first timer handle.
pub const TIMER_BASE: u32 = 2 * SLOTS as u32;

/// Connections that a listener has and the application does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// In the handshake.
    pub half_open: u32,
    /// Through with it, and not accepted.
    pub knocked: u32,
}

impl Waiting {
    /// A handshake is complete.
    #[inline(always)]
    pub fn completed(&mut self) {
        self.half_open = self.half_open.saturating_sub(1);
        self.knocked += 1;
    }
}

/// A port in use.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Its name.
    pub handle: Handle,
    /// Where.
    pub local: SocketAddress,
    /// UDP: the application's.
    pub cookie: Cookie,
    /// TCP: handshakes that this core may have, and as many connections that are not accepted yet.
    pub backlog: u32,
    /// TCP: how many it has.
    pub waiting: Waiting,
    /// TCP: what its connections begin with.
    pub settings: Settings,
    /// Which start of the application it belongs to.
    pub app_epoch: u32,
}

/// The ports of one protocol.
#[derive(Debug)]
pub struct Ports {
    slots: [Option<Port>; SLOTS],
    generations: [u32; SLOTS],
    /// Slot + 1 by port; 0: nobody.
    by_port: Box<[u8]>,
    base: u32,
    changes: u32,
    used: usize,
}

impl Ports {
    /// No port in use; handles start at index `base`.
    pub fn new(base: u32) -> Ports {
        Ports {
            slots: [None; SLOTS],
            generations: [0; SLOTS],
            by_port: alloc::vec![0; 1 << 16].into(),
            base,
            changes: 0,
            used: 0,
        }
    }

    /// Changes when ports come into use or out of it.
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// The ports in use, by slot; 0: none.
    pub fn in_use(&self) -> impl Iterator<Item = u16> {
        self.slots.iter().map(|slot| slot.map_or(0, |port| port.local.port))
    }

    /// Ports in use.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Who has the port.
    #[inline]
    pub fn by_port(&mut self, port: u16) -> Option<&mut Port> {
        match self.by_port[usize::from(port)] {
            0 => None,
            slot => self.slots[usize::from(slot) - 1].as_mut(),
        }
    }

    /// What a handle names.
    #[inline]
    pub fn by_handle(&mut self, handle: Handle) -> Option<&mut Port> {
        let slot = handle.index().checked_sub(self.base)? as usize;
        self.slots.get_mut(slot)?.as_mut().filter(|port| port.handle == handle)
    }

    /// What is in a slot.
    pub fn by_slot(&mut self, slot: usize) -> Option<&mut Port> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Everything that is in use.
    pub fn all(&self) -> impl Iterator<Item = &Port> + Clone {
        self.slots.iter().flatten()
    }

    /// Takes over what another core has, but for what belongs to starts of the application up to `ended`. What is the
    /// same keeps its connections.
    pub fn replace(&mut self, others: &[Port], ended: u32) {
        for slot in 0..SLOTS {
            let ours = self.slots[slot].map(|port| port.handle);
            if ours.is_some_and(|ours| others.iter().all(|port| port.handle != ours)) {
                self.remove_slot(slot);
            }
        }
        for port in others.iter().filter(|port| port.app_epoch > ended) {
            match self.by_handle(port.handle) {
                Some(ours) => ours.settings = port.settings,
                None => self.insert(Port { waiting: Waiting::default(), ..*port }),
            }
        }
    }

    /// Core 0: a name for a new object at `local`.
    pub fn reserve(&mut self, local: SocketAddress) -> Result<Handle, Status> {
        if local.port == 0 {
            return Err(Status::Invalid);
        }
        if self.by_port[usize::from(local.port)] != 0 {
            return Err(Status::InUse);
        }
        let slot = self.slots.iter().position(Option::is_none).ok_or(Status::Limit)?;
        self.generations[slot] = Handle::next_generation(self.generations[slot]);
        Ok(Handle::new(GroupId::DATAPLANE, self.generations[slot], self.base + slot as u32))
    }

    /// Enters an object that core 0 has named.
    pub fn insert(&mut self, port: Port) {
        let Some(slot) = port.handle.index().checked_sub(self.base) else { return };
        let slot = slot as usize;
        if slot < SLOTS {
            self.remove_slot(slot);
            self.slots[slot] = Some(port);
            self.used += 1;
            self.changes = self.changes.wrapping_add(1);
            self.by_port[usize::from(port.local.port)] = slot as u8 + 1;
        }
    }

    /// Takes an object out; whether it was there.
    pub fn remove(&mut self, handle: Handle) -> bool {
        let Some(slot) = handle.index().checked_sub(self.base) else { return false };
        let slot = slot as usize;
        let found = self.slots.get(slot).is_some_and(|p| p.is_some_and(|p| p.handle == handle));
        if found {
            self.remove_slot(slot);
        }
        found
    }

    /// Takes out what belongs to starts of the application up to `app_epoch`.
    pub fn remove_epoch(&mut self, app_epoch: u32) {
        for slot in 0..SLOTS {
            if self.slots[slot].is_some_and(|port| port.app_epoch <= app_epoch) {
                self.remove_slot(slot);
            }
        }
    }

    fn remove_slot(&mut self, slot: usize) {
        if let Some(port) = self.slots[slot].take() {
            self.by_port[usize::from(port.local.port)] = 0;
            self.changes = self.changes.wrapping_add(1);
            self.used -= 1;
        }
    }
}

impl Port {
    /// Whether it is open at an address of ours: `::` is all of them, `0.0.0.0` that of IPv4.
    #[inline]
    pub fn serves(&self, ip: IpAddress) -> bool {
        let at = self.local.ip;
        at == IpAddress::UNSPECIFIED || at == ip || at == ANY_V4 && ip.to_v4().is_some()
    }

    /// The object that a change makes; `cores` share a backlog.
    pub fn from_change(change: &Change, app_epoch: u32, cores: u16) -> Option<Port> {
        let (handle, local, cookie, backlog) = match *change {
            Change::Listen { handle, local, backlog } => {
                (handle, local, Cookie(0), backlog.div_ceil(u32::from(cores)).max(1))
            }
            Change::UdpBind { handle, local, cookie } => (handle, local, cookie, 0),
            Change::SetOption { .. } | Change::Remove { .. } => return None,
        };
        let (waiting, settings) = (Waiting::default(), Settings::default());
        Some(Port { handle, local, cookie, backlog, waiting, settings, app_epoch })
    }
}
