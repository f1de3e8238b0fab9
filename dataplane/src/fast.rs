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

use crate::device::RxFrame;
use crate::engine::Engine;
use crate::events::RESERVE;
use crate::group::FlowGroup;
use crate::prefetch;
use crate::rss::group_of;

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

/// Lines of a connection that a predicted segment touches, the first of them.
const LINES: usize = 3;

/// Asks for what the frames that follow in the batch will need: the headers of the third, the place in the flow
/// table of the second, the connection of the first. Nothing for the last of a batch, or a batch of one.
#[inline(always)]
pub fn look_ahead(engine: &Engine, rest: &[RxFrame]) {
    let [first, more @ ..] = rest else { return };
    if let [second, third, ..] = more {
        let at = usize::from(third.offset);
        if let Some(header) = engine.local.pool.area().data(&third.mbuf).get(at) {
            prefetch::lines(header, 2);
        }
        if let Some((group, hash)) = group_of_frame(engine, second) {
            group.table.prefetch(hash);
        }
    }
    if let Some((group, hash)) = group_of_frame(engine, first)
        && let Some(conn) = group.conns.get(group.table.first(hash))
    {
        prefetch::lines(conn, LINES);
    }
}

/// The group of a frame whose hash the device has told, if it is here.
#[inline(always)]
fn group_of_frame<'a>(engine: &'a Engine, frame: &RxFrame) -> Option<(&'a FlowGroup, u32)> {
    let hash = frame.hash?;
    let id = group_of(hash, engine.local.groups);
    let group = engine.groups.get(usize::from(id.0))?.as_ref()?;
    Some((group, hash))
}
