//! Connections whose application has been given a request, and owes the answer. Nearly all answer in the same iteration, with which
//! the acknowledgement goes: only who still owes at its end needs a timer for that (RFC 9293 §3.8.6.3). So the wheel is not asked to look
//! at each connection that talks, once in a delayed acknowledgement's time.
use crate::conn::{Conn, Flags, State};
use crate::engine::Engine;
use alloc::boxed::Box;
use alloc::vec;
use ix_abi::Handle;
use ix_abi::layout::EVENT_SLOTS;

/// How many an iteration gives one at most: each is told by an event. (An application that moves its ring on meanwhile harms itself
/// alone: its answers are what tells the peer then.)
const GIVEN_MAX: usize = EVENT_SLOTS as usize;

/// Those of one iteration.
#[derive(Debug)]
#[repr(C)]
pub struct Owing {
    /// How many were given one and have not answered; in the upper half how many names there are. So whether there is anything to
    /// look at is one comparison.
    state: u64,
    /// Who was given one by a frame that came alone.
    lone: Handle,
    /// The others.
    names: Box<[Handle; GIVEN_MAX]>,
}

/// A name in [`Owing::state`].
const NAME: u64 = 1 << 32;

impl Owing {
    /// None.
    pub fn new() -> Owing {
        // Not by way of the stack, which is smaller in the kernel.
        let names = vec![Handle(0); GIVEN_MAX].into_boxed_slice();
        let names = names.try_into().unwrap_or_else(|_| unreachable!("it is as long"));
        Owing { state: 0, lone: Handle::NONE, names }
    }

    /// The connection holds a request from now on.
    #[inline(always)]
    pub fn push(&mut self, conn: &mut Conn) {
        conn.retries = 1;
        self.names[(self.state / NAME) as usize % GIVEN_MAX] = conn.name;
        self.state += NAME + 1;
    }

    /// The same by the only frame of an iteration.
    #[inline(always)]
    pub fn push_lone(&mut self, conn: &mut Conn) {
        conn.retries = 1;
        self.lone = conn.name;
        self.state += 1;
    }

    /// The same of one that is not folded, and counts as one that owes whether it answers or not.
    #[inline(always)]
    pub fn push_whole(&mut self, conn: &Conn) {
        debug_assert!(!conn.is_folded());
        self.names[(self.state / NAME) as usize % GIVEN_MAX] = conn.name;
        self.state += NAME + 1;
    }

    /// It holds nothing any more.
    #[inline(always)]
    pub fn answered(&mut self, conn: &Conn) {
        self.state -= u64::from(conn.retries);
    }
}

impl Engine {
    /// All that were given a request have had their turn to answer. Whether one has not; it has a timer now.
    #[inline(always)]
    pub(crate) fn owed(&mut self) -> bool {
        self.local.owing.state != 0 && self.end_owing()
    }

    #[inline(never)]
    fn end_owing(&mut self) -> bool {
        let any = self.local.owing.state as u32 != 0;
        if any {
            self.arm_owing();
        }
        self.local.owing.state = 0;
        self.local.owing.lone = Handle::NONE;
        any
    }

    /// Arms a timer for each that still owes.
    #[cold]
    #[inline(never)]
    fn arm_owing(&mut self) {
        let given = (self.local.owing.state / NAME) as usize;
        for at in 0..=given.min(GIVEN_MAX) {
            let Owing { names, lone, .. } = &self.local.owing;
            // That of one that has answered since may be left from an iteration before: it has nothing to ask for.
            let name = at.checked_sub(1).map_or(*lone, |at| names[at]);
            let Some(Some(group)) = self.groups.get_mut(usize::from(name.group().0)) else {
                continue;
            };
            let Some(conn) = group.conns.get_mut(name.index()) else { continue };
            if conn.name != name || conn.flags.contains(Flags::FREED) {
                continue;
            }
            // One that was made whole since has none either, if that was for nothing: a call that failed, a frame that was dropped.
            if conn.is_folded() && conn.retries == 1 {
                conn.retries = 0;
            }
            if !conn.is_folded() || conn.rx_held > 0 {
                let after = self.local.profile.delayed_ack;
                let at = match conn.is_folded() {
                    true => conn.trying_since + after,
                    false if is_to_fold(conn) => conn.ack_at,
                    // Nor the next time: while it has a timer that runs anyway it is not listed again.
                    false => conn.ack_at.min(self.local.now + after),
                };
                group.arm_folded(name.index(), at, &mut self.local);
            }
        }
    }
}

/// Whether the next answer may fold the connection, see [`Conn::may_fold`]: the first is out. Or it has ended, and is listed no more.
fn is_to_fold(conn: &Conn) -> bool {
    let first = conn.snd_una == conn.iss.plus(1) && conn.snd_una != conn.snd_max;
    first || conn.state != State::Established
}
