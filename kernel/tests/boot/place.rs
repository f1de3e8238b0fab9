//! Machines whose loader put things where the test wants them. QEMU loads an ELF file made here: the
//! kernel's own segments, the archive and the loader's information, each at its address, and a few
//! instructions that enter the kernel as that loader would. What the firmware does (ACPI, PCI) is SeaBIOS's.

use std::path::PathBuf;

use super::vm::{KERNEL, scratch};

/// How the kernel is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Pvh,
    Multiboot2,
}

/// Where things go, in bytes from the bottom of memory.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub protocol: Protocol,
    pub memory: u64,
    pub module: u64,
    pub info: u64,
    /// Where the entering instructions are; after them nobody needs them.
    pub stub: u64,
}

const KERNEL_BASE: u64 = 0xFFFF_FFFF_8000_0000;
/// The last pieces below 4 GiB (or the memory's end) hold ACPI's tables.
const FIRMWARE_BYTES: u64 = 2 << 20;
/// Where `q35` has no RAM; if there is more, 2 GiB of it lie below 4 GiB.
const Q35_HOLE: u64 = 0xB000_0000;
const BELOW_4G: u64 = 0x8000_0000;
/// Where in the stub the PVH note is.
const NOTE_AT: usize = 64;

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}

/// A piece of the file: physical address, length in memory, contents.
struct Segment {
    at: u64,
    memory: u64,
    bytes: Vec<u8>,
}

/// The kernel's loadable segments and its PVH entry.
fn kernel() -> (Vec<Segment>, u64, u64) {
    let elf = std::fs::read(KERNEL).expect("the kernel is built");
    let header = |i: usize| u64_at(&elf, 32) as usize + i * 56;
    let mut pvh = 0;
    let mut segments = Vec::new();
    for i in 0..usize::from(u16::from_le_bytes([elf[56], elf[57]])) {
        let h = header(i);
        let (offset, len) = (u64_at(&elf, h + 8) as usize, u64_at(&elf, h + 32) as usize);
        match u32_at(&elf, h) {
            1 => segments.push(Segment {
                at: u64_at(&elf, h + 24),
                memory: u64_at(&elf, h + 40),
                bytes: elf[offset..offset + len].to_vec(),
            }),
            4 => pvh = u64_at(&elf, offset + 16),
            _ => {}
        }
    }
    (segments, u64_at(&elf, 24), pvh)
}

/// First byte behind the kernel.
pub fn kernel_end() -> u64 {
    let (segments, _, _) = kernel();
    segments.iter().map(|s| s.at + s.memory).max().unwrap().next_multiple_of(4096)
}

impl Place {
    /// The memory map of a PC with so much memory: start, length, kind.
    fn map(&self) -> Vec<(u64, u64, u32)> {
        let low = if self.memory < Q35_HOLE { self.memory } else { BELOW_4G };
        let mut map = vec![
            (0, 0x9_FC00, 1),
            (0x9_FC00, 0x400, 2),
            (0xF_0000, 0x1_0000, 2),
            (0x10_0000, low - FIRMWARE_BYTES - 0x10_0000, 1),
            (low - FIRMWARE_BYTES, FIRMWARE_BYTES, 2),
            (0xB000_0000, 0x1000_0000, 2),
        ];
        if self.memory > low {
            map.push((4 << 30, self.memory - low, 1));
        }
        map
    }

    fn pvh_info(&self, cmdline: &str, module_len: u64) -> Vec<u8> {
        let map = self.map();
        let module_at = self.info + 56;
        let map_at = module_at + 32;
        let cmdline_at = map_at + 24 * map.len() as u64;
        let mut b = Vec::new();
        for w in [0x336E_C578u32, 1, 0, 1] {
            b.extend(w.to_le_bytes());
        }
        for w in [module_at, cmdline_at, 0, map_at, map.len() as u64, self.module, module_len, 0, 0]
        {
            b.extend(w.to_le_bytes());
        }
        for (start, len, kind) in map {
            [start, len, u64::from(kind)].iter().for_each(|w| b.extend(w.to_le_bytes()));
        }
        b.extend(cmdline.bytes().chain([0]));
        b
    }

    fn multiboot2_info(&self, cmdline: &str, module_len: u64) -> Vec<u8> {
        let mut b = vec![0; 8];
        let mut tag = |kind: u32, body: &[u8]| {
            b.extend(kind.to_le_bytes());
            b.extend((body.len() as u32 + 8).to_le_bytes());
            b.extend(body);
            b.resize(b.len().next_multiple_of(8), 0);
        };
        let end = u32::try_from(self.module + module_len).expect("multiboot2 has 32 bits for it");
        tag(
            3,
            &[&(self.module as u32).to_le_bytes()[..], &end.to_le_bytes(), b"initrd\0"].concat(),
        );
        let mut map: Vec<u8> = [24u32, 0].iter().flat_map(|w| w.to_le_bytes()).collect();
        for (start, len, kind) in self.map() {
            [start, len, u64::from(kind)].iter().for_each(|w| map.extend(w.to_le_bytes()));
        }
        tag(6, &map);
        tag(1, format!("{cmdline}\0").as_bytes());
        tag(2, b"a test\0");
        tag(0, &[]);
        let len = b.len() as u32;
        b[..4].copy_from_slice(&len.to_le_bytes());
        b
    }

