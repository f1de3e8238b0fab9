//! What a dataplane finds in memory when it starts: PVH's start info of version 1 (Xen:
//! docs/misc/pvh.pandoc) with memory map, module and command line, and the ACPI tables that say which
//! cores there are (ACPI 6.5, 5.2.5, 5.2.8, 5.2.12): RSDP, XSDT and MADT, no others.

#[cfg(test)]
mod tests;

/// What EBX's structure begins with.
pub const MAGIC: u32 = 0x336E_C578;
/// E820's number for RAM that can be used.
pub const RAM: u32 = 1;
pub const RESERVED: u32 = 2;

const START_INFO_BYTES: usize = 56;
const MODULE_BYTES: usize = 32;
const RANGE_BYTES: usize = 24;
const RSDP_BYTES: usize = 36;
const HEADER_BYTES: usize = 36;
const LOCAL_APIC_BASE: u32 = 0xFEE0_0000;
/// Ids from here on need an x2APIC's entry (5.2.12.12).
const X2APIC_FIRST: u32 = 255;
const ENABLED: u32 = 1;

/// A range of the memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRange {
    pub start: u64,
    pub len: u64,
    /// [`RAM`], [`RESERVED`] or another of E820's numbers.
    pub kind: u32,
}

/// What the dataplane is told. Addresses are guest-physical.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    pub command_line: &'a str,
    pub memory: &'a [MemoryRange],
    /// Address and length of the archive.
    pub module: Option<(u64, u64)>,
    /// The first is the core that starts.
    pub apic_ids: &'a [u32],
}

/// Where things lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Built {
    /// For EBX.
    pub start_info: u64,
    pub rsdp: u64,
    /// Bytes of the buffer that were used, from its start.
    pub used: usize,
}

/// The buffer is too small, or the command line has a zero byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DoesNotFit;

/// The buffer, filled from its start.
struct Writer<'a> {
    bytes: &'a mut [u8],
    base: u64,
    at: usize,
}

impl Writer<'_> {
    /// Takes `len` zeroed bytes, at a multiple of 16.
    fn take(&mut self, len: usize) -> Result<usize, DoesNotFit> {
        let start = self.at.next_multiple_of(16);
        let end = start.checked_add(len).ok_or(DoesNotFit)?;
        self.bytes.get_mut(start..end).ok_or(DoesNotFit)?.fill(0);
        self.at = end;
        Ok(start)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    fn put64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    fn address(&self, at: usize) -> u64 {
        self.base + at as u64
    }

    /// Makes the bytes' sum 0 by the one at `checksum`.
    fn seal(&mut self, start: usize, len: usize, checksum: usize) {
        let sum = self.bytes[start..start + len].iter().fold(0u8, |s, b| s.wrapping_add(*b));
        self.bytes[checksum] = self.bytes[checksum].wrapping_sub(sum);
    }
}

/// Writes all of it to `buffer`, which the dataplane finds at `base` (a multiple of 16).
pub fn build(buffer: &mut [u8], base: u64, told: &Told<'_>) -> Result<Built, DoesNotFit> {
    let line = told.command_line.as_bytes();
    let fits = base.checked_add(buffer.len() as u64).is_some() && base.is_multiple_of(16);
    if !fits || line.contains(&0) {
        return Err(DoesNotFit);
    }
    let w = &mut Writer { bytes: buffer, base, at: 0 };
    let info = w.take(START_INFO_BYTES)?;
    let text = w.take(line.len() + 1)?;
    w.put(text, line);
    let map = w.take(told.memory.len() * RANGE_BYTES)?;
    for (i, range) in told.memory.iter().enumerate() {
        let at = map + i * RANGE_BYTES;
        w.put64(at, range.start);
        w.put64(at + 8, range.len);
        w.put32(at + 16, range.kind);
    }
    let module = w.take(MODULE_BYTES)?;
    if let Some((start, len)) = told.module {
        w.put64(module, start);
        w.put64(module + 8, len);
    }
    let rsdp = acpi(w, told.apic_ids)?;
    w.put32(info, MAGIC);
    w.put32(info + 4, 1);
    w.put32(info + 12, u32::from(told.module.is_some()));
    w.put64(info + 16, if told.module.is_some() { w.address(module) } else { 0 });
    w.put64(info + 24, w.address(text));
    w.put64(info + 32, w.address(rsdp));
    w.put64(info + 40, w.address(map));
    w.put32(info + 48, u32::try_from(told.memory.len()).map_err(|_| DoesNotFit)?);
    Ok(Built { start_info: w.address(info), rsdp: w.address(rsdp), used: w.at })
}

/// The three tables; where the RSDP is.
fn acpi(w: &mut Writer<'_>, apic_ids: &[u32]) -> Result<usize, DoesNotFit> {
    let madt = madt(w, apic_ids)?;
    let xsdt = w.take(HEADER_BYTES + 8)?;
    header(w, xsdt, b"XSDT", 1, HEADER_BYTES + 8);
    w.put64(xsdt + HEADER_BYTES, w.address(madt));
    w.seal(xsdt, HEADER_BYTES + 8, xsdt + 9);
    let rsdp = w.take(RSDP_BYTES)?;
    w.put(rsdp, b"RSD PTR ");
    w.put(rsdp + 9, b"IX    ");
    w.put(rsdp + 15, &[2]);
    w.put32(rsdp + 20, RSDP_BYTES as u32);
    w.put64(rsdp + 24, w.address(xsdt));
    w.seal(rsdp, 20, rsdp + 8);
    w.seal(rsdp, RSDP_BYTES, rsdp + 32);
    Ok(rsdp)
}

fn madt(w: &mut Writer<'_>, apic_ids: &[u32]) -> Result<usize, DoesNotFit> {
    let entry_bytes = |id: u32| if id < X2APIC_FIRST { 8 } else { 16 };
    let entries: usize = apic_ids.iter().map(|id| entry_bytes(*id)).sum();
    let len = HEADER_BYTES + 8 + entries;
    let madt = w.take(len)?;
    header(w, madt, b"APIC", 5, len);
    w.put32(madt + HEADER_BYTES, LOCAL_APIC_BASE);
    let mut at = madt + HEADER_BYTES + 8;
    for (uid, &id) in apic_ids.iter().enumerate() {
        if id < X2APIC_FIRST {
            w.put(at, &[0, 8, uid as u8, id as u8]);
            w.put32(at + 4, ENABLED);
        } else {
            w.put(at, &[9, 16]);
            w.put32(at + 4, id);
            w.put32(at + 8, ENABLED);
            w.put32(at + 12, uid as u32);
        }
        at += entry_bytes(id);
    }
    w.seal(madt, len, madt + 9);
    Ok(madt)
}

fn header(w: &mut Writer<'_>, at: usize, name: &[u8; 4], revision: u8, len: usize) {
    w.put(at, name);
    w.put32(at + 4, len as u32);
    w.put(at + 8, &[revision]);
    w.put(at + 10, b"IX    ");
    w.put(at + 16, b"MONITOR ");
    w.put32(at + 24, 1);
    w.put(at + 28, b"IX  ");
    w.put32(at + 32, 1);
}
