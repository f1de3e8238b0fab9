//! Handles that name nothing, no more, something else, or somebody else's.

use core::sync::atomic::Ordering::Acquire;

use ix_abi::call::{Call, Op, SgEntry};
use ix_abi::{Cookie, GroupId, Handle, SocketAddress, Status};

use super::check;
use crate::app::{App, Verdict};
use crate::raw::{self, SHARED};

pub fn commit(app: &mut App, name: &str) -> Option<Verdict> {
    Some(match name {
        "handle-made-up" => made_up(app),
        "handle-stale" => stale(app),
        "handle-other-kind" => other_kind(app),
        "handle-other-group" => other_group(app),
        "handle-other-core" => other_core(app),
        _ => return None,
    })
}

/// Calls that name an object, each well formed but for the handle.
fn all(handle: Handle) -> [Call; 12] {
    let at = raw::info() as *const _ as u64;
    let image = SgEntry { addr: ix_abi::layout::IMAGE_BASE, len: 16 };
    let remote = SocketAddress::v4([10, 0, 2, 2], 9);
    [
        Call::accept(handle, Cookie(1)),
        Call::new(Op::Reject, handle),
        Call::sendv(handle, 1, image, SgEntry::default()),
        Call::recv_done(handle, 1),
        Call::new(Op::Close, handle),
        Call::new(Op::Abort, handle),
        Call::new(Op::Shutdown, handle),
        Call::udp_sendv(handle, remote, 1, image),
        Call::udp_recv_done(handle, at),
        Call::new(Op::UdpClose, handle),
        Call::new(Op::TimerCancel, handle),
        Call::new(Op::Unlisten, handle),
    ]
}

fn refused(app: &mut App, handle: Handle) -> Verdict {
    for call in all(handle) {
        let status = app.ask(call).status;
        let known = [Status::BadHandle, Status::Moved, Status::Fault, Status::Invalid];
        check(known.contains(&status), "a handle that names nothing was taken")?;
    }
    Ok(())
}

fn made_up(app: &mut App) -> Verdict {
    for handle in [0, 1, u64::MAX, u64::MAX >> 1, 1 << 63, 0xFFFF << 48, (0xFFFF << 48) | 1] {
        refused(app, Handle(handle))?;
    }
    for group in [0, 1, 2, 127, 128, 511, 512, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF] {
        for (generation, index) in [(1, 4000), (0xFF_FFFF, 0), (0, 0), (7, 0xFF_FFFF)] {
            refused(app, Handle::new(GroupId(group), generation, index))?;
        }
    }
    Ok(())
}

fn stale(app: &mut App) -> Verdict {
    let timer = app.ask(Call::timer_set(Cookie(9), 3_000_000)).handle;
    check(app.ask(Call::new(Op::TimerCancel, timer)).status == Status::Ok, "timer_cancel")?;
    let again = app.ask(Call::timer_set(Cookie(9), 3_000_000)).handle;
    check(timer != again, "a timer's handle is the same for its slot's next user")?;
    refused(app, timer)?;
    check(app.ask(Call::new(Op::TimerCancel, again)).status == Status::Ok, "the live timer")?;

    let port = SocketAddress::v4([0; 4], 4000);
    let bound = app.ask(Call::udp_bind(port, Cookie(9))).handle;
    check(app.ask(Call::new(Op::UdpClose, bound)).status == Status::Ok, "udp_close")?;
    let again = app.ask(Call::udp_bind(port, Cookie(9))).handle;
    check(bound != again, "a UDP port's handle is the same for its slot's next user")?;
    refused(app, bound)?;

    let listener = app.ask(Call::listen(port, 4)).handle;
    check(app.ask(Call::new(Op::Unlisten, listener)).status == Status::Ok, "unlisten")?;
    refused(app, listener)?;

    let conn = app.conn()?;
    check(app.ask(Call::new(Op::Abort, conn)).status == Status::Ok, "abort")?;
    app.serve_for(20_000_000);
    refused(app, conn)
}

fn other_kind(app: &mut App) -> Verdict {
    let conn = app.conn()?;
    let timer = app.ask(Call::timer_set(Cookie(9), 3_000_000)).handle;
    let port = app.ask(Call::udp_bind(SocketAddress::v4([0; 4], 4000), Cookie(9))).handle;
    let listener = app.ask(Call::listen(SocketAddress::v4([0; 4], 4000), 4)).handle;
    // By number in `all`: those that are of the kind itself.
    for (handle, own) in
        [(conn, &[0, 1, 2, 3, 4, 5, 6][..]), (timer, &[10]), (port, &[7, 8, 9]), (listener, &[11])]
    {
        for (number, call) in all(handle).into_iter().enumerate() {
            if own.contains(&number) {
                continue;
            }
            let status = app.ask(call).status;
            let known = [Status::BadHandle, Status::Invalid, Status::Fault];
            check(known.contains(&status), "a handle of another kind was taken")?;
        }
    }
    Ok(())
}

fn other_group(app: &mut App) -> Verdict {
    let conn = app.conn()?;
    let (group, generation, index) = (conn.group().0, conn.generation(), conn.index());
    for other in 0..512 {
        if other == group {
            continue;
        }
        let handle = Handle::new(GroupId(other), generation, index);
        // It may be another connection of this application by chance: a call that harms none.
        let status = app.ask(Call::recv_done(handle, 1 << 40)).status;
        let known = [Status::BadHandle, Status::Moved, Status::Invalid, Status::State];
        check(known.contains(&status), "another group's connection was taken")?;
    }
    for other in [generation + 1, generation.wrapping_sub(1) & 0xFF_FFFF, 0, 0xFF_FFFF] {
        if other != generation {
            refused(app, Handle::new(conn.group(), other, index))?;
        }
    }
    Ok(())
}

fn other_core(app: &mut App) -> Verdict {
    let theirs = SHARED.conns.iter().enumerate().filter(|(i, _)| *i != app.context);
    let theirs = theirs.map(|(_, h)| h.load(Acquire)).find(|h| *h != 0);
    let theirs = Handle(theirs.ok_or("no other context has a connection")?);
    for call in &all(theirs)[..7] {
        let status = app.ask(*call).status;
        check(status == Status::Moved, "another core's connection was taken")?;
    }
    Ok(())
}
