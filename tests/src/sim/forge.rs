//! Segments that nobody sent, to dataplanes: what an attacker who guesses well would send, and what
//! a sequence space that has wrapped would bring back. None may do harm.
use super::net::StationId;
use super::referee::{Flow, Half, Key, Referee};
use super::wire::{Segment, emit, flag};
use ix_dataplane::rng::Rng;

/// A frame for a dataplane, made up from a connection that it has; at once to be delivered.
pub fn frame(referee: &Referee, machines: u8, rng: &mut Rng) -> Option<(StationId, Vec<u8>)> {
    // One that both have closed may be gone, and who speaks to it is told so.
    let open = |(_, flow): &(&Key, &Flow)| {
        let over = flow.halves.iter().all(Half::is_over);
        flow.halves.iter().all(|half| half.established) && !over && !flow.muddy
    };
    let count = referee.flows.iter().filter(open).count() as u64;
    if count == 0 {
        return None;
    }
    let (key, flow) = referee.flows.iter().filter(open).nth(rng.below(count) as usize)?;
    let side = rng.below(2) as usize;
    let (ends, to) = if side == 0 { ((key.0, key.1), key.1.0) } else { ((key.1, key.0), key.0.0) };
    if to >= machines {
        return None;
    }
    let (from, to) = (StationId(ends.0.0), StationId(to));
    let segment =
        Segment { ips: (from.ip(), to.ip()), ports: (ends.0.1, ends.1.1), ..lie(flow, side, rng)? };
    Some((to, emit((from.mac(), to.mac()), &segment)))
}

fn garbage(rng: &mut Rng) -> Vec<u8> {
    vec![0xee; 1 + rng.below(100) as usize]
}

/// A segment of `side` that is none of its.
fn lie(flow: &Flow, side: usize, rng: &mut Rng) -> Option<Segment> {
    let (ours, theirs) = (&flow.halves[side], &flow.halves[1 - side]);
    // What the other side last said that it has of ours.
    let (have, _) = theirs.told;
    // A clock that is ahead of what has arrived would make all that is on its way look old, and no receiver
    // could know better.
    let plain = Segment {
        seq: ours.seq(ours.max),
        ack: theirs.seq(ours.told.0),
        flags: flag::ACK,
        window: ours.window,
        ts: if flow.has_timestamps() { Some((ours.ts_arrived?, ours.ts?.1)) } else { None },
        ..Segment::default()
    };
    let beyond = 1 + rng.below(1000) as i64;
    // More than what an engine can have sent that has not left yet.
    let unsent = theirs.max + (1 << 20) + beyond;
    Some(match rng.below(8) {
        // RFC 5961 §3.2: in the window, but not where it must be. (No ACK: no timestamp is needed.)
        0 => Segment { seq: ours.seq(ours.max + beyond), flags: flag::RST, ..plain },
        // §4.2. In TIME-WAIT it would be a new connection.
        1 if !ours.is_over() && !theirs.is_over() => {
            Segment { seq: ours.seq(ours.max + beyond), flags: flag::SYN, ts: None, ..plain }
        }
        // §5.2: acknowledges what was never sent.
        2 => {
            Segment { seq: ours.seq(have), ack: theirs.seq(unsent), payload: garbage(rng), ..plain }
        }
        // Other bytes in the place of those that were received. What is outside of the window must not
        // advance the clock either, or what is on its way were late (RFC 7323 §5.3 R2).
        3 => {
            let payload = garbage(rng);
            let from = (have - payload.len() as i64).max(1);
            let payload = payload[..(have - from).clamp(0, payload.len() as i64) as usize].to_vec();
            let ahead = if payload.is_empty() { 0 } else { rng.below(1000) as u32 };
            let ts = plain.ts.map(|(value, echo)| (value.wrapping_add(ahead), echo));
            Segment { seq: ours.seq(from), payload, ts, ..plain }
        }
        // RFC 7323 §5.3: older than what was echoed, so from before the numbers wrapped.
        4 => {
            let (_, recent) = theirs.ts?;
            let (_, echo) = ours.ts?;
            let ts = Some((recent.wrapping_sub(1 + rng.below(1000) as u32), echo));
            Segment { seq: ours.seq(have), payload: garbage(rng), ts, ..plain }
        }
        // RFC 2018: blocks of what was never sent, and of what is long acknowledged.
        _ if flow.has_sack() => {
            let above = (theirs.seq(unsent), theirs.seq(unsent + 1000));
            let over = (theirs.seq(theirs.max - 1), theirs.seq(unsent));
            let upside_down = (above.1, above.0);
            let sacks = vec![[above, over, upside_down][rng.below(3) as usize]];
            Segment { seq: ours.seq(ours.max), sacks, ..plain }
        }
        _ => return None,
    })
}
