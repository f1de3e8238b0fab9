//! How much goes out during fast recovery: proportional rate reduction (RFC 6937).
use super::{Recoveries, Stage};
use crate::conn::{Conn, Flags};
use crate::flow_table::NIL;
use crate::tcp::congestion::CongestionControl;
use crate::tcp::seq::WrappingSeq;

/// The account of one recovery, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// What was under way when it began.
    flight: u32,
    /// Delivered since.
    delivered: u32,
    /// Sent since.
    out: u32,
    /// May be sent now.
    allowance: u32,
}

impl Account {
    /// Recovery begins. The first segment goes out whatever the rest says (§3).
    pub fn new(flight: u32, mss: u32) -> Account {
        Account { flight: flight.max(1), allowance: mss, ..Account::default() }
    }
}

/// Bytes that congestion control lets go out now.
#[inline]
pub fn allowance(conn: &Conn, recoveries: &Recoveries) -> u32 {
    if conn.recovery != NIL && recoveries[conn.recovery].stage == Stage::Fast {
        return recoveries[conn.recovery].account.allowance;
    }
    conn.cc.window().saturating_sub(conn.pipe())
}

/// `bytes` went out; `again`: not for the first time, and up to `end`.
pub fn went_out(conn: &Conn, recoveries: &mut Recoveries, bytes: u32, again: Option<WrappingSeq>) {
    if conn.recovery == NIL {
        return;
    }
    let recovery = &mut recoveries[conn.recovery];
    let account = &mut recovery.account;
    account.out = account.out.saturating_add(bytes);
    account.allowance = account.allowance.saturating_sub(bytes);
    if let Some(end) = again {
        recovery.again_end = recovery.again_end.later(end);
    }
}

/// `delivered` more bytes have arrived (§3.1, with the slow-start reduction bound); `advances`: `snd_una` has moved.
pub(super) fn reduce(conn: &Conn, recoveries: &mut Recoveries, delivered: u32, advances: bool) {
    let recovery = &mut recoveries[conn.recovery];
    if recovery.stage != Stage::Fast {
        return;
    }
    let account = &mut recovery.account;
    let (pipe, target, mss) = (conn.pipe(), conn.cc.window(), u32::from(conn.mss));
    account.delivered = account.delivered.saturating_add(delivered);
    let allowance = if pipe > target {
        let share = u64::from(account.delivered) * u64::from(target);
        let share = share.div_ceil(u64::from(account.flight));
        share.saturating_sub(u64::from(account.out)).min(u64::from(u32::MAX)) as u32
    } else {
        let limit = account.delivered.saturating_sub(account.out).max(delivered) + mss;
        (target - pipe).min(limit)
    };
    // Without selective acknowledgements what has arrived is a guess, and after a partial acknowledgement perhaps
    // nothing is under way that would bring another: the next hole goes out at once (RFC 6582 §3.2 step 3).
    let partial = advances && conn.lost > 0 && !conn.flags.contains(Flags::SACK);
    let least = if account.out == 0 || partial { mss } else { 0 };
    account.allowance = allowance.max(least);
}
