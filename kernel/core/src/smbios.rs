//! Who made the machine and its firmware: SMBIOS (DMTF DSP0134 3.7), as far as the boot report shows it.
//! All of it is text of unknown origin, so it is cut and made printable.

use arrayvec::ArrayString;

use crate::acpi_tables::Memory;

#[cfg(test)]
mod tests;

/// Longest text that is kept.
pub const TEXT_MAX: usize = 64;
/// Bytes of the structure table that are read, and structures.
const TABLE_MAX: u64 = 64 << 10;
const STRUCTURES_MAX: usize = 512;

pub type Text = ArrayString<TEXT_MAX>;

/// What the tables say; empty where they say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub firmware_vendor: Text,
    pub firmware_version: Text,
    pub firmware_date: Text,
    pub maker: Text,
    pub product: Text,
    pub board: Text,
}

/// Makes text printable, without blanks at its ends, and short enough.
#[must_use]
pub fn printable(bytes: impl Iterator<Item = u8>) -> Text {
    let mut text = Text::new();
    for b in bytes {
        let c = if b.is_ascii_graphic() || b == b' ' { b as char } else { '?' };
        if (c != ' ' || !text.is_empty()) && text.try_push(c).is_err() {
            break;
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Start and length of the structure table, from an entry point of either kind (5.2).
fn table_of(m: &impl Memory, entry: u64) -> Option<(u64, u64)> {
    let mut b = [0; 32];
    if !m.read(entry, &mut b[..24]) {
        return None;
    }
    let sums = |b: &[u8]| b.iter().fold(0u8, |s, x| s.wrapping_add(*x)) == 0;
    if &b[..5] == b"_SM3_" && sums(&b[..24]) {
        let len = u32::from_le_bytes(b[12..16].try_into().ok()?);
        return Some((u64::from_le_bytes(b[16..24].try_into().ok()?), u64::from(len)));
    }
    if &b[..4] == b"_SM_" && m.read(entry, &mut b[..31]) && sums(&b[..31]) {
        let len = u16::from_le_bytes(b[22..24].try_into().ok()?);
        let at = u32::from_le_bytes(b[24..28].try_into().ok()?);
        return Some((u64::from(at), u64::from(len)));
    }
    None
}

/// Looks for an entry point where a BIOS puts it.
pub fn find(m: &impl Memory) -> Option<u64> {
    (0xF_0000u64..0x10_0000).step_by(16).find(|at| table_of(m, *at).is_some())
}

/// Reads the structures behind an entry point.
pub fn read(m: &impl Memory, entry: u64) -> Option<Machine> {
    let (start, len) = table_of(m, entry)?;
    let end = start.checked_add(len.min(TABLE_MAX))?;
    let mut machine = Machine::default();
    let mut at = start;
    for _ in 0..STRUCTURES_MAX {
        let mut head = [0; 32];
        if at + 4 > end || !m.read(at, &mut head[..4]) {
            break;
        }
        let (kind, formatted) = (head[0], u64::from(head[1]));
        let have = (head[1] as usize).min(head.len());
        if formatted < 4 || kind == 127 || at + formatted > end || !m.read(at, &mut head[..have]) {
            break;
        }
        let strings = at + formatted;
        // String numbers at these offsets (7.1, 7.2, 7.3); beyond the structure's end there is none.
        let text = |offset: usize| {
            let number = if offset < have { head[offset] } else { 0 };
            string(m, strings, end, number)
        };
        match kind {
            0 => {
                machine.firmware_vendor = text(4);
                machine.firmware_version = text(5);
                machine.firmware_date = text(8);
            }
            1 => {
                machine.maker = text(4);
                machine.product = text(5);
            }
            2 => machine.board = text(5),
            _ => {}
        }
        at = after_strings(m, strings, end)?;
    }
    Some(machine)
}

fn byte(m: &impl Memory, at: u64, end: u64) -> Option<u8> {
    let mut b = [0];
    (at < end && m.read(at, &mut b)).then_some(b[0])
}

/// The string set's `number`th text, from 1.
fn string(m: &impl Memory, mut at: u64, end: u64, number: u8) -> Text {
    if number == 0 {
        return Text::new();
    }
    for _ in 1..number {
        // An empty string ends the set.
        if byte(m, at, end).is_none_or(|b| b == 0) {
            return Text::new();
        }
        while byte(m, at, end).is_some_and(|b| b != 0) {
            at += 1;
        }
        at += 1;
    }
    let bytes = (at..end).map_while(|at| byte(m, at, end)).take_while(|b| *b != 0);
    printable(bytes.take(TEXT_MAX))
}

/// The next structure: behind two zero bytes.
fn after_strings(m: &impl Memory, mut at: u64, end: u64) -> Option<u64> {
    loop {
        let (a, b) = (byte(m, at, end)?, byte(m, at + 1, end)?);
        if a == 0 && b == 0 {
            return Some(at + 2);
        }
        at += 1;
    }
}
