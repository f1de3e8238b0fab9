//! Connections of a group that wait for their next hop's address. Each core asks for addresses by itself, and tells the
//! connections that it has then.
use super::FlowGroup;
use crate::conn::Flags;
use crate::local::Local;

impl FlowGroup {
    /// The group has come from a core that still asks for what some wait for: they ask anew. (Hardly ever are there any, so
    /// that a move need not know who they are.)
    pub(crate) fn ask_again(&mut self, local: &mut Local) {
        for index in 0..self.conns.capacity() {
            if self.unreached == 0 {
                return;
            }
            if self.conns.at(index).flags.contains(Flags::NEEDS_NEIGHBOR) {
                // It may have found the address by another way meanwhile, and be folded.
                self.conns.settle(index);
                self.is_reached(index);
                self.want_output(index, local);
            }
        }
    }

    /// The connection waits for its next hop's address no more.
    pub(crate) fn is_reached(&mut self, index: u32) {
        let conn = &mut self.conns[index];
        self.unreached -= u32::from(conn.flags.contains(Flags::NEEDS_NEIGHBOR));
        conn.flags -= Flags::NEEDS_NEIGHBOR;
    }
}
