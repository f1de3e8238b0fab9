//! Keeping the core, and asking for more than there is.

use core::sync::atomic::Ordering::Release;

use ix_abi::call::{Call, Direct, Op, SgEntry};
use ix_abi::layout::{HEAP_BASE, IMAGE_BASE, PAGE_BYTES};
use ix_abi::{Cookie, Handle, SocketAddress, Status};

use super::check;
use crate::app::{App, Verdict};
use crate::raw::{self, SHARED};

const PEER: [u8; 4] = [10, 0, 2, 2];
/// In the guest's network; nobody has it.
const NOBODY: [u8; 4] = [10, 0, 2, 250];

pub fn commit(app: &mut App, name: &str) -> Option<Verdict> {
    Some(match name {
        "loop" => loop {
            core::hint::spin_loop();
        },
        "loop-calls" => loop {
            raw::now_ns();
        },
        "loop-log" => loop {
            raw::log("hostile: line after line after line after line after line after line");
        },
        "loop-map" => map_loop(),
        "events-unread" => events_unread(),
        "connections" => connections(app),
        "listeners" => listeners(app),
        "udp-ports" => udp_ports(app),
        "timers" => timers(app),
        "heap" => heap(),
        "datagrams" => datagrams(app),
        "segments" => segments(app),
        "log-flood" => log_flood(),
        "rx-hoard" => rx_hoard(app),
        "calls-expensive" => expensive(app),
        _ => return None,
    })
}

fn map_loop() -> Verdict {
    let page = HEAP_BASE + raw::info().heap_bytes;
    loop {
        if raw::direct(Direct::Map, page, 4, 0) == 0 {
            raw::poke(page, 1);
            raw::direct(Direct::Unmap, page, 4, 0);
        }
    }
}

/// The events stay unread; `enter` comes back at once each time.
fn events_unread() -> Verdict {
    let until = raw::now_ns() + 300_000_000;
    while raw::now_ns() < until {
        raw::direct(Direct::Enter, 0, 0, 0);
    }
    Ok(())
}

/// Waits for the failed ones to say so: their results are not waited for one by one.
fn connections(app: &mut App) -> Verdict {
    for to in [SocketAddress::v4(NOBODY, 80), SocketAddress::v4(PEER, 1)] {
        for _ in 0..5 {
            fill(app, &Call::connect(Cookie(9), to), 6_000);
        }
    }
    // Many hosts, so that ports are not what ends it.
    for host in 1..40_000u32 {
        let [_, b, c, d] = host.to_be_bytes();
        let call = Call::connect(Cookie(9), SocketAddress::v4([172, b, c, d], 80));
        fill(app, &call, 1);
    }
    app.serve_for(200_000_000);
    let last = app.ask(Call::connect(Cookie(9), SocketAddress::v4(NOBODY, 81)));
    let known = [Status::Ok, Status::Limit, Status::Unreachable];
    check(known.contains(&last.status), "connect has a strange answer when there are many")
}

/// So many calls of a kind, as fast as the ring takes them.
fn fill(app: &mut App, call: &Call, count: u32) {
    for _ in 0..count {
        while app.rings.room() < 64 {
            app.turn();
        }
        app.rings.push(call);
    }
}

fn until_limit(app: &mut App, most: u32, make: impl Fn(u16) -> Call) -> Verdict {
    for n in 0..=most {
        let outcome = app.ask(make(n as u16));
        match outcome.status {
            Status::Ok => {}
            Status::Limit => return Ok(()),
            _ => return Err("neither made nor refused for the limit"),
        }
    }
    Err("there was no limit")
}

fn listeners(app: &mut App) -> Verdict {
    until_limit(app, 64, |n| Call::listen(SocketAddress::v4([0; 4], 2000 + n), 65_536))
}

fn udp_ports(app: &mut App) -> Verdict {
    until_limit(app, 64, |n| Call::udp_bind(SocketAddress::v4([0; 4], 2000 + n), Cookie(9)))
}

fn timers(app: &mut App) -> Verdict {
    until_limit(app, 4096, |_| Call::timer_set(Cookie(9), 3_600_000_000))
}

