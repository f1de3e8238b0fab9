//! Scatter-gather entries that name what is not the application's.

use ix_abi::call::{Call, Direct, SgEntry};
use ix_abi::layout::{
    CALL_PAGE, EVENT_PAGE, HEAP_BASE, IMAGE_BASE, INFO_BASE, PAGE_BYTES, RX_BASE, STACK_PAGE,
    context_base,
};
use ix_abi::{Handle, SocketAddress, Status};

use super::check;
use crate::app::{App, Verdict};
use crate::raw;

pub fn commit(app: &mut App, name: &str) -> Option<Verdict> {
    let heap_end = HEAP_BASE + raw::info().heap_bytes;
    let base = context_base(0);
    Some(match name {
        "sg-kernel" => faults(
            app,
            &[
                (0xFFFF_FFFF_8020_A000, 64),
                (0xFFFF_8000_0010_0000, 64),
                (0xFFFF_8000_0000_0000, 1),
                (0xFFFF_C000_0000_0000, 4096),
                (0xFFFF_FFFF_FFFF_F000, 4095),
            ],
        ),
        "sg-unmapped" => faults(
            app,
            &[
                (0, 1),
                (8, 1 << 20),
                (IMAGE_BASE - 1, 2),
                (0x7FFF_FFFF_F000, 4096),
                (0x8000_0000_0000, 1),
                (0x1234_5678_9ABC_DEF0, 16),
                (base + STACK_PAGE - 1, 1),
                (base + 4 * PAGE_BYTES, 1),
            ],
        ),
        "sg-past-heap" => faults(
            app,
            &[
                (heap_end, 1),
                (heap_end - 1, 2),
                (heap_end - 4096, 8192),
                (HEAP_BASE + raw::info().heap_max_bytes, 1),
                (0x1F_FFFF_FFFF, 1),
            ],
        ),
        "sg-wrapping" => faults(
            app,
            &[
                (u64::MAX, 1),
                (u64::MAX, 2),
                (u64::MAX - 15, 16),
                (u64::MAX - 15, 1 << 30),
                (HEAP_BASE, u64::MAX - HEAP_BASE + 1),
            ],
        ),
        "sg-huge" => faults(
            app,
            &[
                (HEAP_BASE, (1 << 30) + 1),
                (HEAP_BASE, 1 << 31),
                (HEAP_BASE, 1 << 32),
                (HEAP_BASE, u64::MAX),
                (HEAP_BASE, 1 << 63),
            ],
        ),
        "sg-not-sendable" => faults(
            app,
            &[
                (INFO_BASE, 64),
                (base + EVENT_PAGE, 64),
                (base + CALL_PAGE, 64),
                (RX_BASE, 64),
                (RX_BASE + 2048, 2048),
                (RX_BASE + raw::info().rx_bytes - 1, 1),
                (RX_BASE + raw::info().rx_bytes, 1),
                (HEAP_BASE + PAGE_BYTES - 1, u64::from(u32::MAX)),
            ],
        ),
        "sg-zero-length" => zero_length(app),
        "sg-count" => count(app),
        "sg-unmapped-under" => unmapped_under(app),
        _ => return None,
    })
}

fn remote() -> SocketAddress {
    SocketAddress::v4([10, 0, 2, 2], 9)
}

