//! Flow groups that come and go: by value, with all that is in them.
use super::{Engine, ipv6};
use crate::acl::swap::moved;
use crate::group::FlowGroup;
use crate::local::Local;
use crate::ports::Port;
use alloc::boxed::Box;
use ix_abi::{CoreId, GroupId};

impl Engine {
    /// Gives a group away, with all that is in it. Frames of the group go to `to` from now on.
    pub fn take_group(&mut self, id: GroupId, to: CoreId) -> Option<Box<FlowGroup>> {
        self.stir();
        let mut group = self.groups.get_mut(usize::from(id.0))?.take()?;
        let local = &mut self.local;
        group.detach(local);
        moved(&mut group, local, false);
        group.rebase_tx(local.tx.next(), 0);
        count_backlog(&group, local, false);
        local.measure.loads.goes(id, group.frames);
        local.owners[usize::from(id.0)] = to;
        group.age += 1;
        local.ages[usize::from(id.0)] = group.age;
        Some(group)
    }

    /// Takes a group over. Frames of the old core's that it waits for must have completed.
    pub fn give_group(&mut self, mut group: Box<FlowGroup>) {
        self.stir();
        let local = &mut self.local;
        let at = usize::from(group.id.0);
        group.rebase_tx(0, local.tx.next());
        group.attach(local);
        group.ask_again(local);
        ipv6::end_lost(&mut group, local);
        moved(&mut group, local, true);
        count_backlog(&group, local, true);
        local.measure.loads.came(group.id, group.frames);
        local.owners[at] = local.core;
        local.ages[at] = local.ages[at].max(group.age);
        if let Some(app) = &mut local.app {
            app.group_in.insert(group.id);
        }
        self.groups[at] = Some(group);
    }

    /// Frames of a group that is not here go to `owner` from now on.
    pub fn set_owner(&mut self, group: GroupId, owner: CoreId) {
        self.stir();
        if let Some(entry) = self.local.owners.get_mut(usize::from(group.0)) {
            *entry = owner;
        }
    }
}

/// Adds or subtracts the group's part of the listeners' backlogs.
fn count_backlog(group: &FlowGroup, local: &mut Local, add: bool) {
    for (slot, part) in group.backlog.iter().enumerate() {
        if let Some(Port { waiting, .. }) = local.listeners.by_slot(slot) {
            let change = |all: &mut u32, part: u32| {
                *all = if add { *all + part } else { all.saturating_sub(part) };
            };
            change(&mut waiting.half_open, part.half_open);
            change(&mut waiting.knocked, part.knocked);
        }
    }
}
