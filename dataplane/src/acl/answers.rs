//! What the sender of a rejected packet is told: RST for TCP, ICMP "administratively prohibited" for the
//! rest (RFC 1812 §5.2.7.1), at a bounded rate (RFC 1812 §4.3.2.8).
use crate::checksum;
use crate::device::RxFrame;
use crate::family::Family;
use crate::input::eth::HEADER as ETHERNET;
use crate::input::icmpv6;
use crate::input::ipv4::Ip;
use crate::ipv4;
use crate::limits::{REJECTS_BURST, REJECTS_EVERY};
use crate::local::Local;
use crate::time::Instant;
use crate::tx::Staged;
use arrayvec::ArrayVec;
use ix_abi::stats::Drop;
use ix_acl::Action;

/// Destination unreachable, communication administratively prohibited.
const PROHIBITED: [u8; 2] = [3, 13];
const ICMP_HEADER: usize = 8;
/// What an ICMP error quotes of a packet: its header and eight bytes.
const QUOTED: usize = ipv4::HEADER + 8;

/// When the bucket of answers is full again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers(Instant);

/// Whether a rejected sender may be told. What is not is counted.
pub fn may_tell(local: &mut Local, action: Action) -> bool {
    if action != Action::Reject {
        return false;
    }
    let full_at = local.acl_answers.0.max(local.now) + REJECTS_EVERY;
    if full_at.since(local.now) > REJECTS_BURST {
        local.stats.drop(Drop::AclUntold);
        return false;
    }
    local.acl_answers = Answers(full_at);
    true
}

/// Tells the sender of a datagram or an ICMP message, and lets the buffer go.
#[cold]
pub fn prohibited<A: Family>(local: &mut Local, action: Action, frame: RxFrame, ip: &Ip<A>) {
    if may_tell(local, action) {
        let told = if A::VERSION == 4 {
            stage(local, &frame, ip)
        } else {
            icmpv6::prohibited(local, &frame, ip.start, ip.payload + ip.len)
        };
        if !told {
            local.stats.drop(Drop::AclUntold);
        }
    }
    local.pool.free(frame.mbuf);
}

fn stage<A: Family>(local: &mut Local, frame: &RxFrame, ip: &Ip<A>) -> bool {
    const LEN: usize = ETHERNET + ipv4::HEADER + ICMP_HEADER + QUOTED;
    let data = local.pool.area().data(&frame.mbuf);
    // A header with options would not fit; nor is one worth it.
    if ip.payload - ip.start != ipv4::HEADER {
        return false;
    }
    let at = usize::from(frame.offset);
    let (Some(ethernet), Some(quoted)) =
        (data.get(at..at + ETHERNET), data.get(ip.start..ip.start + QUOTED))
    else {
        return false;
    };
    let mut f = ArrayVec::from([0; 96]);
    f.truncate(LEN);
    f[0..6].copy_from_slice(&ethernet[6..12]);
    f[6..12].copy_from_slice(&local.mac);
    f[12..14].copy_from_slice(&[8, 0]);
    let total = (LEN - ETHERNET) as u16;
    let to = <[u8; 4]>::from_ip(ip.source.to_ip());
    ipv4::emit(&mut f[ETHERNET..], local.address, to, ipv4::ICMP, total);
    let icmp = &mut f[ETHERNET + ipv4::HEADER..];
    icmp[..2].copy_from_slice(&PROHIBITED);
    icmp[ICMP_HEADER..].copy_from_slice(quoted);
    let field = checksum::finish(checksum::sum(icmp));
    icmp[2..4].copy_from_slice(&field);
    local.tx.stage(Staged::Bytes(f)).is_ok()
}