/// All at once is refused or given; page by page until there is no more; each is zero.
fn heap() -> Verdict {
    let (from, max) = (HEAP_BASE + raw::info().heap_bytes, HEAP_BASE + raw::info().heap_max_bytes);
    let pages = (max - from) / PAGE_BYTES;
    if pages > 0 && raw::direct(Direct::Map, from, pages, 0) == 0 {
        check(raw::peek(max - 8) == 0, "a mapped page is not zero")?;
        raw::poke(max - 8, 1);
        check(raw::direct(Direct::Unmap, from, pages, 0) == 0, "unmap of all")?;
    }
    let mut page = from;
    let until = raw::now_ns() + 2_000_000_000;
    while page < max && raw::now_ns() < until {
        if raw::direct(Direct::Map, page, 1, 0) == 0 {
            check(raw::peek(page) == 0, "a mapped page is not zero")?;
            raw::poke(page, 1);
            page += PAGE_BYTES;
        } else {
            // Pages of before are still leaving: the network's turn.
            raw::direct(Direct::Enter, 0, 0, 0);
        }
    }
    Ok(())
}

fn datagrams(app: &mut App) -> Verdict {
    let piece = SgEntry { addr: IMAGE_BASE, len: 1400 };
    for to in [NOBODY, PEER, [172, 16, 0, 1]] {
        let call = Call::udp_sendv(app.echo_port, SocketAddress::v4(to, 9), 1, piece);
        fill(app, &call, 3000);
        app.serve_for(50_000_000);
    }
    Ok(())
}

/// As many datagrams to the peer as go.
pub fn flood(app: &mut App) -> Verdict {
    let piece = SgEntry { addr: HEAP_BASE, len: 1400 };
    let call = Call::udp_sendv(app.echo_port, SocketAddress::v4(PEER, 9), 1, piece);
    let until = raw::now_ns() + 1_000_000_000;
    while raw::now_ns() < until {
        fill(app, &call, 64);
        app.turn();
    }
    Ok(())
}

fn segments(app: &mut App) -> Verdict {
    let conn = app.conn()?;
    let byte = SgEntry { addr: IMAGE_BASE, len: 1 };
    let slots = [[byte.addr, 1, byte.addr, 1, byte.addr, 1, byte.addr, 1]; 16];
    let mut refused = false;
    for _ in 0..200 {
        let outcome = app.ask_with(Call::sendv(conn, 64, byte, byte), &slots);
        match outcome.status {
            Status::Ok => {}
            Status::Again => refused = true,
            // The peer may have had enough.
            Status::State | Status::BadHandle => return Ok(()),
            _ => return Err("sendv has a strange answer when its table is full"),
        }
    }
    // Those that were sent were acknowledged meanwhile, perhaps each time.
    let _ = refused;
    Ok(())
}

fn log_flood() -> Verdict {
    // 1024 bytes of code: not a single letter of it may reach a terminal as it is.
    for _ in 0..2000 {
        raw::direct(Direct::Log, IMAGE_BASE, 1024, 3);
    }
    Ok(())
}

/// From now on nothing is returned. The test sends, and sees that others are served.
fn rx_hoard(app: &mut App) -> Verdict {
    SHARED.hoard.store(1, Release);
    app.serve_for(10_000_000);
    Ok(())
}

fn expensive(app: &mut App) -> Verdict {
    let conn = app.conn()?;
    let until = raw::now_ns() + 1_000_000_000;
    let good = SgEntry { addr: IMAGE_BASE, len: 1 };
    let calls = [
        Call::connect(Cookie(9), SocketAddress::v4(PEER, 1)),
        Call::udp_bind(SocketAddress::v4([0; 4], 2000), Cookie(9)),
        Call::udp_sendv(app.echo_port, SocketAddress::v4(NOBODY, 9), 1, good),
        Call::new(Op::UdpClose, Handle(u64::MAX)),
        Call::sendv(conn, 2, good, good),
        Call::timer_set(Cookie(9), 1),
    ];
    let mut n = 0;
    while raw::now_ns() < until {
        let call = calls[n % calls.len()];
        n += 1;
        for _ in 0..app.rings.room() {
            app.rings.push(&call);
        }
        app.turn();
    }
    Ok(())
}
