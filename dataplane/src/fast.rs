//! Header prediction (Van Jacobson 1988; RFC 1144 §3.2.2 has the idea): the two things that an
//! established connection does nearly always, done in a straight line.
//!
//! [`receive`]: the next segment of an established connection, which carries data, or acknowledges
//! everything that is out, or both. [`send`]: a `sendv` of one piece that fits one segment, while nothing
//! else is queued. Whatever is not exactly that is left untouched to `input`, `tcp` and `calls`, which are
//! complete without this module and come to the same end: `tests/fast.rs` holds the two against each other.
mod emit;
mod parse;
mod receive;
mod send;

pub use receive::receive;
pub use send::sendv;

use crate::engine::Engine;
use crate::events::RESERVE;

/// Events that [`receive`] may write by itself in this iteration: none while something else has to be told
/// first.
#[inline]
pub fn open(engine: &mut Engine) {
    let local = &mut engine.local;
    local.slow = local.tap.is_on();
    local.event_room = match &local.app {
        Some(app) if !app.condemned && app.group_in.is_empty() && !local.slow => {
            app.rings.room().saturating_sub(RESERVE)
        }
        _ => 0,
    };
}
