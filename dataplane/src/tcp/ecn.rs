//! Explicit congestion notification (RFC 3168): agreed on in the handshake; marks that arrive are
//! echoed, echoes that arrive are answered once per window of data. With DCTCP marks are echoed
//! exactly, change by change (RFC 8257 §3.2).
use crate::conn::{Conn, State};
use crate::local::Local;
use crate::mbuf::Mbuf;
use crate::tcp::congestion::{Algorithm, CongestionControl};
use crate::tcp::output;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{Packet, flag};
use bitflags::bitflags;

/// Whether connections use explicit congestion notification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Never.
    Off,
    /// If the peer asks; and asked for by connections of an algorithm that needs it.
    #[default]
    Accept,
    /// Asked for by every connection.
    On,
}

bitflags! {
    /// What is true of a connection's notification of congestion.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ecn: u8 {
        /// Our SYN asks for it.
        const ASKED = 1 << 0;
        /// Both ends do it.
        const ON = 1 << 1;
        /// Acknowledgements say that marks have arrived.
        const ECHO = 1 << 2;
        /// The window was reduced, and `Conn::ecn_end` is not passed yet. New data from there says so.
        const REDUCED = 1 << 3;
        /// The acknowledgement that is being taken echoes marks: it does not make the window grow
        /// (§6.1.2).
        const ECHOED = 1 << 4;
    }
}

/// Code point ECT(0) in the IP header's second byte.
pub const ECT0: u8 = 2;
/// Code point CE, and the mask of all.
pub const CE: u8 = 3;

fn is_dctcp(conn: &Conn) -> bool {
    conn.cc.algorithm() == Algorithm::Dctcp
}

/// Takes what the peer's SYN or SYN-ACK says of it (§6.1.1).
#[inline(always)]
pub fn take_syn(conn: &mut Conn, local: &Local, packet: &Packet) {
    let agreed = if packet.has(flag::ACK) {
        let both = flag::ECE | flag::CWR;
        conn.ecn.contains(Ecn::ASKED) && packet.flags & both == flag::ECE
    } else {
        asked(local, packet)
    };
    conn.ecn.set(Ecn::ON, agreed);
    conn.predict();
}

/// Whether a SYN asks for it, and may have it.
pub fn asked(local: &Local, packet: &Packet) -> bool {
    let both = flag::ECE | flag::CWR;
    local.ecn != Mode::Off && packet.flags & both == both
}

/// A segment that is not acceptable: a SYN sent again, which asks for less than the first, perhaps,
/// since that seemed to be lost for asking (§6.1.1.1).
pub fn syn_again(conn: &mut Conn, packet: &Packet) {
    let bits = flag::SYN | flag::ACK | flag::ECE | flag::CWR;
    if conn.state == State::SynReceived && packet.flags & bits == flag::SYN {
        conn.ecn -= Ecn::ON;
        conn.predict();
    }
}

/// The control bits and the code point of our SYN or SYN-ACK. A SYN that is sent again does not ask
/// any more. DCTCP's are marked as capable, or the network that it is for would drop them (RFC
/// 8257 §3.6).
pub fn syn_bits(conn: &mut Conn, local: &Local) -> (u8, u8) {
    let dctcp = is_dctcp(conn) && local.ecn != Mode::Off;
    let tos = if dctcp { ECT0 } else { 0 };
    if conn.state == State::SynReceived {
        return if conn.ecn.contains(Ecn::ON) { (flag::ECE, tos) } else { (0, 0) };
    }
    let asks = conn.snd_max == conn.iss && (dctcp || local.ecn == Mode::On);
    conn.ecn.set(Ecn::ASKED, asks);
    if asks { (flag::ECE | flag::CWR, tos) } else { (0, 0) }
}

/// The control bits and the code point of a segment from `seq` with `len` bytes of payload. New data
/// is marked as capable; what is sent again is not, nor are acknowledgements and probes (§6.1.4 to
/// §6.1.6).
#[inline(always)]
pub fn bits(conn: &Conn, seq: WrappingSeq, len: u32, flags: u8) -> (u8, u8) {
    if conn.ecn.contains(Ecn::ON) { bits_if_on(conn, seq, len, flags) } else { (0, 0) }
}

fn bits_if_on(conn: &Conn, seq: WrappingSeq, len: u32, flags: u8) -> (u8, u8) {
    if flags & flag::RST != 0 {
        return (0, if is_dctcp(conn) { ECT0 } else { 0 });
    }
    let echo = if conn.ecn.contains(Ecn::ECHO) { flag::ECE } else { 0 };
    if len == 0 || seq.before(conn.snd_max) {
        return (echo, 0);
    }
    (echo | if tells(conn, seq) { flag::CWR } else { 0 }, ECT0)
}

/// Whether new data from `seq` tells that the window was reduced: the first does (§6.1.2).
pub fn tells(conn: &Conn, seq: WrappingSeq) -> bool {
    conn.ecn.contains(Ecn::REDUCED) && seq == conn.ecn_end
}

/// An acceptable segment of a connection that does it, before its acknowledgement and payload are
/// taken. `silent`: nothing is to be sent, since its group is about to go.
pub fn arrived(conn: &mut Conn, local: &mut Local, packet: &Packet, mbuf: &Mbuf, silent: bool) {
    if packet.len > 0 {
        data(conn, local, packet, mbuf, silent);
    }
    acknowledged(conn, local, packet);
}

/// The receiver's part: what the next acknowledgements say.
fn data(conn: &mut Conn, local: &mut Local, packet: &Packet, mbuf: &Mbuf, silent: bool) {
    if is_dctcp(conn) {
        if packet.ce != conn.ecn.contains(Ecn::ECHO) {
            // RFC 8257 §3.2: what is not acknowledged yet came under the old state.
            // (Unless that would leave behind what the group's next owner sends: then the peer hears of the change late.)
            if conn.ack_owed > 0 && !silent {
                output::acknowledge_apart(conn, local, mbuf, packet.frame);
            }
            conn.ecn.toggle(Ecn::ECHO);
        }
        return;
    }
    if packet.has(flag::CWR) {
        conn.ecn -= Ecn::ECHO;
    }
    if packet.ce {
        conn.ecn |= Ecn::ECHO;
    }
}

/// The sender's part.
fn acknowledged(conn: &mut Conn, local: &Local, packet: &Packet) {
    if packet.ack.after(conn.snd_max) {
        return;
    }
    let echo = packet.has(flag::ECE);
    conn.ecn.set(Ecn::ECHOED, echo);
    if packet.ack.after(conn.snd_una) {
        let acked = packet.ack.since(conn.snd_una);
        // That of the SYN says nothing of data.
        if conn.snd_una != conn.iss {
            conn.cc.echoed(acked, echo, packet.ack, conn.snd_nxt);
        }
        if packet.ack.after(conn.ecn_end) {
            conn.ecn -= Ecn::REDUCED;
        }
    }
    if echo && !conn.ecn.contains(Ecn::REDUCED) && conn.snd_una.before(conn.snd_max) {
        react(conn, local);
    }
}

/// Congestion: once for all that is in flight (§6.1.2). If that was reduced for a loss already, the
/// peer is only told so.
#[cold]
fn react(conn: &mut Conn, local: &Local) {
    let recovering = conn.snd_una.before(conn.recover) && !conn.recover.after(conn.snd_max);
    if !recovering {
        let flight = conn.snd_max.since(conn.snd_una);
        conn.cc.marked(flight, u32::from(conn.mss), local.now);
    }
    conn.ecn |= Ecn::REDUCED;
    conn.ecn_end = conn.snd_max;
}
