//! Frames for the wire, with right checksums.
#![allow(dead_code, reason = "each user takes a part")]

/// The model's address.
pub const MAC: [u8; 6] = [0x02, 0x82, 0x59, 0x90, 0, 1];
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// One flow.
#[derive(Clone, Copy)]
pub struct Flow {
    pub v6: bool,
    pub protocol: u8,
    pub source: u8,
    pub ports: [u16; 2],
}

impl Flow {
    pub const fn tcp(port: u16) -> Flow {
        Flow { v6: false, protocol: TCP, source: 2, ports: [port, 11211] }
    }

    pub fn addresses_v4(self) -> [[u8; 4]; 2] {
        [[10, 0, 2, self.source], [10, 0, 2, 15]]
    }

    pub fn addresses_v6(self) -> [[u8; 16]; 2] {
        let address = |last| {
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&[0xfd, 0x00]);
            bytes[15] = last;
            bytes
        };
        [address(self.source), address(15)]
    }

    pub const fn l3(self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    pub const fn l4(self) -> usize {
        if self.protocol == TCP { 20 } else { 8 }
    }
}

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

/// The sum of the pseudo-header, as the field has it for the chip to go on with.
pub fn pseudo(flow: Flow, len: usize) -> u16 {
    let addresses =
        if flow.v6 { flow.addresses_v6().concat() } else { flow.addresses_v4().concat() };
    sum(&addresses, u64::from(flow.protocol) + len as u64)
}

pub fn sum_field(flow: Flow) -> usize {
    14 + flow.l3() + if flow.protocol == TCP { 16 } else { 6 }
}

/// A frame with this payload, whose transport checksum is right.
pub fn frame(flow: Flow, payload: &[u8]) -> Vec<u8> {
    let mut f = without_sum(flow, payload);
    let l4 = 14 + flow.l3();
    let value = !sum(&f[l4..], 0);
    let value = if value == 0 { 0xffff } else { value };
    let at = sum_field(flow);
    f[at..at + 2].copy_from_slice(&value.to_be_bytes());
    f
}

/// The same with the pseudo-header's sum in the field.
pub fn without_sum(flow: Flow, payload: &[u8]) -> Vec<u8> {
    let (l3, l4) = (flow.l3(), flow.l4());
    let mut f = vec![0; 14 + l3 + l4];
    f.extend(payload);
    f[..6].copy_from_slice(&MAC);
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
    let at = 14 + l3;
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