/// Each entry alone, behind a good one, and as the last of 64, in both calls that take entries.
fn faults(app: &mut App, entries: &[(u64, u64)]) -> Verdict {
    let conn = app.conn()?;
    let port = app.ask(Call::udp_bind(SocketAddress::v4([0; 4], 4000), ix_abi::Cookie(9))).handle;
    let good = SgEntry { addr: IMAGE_BASE, len: 1 };
    for &(addr, len) in entries {
        let bad = SgEntry { addr, len };
        let alone = app.ask(Call::sendv(conn, 1, bad, SgEntry::default()));
        // A window that is smaller than the entry hides its end: what is refused is not looked at.
        let cut = alone.status == Status::Again && len > 1 << 16;
        check(alone.status == Status::Fault || cut, "sendv took a bad entry")?;
        check(alone.value == 0 || cut, "sendv took bytes of a bad entry")?;
        let behind = app.ask(Call::sendv(conn, 2, good, bad));
        let cut = behind.status == Status::Again && len > 1 << 16;
        check(behind.status == Status::Fault || cut, "sendv took a bad entry behind a good one")?;
        let mut slots =
            [[good.addr, good.len, good.addr, good.len, good.addr, good.len, good.addr, good.len];
                16];
        // 2 inline, 62 in slots: 15 of four, the last with two.
        slots[15] = [good.addr, good.len, bad.addr, bad.len, 0, 0, 0, 0];
        let last = app.ask_with(Call::sendv(conn, 64, good, good), &slots);
        let cut = last.status == Status::Again && len > 1 << 16;
        check(last.status == Status::Fault || cut, "sendv took a bad entry behind 63 good ones")?;
        let datagram = app.ask(Call::udp_sendv(port, remote(), 1, bad));
        let known = [Status::Fault, Status::Invalid];
        check(known.contains(&datagram.status), "udp_sendv took a bad entry")?;
        let words = [good.addr, good.len, bad.addr, bad.len, 0, 0, 0, 0];
        let datagram = app.ask_with(Call::udp_sendv(port, remote(), 3, good), &[words]);
        check(known.contains(&datagram.status), "udp_sendv took a bad entry behind good ones")?;
    }
    Ok(())
}

fn zero_length(app: &mut App) -> Verdict {
    let conn = app.conn()?;
    for addr in [0, HEAP_BASE, RX_BASE, 0xFFFF_FFFF_8020_A000, u64::MAX] {
        let nothing = SgEntry { addr, len: 0 };
        let slots = [[addr, 0, addr, 0, addr, 0, addr, 0]; 16];
        let outcome = app.ask_with(Call::sendv(conn, 64, nothing, nothing), &slots);
        check(outcome.status == Status::Ok && outcome.value == 0, "nothing was not taken as such")?;
    }
    Ok(())
}

fn count(app: &mut App) -> Verdict {
    let conn = app.conn()?;
    let good = SgEntry { addr: IMAGE_BASE, len: 1 };
    for count in [0, 65, 66, 0x7FFF, 0xFFFF] {
        for mut call in
            [Call::sendv(conn, 1, good, good), Call::udp_sendv(Handle(1), remote(), 1, good)]
        {
            call.sg_count = count;
            // As many slots as the kernel may take it for; what it leaves over are no-operations.
            let outcome = app.ask_with(call, &[[0; 8]; 16]);
            check(outcome.status == Status::Invalid, "an impossible count was taken")?;
        }
    }
    Ok(())
}

/// The kernel keeps the frames until they have left; a fresh mapping is not in their way.
fn unmapped_under(app: &mut App) -> Verdict {
    let conn = app.conn()?;
    let page = HEAP_BASE + raw::info().heap_bytes;
    for round in 0..20 {
        while raw::direct(Direct::Map, page, 1, 0) != 0 {
            app.turn();
        }
        check(raw::peek(page) == 0 && raw::peek(page + 1024) == 0, "a mapped page is not zero")?;
        raw::poke(page, round + 1);
        raw::poke(page + 1024, round + 1);
        let piece = SgEntry { addr: page, len: 1400 };
        app.rings.push(&Call::sendv(conn, 1, piece, SgEntry::default()));
        app.turn();
        check(raw::direct(Direct::Unmap, page, 1, 0) == 0, "unmap")?;
        let gone = app.ask(Call::sendv(conn, 1, piece, SgEntry::default()));
        check(gone.status != Status::Ok, "sendv took an unmapped page")?;
    }
    Ok(())
}
