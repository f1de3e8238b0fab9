//! A group leaves: its old owner's part of a move.
use super::{Flushing, Move};
use crate::engine::Engine;
use crate::limits::{MOVE_DRAIN_TIMEOUT, MOVE_FLUSH_TIMEOUT, MOVE_TOLD_TIMEOUT};
use crate::local::Local;
use crate::message::Message;
use ix_abi::stats::Counter;
use ix_abi::{Condition, CoreId, GroupId, Status};

impl Engine {
    /// A wish to move a group of this core's.
    pub(super) fn begin_move(&mut self, group: GroupId, to: CoreId) {
        if !self.owns(group) || !matches!(self.moves.get(group), Some(Move::Rest)) {
            return self.moved(group, Status::Again);
        }
        if to == self.local.core {
            return self.moved(group, Status::Ok);
        }
        if self.local.mesh.is_absent(to) {
            // It stays, as with a device that does not let go of it.
            return self.moved(group, Status::TimedOut);
        }
        let since = self.local.now;
        self.moves.set(group, Move::Leaving { to, told: None, since });
    }

    /// Goes on with a group that leaves, as far as it can.
    pub(super) fn leave(&mut self, group: GroupId) {
        if let Some(Move::Leaving { .. }) = self.moves.get(group) {
            self.tell_app(group);
        }
        if let Some(Move::Draining { .. }) = self.moves.get(group) {
            self.drain_group(group);
        }
        if let Some(Move::Flushing(_)) = self.moves.get(group) {
            self.finish_flush(group);
        }
    }

    /// `group_out`, when the application has read all that came before, and has nothing under way to us: so
    /// no result of an earlier call comes after it. Once that is consumed, the group falls silent.
    fn tell_app(&mut self, group: GroupId) {
        let now = self.local.now;
        let Some(Move::Leaving { to, told, since }) = self.moves.get(group) else { return };
        let life = self.local.life(group);
        let Local { app, leaving, frozen, tx, stats, .. } = &mut self.local;
        let mut goes = true;
        if let Some(app) = app.as_mut().filter(|app| !app.condemned) {
            goes = false;
            let rests = app.rests();
            match *told {
                None if rests && !app.group_in.contains(group) && app.rings.room() > 0 => {
                    app.rings.post(&Condition::GroupOut { group, life }.encode());
                    stats.add(Counter::Events, 1);
                    *told = Some(app.rings.produced());
                    leaving.insert(group);
                }
                Some(end) if rests && app.rings.has_consumed(end) => goes = true,
                _ => {}
            }
        }
        if goes {
            leaving.insert(group);
            frozen.insert(group);
            let (to, staged) = (*to, tx.staged_end());
            return self.moves.set(group, Move::Draining { to, staged, frame: None, since: now });
        }
        if now.since(*since) > MOVE_TOLD_TIMEOUT {
            let told = told.is_some();
            self.stay(group, told);
        }
    }

    /// The group stays after all.
    #[cold]
    pub(crate) fn stay(&mut self, group: GroupId, told: bool) {
        let local = &mut self.local;
        local.leaving.remove(group);
        local.frozen.remove(group);
        if let Some(app) = local.app.as_mut().filter(|_| told) {
            app.group_in.insert(group);
        }
        self.moves.set(group, Move::Rest);
        self.moved(group, Status::TimedOut);
    }

    fn drain_group(&mut self, group: GroupId) {
        let Some(Move::Draining { to, staged, frame, since }) = self.moves.get(group) else {
            return;
        };
        let local = &self.local;
        // What is staged has no number yet, and goes before all that the queue is given later.
        if frame.is_none() && local.tx.is_unstaged(*staged) {
            *frame = Some(local.tx.next());
        }
        let (to, since) = (*to, *since);
        let left = frame.is_some_and(|frame| local.tx.has_left(frame.wrapping_sub(1)));
        if left && self.may_send_group(to) {
            self.hand_over(group, to);
        } else if self.local.now.since(since) > MOVE_DRAIN_TIMEOUT {
            self.stay(group, true);
        }
    }

    /// Whether a group can be sent now: if it had to wait for room, its frames would be there before it.
    fn may_send_group(&mut self, to: CoreId) -> bool {
        self.moves.outbox.is_empty() && self.local.mesh.has_room(to)
    }

