//! Frames for the wire, with right checksums, and what a device or the engine would say of them.
use ix_dataplane::device::TxChecksum;
use ix_dataplane::rss::Toeplitz;

pub use ix_memory_nic::segments;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Fewest bytes of a frame on a wire, without FCS.
pub const FRAME_MIN: usize = 60;
/// Protocol numbers.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;

/// One flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Over IPv6, not IPv4.
    pub v6: bool,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// The last byte of the sender's address.
    pub source: u8,
    /// The sender's port and ours.
    pub ports: [u16; 2],
}

impl Flow {
    /// TCP over IPv4 from a port.
    pub const fn tcp(port: u16) -> Flow {
        Flow { v6: false, protocol: TCP, source: 2, ports: [port, 11211] }
    }

    /// The four kinds in turn.
    pub const fn any(number: u16) -> Flow {
        let protocol = if number & 1 == 0 { TCP } else { UDP };
        Flow { v6: number & 2 != 0, protocol, source: 3, ports: [number, 11211] }
    }

    /// Source and destination.
    pub fn addresses_v4(self) -> [[u8; 4]; 2] {
        [[10, 0, 2, self.source], [10, 0, 2, 15]]
    }

    /// Source and destination.
    pub fn addresses_v6(self) -> [[u8; 16]; 2] {
        let address = |last| {
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&[0xfd, 0x00]);
            bytes[15] = last;
            bytes
        };
        [address(self.source), address(15)]
    }

    /// Bytes of IP's header.
    pub const fn l3(self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    /// Bytes of the transport's header.
    pub const fn l4(self) -> usize {
        if self.protocol == TCP { 20 } else { 8 }
    }

    /// Bytes of all headers.
    pub const fn headers(self) -> usize {
        ETHERNET + self.l3() + self.l4()
    }

    /// The hash of its frames.
    pub fn hash(self, toeplitz: &Toeplitz) -> u32 {
        let ([a, b], [source, target]) = (self.addresses_v4(), self.ports);
        if self.v6 {
            let [a, b] = self.addresses_v6();
            return toeplitz.hash_v6(a, b, source, target);
        }
        toeplitz.hash_v4(a, b, source, target)
    }

    /// The checksum that a device is asked to fill in.
    pub fn checksum(self) -> TxChecksum {
        let start = ETHERNET + self.l3();
        TxChecksum { start: start as u16, offset: (sum_field(self) - start) as u16 }
    }
}

