//! `sendv`: references to the application's memory, or to receive buffers that it holds, go to the
//! connection's send queue. What the window does not admit is refused, never stored.
use super::{Outcome, tcp};
use crate::conn::{Conn, Flags, Pending};
use crate::engine::Engine;
use crate::group::FlowGroup;
use crate::limits::SEGMENTS_PER_CONNECTION;
use crate::local::Local;
use crate::mbuf::{Holder, Mbuf};
use crate::tcp::acks;
use crate::tcp::send_queue::{self, Segments, Source};
use crate::usermem::Extent;
use arrayvec::ArrayVec;
use ix_abi::call::{SENDV_INLINE_SG, SgEntry};
use ix_abi::limits::SG_MAX;
use ix_abi::stats::Counter;
use ix_abi::{Call, Handle, Status};

/// The scatter-gather entries of a call, each read once.
pub(super) type Entries = ArrayVec<SgEntry, SG_MAX>;

/// Collects the entries of the call at the head of the ring.
#[inline]
pub(super) fn collect(
    entries: &mut Entries,
    local: &Local,
    call: &Call,
    count: usize,
    inline: usize,
) {
    for entry in call.inline_sg().iter().take(inline.min(count)) {
        entries.push(*entry);
    }
    let Some(app) = &local.app else { return };
    let mut ahead = 1;
    while entries.len() < count {
        for entry in app.rings.sg(ahead) {
            if entries.len() < count {
                entries.push(entry);
            }
        }
        ahead += 1;
    }
}

/// The leading part of `[addr, addr + len)` that is contiguous for the device; pinned or referenced.
#[inline]
pub fn locate(local: &mut Local, addr: u64, len: u64) -> Result<(Extent, Source), Status> {
    let memory = local.memory.as_ref().ok_or(Status::Fault)?;
    if let Some((extent, frame)) = memory.pin(local.core, addr, len) {
        return Ok((extent, Source::frame(frame)));
    }
    let area = local.pool.area();
    let (index, offset) = area.locate(addr).ok_or(Status::Fault)?;
    if !holds(local, area.holder(index)) {
        return Err(Status::Fault);
    }
    // Only what was received into it: the rest of a buffer is not scrubbed.
    let mbuf = Mbuf::from_raw(index);
    let meta = area.meta(&mbuf);
    let extent = area.extent(&mbuf, offset, len.min(u64::from(u32::MAX)) as u32);
    let _still_held = mbuf.into_raw();
    let (from, to) = (u32::from(meta.offset), u32::from(meta.offset) + u32::from(meta.len));
    let at = u32::from(offset);
    if at < from || at + extent.len() > to || u64::from(extent.len()) < len {
        return Err(Status::Fault);
    }
    local.pool.reference(index);
    Ok((extent, Source::buffer(index)))
}

/// Whether this core delivered the buffer to the application and has not got it back.
#[inline]
fn holds(local: &Local, holder: Holder) -> bool {
    match holder.as_group() {
        Some(id) => local.owners.get(usize::from(id.0)) == Some(&local.core),
        None => holder == Holder::core(local.core) || holder == Holder::relic(local.core),
    }
}

/// `sendv`, which may also return `done` received bytes.
#[inline]
pub(super) fn sendv(
    engine: &mut Engine,
    call: &Call,
    handle: Handle,
    count: usize,
    done: u64,
) -> Outcome {
    let mut entries = Entries::new();
    collect(&mut entries, &engine.local, call, count, SENDV_INLINE_SG);
    match accept_and_return(engine, handle, &entries, done) {
        Ok((accepted, refused)) => {
            let status = if refused { Status::Again } else { Status::Ok };
            Outcome { value: u64::from(accepted), ..Outcome::new(status, handle) }
        }
        Err(status) => Outcome::new(status, handle),
    }
}

/// [`accept`], then `recv_done` of `done` bytes, whose memory the entries may name.
#[inline]
fn accept_and_return(
    engine: &mut Engine,
    handle: Handle,
    entries: &Entries,
    done: u64,
) -> Result<(u32, bool), Status> {
    if done == 0 {
        return accept(engine, handle, entries);
    }
    let (group, _, index) = tcp::find_accepted(engine, handle)?;
    if done > u64::from(group.conns[index].rx_held) {
        return Err(Status::Invalid);
    }
    let outcome = accept(engine, handle, entries)?;
    tcp::recv_done(engine, handle, done)?;
    Ok(outcome)
}

/// Returns the bytes accepted, and whether others were refused.
#[inline]
fn accept(engine: &mut Engine, handle: Handle, entries: &Entries) -> Result<(u32, bool), Status> {
    let (group, local, index) = tcp::find_accepted(engine, handle)?;
    let conn = &mut group.conns[index];
    let gone = Flags::FIN_QUEUED | Flags::APP_CLOSED | Flags::ENDED;
    if conn.flags.intersects(gone) || !conn.state.can_send() {
        return Err(Status::State);
    }
    let mut wanted: u64 = 0;
    for entry in entries {
        wanted += entry.checked()?.len;
    }
    if conn.refused_batch == local.batch {
        if wanted > 0 {
            refuse(group, local, index);
        }
        return Ok((0, wanted > 0));
    }
    let room = if acks::worth_sending(conn) { conn.send_room() } else { 0 };
    let room = if wanted <= u64::from(conn.send_room()) { wanted as u32 } else { room };
    let (count, end) = (conn.seg_count, conn.snd_end);
    let appended = append(conn, &mut group.segments, local, entries, room);
    let accepted = match appended {
        Ok(accepted) => accepted,
        Err(status) => {
            send_queue::undo(conn, &mut group.segments, count, end, local);
            return Err(status);
        }
    };
    local.stats.add(Counter::PayloadOut, u64::from(accepted));
    let refused = u64::from(accepted) < wanted;
    if refused {
        refuse(group, local, index);
    }
    if accepted > 0 || refused {
        group.want_output(index, local);
    }
    Ok((accepted, refused))
}

/// Something was refused: a `sent` will announce a window, and the rest of the batch is refused too.
fn refuse(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    conn.refused_batch = local.batch;
    conn.flags |= Flags::REFUSED;
    // For want of segments while nothing is under way, or in a batch that was cut off after the window was
    // announced: no acknowledgement will come that makes room, so the window is announced as it is.
    if conn.snd_una == conn.snd_end && acks::worth_sending(conn) {
        group.want_event(index, Pending::SENT, local);
    }
}

/// Appends at most `room` bytes.
#[inline]
fn append(
    conn: &mut Conn,
    segments: &mut Segments,
    local: &mut Local,
    entries: &Entries,
    room: u32,
) -> Result<u32, Status> {
    let mut accepted = 0;
    for entry in entries {
        let (mut addr, mut len) = (entry.addr, entry.len.min(u64::from(room - accepted)));
        while len > 0 {
            if conn.seg_count >= SEGMENTS_PER_CONNECTION {
                return Ok(accepted);
            }
            let (extent, source) = locate(local, addr, len)?;
            if !send_queue::append(conn, segments, extent, source) {
                source.release(local);
                return Ok(accepted);
            }
            accepted += extent.len();
            addr += u64::from(extent.len());
            len -= u64::from(extent.len());
        }
    }
    Ok(accepted)
}
