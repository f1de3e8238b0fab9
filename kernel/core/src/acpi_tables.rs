//! Where ACPI's tables lie: what must be known before memory is handed out, since some loaders do not
//! mark them in their map. Only addresses and lengths are read here; `acpi` reads the contents later.

#[cfg(test)]
mod tests;

/// Tables that are looked at.
const TABLES_MAX: usize = 128;
/// No table is longer.
const BYTES_MAX: u32 = 16 << 20;
const HEADER: usize = 36;

/// A table's signature, as it is there: not necessarily text.
pub type Name = [u8; 4];

/// Physical memory as far as it can be read now; `false`: not there.
pub trait Memory {
    fn read(&self, at: u64, out: &mut [u8]) -> bool;
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"))
}

fn sums_to_zero(b: &[u8]) -> bool {
    b.iter().fold(0u8, |sum, x| sum.wrapping_add(*x)) == 0
}

/// Whether these bytes begin with a valid RSDP (ACPI 6.5, 5.2.5.3).
#[must_use]
pub fn is_rsdp(b: &[u8]) -> bool {
    b.len() >= 20 && &b[..8] == b"RSD PTR " && sums_to_zero(&b[..20])
}

/// Looks for the RSDP where a BIOS puts it: the first KiB of the EBDA, then 0xE0000 to 1 MiB.
pub fn find_rsdp(m: &impl Memory) -> Option<u64> {
    let mut segment = [0; 2];
    let ebda = m.read(0x40E, &mut segment).then(|| u64::from(u16::from_le_bytes(segment)) << 4);
    let ebda = ebda.filter(|at| (0x400..0xA_0000).contains(at));
    let places =
        ebda.map(|at| at..at + 1024).into_iter().chain(core::iter::once(0xE_0000..0x10_0000));
    places.flat_map(|r| r.step_by(16)).find(|at| {
        let mut head = [0; 20];
        m.read(*at, &mut head) && is_rsdp(&head)
    })
}

/// Calls `found` with name, start and length of each table that the RSDP leads to.
pub fn for_each(m: &impl Memory, rsdp: u64, mut found: impl FnMut(Name, u64, u64)) {
    let mut head = [0; 36];
    if !m.read(rsdp, &mut head[..20]) || !is_rsdp(&head) {
        return;
    }
    found(*b"RSDP", rsdp, if head[15] >= 2 { 36 } else { 20 });
    let xsdt = (head[15] >= 2 && m.read(rsdp, &mut head)).then(|| u64_at(&head, 24));
    let (root, width) = match xsdt {
        Some(at) if at != 0 => (at, 8),
        _ => (u64::from(u32_at(&head, 16)), 4),
    };
    let Some(len) = table(m, root, &mut found) else { return };
    for i in 0..(len as usize).saturating_sub(HEADER) / width {
        if i >= TABLES_MAX {
            return;
        }
        let mut entry = [0; 8];
        if !m.read(root + (HEADER + i * width) as u64, &mut entry[..width]) {
            return;
        }
        let at = u64::from_le_bytes(entry);
        if table(m, at, &mut found).is_some() {
            fadt(m, at, &mut found);
        }
    }
}

/// Reports a table; its length.
fn table(m: &impl Memory, at: u64, found: &mut impl FnMut(Name, u64, u64)) -> Option<u32> {
    let mut head = [0; HEADER];
    if at == 0 || !m.read(at, &mut head) {
        return None;
    }
    let len = u32_at(&head, 4);
    if !(HEADER as u32..=BYTES_MAX).contains(&len) || at.checked_add(u64::from(len)).is_none() {
        return None;
    }
    found([head[0], head[1], head[2], head[3]], at, u64::from(len));
    Some(len)
}

/// The FADT leads to two more: FACS and DSDT.
fn fadt(m: &impl Memory, at: u64, found: &mut impl FnMut(Name, u64, u64)) {
    let mut fadt = [0; 148];
    if !m.read(at, &mut fadt[..44]) || &fadt[..4] != b"FACP" {
        return;
    }
    let dsdt = u64::from(u32_at(&fadt, 40));
    let _ = table(m, dsdt, found);
    if u32_at(&fadt, 4) >= 148 && m.read(at, &mut fadt) && u64_at(&fadt, 140) != dsdt {
        let _ = table(m, u64_at(&fadt, 140), found);
    }
    // The FACS has only signature and length, and is at least 64 bytes (5.2.10).
    let facs = u64::from(u32_at(&fadt, 36));
    let mut head = [0; 8];
    if facs != 0 && m.read(facs, &mut head) && &head[..4] == b"FACS" {
        found(*b"FACS", facs, u64::from(u32_at(&head, 4).clamp(64, 4096)));
    }
}
