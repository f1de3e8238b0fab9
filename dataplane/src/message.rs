//! Control messages between the engines of a dataplane, applied at the quiescent point of the loop.
//!
//! Objects of the whole dataplane (listeners, UDP bindings) are made by core 0 alone, so that two
//! cores cannot take one port: the others ask it. Everybody has a replica.
use crate::acl::Firewall;
use crate::addresses::Ipv6Config;
use crate::config::Ipv4Config;
use alloc::boxed::Box;
use ix_abi::{Cookie, CoreId, Handle, IpAddress, SocketAddress, Status, TcpOption};

/// A change of the tables that all cores have.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// A port is listened on.
    Listen {
        /// Its name.
        handle: Handle,
        /// Where.
        local: SocketAddress,
        /// For the whole dataplane.
        backlog: u32,
    },
    /// A port is bound.
    UdpBind {
        /// Its name.
        handle: Handle,
        /// Where.
        local: SocketAddress,
        /// The application's.
        cookie: Cookie,
    },
    /// A listener's connections begin with another value of an option.
    SetOption {
        /// Its name.
        handle: Handle,
        /// Which.
        option: TcpOption,
        /// To what.
        value: u64,
    },
    /// A listener or a binding is gone.
    Remove {
        /// Its name.
        handle: Handle,
    },
}

/// What a core asks core 0 for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Who asks.
    pub from: CoreId,
    /// What; the handle of a new object is filled in by core 0.
    pub change: Change,
    /// Of the call.
    pub op: u16,
    /// Of the call.
    pub tag: u64,
    /// Whether the call wants a result also when it succeeds.
    pub wants_result: bool,
}

/// A control message.
#[derive(Debug)]
pub enum Message {
    /// To core 0.
    Request {
        /// What.
        request: Request,
        /// Which start of the application it belongs to.
        app_epoch: u32,
    },
    /// From core 0 to who asked.
    Outcome {
        /// The same as in the request.
        request: Request,
        /// How it went.
        status: Status,
        /// The new object.
        handle: Handle,
        /// Which start of the application it belongs to.
        app_epoch: u32,
    },
    /// From core 0 to all.
    Change {
        /// What.
        change: Change,
        /// Which start of the application it belongs to.
        app_epoch: u32,
    },
    /// A neighbour's address was learnt.
    Neighbor {
        /// Of whom.
        ip: IpAddress,
        /// What.
        mac: [u8; 6],
    },
    /// The station has, or has lost, its address.
    Address(Option<Ipv4Config>),
    /// The IPv6 configuration of the station from now on.
    Ipv6(Box<Ipv6Config>),
    /// From core 0: rules to take over.
    Rules(Box<Firewall>),
    /// To core 0: they are in force here; what was before.
    RulesTaken {
        /// Who says so.
        core: CoreId,
        /// To be freed.
        old: Option<Box<Firewall>>,
    },
}