/// RFC 1071, folded, not complemented.
pub fn sum(bytes: &[u8], start: u64) -> u16 {
    let mut total = start;
    for pair in bytes.chunks(2) {
        total += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The sum of the pseudo-header for `len` bytes of transport, as the field has it for the device to go on with.
pub fn pseudo(flow: Flow, len: usize) -> u16 {
    let addresses =
        if flow.v6 { flow.addresses_v6().concat() } else { flow.addresses_v4().concat() };
    sum(&addresses, u64::from(flow.protocol) + len as u64)
}

/// Where the transport's checksum is.
pub fn sum_field(flow: Flow) -> usize {
    ETHERNET + flow.l3() + if flow.protocol == TCP { 16 } else { 6 }
}

/// A frame with this payload, whose checksums are right, to everybody.
pub fn frame(flow: Flow, payload: &[u8]) -> Vec<u8> {
    let mut bytes = without_sum(flow, payload);
    let checksum = flow.checksum();
    fill_in(&mut bytes, checksum);
    bytes
}

/// What a device does that is asked for a checksum.
pub fn fill_in(bytes: &mut [u8], checksum: TxChecksum) {
    let start = usize::from(checksum.start);
    let at = start + usize::from(checksum.offset);
    let value = !sum(&bytes[start..], 0);
    let value = if value == 0 { 0xffff } else { value };
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Headers of a TCP packet with the pseudo-header's sum, as `Pseudo::WithoutLength` has them.
pub fn without_length(flow: Flow, bytes: &mut [u8]) {
    if !flow.v6 {
        bytes[24..26].fill(0);
    }
    let at = sum_field(flow);
    bytes[at..at + 2].copy_from_slice(&pseudo(flow, 0).to_be_bytes());
}

/// The same with the pseudo-header's sum in the field.
pub fn without_sum(flow: Flow, payload: &[u8]) -> Vec<u8> {
    let (l3, l4) = (flow.l3(), flow.l4());
    let mut f = vec![0; ETHERNET + l3 + l4];
    f.extend(payload);
    f[..6].fill(0xff);
    f[6..12].copy_from_slice(&[0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    let len = l4 + payload.len();
    if flow.v6 {
        f[12..14].copy_from_slice(&[0x86, 0xdd]);
        f[14] = 0x60;
        f[18..20].copy_from_slice(&(len as u16).to_be_bytes());
        (f[20], f[21]) = (flow.protocol, 64);
        f[22..54].copy_from_slice(&flow.addresses_v6().concat());
    } else {
        f[12..14].copy_from_slice(&[0x08, 0x00]);
        f[14] = 0x45;
        f[16..18].copy_from_slice(&((20 + len) as u16).to_be_bytes());
        (f[22], f[23]) = (64, flow.protocol);
        f[26..34].copy_from_slice(&flow.addresses_v4().concat());
        let header = !sum(&f[14..34], 0);
        f[24..26].copy_from_slice(&header.to_be_bytes());
    }
    let at = ETHERNET + l3;
    f[at..at + 2].copy_from_slice(&flow.ports[0].to_be_bytes());
    f[at + 2..at + 4].copy_from_slice(&flow.ports[1].to_be_bytes());
    if flow.protocol == TCP {
        f[at + 12] = 0x50;
    } else {
        f[at + 4..at + 6].copy_from_slice(&(len as u16).to_be_bytes());
    }
    let field = sum_field(flow);
    f[field..field + 2].copy_from_slice(&pseudo(flow, len).to_be_bytes());
    f
}

/// A frame of exactly `len` bytes (54 at least) whose payload tells `number`, as far as there is room, and the place of each byte.
pub fn numbered(flow: Flow, number: u32, len: usize) -> Vec<u8> {
    let payload = len - flow.headers();
    let stamp = number.to_le_bytes();
    let byte = |i: usize| stamp.get(i).copied().unwrap_or((i * 7 + i / 256) as u8 ^ stamp[0]);
    frame(flow, &(0..payload).map(byte).collect::<Vec<u8>>())
}

/// The number of such a frame.
pub fn number_of(bytes: &[u8]) -> u32 {
    let v6 = bytes[12..14] == [0x86, 0xdd];
    let l3 = if v6 { 40 } else { 20 };
    let protocol = bytes[if v6 { 20 } else { 23 }];
    let at = ETHERNET + l3 + if protocol == TCP { 20 } else { 8 };
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// What a device finds that checks the transport's checksum, of frames as made here. `None`: it is none that it checks.
pub fn transport_is_right(bytes: &[u8]) -> Option<bool> {
    let (addresses, protocol, at, end) = match *bytes.get(12..15)? {
        [0x86, 0xdd, _] => {
            let len = usize::from(u16::from_be_bytes([bytes[18], bytes[19]]));
            (bytes.get(22..54)?, bytes[20], 54, 54 + len)
        }
        [8, 0, 0x45] => {
            let fragment = bytes[20] & 0x3f != 0 || bytes[21] != 0;
            let len = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
            (bytes.get(26..34).filter(|_| !fragment)?, bytes[23], 34, ETHERNET + len)
        }
        _ => return None,
    };
    let segment = bytes.get(at..end).filter(|_| protocol == TCP || protocol == UDP)?;
    let start = u64::from(protocol) + segment.len() as u64 + u64::from(sum(addresses, 0));
    Some(sum(segment, start) == 0xffff)
}
