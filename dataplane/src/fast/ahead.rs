//! What the frames of a batch will need, asked for before the first of them is taken: so memory is waited for once for several
//! frames, and not by each of them twice, for the head of its chain and then for its connection.
use super::parse;
use crate::conn::CONN_LINES;
use crate::device::RxFrame;
use crate::flow_table::Link;
use crate::group::FlowGroup;
use crate::local::Local;
use crate::prefetch;
use crate::rss::group_of;
use alloc::boxed::Box;
use ix_abi::stats::Counter;

/// For how many frames at once: what they ask for has to fit what a core waits for at a time, and its first cache.
pub const AHEAD: usize = 8;

/// What up to so many connections need for a message fits a second-level cache: 128 bytes each. With fewer it is there, and to ask
/// for it costs more than to wait.
const FEW: u64 = 2_048;

/// Asks for what `frames` need; nothing for a single one, which cannot gain by it. With many connections, a frame that is about TCP
/// and has no hash gets one. Nothing else changes.
#[inline(always)]
pub fn look_ahead(local: &Local, groups: &[Option<Box<FlowGroup>>], frames: &mut [RxFrame]) {
    if frames.len() > 1 {
        ask(local, groups, frames);
    }
}

/// A chain that a frame will follow.
type Chain<'a> = Option<(&'a FlowGroup, &'a Link)>;

#[inline(never)]
fn ask(local: &Local, groups: &[Option<Box<FlowGroup>>], frames: &mut [RxFrame]) {
    let area = local.pool.area();
    for frame in frames.iter() {
        if let Some(header) = area.data(&frame.mbuf).get(usize::from(frame.offset)) {
            prefetch::lines(header, 2);
        }
    }
    if local.stats.get(Counter::TcpConnections) > FEW {
        ask_for_connections(local, groups, frames);
    }
}

#[inline(never)]
fn ask_for_connections(local: &Local, groups: &[Option<Box<FlowGroup>>], frames: &mut [RxFrame]) {
    let mut chains: [Chain<'_>; AHEAD] = [None; AHEAD];
    let mut before = 0;
    for (frame, chain) in frames.iter_mut().zip(&mut chains) {
        if frame.hash.is_none() {
            frame.hash = parse::early_hash(local, frame);
        }
        // Those of one flow, one after the other, ask once.
        if let Some(hash) = frame.hash.filter(|hash| *hash != before) {
            before = hash;
            *chain = chain_of(local, groups, hash);
        }
    }
    for (group, link) in chains.iter().flatten() {
        if let Some(conn) = group.conns.get((**link).into()) {
            prefetch::lines(conn, CONN_LINES);
        }
    }
}

/// The chain of a hash, whose head is asked for.
#[inline(always)]
fn chain_of<'a>(local: &Local, groups: &'a [Option<Box<FlowGroup>>], hash: u32) -> Chain<'a> {
    let group = groups.get(usize::from(group_of(hash, local.groups).0))?.as_deref()?;
    let link = group.table.head(hash)?;
    prefetch::lines(link, 1);
    Some((group, link))
}
