//! ICMP errors, as routers write them.
use super::talk::Talk;
use ix_dataplane::checksum;

pub const ROUTER: [u8; 4] = [10, 0, 0, 254];

/// A frame with an ICMP error about a packet of `packet_len` bytes that the station sent to the peer,
/// whose TCP header began with the station's port and `seq`.
pub fn error(talk: &Talk, kind: u8, code: u8, mtu: u16, seq: u32, packet_len: u16) -> Vec<u8> {
    let ours = talk.station.setup.address;
    let mut quoted = vec![0x45, 0];
    quoted.extend(packet_len.to_be_bytes());
    quoted.extend([0, 0, 0x40, 0, 63, 6, 0, 0]);
    quoted.extend(ours);
    quoted.extend(talk.ip);
    quoted.extend(talk.local_port.to_be_bytes());
    quoted.extend(talk.port.to_be_bytes());
    quoted.extend(seq.to_be_bytes());
    about(ours, kind, code, mtu, &quoted)
}

/// A frame with an ICMP error that quotes this.
pub fn about(ours: [u8; 4], kind: u8, code: u8, mtu: u16, quoted: &[u8]) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    f.extend((28 + quoted.len() as u16).to_be_bytes());
    f.extend([0, 0, 0, 0, 64, 1, 0, 0]);
    f.extend(ROUTER);
    f.extend(ours);
    let sum = checksum::finish(checksum::sum(&f[14..34]));
    f[24..26].copy_from_slice(&sum);
    f.extend([kind, code, 0, 0, 0, 0]);
    f.extend(mtu.to_be_bytes());
    f.extend(quoted);
    let sum = checksum::finish(checksum::sum(&f[34..]));
    f[36..38].copy_from_slice(&sum);
    f
}
