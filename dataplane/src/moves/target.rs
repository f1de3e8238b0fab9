//! A group comes: its new owner's part of a move.
use super::{Arriving, Move};
use crate::core_loop;
use crate::device::RxFrame;
use crate::engine::Engine;
use crate::group::FlowGroup;
use crate::input::eth;
use crate::limits::{MOVE_HELD_MAX, MOVE_SETTLE_TIMEOUT};
use crate::local::Local;
use crate::message::Message;
use crate::rss::group_of;
use crate::tap::headers::Headers;
use crate::tcp::close;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use ix_abi::stats::Counter;
use ix_abi::{CoreId, GroupId};

impl Engine {
    /// The group is ours.
    pub(super) fn arrive(&mut self, from: CoreId, mut group: Box<FlowGroup>) {
        let (id, age, since) = (group.id, group.age, self.local.now);
        if self.local.life(id) != (group.age >> 32) as u16
            && self.local.ages[usize::from(id.0)] > group.age
        {
            self.tell(from, Message::Turned { group: id, age });
            return self.end_late(group);
        }
        let missed = group.app_ended < self.local.app_ended;
        self.local.stats.add(Counter::GroupsIn, 1);
        self.taken(since);
        if missed {
            // The application ended while the group was under way.
            group.app_ended = self.local.app_ended;
        }
        self.give_group(group);
        if missed && let Some(Some(group)) = self.groups.get_mut(usize::from(id.0)) {
            end_of_app(group, &mut self.local);
        }
        let held = VecDeque::new();
        let arriving = Arriving { from, age, held, settled: None, since };
        self.moves.set(id, Move::Arriving(arriving));
        self.tell(from, Message::Turned { group: id, age });
    }

    /// The old owner has forwarded its last frame: what is in its ring is older than what is held.
    pub(crate) fn settled(&mut self, group: GroupId, age: u64) {
        if let Some(Move::Arriving(arriving)) = self.moves.get(group)
            && arriving.age == age
        {
            arriving.settled = Some(self.local.mesh.frames_end(arriving.from));
        }
    }

    /// Takes a received frame while a group arrives: `from` another core, or from a queue of ours.
    #[cold]
    pub(crate) fn take_guarded(&mut self, frame: RxFrame, from: Option<CoreId>) {
        if let Some(group) = group_of_frame(&self.local, &frame)
            && let Some(Move::Arriving(arriving)) = self.moves.get(group)
            && from != Some(arriving.from)
        {
            if arriving.held.len() < MOVE_HELD_MAX && arriving.held.try_reserve(1).is_ok() {
                arriving.held.push_back(frame);
                return self.local.stats.add(Counter::FramesHeld, 1);
            }
            // It overtakes, as it may in any network.
            self.local.stats.add(Counter::FramesUnordered, 1);
        }
        core_loop::take(self, &frame);
    }

    /// Takes what was held of a group that is here entirely. Of other frames there may be more than this core ever finds an end
    /// of: it waits for those of the old owner alone.
    pub(super) fn release(&mut self, group: GroupId) {
        let now = self.local.now;
        let Some(Move::Arriving(arriving)) = self.moves.get(group) else { return };
        let late = now.since(arriving.since) > MOVE_SETTLE_TIMEOUT;
        let mesh = &self.local.mesh;
        let is_here = arriving.settled.is_some_and(|end| mesh.has_taken(arriving.from, end));
        if !late && !is_here {
            return;
        }
        let mut held = core::mem::take(&mut arriving.held);
        if !is_here {
            self.local.stats.add(Counter::FramesUnordered, held.len() as u64);
        }
        self.moves.set(group, Move::Rest);
        while let Some(frame) = held.pop_front() {
            core_loop::take(self, &frame);
        }
    }
}

/// What the end of an application means for a group.
pub(crate) fn end_of_app(group: &mut FlowGroup, local: &mut Local) {
    for index in 0..group.conns.capacity() {
        group.conns.settle(index);
        close::app_gone(group, local, index);
    }
    group.forget_events(local);
}

pub(super) fn group_of_frame(local: &Local, frame: &RxFrame) -> Option<GroupId> {
    let hash = match frame.hash {
        Some(hash) => hash,
        None => {
            let bytes = eth::bytes(local.pool.area().data(&frame.mbuf), frame)?;
            Headers::parse(bytes).hash_received(&local.toeplitz)?
        }
    };
    Some(group_of(hash, local.groups))
}
