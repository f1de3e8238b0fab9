#![doc = include_str!("../README.md")]
#![no_std]
#![deny(unsafe_code, missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod args;
pub mod clock;
pub mod conn;
pub mod conns;
pub mod context;
pub mod cx;
pub mod event_loop;
pub mod heap;
mod inbox;
pub mod lock;
pub mod logging;
pub mod memory;
pub mod outbox;
mod pool;
pub mod ring;
pub mod slab;
pub mod start;
pub mod syscall;
pub mod thread;
pub mod udp;

pub use args::Args;
pub use conn::Conn;
pub use conns::{ConnTable, Conns};
pub use context::Context;
pub use cx::Cx;
pub use event_loop::{App, EventLoop, Knock, Outcome, run};
pub use ix_abi as abi;
pub use ix_abi::{
    Congestion, Cookie, DeadReason, GroupId, Handle, IpAddress, Op, SgEntry, SocketAddress, Status,
    TcpOption,
};
pub use lock::SpinLock;
pub use outbox::{Buf, NoBuf, SgList};
pub use slab::Slab;
pub use syscall::exit;
pub use udp::Datagram;
