//! What a dataplane is told that gives a core away: the word that the monitor answers its call with.

use ix_abi::control::GiveRefusal;

use super::moves::Refusal;

#[cfg(test)]
mod tests;

/// Of an answer: it is asked for, on behalf of the dataplane in bits 0 to 7.
const ASKED: u64 = 1 << 16;

/// The word.
#[must_use]
pub fn to_word(answer: Result<u8, GiveRefusal>) -> u64 {
    match answer {
        Ok(to) => ASKED | u64::from(to),
        Err(why) => u64::from(why.0),
    }
}

/// What it says.
pub const fn from_word(word: u64) -> Result<u8, GiveRefusal> {
    if word & ASKED != 0 { Ok(word as u8) } else { Err(GiveRefusal(word as u16)) }
}

/// As the operator is told.
impl From<Refusal> for GiveRefusal {
    fn from(why: Refusal) -> Self {
        match why {
            Refusal::NotListed(_) => Self::NotListed,
            Refusal::Down(_) => Self::Down,
            Refusal::Away => Self::Away,
            Refusal::UnderWay => Self::UnderWay,
        }
    }
}
