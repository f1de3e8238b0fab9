//! Calls that make no sense: unknown operations, impossible arguments.

use ix_abi::call::{Call, Direct, Op, SgEntry};
use ix_abi::layout::{HEAP_BASE, IMAGE_BASE, INFO_BASE, PAGE_BYTES, RX_BASE};
use ix_abi::{Cookie, Handle, SocketAddress, Status, TcpOption};

use super::check;
use crate::app::{App, Verdict};
use crate::raw;

pub fn commit(app: &mut App, name: &str) -> Option<Verdict> {
    Some(match name {
        "call-unknown" => unknown(app),
        "call-absurd" => absurd(app),
        "call-direct" => direct(),
        _ => return None,
    })
}

fn unknown(app: &mut App) -> Verdict {
    for op in (18..300).chain([0x7FFF, 0x8000, 0xFFFF]) {
        let mut call = Call::new(Op(op), Handle(u64::MAX));
        call.words = [u64::MAX; 5];
        check(app.ask(call).status == Status::Invalid, "an unknown operation was taken")?;
    }
    for bit in 1..16 {
        let mut call = Call::new(Op::Nop, Handle::NONE);
        call.flags = 1 << bit;
        check(app.ask_raw(call).status == Status::Invalid, "an unknown flag was taken")?;
        let mut call = Call::new(Op::Nop, Handle::NONE);
        call.reserved = 1 << bit;
        check(app.ask_raw(call).status == Status::Invalid, "a reserved bit was taken")?;
    }
    Ok(())
}

fn absurd(app: &mut App) -> Verdict {
    let conn = app.conn()?;
    let at = |ip: [u8; 4], port| SocketAddress::v4(ip, port);
    let v6 = SocketAddress { ip: ix_abi::IpAddress([0x20; 16]), port: 80, scope: 0 };
    let all_nodes = SocketAddress { ip: ix_abi::IpAddress([0xff; 16]), port: 80, scope: 0 };
    let here = {
        let mut own = at([0; 4], 80);
        own.ip = ix_abi::IpAddress(raw::info().address);
        own
    };
    let mut backlog = Call::listen(at([0; 4], 4001), 1);
    backlog.words[3] = u64::MAX;
    for (call, allowed) in [
        (Call::listen(at([0; 4], 4001), 0), &[Status::Invalid][..]),
        (Call::listen(at([0; 4], 4001), 65_537), &[Status::Invalid]),
        (backlog, &[Status::Invalid]),
        (Call::listen(at([9, 9, 9, 9], 4001), 1), &[Status::Unreachable]),
        (Call::listen(at([0; 4], hostile::ECHO_PORT), 1), &[Status::InUse]),
        (Call::listen(at([0; 4], 0), 1), &[Status::Invalid, Status::Unreachable, Status::InUse]),
        (Call::listen(v6, 1), &[Status::Unreachable, Status::Unsupported]),
        (Call::udp_bind(at([9, 9, 9, 9], 4001), Cookie(9)), &[Status::Unreachable]),
        (
            Call::udp_bind(at([0; 4], 0), Cookie(9)),
            &[Status::Invalid, Status::Unreachable, Status::InUse],
        ),
        (Call::connect(Cookie(9), at([0; 4], 80)), &[Status::Invalid]),
        (Call::connect(Cookie(9), at([224, 0, 0, 1], 80)), &[Status::Invalid]),
        (Call::connect(Cookie(9), at([255; 4], 80)), &[Status::Invalid]),
        (Call::connect(Cookie(9), at([10, 0, 2, 2], 0)), &[Status::Invalid]),
        (Call::connect(Cookie(9), here), &[Status::Invalid]),
        (Call::connect(Cookie(9), all_nodes), &[Status::Invalid]),
        (Call::set_option(conn, TcpOption::KeepAlive, u64::MAX), &[Status::Invalid]),
        (Call::set_option(conn, TcpOption(99), 1), &[Status::Invalid, Status::Unsupported]),
        (Call::recv_done(conn, u64::MAX), &[Status::Invalid]),
        (Call::recv_done(conn, 1 << 32), &[Status::Invalid]),
        (Call::accept(conn, Cookie(9)), &[Status::State]),
        (Call::new(Op::Reject, conn), &[Status::State]),
        (Call::timer_set(Cookie(9), u64::MAX), &[Status::Invalid]),
        (Call::timer_set(Cookie(9), 3_600_000_001), &[Status::Invalid]),
        (Call::udp_recv_done(app.echo_port, RX_BASE), &[Status::Invalid, Status::BadHandle]),
        (Call::udp_recv_done(app.echo_port, u64::MAX), &[Status::Fault, Status::Invalid]),
        (Call::udp_recv_done(app.echo_port, 0), &[Status::Fault, Status::Invalid]),
    ] {
        let status = app.ask(call).status;
        if !allowed.contains(&status) {
            raw::log(Op(call.op).text());
            raw::log(status.text());
            return Err("an absurd argument was taken: see the log");
        }
    }
    let port = app.ask(Call::udp_bind(at([0; 4], 4002), Cookie(9))).handle;
    let image = SgEntry { addr: IMAGE_BASE, len: 1473 };
    let long = app.ask(Call::udp_sendv(port, at([10, 0, 2, 2], 9), 1, image)).status;
    check(long == Status::Invalid, "a datagram that is too long was taken")?;
    let to_nobody = app.ask(Call::udp_sendv(port, at([0; 4], 9), 1, SgEntry { len: 1, ..image }));
    check(to_nobody.status == Status::Invalid, "a datagram to nobody was taken")
}

