//! A system table in a small memory.

use super::*;
use std::vec::Vec;

struct Bytes(Vec<u8>);

impl Memory for Bytes {
    fn read(&self, at: u64, out: &mut [u8]) -> bool {
        let Ok(at) = usize::try_from(at) else { return false };
        let Some(from) = self.0.get(at..).and_then(|m| m.get(..out.len())) else { return false };
        out.copy_from_slice(from);
        true
    }
}

fn machine() -> Bytes {
    let mut m = std::vec![0u8; 0x1000];
    m[0x100..0x108].copy_from_slice(b"IBI SYST");
    m[0x108..0x10C].copy_from_slice(&0x2_0046u32.to_le_bytes());
    m[0x118..0x120].copy_from_slice(&0x400u64.to_le_bytes());
    m[0x120..0x124].copy_from_slice(&0x1_0000u32.to_le_bytes());
    m[0x168..0x170].copy_from_slice(&3u64.to_le_bytes());
    m[0x170..0x178].copy_from_slice(&0x500u64.to_le_bytes());
    for (i, c) in "EDK II".encode_utf16().enumerate() {
        m[0x400 + 2 * i..0x402 + 2 * i].copy_from_slice(&c.to_le_bytes());
    }
    for (i, (guid, at)) in [(SMBIOS, 0x600u64), (ACPI2, 0x700), (SMBIOS3, 0x800)].iter().enumerate()
    {
        m[0x500 + 24 * i..0x510 + 24 * i].copy_from_slice(guid);
        m[0x510 + 24 * i..0x518 + 24 * i].copy_from_slice(&at.to_le_bytes());
    }
    Bytes(m)
}

#[test]
fn vendor_and_tables_are_found() {
    let t = read(&machine(), 0x100).unwrap();
    assert_eq!(&t.vendor, "EDK II");
    assert_eq!((t.revision, t.firmware_revision), (0x2_0046, 0x1_0000));
    assert_eq!((t.smbios, t.rsdp), (Some(0x800), Some(0x700)));
}

#[test]
fn what_is_no_system_table_or_lies_gives_nothing_or_less() {
    let mut m = machine();
    assert_eq!(read(&m, 0x108), None);
    assert_eq!(read(&m, 0xFFF), None);
    assert_eq!(read(&m, u64::MAX), None);
    for at in 0x168..0x178 {
        m.0[at] = 0xFF;
    }
    m.0[0x11F] = 0xFF;
    let t = read(&m, 0x100).unwrap();
    assert_eq!((&t.vendor[..], t.smbios, t.rsdp), ("", None, None));
}
