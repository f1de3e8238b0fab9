//! Header prediction (Van Jacobson 1988; RFC 1144 §3.2.2 has the idea): the two things that an
//! established connection does nearly always, done in a straight line.
//!
//! [`receive`]: the next segment of an established connection, which carries data, or acknowledges
//! everything that is out, or both. [`send`]: a `sendv` of one piece that fits one segment, while nothing
//! else is queued ([`pieces`]: of two). [`folded`] and [`apart`] are both on a connection in its short form. Beside them [`edges`] and [`brief`], how connections begin and end. Whatever is not exactly that is left untouched to `input`, `tcp` and `calls`, which are
//! complete without this module and come to the same end: `tests/engine/fast.rs` holds the two against each other.
mod ahead;
mod apart;
mod brief;
mod edges;
pub(crate) mod emit;
mod folded;
mod parse;
mod pieces;
mod receive;
mod send;

pub use ahead::{AHEAD, look_ahead};
pub use emit::VERSION;
pub use folded::Request;
pub use receive::{Way, receive, receive_lone};
pub use send::{call, calls};

use crate::events::RESERVE;
use crate::local::Local;

/// Events that [`receive`] may write by itself in this iteration: none while something else has to be told
/// first.
pub fn open(local: &mut Local) {
    local.slow = local.tap.is_on() || !local.leaving.is_empty();
    local.event_room = match &local.app {
        Some(app) if !app.condemned && app.group_in.is_empty() && !local.slow => {
            event_room(app.rings.room())
        }
        _ => 0,
    };
}

/// The same of a ring with so much room, while it is calm: there is an application that waits, and nobody else has anything
/// to tell. It is asked when that room is counted, and each event that is written takes one of it.
#[inline(always)]
pub fn event_room(room: u32) -> u32 {
    room.saturating_sub(RESERVE)
}
