//! Control messages between the engines of a dataplane, applied at the quiescent point of the loop.
//!
//! Objects of the whole dataplane (listeners, UDP bindings) are made by core 0 alone, so that two
//! cores cannot take one port: the others ask it. Everybody has a replica.
use crate::acl::Firewall;
use crate::addresses::Ipv6Config;
use crate::config::Ipv4Config;
use crate::fifo::GroupSet;
use crate::group::FlowGroup;
use crate::lend::round::Afresh;
use crate::lend::sync::Sync;
use alloc::boxed::Box;
use ix_abi::{Cookie, CoreId, GroupId, Handle, IpAddress, SocketAddress, Status, TcpOption};

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
    /// To the owner of a group: it is to go elsewhere.
    Move {
        /// Which.
        group: GroupId,
        /// Where to.
        to: CoreId,
    },
    /// To core 0: what became of such a wish.
    Moved {
        /// Which.
        group: GroupId,
        /// [`Status::Ok`]: its new owner has it, and nothing of it is under way to the old one.
        status: Status,
    },
    /// To the new owner of a group, with all that is in it.
    Group(Box<FlowGroup>),
    /// To all others, when its new owner has it: whose it is from now on.
    Owner {
        /// Which.
        group: GroupId,
        /// Whose.
        owner: CoreId,
        /// How old that is: the group's own.
        age: u64,
    },
    /// To the old owner: frames of the group, if the sender has any, go to the new one from now on; or, of that one, it has
    /// the group.
    Turned {
        /// Which.
        group: GroupId,
        /// Of what was heard: an answer about an earlier move says nothing of this one.
        age: u64,
    },
    /// To the new owner: the old one has forwarded its last frame, and nobody sends it any.
    Settled {
        /// Which.
        group: GroupId,
        /// The group's when it came.
        age: u64,
    },
    /// To core 0: the device is to bring the group's frames to that core.
    Redirect {
        /// Which.
        group: GroupId,
        /// Where to.
        to: CoreId,
        /// The group's: the answer's too.
        age: u64,
    },
    /// To the old owner: the device does so from now on, or never will.
    Redirected {
        /// Which.
        group: GroupId,
        /// Of what was asked for.
        age: u64,
    },
    /// To a parked core: groups are going to come.
    Serve,
    /// To core 0: the sender has told that core so.
    Woken {
        /// Which.
        core: CoreId,
    },
    /// From core 0: rules to take over.
    Rules(Box<Firewall>),
    /// To core 0: they are in force here; what was before.
    RulesTaken {
        /// Who says so.
        core: CoreId,
        /// Which set.
        generation: u32,
        /// To be freed.
        old: Option<Box<Firewall>>,
    },
    /// From core 0: who is away from now on.
    Presence {
        /// Cores that are, a bit each.
        absent: u64,
        /// Those of them that were stopped: they may have sent something that was not told of.
        taken: u64,
        /// To be answered.
        round: u32,
    },
    /// To core 0: nothing is sent to those cores any more.
    Heard {
        /// Of [`Message::Presence`].
        round: u32,
        /// The groups that the sender has, or has sent to somebody who is there.
        owned: GroupSet,
    },
    /// From core 0: nobody sends this core anything more but what it waits for; it is to leave.
    Leave,
    /// To core 0: the sender leaves.
    Leaves,
    /// To core 0: the sender does not leave, since it has a group.
    Stays,
    /// To core 0: the sender was away.
    Back,
    /// From core 0: what was missed (one, in memory that can be refused).
    Sync(Box<[Sync]>),
    /// From core 0: groups that begin afresh.
    Afresh(Box<Afresh>),
}

impl Message {
    /// Whether its receiver waits for it to be done with a move, also when it is about to leave.
    pub(crate) fn ends_a_wait(&self) -> bool {
        matches!(
            self,
            Message::Turned { .. } | Message::Settled { .. } | Message::Redirected { .. }
        )
    }
}
