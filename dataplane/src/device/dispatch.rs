//! One type for the parts of whichever driver it is, without dynamic dispatch: an enum for each part, whose every call is a
//! branch that always goes the same way.

/// Makes the enums `Rx`, `Queue` (to transmit), `Control` and `Stopped` over drivers, each a [`Nic`](crate::device::Nic),
/// implements the traits of the contract for them, and calls all of them `Card`. Of its own it has a proof of one driver that is shown to another: a queue
/// ignores it, a control part refuses it. The crate must have `alloc` in scope.
#[macro_export]
macro_rules! nics {
    ($($name:ident($nic:ty),)+) => {
        #[allow(unused_imports, reason = "whoever calls it may have them")]
        use $crate::device::{NicControl as _, NicRx as _, NicTx as _, RxQueue as _, TxQueue as _};

        /// A receive queue.
        #[derive(Debug)]
        #[allow(clippy::large_enum_variant, reason = "one per core, and a box would cost each call a load")]
        pub enum Rx {
            $(#[allow(missing_docs, reason = "a driver")] $name(<$nic as $crate::device::Nic>::Rx),)+
        }

        /// A transmit queue.
        #[derive(Debug)]
        #[allow(clippy::large_enum_variant, reason = "one per core, and a box would cost each call a load")]
        pub enum Queue {
            $(#[allow(missing_docs, reason = "a driver")] $name(<$nic as $crate::device::Nic>::Tx),)+
        }

        /// What is not a queue's: the table of groups, stopping and starting.
        #[derive(Debug)]
        #[allow(clippy::large_enum_variant, reason = "there is one")]
        pub enum Control {
            $(#[allow(missing_docs, reason = "a driver")] $name(<$nic as $crate::device::Nic>::Control),)+
        }

        /// Proof that the card is stopped.
        #[derive(Debug)]
        pub enum Stopped {
            $(#[allow(missing_docs, reason = "a driver")] $name(<$nic as $crate::device::Nic>::Stopped),)+
        }

        /// A card of one of them, by the types of its parts.
        #[derive(Debug)]
        #[allow(dead_code, reason = "for whoever is generic over a card")]
        pub enum Card {}

        impl $crate::device::Nic for Card {
            type Stopped = Stopped;
            type Rx = Rx;
            type Tx = Queue;
            type Control = Control;
        }

        impl $crate::device::RxQueue for Rx {
            #[inline]
            fn poll(&mut self, max: usize, batch: &mut $crate::device::RxBatch) -> usize {
                match self { $(Self::$name(q) => q.poll(max, batch),)+ }
            }
            #[inline]
            fn lone(&mut self) -> Option<&$crate::device::RxFrame> {
                match self { $(Self::$name(q) => q.lone(),)+ }
            }
            #[inline]
            fn took_lone(&mut self) {
                match self { $(Self::$name(q) => q.took_lone(),)+ }
            }
            fn waiting(&self) -> usize {
                match self { $(Self::$name(q) => q.waiting(),)+ }
            }
            #[inline]
            fn replenish(&mut self, pool: &mut $crate::mbuf::Pool) {
                match self { $(Self::$name(q) => q.replenish(pool),)+ }
            }
            fn arm_interrupt(&mut self) -> bool {
                match self { $(Self::$name(q) => q.arm_interrupt(),)+ }
            }
            fn disarm_interrupt(&mut self) {
                match self { $(Self::$name(q) => q.disarm_interrupt(),)+ }
            }
            fn device_errors(&self) -> u64 {
                match self { $(Self::$name(q) => q.device_errors(),)+ }
            }
            fn other_vlan(&self) -> u64 {
                match self { $(Self::$name(q) => q.other_vlan(),)+ }
            }
        }

        impl $crate::device::NicRx for Rx {
            type Stopped = Stopped;
            fn held(&self) -> usize {
                match self { $(Self::$name(q) => q.held(),)+ }
            }
            #[inline]
            fn is_quarantined(&self) -> bool {
                match self { $(Self::$name(q) => q.is_quarantined(),)+ }
            }
            fn has_frames(&self) -> bool {
                match self { $(Self::$name(q) => q.has_frames(),)+ }
            }
            fn rewind(&mut self, stopped: &Stopped, pool: &mut $crate::mbuf::Pool) {
                match (self, stopped) {
                    $((Self::$name(q), Stopped::$name(proof)) => q.rewind(proof, pool),)+
                    #[allow(unreachable_patterns, reason = "where there is one driver")]
                    _ => {}
                }
            }
            fn restarted(&mut self) {
                match self { $(Self::$name(q) => q.restarted(),)+ }
            }
        }

        impl $crate::device::TxQueue for Queue {
            #[inline]
            fn push(
                &mut self,
                frame: &$crate::device::TxFrame,
            ) -> Result<(), $crate::device::TxFull> {
                match self { $(Self::$name(q) => q.push(frame),)+ }
            }
            #[inline]
            fn push_pair(
                &mut self,
                headers: $crate::device::Fragment,
                payload: $crate::device::Fragment,
                checksum: Option<$crate::device::TxChecksum>,
            ) -> Result<(), $crate::device::TxFull> {
                match self { $(Self::$name(q) => q.push_pair(headers, payload, checksum),)+ }
            }
            #[inline]
            fn kick(&mut self) {
                match self { $(Self::$name(q) => q.kick(),)+ }
            }
            #[inline]
            fn reclaim(&mut self) -> u32 {
                match self { $(Self::$name(q) => q.reclaim(),)+ }
            }
        }

        impl $crate::device::NicTx for Queue {
            type Stopped = Stopped;
            fn in_flight(&self) -> u16 {
                match self { $(Self::$name(q) => q.in_flight(),)+ }
            }
            #[inline]
            fn is_quarantined(&self) -> bool {
                match self { $(Self::$name(q) => q.is_quarantined(),)+ }
            }
            fn rewind(&mut self, stopped: &Stopped) {
                match (self, stopped) {
                    $((Self::$name(q), Stopped::$name(proof)) => q.rewind(proof),)+
                    #[allow(unreachable_patterns, reason = "where there is one driver")]
                    _ => {}
                }
            }
            fn restarted(&mut self) {
                match self { $(Self::$name(q) => q.restarted(),)+ }
            }
        }

        impl $crate::device::NicControl for Control {
            type Stopped = Stopped;
            type CommandError = alloc::string::String;
            type StartError = alloc::string::String;
            fn pairs(&self) -> u16 {
                match self { $(Self::$name(c) => c.pairs(),)+ }
            }
            fn reta(&self) -> &[u16] {
                match self { $(Self::$name(c) => c.reta(),)+ }
            }
            fn set_reta(&mut self, group: u16, queue: u16) -> Result<(), Self::CommandError> {
                match self {
                    $(Self::$name(c) => c.set_reta(group, queue).map_err(|e| alloc::format!("{e}")),)+
                }
            }
            fn commit(&mut self, now: $crate::time::Instant) -> Result<(), Self::CommandError> {
                match self {
                    $(Self::$name(c) => c.commit(now).map_err(|e| alloc::format!("{e}")),)+
                }
            }
            fn poll(
                &mut self,
                now: $crate::time::Instant,
            ) -> $crate::device::Progress<Self::CommandError> {
                match self { $(Self::$name(c) => c.poll(now).map_err(|e| alloc::format!("{e}")),)+ }
            }
            fn read_link_up(&self) -> bool {
                match self { $(Self::$name(c) => c.read_link_up(),)+ }
            }
            fn read_needs_reset(&self) -> bool {
                match self { $(Self::$name(c) => c.read_needs_reset(),)+ }
            }
            fn poll_missed(&mut self) -> u64 {
                match self { $(Self::$name(c) => c.poll_missed(),)+ }
            }
            fn reset(
                &mut self,
                clock: $crate::device::Clock<'_>,
            ) -> Result<Stopped, Self::StartError> {
                match self {
                    $(Self::$name(c) => {
                        c.reset(clock).map(Stopped::$name).map_err(|e| alloc::format!("{e}"))
                    })+
                }
            }
            fn restart(
                &mut self,
                stopped: Stopped,
                clock: $crate::device::Clock<'_>,
            ) -> Result<(), Self::StartError> {
                match (self, stopped) {
                    $((Self::$name(c), Stopped::$name(proof)) => {
                        c.restart(proof, clock).map_err(|e| alloc::format!("{e}"))
                    })+
                    #[allow(unreachable_patterns, reason = "where there is one driver")]
                    _ => Err(alloc::string::String::from("another card's proof")),
                }
            }
        }
    };
}
