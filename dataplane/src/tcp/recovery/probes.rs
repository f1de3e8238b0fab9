//! Loss probes and their answers (RFC 8985 §7.4).
use super::Stage;
use crate::group::FlowGroup;
use crate::local::Local;
use crate::tcp::congestion::{self, CongestionControl};
use crate::tcp::sack::Told;
use crate::tcp::wire::Packet;

/// What an acknowledgement says about the loss probe (RFC 8985 §7.4.2).
pub(super) fn probed(
    group: &mut FlowGroup,
    local: &Local,
    index: u32,
    packet: &Packet,
    told: &Told,
    outstanding: u32,
) {
    let conn = &mut group.conns[index];
    let recovery = &mut group.recoveries[conn.recovery];
    let Some(probe) = recovery.probe.filter(|probe| !packet.ack.before(probe.end)) else { return };
    let twice = told.duplicate.is_some_and(|(_, right)| right == probe.end);
    let repeated = packet.ack == probe.end
        && conn.snd_una == packet.ack
        && outstanding == conn.flight()
        && packet.seq_len() == 0
        && told.blocks.is_empty();
    if !probe.again || twice || repeated {
        recovery.probe = None;
    } else if packet.ack.after(probe.end) {
        // It has repaired the only loss of a flight, which is a loss all the same.
        recovery.probe = None;
        if recovery.stage == Stage::Disorder {
            let flight = congestion::within_window(conn, outstanding);
            conn.cc.lost(flight, u32::from(conn.mss), local.now);
            conn.cc.recovered(conn.pipe(), u32::from(conn.mss), local.now);
        }
    }
}