    fn hand_over(&mut self, id: GroupId, to: CoreId) {
        let Some(mut group) = self.take_group(id, to) else { return };
        self.lend.has_given(id);
        let local = &mut self.local;
        group.app_ended = local.app_ended;
        local.leaving.remove(id);
        local.frozen.remove(id);
        local.stats.add(Counter::GroupsOut, 1);
        let (age, since) = (group.age, local.now);
        let rss = self.moves.rss;
        self.moves.set(
            id,
            Move::Flushing(Flushing {
                to,
                age,
                told: false,
                unturned: 1 << to.0,
                redirected: !rss,
                sweep: None,
                mesh_is_swept: false,
                queue_end: None,
                // Without a table of the device's, our queue brings frames of it for ever.
                queue_is_swept: !rss,
                since,
            }),
        );
        self.tell(to, Message::Group(group));
    }

    /// All others, and the device, hear whose the group is from now on: when its new owner has it, and not before. Else
    /// that one might get their frames first, take them for somebody else's and send them back, past others.
    pub(crate) fn tell_others(&mut self, group: GroupId, device: bool) {
        // Nobody waits for a core that is away.
        let all = self.local.mesh.others().fold(0, |all, core| all | 1 << core.0);
        let Some(Move::Flushing(flushing)) = self.moves.get(group) else { return };
        let (to, age) = (flushing.to, flushing.age);
        flushing.told = true;
        flushing.unturned |= all & !(1 << to.0);
        flushing.redirected |= !device;
        let waits = !flushing.redirected;
        for other in self.local.mesh.others().filter(|core| *core != to) {
            self.tell(other, Message::Owner { group, owner: to, age });
        }
        if waits {
            self.tell(CoreId(0), Message::Redirect { group, to, age });
        }
    }

    /// A core has turned to the group's new owner; or is that, and has it.
    pub(crate) fn turned(&mut self, group: GroupId, core: CoreId, age: u64) {
        let Some(Move::Flushing(flushing)) = self.moves.get(group) else { return };
        if age != flushing.age {
            return;
        }
        flushing.unturned &= !(1 << core.0);
        let (to, told) = (flushing.to, flushing.told);
        // (Of one that was stopped these are the last words.)
        if core == to && !told && !self.lend.is_taken(to) {
            self.tell_others(group, true);
        }
    }

    /// The device has.
    pub(super) fn device_turned(&mut self, group: GroupId, age: u64) {
        if let Some(Move::Flushing(flushing)) = self.moves.get(group) {
            flushing.redirected |= age == flushing.age;
        }
    }

    /// The receive stage takes what was in the mesh, and in the queue, when those had turned that fill them: not until it finds
    /// them empty, which under load may never be. In the queue are `waiting` frames now.
    pub(super) fn flush(&mut self, group: GroupId, waiting: u64) {
        let taken = self.moves.taken;
        if let Some(Move::Flushing(flushing)) = self.moves.get(group) {
            if flushing.told && flushing.unturned == 0 && !flushing.mesh_is_swept {
                let mesh = &mut self.local.mesh;
                let sweep = *flushing.sweep.get_or_insert_with(|| mesh.sweep());
                flushing.mesh_is_swept = mesh.has_swept(sweep);
            }
            if flushing.redirected && !flushing.queue_is_swept {
                let end = *flushing.queue_end.get_or_insert(taken + waiting);
                flushing.queue_is_swept = waiting == 0 || taken >= end;
            }
        }
    }

    fn finish_flush(&mut self, group: GroupId) {
        let now = self.local.now;
        let Some(Move::Flushing(flushing)) = self.moves.get(group) else { return };
        // Late rather than never: frames may then overtake each other, as they may in any network.
        let late = now.since(flushing.since) > MOVE_FLUSH_TIMEOUT;
        if late || flushing.mesh_is_swept && flushing.queue_is_swept {
            let Flushing { to, told, age, .. } = *flushing;
            if !told {
                self.tell_others(group, true);
            }
            self.moves.set(group, Move::Rest);
            self.tell(to, Message::Settled { group, age });
            self.moved(group, Status::Ok);
        }
    }

    /// Another application: it was told that it has the groups which were leaving the one before.
    pub(crate) fn tell_again(&mut self) {
        let mut from = 0;
        while let Some(group) = self.moves.active.next(from) {
            from = usize::from(group.0) + 1;
            let now = self.local.now;
            let Some(Move::Leaving { to, .. } | Move::Draining { to, .. }) = self.moves.get(group)
            else {
                continue;
            };
            let to = *to;
            self.local.leaving.remove(group);
            self.local.frozen.remove(group);
            self.moves.set(group, Move::Leaving { to, told: None, since: now });
        }
    }
}
