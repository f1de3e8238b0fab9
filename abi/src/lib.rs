//! The two contracts of IX.
//!
//! - application ⇄ kernel: [`call`] (batched and direct system calls), [`event`] (event
//!   conditions), [`layout`] (address space, rings, information page);
//! - control process ⇄ kernel: [`control`] (the control page) with [`stats`] (counters), [`measure`] and
//!   [`histogram`] (what each core measures), [`demand`] (cores asked for and granted), [`capture`] and [`event_log`] (its
//!   rings).
//!
//! Everything here is layout and pure functions: no pointers, no atomics, no I/O. A value that came
//! from the other side is an allegation until a `decode` of this crate has accepted it. Layouts are
//! asserted at compile time; `docs/abi.md` and `docs/control.md` describe them record by record.
#![no_std]
#![deny(unsafe_code, missing_docs)]

pub mod acl;
pub mod addr;
pub mod call;
pub mod capture;
pub mod control;
pub mod demand;
pub mod event;
pub mod event_log;
pub mod frame;
pub mod handle;
pub mod histogram;
pub mod layout;
pub mod limits;
pub mod measure;
pub mod ring;
pub mod stats;
pub mod status;

pub use addr::{IpAddress, SocketAddress};
pub use call::{Call, Congestion, Direct, Op, Request, SgEntry, TcpOption};
pub use event::{Condition, Event};
pub use handle::{Cookie, CoreId, GroupId, Handle};
pub use status::{DeadReason, Status};

/// Version of both contracts. Either side refuses a different major number; a larger minor number
/// only adds records and fields that older readers ignore.
pub const VERSION: Version = Version { major: 4, minor: 1 };

/// A contract version, as it stands in the information page and in the control page.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Version {
    /// Changes that break a reader.
    pub major: u16,
    /// Changes that only add.
    pub minor: u16,
}

impl Version {
    /// Whether a program built for `self` can talk to a peer that says `other`.
    pub const fn accepts(self, other: Version) -> bool {
        self.major == other.major
    }
}
