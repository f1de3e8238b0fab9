//! What the network reports of a connection's packets, in ICMP errors. Anybody can write such a
//! report, so it has to name what is in flight (RFC 5927 §4.1), and an established connection does not
//! end for one (RFC 5461 §4.1).
use crate::conn::State;
use crate::group::FlowGroup;
use crate::local::Local;
use crate::tcp::close;
use crate::tcp::pmtu::{self, Path};
use crate::tcp::seq::WrappingSeq;
use ix_abi::DeadReason;
use ix_abi::stats::{Counter, Drop};

/// What a report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A packet did not fit: the next link takes packets up to so many bytes; 0: it is not said
    /// (RFC 1191 §4, RFC 8201 §3).
    TooBig(u16),
    /// Nothing will ever get there this way.
    Hard,
    /// It did not get there now (RFC 1122 §4.2.3.9).
    Soft,
}

/// A report on the packet of `packet_len` bytes that began at sequence number `seq`.
#[cold]
pub fn handle(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    report: Report,
    seq: WrappingSeq,
    packet_len: u16,
) {
    let conn = &mut group.conns[index];
    if seq.before(conn.snd_una) || !seq.before(conn.snd_max) {
        return local.stats.drop(Drop::IcmpUnproven);
    }
    local.stats.add(Counter::IcmpErrors, 1);
    match (report, conn.state) {
        (Report::TooBig(mtu), _) => pmtu::too_big(group, local, index, mtu, packet_len),
        (Report::Hard, State::SynSent | State::SynReceived) => {
            close::end(group, local, index, DeadReason::Unreachable);
        }
        // RFC 1122 has it keep trying, RFC 5461 §5 tells why nobody waits for long: once more.
        (Report::Soft, State::SynSent) if conn.snd_una != conn.snd_max && conn.retries > 0 => {
            close::end(group, local, index, DeadReason::Unreachable);
        }
        // If it ends by time, this is why.
        _ => {
            conn.path |= Path::UNREACHABLE;
            conn.predict();
        }
    }
}