fn direct() -> Verdict {
    let failed = |result: u64, with: Status| result == u64::from(with.0).wrapping_neg();
    for number in [11, 12, 99, 0x7FFF, 0xFFFF, 0x1_0000, 1 << 32, u64::MAX] {
        let result = raw::number_call(number, u64::MAX, u64::MAX, u64::MAX);
        check(failed(result, Status::Invalid), "an unknown direct call was taken")?;
    }
    // On a machine that has no core for them; more in `background`.
    let thread = raw::direct(Direct::Thread, IMAGE_BASE, HEAP_BASE + 4096, HEAP_BASE);
    check(failed(thread, Status::State), "a background thread without a core for it")?;
    check(failed(raw::direct(Direct::Clock, 2, 0, 0), Status::Invalid), "clock 2")?;
    for addr in
        [0, 0xFFFF_FFFF_8020_A000, 0xFFFF_8000_0000_0000, u64::MAX, 0x7FFF_FFFF_FFFF, 1 << 47]
    {
        for len in [1, 16, 1024, u64::MAX] {
            let result = raw::direct(Direct::Log, addr, len, 3);
            check(failed(result, Status::Fault), "a line of memory that is not ours was logged")?;
        }
    }
    check(
        failed(raw::direct(Direct::Log, HEAP_BASE - 1, 8, 3), Status::Fault),
        "log below the heap",
    )?;
    let (free, max) = (HEAP_BASE + raw::info().heap_bytes, HEAP_BASE + raw::info().heap_max_bytes);
    for (addr, pages) in [
        (free + 4096, 1),
        (free, 0),
        (free, u64::MAX),
        (free, 1 << 43),
        (free, 1 << 60),
        (max, 1),
        (max - PAGE_BYTES, 2),
        (0, 1),
        (RX_BASE, 1),
        (INFO_BASE, 1),
        (IMAGE_BASE, 1),
        (!(PAGE_BYTES - 1), 1),
        (0xFFFF_8000_0000_0000, 1),
        (1 << 47, 1),
    ] {
        for call in [Direct::Map, Direct::Unmap] {
            let result = raw::direct(call, addr, pages, 0);
            check(failed(result, Status::Invalid), "an impossible range was mapped or unmapped")?;
        }
    }
    check(failed(raw::direct(Direct::Map, HEAP_BASE, 1, 0), Status::InUse), "mapped twice")?;
    check(
        failed(raw::direct(Direct::Unmap, free, 1, 0), Status::Fault),
        "unmapped what is not mapped",
    )
}
