//! What a dataplane may do with the x2APIC's interrupt command register (SDM 12.12.9, 12.6.1): it
//! interrupts and starts its own cores, and nobody else's. Every write exits and comes through here.

use super::cores::Cores;

#[cfg(test)]
mod tests;

const LEVEL_ASSERT: u64 = 1 << 14;
const TRIGGER_LEVEL: u64 = 1 << 15;
const LOGICAL: u64 = 1 << 11;
/// Bits 12, 13, 16, 17 and 20 to 31: a write with one of them set is a #GP on a CPU.
const RESERVED: u64 = 0xFFF3_3000;
const BROADCAST: u32 = u32::MAX;
/// Vectors below this are for exceptions. The APIC sends those from 16 on, but whoever has the core next (another dataplane,
/// the monitor) would take such an interrupt for an exception.
pub const VECTOR_MIN: u8 = 32;

/// Why a write is not carried out. Each is a misdeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    ReservedBits,
    Smi,
    LowestPriority,
    ExtInt,
    /// Delivery mode 3.
    ReservedMode,
    Logical,
    /// Level-triggered, but no INIT.
    LevelTriggered,
    /// A vector below 32.
    Vector(u8),
    /// A destination that is no core of the dataplane.
    NotOwn(u32),
    /// INIT, start-up IPI or SMI to oneself by shorthand, which the SDM does not allow.
    Oneself,
}

impl Refusal {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bits",
            Self::Smi => "an SMI",
            Self::LowestPriority => "lowest-priority delivery",
            Self::ExtInt => "ExtINT",
            Self::ReservedMode => "a reserved delivery mode",
            Self::Logical => "a logical destination",
            Self::LevelTriggered => "a level-triggered interrupt",
            Self::Vector(_) => "a vector below 32",
            Self::NotOwn(_) => "a core of somebody else",
            Self::Oneself => "INIT or start-up to itself",
        }
    }
}

/// What a write means. Cores are numbered as in the list of the dataplane's own APIC ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send each of them [`fixed`], if it is running this dataplane; else keep it for when it does.
    Deliver {
        to: Cores,
        vector: u8,
    },
    Init(Cores),
    /// Real mode, CS:IP = `page * 4096`.
    Startup {
        to: Cores,
        page: u8,
    },
    Nmi(Cores),
    /// INIT level de-assert: no CPU since the Pentium 4 does anything about it.
    Nothing,
    Refuse(Refusal),
}

/// The value for the real ICR that sends a fixed interrupt to one core.
#[must_use]
pub const fn fixed(apic_id: u32, vector: u8) -> u64 {
    (apic_id as u64) << 32 | LEVEL_ASSERT | vector as u64
}

/// Judges a write of `value` by core `me` of the dataplane whose cores' APIC ids are `own` (64 at most
/// count).
#[must_use]
pub fn judge(value: u64, own: &[u32], me: usize) -> Action {
    let vector = value as u8;
    let mode = value >> 8 & 7;
    if value & RESERVED != 0 {
        return Action::Refuse(Refusal::ReservedBits);
    }
    let early = match mode {
        1 => Some(Refusal::LowestPriority),
        2 => Some(Refusal::Smi),
        3 => Some(Refusal::ReservedMode),
        7 => Some(Refusal::ExtInt),
        _ => None,
    };
    if let Some(refusal) = early {
        return Action::Refuse(refusal);
    }
    let to = match targets(value, own, me) {
        Ok(to) => to,
        Err(refusal) => return Action::Refuse(refusal),
    };
    let is_init = mode == 5;
    if value & TRIGGER_LEVEL != 0 {
        let deassert = is_init && value & LEVEL_ASSERT == 0;
        return if deassert { Action::Nothing } else { Action::Refuse(Refusal::LevelTriggered) };
    }
    match mode {
        0 if vector < VECTOR_MIN => Action::Refuse(Refusal::Vector(vector)),
        0 => Action::Deliver { to, vector },
        4 => Action::Nmi(to),
        _ if to.has(me) => Action::Refuse(Refusal::Oneself),
        5 => Action::Init(to),
        _ => Action::Startup { to, page: vector },
    }
}

fn targets(value: u64, own: &[u32], me: usize) -> Result<Cores, Refusal> {
    let all = Cores::first(own.len());
    match value >> 18 & 3 {
        1 => return Ok(Cores::one(me)),
        2 => return Ok(all),
        3 => return Ok(all.without(me)),
        _ => {}
    }
    let destination = (value >> 32) as u32;
    if value & LOGICAL != 0 {
        return Err(Refusal::Logical);
    }
    if destination == BROADCAST {
        return Ok(all);
    }
    let found = own.iter().take(Cores::MAX).position(|id| *id == destination);
    found.map(Cores::one).ok_or(Refusal::NotOwn(destination))
}
