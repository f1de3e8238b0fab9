//! Handles, cookies and the small indices that cross the boundary, each with a type of its own.

/// A core of one dataplane, counted from 0. Not an APIC id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreId(pub u16);

/// A flow group: one entry of the port's RSS indirection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u16);

impl GroupId {
    /// Objects of the whole dataplane that no flow group owns: listeners, UDP bindings, timers.
    pub const DATAPLANE: GroupId = GroupId(0xffff);
}

/// A value of the application's choosing, returned verbatim in every event of its object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cookie(pub u64);

/// Names an object of the kernel: `group:16 | generation:24 | index:24`, high to low.
///
/// Forging one is harmless: the kernel looks the index up in the group and compares the generation,
/// which changes each time the slot is used again. All zero bits is never a live handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

impl Handle {
    /// Never names anything.
    pub const NONE: Handle = Handle(0);
    /// Width of the index and of the generation.
    pub const FIELD_BITS: u32 = 24;
    /// Largest index, and largest generation.
    pub const FIELD_MAX: u32 = (1 << Self::FIELD_BITS) - 1;

    /// Packs the three parts; bits above 24 of `generation` and `index` are dropped.
    pub const fn new(group: GroupId, generation: u32, index: u32) -> Handle {
        Handle(
            (group.0 as u64) << 48
                | ((generation & Self::FIELD_MAX) as u64) << 24
                | (index & Self::FIELD_MAX) as u64,
        )
    }

    /// The owner.
    pub const fn group(self) -> GroupId {
        GroupId((self.0 >> 48) as u16)
    }

    /// How often the slot had been used, modulo 2^24, never 0.
    pub const fn generation(self) -> u32 {
        (self.0 >> 24) as u32 & Self::FIELD_MAX
    }

    /// The slot within the group.
    pub const fn index(self) -> u32 {
        self.0 as u32 & Self::FIELD_MAX
    }

    /// The generation that follows `generation` in a slot; skips 0 so that [`Handle::NONE`] and a
    /// zeroed record never match.
    pub const fn next_generation(generation: u32) -> u32 {
        let next = (generation + 1) & Self::FIELD_MAX;
        if next == 0 { 1 } else { next }
    }
}
