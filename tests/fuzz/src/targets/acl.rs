//! The firewall's rules: as the kernel takes them from the control page, and as people write them.
use crate::input::Input;
use ix_abi::IpAddress;
use ix_abi::acl::{Header, MAGIC, Record, VERSION, checksum};
use ix_acl::{Direction, Flow, Protocol};
use zerocopy::{FromBytes, IntoBytes};

/// A set as it comes: refused with a reason, or compiled; then the look-up decides as a scan does.
pub fn sets(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.u8();
    let flows: [Flow; 4] = std::array::from_fn(|_| flow(&mut input));
    let mut body = input.rest().to_vec();
    let rules = body.len() / size_of::<Record>();
    if how & 1 == 0 {
        sound(&mut body, rules);
    }
    let text = body.len() - rules * size_of::<Record>();
    let header = Header {
        magic: if how & 0xf0 == 0xf0 { 0 } else { MAGIC },
        version: VERSION,
        rules: rules as u32 + u32::from(how & 0x7e == 0x7e),
        text_bytes: text as u32,
        default_in: how >> 1 & 3,
        default_out: how >> 3 & 3,
        reserved: [0; 2],
        checksum: checksum(&body),
        reserved_2: [0; 4],
    };
    let source = [header.as_bytes(), &body].concat();
    match ix_acl::decode(source, IpAddress::v4([10, 0, 0, 1])) {
        Ok(set) => {
            assert!(set.rules().len() == rules);
            for flow in flows {
                assert_eq!(set.decide(&flow), set.decide_by_scan(&flow), "{flow:?}");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Records whose fields are mostly possible.
fn sound(body: &mut [u8], rules: usize) {
    for chunk in body.chunks_exact_mut(size_of::<Record>()).take(rules) {
        let Ok(mut record) = Record::read_from_bytes(chunk) else { continue };
        record.action %= 4;
        record.directions = 1 + record.directions % 3;
        record.protocol = [0, 1, 6, 17][usize::from(record.protocol & 3)];
        record.flags = 0;
        (record.icmp_type, record.icmp_code) = (0, 0);
        (record.rate, record.burst, record.connections, record.reserved) = (0, 0, 0, 0);
        for (address, len) in [
            (&mut record.remote, &mut record.remote_len),
            (&mut record.local, &mut record.local_len),
        ] {
            *len = 96 + *len % 33;
            address[..10].fill(0);
            address[10..12].fill(0xff);
            let bits = u128::from_be_bytes(*address);
            let mask = u128::MAX.checked_shl(128 - u32::from(*len)).unwrap_or(0);
            *address = (bits & mask).to_be_bytes();
        }
        for ports in [&mut record.remote_ports, &mut record.local_ports] {
            ports.sort_unstable();
            if record.protocol == 1 || record.protocol == 0 {
                *ports = [0, 65_535];
            }
        }
        chunk.copy_from_slice(record.as_bytes());
    }
}

fn flow(input: &mut Input<'_>) -> Flow {
    let how = input.u8();
    let address = |n: u32| IpAddress::v4(n.to_be_bytes());
    Flow {
        direction: if how & 1 == 0 { Direction::In } else { Direction::Out },
        protocol: [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Tcp]
            [usize::from(how >> 1 & 3)],
        remote: address(input.u32()),
        local: address(input.u32()),
        remote_port: input.u16(),
        local_port: input.u16(),
    }
}

/// A rules file: a complaint that can be shown, or rules that the kernel takes or refuses.
pub fn files(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match ixcp::acl::file::parse("fuzz", &text) {
        Ok(rules) => {
            let _set = ix_acl::decode(rules.to_set(), IpAddress::UNSPECIFIED);
        }
        Err(complaint) => assert!(!complaint.to_string().is_empty()),
    }
    let (_, notes) = ixcp::acl::file::notes(&text, 5);
    assert_eq!(notes.len(), 5);
}
