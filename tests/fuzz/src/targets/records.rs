//! Records and packets that need no engine: calls, events, DHCP, neighbours, PCI capabilities.
use crate::input::Input;
use ix_abi::call::Call;
use ix_abi::layout::CALL_SLOTS;
use ix_abi::limits::SG_MAX;
use ix_abi::{Condition, Event, IpAddress, Request};
use ix_dataplane::dhcp::{Action, Client};
use ix_dataplane::neighbor::{Limits, Lookup, Table};
use ix_dataplane::rng::Rng;
use ix_dataplane::time::{Duration, Instant};
use ix_virtio_net::pci;
use smoltcp::wire::EthernetAddress;

/// Records of the syscall ring.
pub fn calls(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        let words: [u64; 8] = std::array::from_fn(|_| input.u64());
        let call: Call = zerocopy::transmute!(words);
        assert!((1..=1 + SG_MAX.div_ceil(4)).contains(&call.slots()));
        assert!(call.slots() < CALL_SLOTS as usize);
        match call.decode() {
            Ok(Request::Sendv { sg_count, .. } | Request::UdpSendv { sg_count, .. }) => {
                assert!((1..=SG_MAX).contains(&sg_count));
            }
            Ok(_) => assert_eq!(call.slots(), 1),
            Err(status) => assert!(!status.to_string().is_empty()),
        }
        for entry in call.inline_sg() {
            if let Ok(entry) = entry.checked() {
                assert!(entry.addr.checked_add(entry.len).is_some());
            }
        }
    }
}

/// Records of the event ring: what is understood is written the same way again.
pub fn events(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        let words: [u64; 8] = std::array::from_fn(|_| input.u64());
        let event: Event = zerocopy::transmute!(words);
        let condition = Condition::decode(&event);
        if !matches!(condition, Condition::Unknown { .. }) {
            assert_eq!(Condition::decode(&condition.encode()), condition);
        }
    }
}

const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);

/// A DHCP client and the servers that answer it.
pub fn dhcp(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut now = Instant(0);
    let mut client = Client::new(MAC, Rng::from_seed(1), now);
    let mut transaction = [0; 4];
    while !input.is_empty() {
        let mut sent = 0;
        while let Some(action) = client.poll(now) {
            sent += 1;
            assert!(sent < 20, "messages without end at one moment");
            if let Action::Send(message) = action {
                assert!(message.payload.len() >= 300);
                transaction.copy_from_slice(&message.payload[4..8]);
            }
        }
        assert!(client.next_deadline() > now);
        let payload = dhcp_answer(&mut input, transaction);
        if let Some(Action::Configure(lease)) = client.handle(&payload, now) {
            assert!(lease.prefix <= 32);
            assert_eq!(client.lease(), Some(&lease));
        }
        now = now + Duration(u64::from(input.u16()) << input.below(40));
    }
}

/// What a server could have sent, more or less.
fn dhcp_answer(input: &mut Input<'_>, transaction: [u8; 4]) -> Vec<u8> {
    let how = input.u8();
    if how == 0 {
        return input.take(usize::from(input.clone().u16() % 600)).to_vec();
    }
    let mut m = vec![0; 240];
    m[..4].copy_from_slice(&[2, 1, 6, 0]);
    m[4..8].copy_from_slice(&transaction);
    m[16..20].copy_from_slice(&[10, 0, 0, input.u8()]);
    m[28..34].copy_from_slice(&MAC.0);
    m[236..240].copy_from_slice(&[99, 130, 83, 99]);
    m.extend([53, 1, how & 7]);
    if how & 8 == 0 {
        m.extend([54, 4, 10, 0, 0, 1 + (how >> 7)]);
    }
    for (bit, option, len) in [(16, 51, 4), (32, 58, 4), (32, 59, 4), (64, 1, 4), (64, 3, 8)] {
        if how & bit != 0 {
            m.extend([option, len]);
            let value = input.take(usize::from(len));
            m.extend(value);
            m.extend(vec![0; usize::from(len) - value.len()]);
        }
    }
    m.extend(input.take(input.clone().below(64)));
    m.push(255);
    if how == 255 {
        m.truncate(usize::from(input.u16()) % 300);
    }
    m
}

/// The neighbour table: what waits comes out once, resolved or failed.
pub fn neighbors(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let limits = Limits { entries: 16, pending: 12, pending_per_entry: 4 };
    let mut table: Table<u32> = Table::new(limits, Rng::from_seed(3).key());
    let (mut now, mut number, mut waiting) = (Instant(0), 0, 0);
    while !input.is_empty() {
        let ip = IpAddress::v4([10, 0, input.u8() & 1, input.u8() & 31]);
        let mac = EthernetAddress([input.u8() & 3, 0, 0, 0, 0, input.u8()]);
        match input.below(10) {
            0 | 1 => {
                number += 1;
                waiting += usize::from(table.pend(ip, number, now).is_ok());
            }
            2 => table.solicit(ip, now),
            3 | 4 => {
                table.confirm(ip, mac, now);
            }
            5 => {
                table.overhear(ip, mac, now);
            }
            6 => {
                if let Lookup::Found(mac) = table.lookup(ip, now) {
                    assert!(mac.is_unicast());
                }
            }
            7 if input.u8() == 0 => table.clear(),
            _ => now = now + Duration(u64::from(input.u16()) << input.below(24)),
        }
        let mut asked = 0;
        while table.poll(now).is_some() {
            asked += 1;
            assert!(asked <= 64, "requests without end at one moment");
        }
        assert!(table.next_deadline() > now);
        if input.u8() & 3 != 0 {
            while let Some((mac, _)) = table.pop_ready() {
                assert!(mac.is_unicast());
                waiting -= 1;
            }
            while table.pop_failed().is_some() {
                waiting -= 1;
            }
        }
        assert_eq!(table.pending(), waiting);
        assert!(waiting <= limits.pending);
    }
    table.clear();
    while table.pop_ready().is_some() || table.pop_failed().is_some() {
        waiting -= 1;
    }
    assert_eq!((table.pending(), waiting), (0, 0));
}

/// The capability list of a PCI function.
pub fn pci_capabilities(bytes: &[u8]) {
    let mut space = [0; 256];
    let len = bytes.len().min(256);
    space[..len].copy_from_slice(&bytes[..len]);
    let read = |at: u16| {
        assert!(at.is_multiple_of(4) && at < 256, "read at {at:#x}");
        let at = usize::from(at);
        u32::from_le_bytes([space[at], space[at + 1], space[at + 2], space[at + 3]])
    };
    match pci::parse(read) {
        Ok(layout) => {
            for window in [layout.common, layout.notify, layout.isr, layout.device] {
                assert!(window.bar <= 5 && window.length > 0);
                assert!(window.offset.checked_add(window.length).is_some());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
