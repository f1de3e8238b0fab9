//! Which IP the conversations of a test program are over: IPv6 if the program's name says so, so that the same
//! tests can be compiled for either.
use ix_abi::IpAddress;
use ix_dataplane::checksum;
use ix_dataplane::slaac::Mode;

/// Whether it is IPv6.
pub const V6: bool = {
    let name = env!("CARGO_CRATE_NAME").as_bytes();
    let n = name.len();
    n > 2 && name[n - 3] == b'_' && name[n - 2] == b'v' && name[n - 1] == b'6'
};

/// Bytes of the IP header.
pub const IP: usize = if V6 { 40 } else { 20 };
/// Where the transport header begins in a frame.
pub const BELOW: usize = 14 + IP;
pub const ETHERTYPE: [u8; 2] = if V6 { [0x86, 0xdd] } else { [8, 0] };
/// Largest segment on the tests' link.
pub const MSS: u32 = 1500 - IP as u32 - 20;
/// As a station says it in its SYNs.
pub const MSS_OPTION: [u8; 4] = [2, 4, (MSS >> 8) as u8, MSS as u8];
/// Segment size of a peer that names none.
pub const MSS_DEFAULT: u32 = if V6 { 1220 } else { 536 };

/// A host's address over IPv6: its IPv4 address in `fd00::/64`.
pub fn v6(v4: [u8; 4]) -> [u8; 16] {
    let mut address = [0; 16];
    address[0] = 0xfd;
    address[12..].copy_from_slice(&v4);
    address
}

/// A host's address, as the ABI has it.
pub fn ip(v4: [u8; 4]) -> IpAddress {
    if V6 { IpAddress(v6(v4)) } else { IpAddress::v4(v4) }
}

/// A station's IPv6 configuration.
pub fn mode(v4: [u8; 4]) -> Mode {
    if V6 { Mode::Static { address: v6(v4), prefix: 64, gateway: None } } else { Mode::Off }
}

/// The pseudo-header's sum.
pub fn pseudo(from: [u8; 4], to: [u8; 4], protocol: u8, len: usize) -> u64 {
    if V6 {
        checksum::pseudo_v6(&v6(from), &v6(to), protocol, len as u16)
    } else {
        checksum::pseudo_v4(from, to, protocol, len as u16)
    }
}

/// Ethernet and IP headers in front of `payload` bytes of `protocol`.
pub fn below(
    macs: [[u8; 6]; 2],
    from: [u8; 4],
    to: [u8; 4],
    protocol: u8,
    payload: usize,
) -> Vec<u8> {
    let mut f = [macs[1], macs[0]].concat();
    f.extend(ETHERTYPE);
    if V6 {
        f.extend([0x60, 0, 0, 0]);
        f.extend((payload as u16).to_be_bytes());
        f.extend([protocol, 64]);
        f.extend(v6(from));
        f.extend(v6(to));
    } else {
        f.extend([0x45, 0]);
        f.extend((20 + payload as u16).to_be_bytes());
        f.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        f.extend(from);
        f.extend(to);
        let sum = checksum::finish(checksum::sum(&f[14..34]));
        f[24..26].copy_from_slice(&sum);
    }
    f
}

/// The transport protocol of a frame, if it is one of this family, and where its packet ends.
pub fn transport(f: &[u8]) -> Option<(u8, usize)> {
    if f.len() < BELOW || f[12..14] != ETHERTYPE {
        return None;
    }
    let half = |at: usize| usize::from(u16::from_be_bytes([f[at], f[at + 1]]));
    Some(if V6 { (f[20], 54 + half(18)) } else { (f[23], 14 + half(16)) })
}

/// The second byte of an IPv4 header, the traffic class of IPv6.
pub fn tos(f: &[u8]) -> u8 {
    if V6 { f[14] << 4 | f[15] >> 4 } else { f[15] }
}

/// Sets it.
pub fn set_tos(f: &mut [u8], tos: u8) {
    if V6 {
        f[14] = 0x60 | tos >> 4;
        f[15] = tos << 4;
    } else {
        f[15] = tos;
        f[24..26].fill(0);
        let sum = checksum::finish(checksum::sum(&f[14..34]));
        f[24..26].copy_from_slice(&sum);
    }
}

/// The pseudo-header's sum of a frame.
pub fn pseudo_of(f: &[u8], protocol: u8, len: usize) -> u64 {
    if V6 {
        let address = |at: usize| f[at..at + 16].try_into().unwrap();
        checksum::pseudo_v6(&address(22), &address(38), protocol, len as u16)
    } else {
        let address = |at: usize| f[at..at + 4].try_into().unwrap();
        checksum::pseudo_v4(address(26), address(30), protocol, len as u16)
    }
}

/// Whether a frame asks for the link address of a host.
pub fn solicits(f: &[u8], host: [u8; 4]) -> bool {
    transport(f).is_some_and(|(protocol, _)| protocol == 58)
        && f.get(54) == Some(&135)
        && f.get(62..78) == Some(&v6(host)[..])
}
