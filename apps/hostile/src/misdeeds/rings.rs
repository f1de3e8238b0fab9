//! Rings whose indices lie, and rings and memory that another core rewrites meanwhile.

use core::sync::atomic::Ordering::{Acquire, Release};

use ix_abi::call::{Call, Direct, Op, SgEntry};
use ix_abi::layout::{CALL_SLOTS, HEAP_BASE, IMAGE_BASE};
use ix_abi::{Handle, Status};

use super::check;
use crate::app::{App, DUTY_REWRITE_HEADER, DUTY_REWRITE_MEMORY, DUTY_REWRITE_SLOTS, Verdict};
use crate::raw::{self, SHARED};

pub fn commit(app: &mut App, name: &str) -> Option<Verdict> {
    let produced = app.rings.produced();
    let written = app.rings.events_written();
    Some(match name {
        "ring-ahead" => lie(app, produced.wrapping_add(CALL_SLOTS + 1), written),
        "ring-back" => lie(app, produced.wrapping_sub(100), written),
        "ring-events-ahead" => lie(app, produced, written.wrapping_add(100)),
        "ring-events-back" => lie(app, produced, written.wrapping_sub(CALL_SLOTS + 1)),
        "ring-cut" => cut(app),
        "ring-full" => full(app),
        "ring-rewritten" => rewritten(app, DUTY_REWRITE_SLOTS),
        "ring-header-rewritten" => rewritten(app, DUTY_REWRITE_HEADER),
        "sendv-rewritten" => sendv_rewritten(app),
        _ => return None,
    })
}

fn lie(app: &mut App, produced: u32, consumed: u32) -> Verdict {
    app.rings.produced_word().store(produced, Release);
    app.rings.consumed_word().store(consumed, Release);
    for _ in 0..1000 {
        raw::direct(Direct::Enter, 0, 0, 0);
    }
    Err("an impossible index was taken")
}

/// A call whose continuation is not there is refused; the ring goes on behind it.
fn cut(app: &mut App) -> Verdict {
    let conn = app.conn()?;
    let good = SgEntry { addr: IMAGE_BASE, len: 1 };
    for count in [3, 64, 0xFFFF] {
        let mut call = Call::sendv(conn, 1, good, good);
        call.sg_count = count;
        check(app.ask(call).status == Status::Invalid, "half a call was taken")?;
        check(app.ask(Call::new(Op::Nop, Handle::NONE)).status == Status::Ok, "nothing after it")?;
    }
    Ok(())
}

fn full(app: &mut App) -> Verdict {
    for _ in 0..4 {
        for _ in 0..app.rings.room() {
            app.rings.push(&Call::new(Op::Nop, Handle::NONE).with_result(7));
        }
        // The event ring cannot take all the results at once: the rest waits.
        app.turn();
    }
    let last = app.ask(Call::new(Op::Nop, Handle::NONE));
    check(last.status == Status::Ok, "the ring does not work after it was full")
}

/// Another context is asked to rewrite; this one makes calls all the while.
fn rewritten(app: &mut App, duty: u64) -> Verdict {
    let began = begin(app, duty, 0)?;
    let conn = app.conn()?;
    let piece = SgEntry { addr: HEAP_BASE, len: 100 };
    while SHARED.duty.load(Acquire) != 0 && raw::now_ns() < began + 2_000_000_000 {
        for _ in 0..16 {
            if app.rings.room() > 64 {
                app.rings.push(&Call::sendv(conn, 1, piece, piece));
                app.rings.push(&Call::timer_set(ix_abi::Cookie(9), 1000));
                app.rings.push(&Call::new(Op::Nop, Handle::NONE));
            }
        }
        app.turn();
    }
    Ok(())
}

/// The memory that it sends changes under it: its own stream has other bytes, nothing else happens.
fn sendv_rewritten(app: &mut App) -> Verdict {
    let began = begin(app, DUTY_REWRITE_MEMORY, HEAP_BASE)?;
    let conn = app.conn()?;
    let piece = SgEntry { addr: HEAP_BASE, len: 1000 };
    while SHARED.duty.load(Acquire) != 0 && raw::now_ns() < began + 2_000_000_000 {
        app.rings.push(&Call::sendv(conn, 1, piece, SgEntry::default()));
        app.turn();
    }
    Ok(())
}

fn begin(app: &App, duty: u64, address: u64) -> Result<u64, &'static str> {
    if raw::info().cores < 2 {
        return Err("it takes two cores");
    }
    let now = raw::now_ns();
    SHARED.address.store(address, Release);
    SHARED.target.store(app.context as u64, Release);
    SHARED.lasts.store(200_000_000, Release);
    SHARED.duty.store(duty, Release);
    Ok(now)
}
