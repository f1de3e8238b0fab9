//! Outcomes: open sets of numbers, since the other side may be newer.

macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal : $text:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub u16);

        #[allow(non_upper_case_globals, reason = "constants of an open enumeration")]
        impl $name {
            $($(#[$vmeta])* pub const $variant: $name = $name($value);)*

            /// Every value that this version knows.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// A short English text; `unknown` for values of a newer version.
            pub const fn text(self) -> &'static str {
                match self.0 {
                    $($value => $text,)*
                    _ => "unknown",
                }
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.0 {
                    $($value => f.write_str(stringify!($variant)),)*
                    other => write!(f, concat!(stringify!($name), "({})"), other),
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.text())
            }
        }
    };
}
pub(crate) use open_enum;

open_enum! {
    /// How a call or a command ended.
    Status {
        /// Done, all of it.
        Ok = 0: "ok",
        /// The record is not well formed: unknown operation, reserved bits, counts out of range.
        Invalid = 1: "invalid argument",
        /// The handle names nothing: never issued, or its object is gone.
        BadHandle = 2: "bad handle",
        /// The handle's flow group is now on another core; the call belongs there.
        Moved = 3: "the flow group has moved",
        /// An address that the application does not own, or may not use so.
        Fault = 4: "bad address",
        /// No room now (window, table or ring); nothing or only a part was done. Try again after
        /// the next event of the object.
        Again = 5: "try again",
        /// A limit of `limits` is reached.
        Limit = 6: "limit reached",
        /// No memory.
        NoMemory = 7: "out of memory",
        /// The address or port is taken.
        InUse = 8: "address in use",
        /// The object is not in a state that allows it (closed, not yet accepted, …).
        State = 9: "wrong state",
        /// No route or no neighbour answered.
        Unreachable = 10: "unreachable",
        /// The peer refused.
        Refused = 11: "connection refused",
        /// No answer in time.
        TimedOut = 12: "timed out",
        /// Known, but not offered by this kernel.
        Unsupported = 13: "not supported",
        /// A command's epoch is not the kernel's present one.
        Stale = 14: "stale epoch",
        /// Not allowed to this caller.
        Denied = 15: "not permitted",
        /// Another dataplane has the core.
        Away = 16: "the core is away",
    }
}

open_enum! {
    /// Why a connection ended.
    DeadReason {
        /// Both sides closed in order; every byte was acknowledged.
        Closed = 0: "closed",
        /// The peer sent RST.
        Reset = 1: "reset by peer",
        /// The application aborted it.
        Aborted = 2: "aborted",
        /// Retransmission gave up.
        TimedOut = 3: "timed out",
        /// The network said unreachable.
        Unreachable = 4: "unreachable",
        /// The kernel took it back: limits, shutdown.
        Evicted = 5: "ended by the kernel",
        /// The application rejected it.
        Rejected = 6: "rejected",
    }
}