    /// Writes the file for QEMU's `-kernel`; with the archive's hash as the kernel's self-test prints it.
    pub fn file(&self, name: &str, cmdline: &str, archive: &[u8]) -> (PathBuf, u64) {
        let (mut segments, entry, pvh) = kernel();
        let (info, target, magic) = match self.protocol {
            Protocol::Pvh => (self.pvh_info(cmdline, archive.len() as u64), pvh, 0),
            Protocol::Multiboot2 => {
                (self.multiboot2_info(cmdline, archive.len() as u64), entry, 0x36D7_6289u32)
            }
        };
        // SeaBIOS clears low memory before we start: what belongs there is copied by the stub.
        let mut stub = Vec::new();
        let mut staged = self.stub + 0x1000;
        for (at, bytes) in [(self.info, info), (self.module, archive.to_vec())] {
            let len = bytes.len() as u64;
            let mut from = at;
            if at < 0x10_0000 {
                from = staged;
                staged = (staged + len).next_multiple_of(4096);
                // mov esi, from; mov edi, at; mov ecx, len; rep movsb
                for (opcode, value) in [(0xBEu8, from), (0xBF, at), (0xB9, len)] {
                    stub.push(opcode);
                    stub.extend((value as u32).to_le_bytes());
                }
                stub.extend([0xF3, 0xA4]);
            }
            segments.push(Segment { at: from, memory: len, bytes });
        }
        // mov eax, magic; mov ebx, info; mov ecx, target; jmp ecx; then the PVH note.
        for (opcode, value) in [(0xB8u8, magic), (0xBB, self.info as u32), (0xB9, target as u32)] {
            stub.push(opcode);
            stub.extend(value.to_le_bytes());
        }
        stub.extend([0xFF, 0xE1]);
        stub.resize(NOTE_AT, 0x90);
        for w in [4u32, 8, 18] {
            stub.extend(w.to_le_bytes());
        }
        stub.extend(b"Xen\0");
        stub.extend(self.stub.to_le_bytes());
        segments.push(Segment { at: self.stub, memory: stub.len() as u64, bytes: stub });
        for a in &segments {
            let clash = |b: &&Segment| {
                !std::ptr::eq(a, *b) && a.at < b.at + b.memory && b.at < a.at + a.memory
            };
            let other = segments.iter().find(clash).map(|b| b.at);
            assert_eq!(other, None, "{self:x?}: a segment at {:#x} overlaps another", a.at);
        }
        let path = scratch(name);
        std::fs::write(&path, elf(self.stub, &segments)).expect("writes the image");
        let fnv = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01B3);
        (path, archive.iter().fold(0xCBF2_9CE4_8422_2325, fnv))
    }
}

/// An ELF file of these segments; the last one holds the entry and the PVH note.
fn elf(entry: u64, segments: &[Segment]) -> Vec<u8> {
    let count = segments.len() + 1;
    let mut file = b"\x7FELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3E\0\x01\0\0\0".to_vec();
    [entry, 64, 0].iter().for_each(|w| file.extend(w.to_le_bytes()));
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, count as u8, 0, 64, 0, 0, 0, 0, 0]);
    let mut offset = (64 + 56 * count).next_multiple_of(4096);
    let mut header = |kind: u32, offset: usize, at: u64, len: u64, memory: u64, align: u64| {
        file.extend(kind.to_le_bytes());
        file.extend(7u32.to_le_bytes());
        // QEMU takes the physical address; the virtual one is as the kernel's linker made it.
        let virt =
            if (0x20_9000..0x100_0000).contains(&at) { at.wrapping_add(KERNEL_BASE) } else { at };
        for w in [offset as u64, virt, at, len, memory, align] {
            file.extend(w.to_le_bytes());
        }
    };
    let mut offsets = Vec::new();
    for s in segments {
        header(1, offset, s.at, s.bytes.len() as u64, s.memory, 4096);
        offsets.push(offset);
        offset = (offset + s.bytes.len()).next_multiple_of(4096);
    }
    header(4, offsets[segments.len() - 1] + NOTE_AT, entry + NOTE_AT as u64, 24, 24, 4);
    for (s, at) in segments.iter().zip(offsets) {
        file.resize(at, 0);
        file.extend(&s.bytes);
    }
    file
}
