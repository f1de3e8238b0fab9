//! ICMP (RFC 792): echo requests are answered in the buffer in which they came; errors are
//! [`icmp_error`]'s.
use super::eth::{self, HEADER as ETHERNET};
use super::icmp_error;
use super::ipv4::Ip;
use crate::acl::{self, Counts, answers};
use crate::checksum;
use crate::device::{RxChecksum, RxFrame};
use crate::engine::Engine;
use crate::ipv4;
use crate::tx::Staged;
use ix_abi::IpAddress;
use ix_abi::stats::{Counter, Drop};
use ix_acl::{Action, Direction, Flow};

const ECHO_REQUEST: u8 = 8;
const HEADER: usize = 8;

/// Takes an ICMP packet.
#[inline(never)]
pub fn handle(engine: &mut Engine, mut frame: RxFrame, ip: &Ip<[u8; 4]>) {
    let local = &mut engine.local;
    let area = local.pool.area();
    let plain = ip.payload - ip.start == ipv4::HEADER;
    let message = area.data(&frame.mbuf).get(ip.payload..ip.payload + ip.len).unwrap_or(&[]);
    let echo = message.len() >= HEADER && message[0] == ECHO_REQUEST && message[1] == 0;
    let intact = frame.checksum == RxChecksum::Good || checksum::is_good(checksum::sum(message));
    let [kind, code] = message.first_chunk().copied().unwrap_or_default();
    if message.len() < HEADER || !intact {
        return eth::drop(engine, frame, Drop::Icmp);
    }
    if icmp_error::is_error(kind) {
        return icmp_error::handle(engine, frame, ip);
    }
    let remote = IpAddress::v4(ip.source);
    let question = Flow::icmp(Direction::In, remote, local.ip(), kind, code);
    if let Err(action) = acl::judge(local, &question, Counts::Rate) {
        // No error about what is no request (RFC 1122 §3.2.2).
        let action = if echo { action } else { Action::Deny };
        return answers::prohibited(local, action, frame, ip);
    }
    if !plain || !echo {
        return eth::drop(engine, frame, Drop::Icmp);
    }
    let answer = Flow::icmp(Direction::Out, remote, local.ip(), 0, 0);
    if acl::judge(local, &answer, Counts::Nothing).is_err() {
        return local.pool.free(frame.mbuf);
    }
    let at = usize::from(frame.offset);
    let len = ETHERNET + ipv4::HEADER + ip.len;
    let (mac, address) = (local.mac, local.address);
    let Some(f) = area.data_mut(&mut frame.mbuf).get_mut(at..at + len) else {
        return eth::drop(engine, frame, Drop::Truncated);
    };
    f.copy_within(6..12, 0);
    f[6..12].copy_from_slice(&mac);
    let total = (ipv4::HEADER + ip.len) as u16;
    ipv4::emit(&mut f[ETHERNET..], address, ip.source, ipv4::ICMP, total);
    let icmp = &mut f[ETHERNET + ipv4::HEADER..];
    icmp[0] = 0;
    icmp[2..4].fill(0);
    let field = checksum::finish(checksum::sum(icmp));
    icmp[2..4].copy_from_slice(&field);
    let staged = Staged::Buffer { mbuf: frame.mbuf, offset: frame.offset, len: len as u16 };
    match local.tx.stage(staged) {
        Ok(()) => local.stats.add(Counter::IcmpEchoes, 1),
        Err(Staged::Buffer { mbuf, .. }) => {
            local.stats.drop(Drop::TxRingFull);
            local.pool.free(mbuf);
        }
        Err(_) => {}
    }
}
