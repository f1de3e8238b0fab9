//! The engine's books, for tests: what it holds, and whether lists and counts agree.
use super::Engine;
use crate::conn::Flags;
use crate::flow_table::NIL;
use crate::group::FlowGroup;
use crate::mbuf::Holder;
use crate::tcp::{recovery, send_queue};

impl Engine {
    /// The engine's view of its own books, for tests: receive buffers of this core's pool and others
    /// that it knows the place of, and the consistency of lists and counts. Walks everything.
    pub fn conservation(&self) -> Conservation {
        let mut found = Conservation {
            free: self.local.pool.available(),
            away: self.local.pool.away() + self.local.pool.stranded(),
            held: self.moves.held() + self.batch.as_ref().map_or(0, |batch| batch.len()),
            transmitting: self.local.tx.buffers_in_flight(),
            datagrams: self.local.udp.waiting()
                + self.local.fragments.as_ref().map_or(0, |table| table.buffers()),
            ..Conservation::default()
        };
        let area = self.local.pool.area();
        for index in 0..area.buffers() {
            let holder = area.holder(index);
            if holder == Holder::core(self.local.core) {
                found.datagrams += 1;
            }
        }
        for group in self.groups.iter().flatten().chain(self.lend.relics()) {
            found.slots += group.conns.capacity() as usize;
            let mut unreached = 0;
            for index in 0..group.conns.capacity() {
                let conn = &group.conns.spelled_out(index);
                if conn.flags.contains(Flags::FREED) {
                    continue;
                }
                unreached += u32::from(conn.flags.contains(Flags::NEEDS_NEIGHBOR));
                found.connections += 1;
                found.folded += usize::from(group.conns.at(index).is_folded());
                found.received += usize::from(conn.rx_buffers);
                if conn.seg_head == NIL && conn.seg_count != 0 {
                    found.broken += 1;
                }
                found.broken += usize::from(!recovery::is_consistent(group, conn));
                found.segments += usize::from(conn.seg_count);
            }
            if group.segments.len() as usize != found.segments_of(group) {
                found.broken += 1;
            }
            found.broken += usize::from(group.unreached != unreached);
            found.broken += usize::from(!recovery::all_returned(group));
            found.broken += usize::from(!group.all_in_time_wait_are_listed());
        }
        found
    }
}

/// What [`Engine::conservation`] finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conservation {
    /// Buffers in the pool.
    pub free: usize,
    /// Buffers that are to be sent home.
    pub away: usize,
    /// Buffers in connections: received, held, out of order.
    pub received: usize,
    /// Buffers of frames that wait until their group is here entirely, or until others have gone.
    pub held: usize,
    /// Buffers being transmitted, or waiting for it.
    pub transmitting: usize,
    /// Buffers with datagrams, incomplete ones included.
    pub datagrams: usize,
    /// Slots of connections in use.
    pub connections: usize,
    /// Those of them that are folded, see [`crate::conn::FOLDED`].
    pub folded: usize,
    /// Slots of connections that there are.
    pub slots: usize,
    /// Send segments.
    pub segments: usize,
    /// Inconsistencies: must be 0.
    pub broken: usize,
}

impl Conservation {
    fn segments_of(&self, group: &FlowGroup) -> usize {
        let used = |index| group.conns.at(index);
        (0..group.conns.capacity())
            .map(used)
            .filter(|conn| !conn.flags.contains(Flags::FREED))
            .map(send_queue::in_slab)
            .sum()
    }
}
