//! Where fuzzing begins: inputs that the targets take, made by hand or by the builders of the formats.
use ix_abi::layout::{IMAGE_BASE, PAGE_BYTES};
use ix_kernel_core::archive;

/// The seeds of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "kv" => kv(),
        "cmdline" => lines(&[
            "app=kv cores=4 ip=10.0.2.15/24 gw=10.0.2.2 batch=64 idle=poll log=debug -- -m 64",
            "/boot/ix selftest=vm bound=10 limit=1000 heap=64 onexit=stop ip=dhcp idle=adaptive",
            "onexit=wait log=trace log=error log=warn log=info -- ",
        ]),
        "archive" => {
            let members: [(&str, &[u8]); 3] =
                [("kv", b"program"), ("kernel.sym", b""), ("x", b"y")];
            vec![archive::build(&members).expect("an archive"), archive::build(&[]).expect("one")]
        }
        "symbols" => vec![symbols()],
        "elf" => vec![
            elf(&[(5, IMAGE_BASE, 0x5000), (4, IMAGE_BASE + 0x5000, 64)]),
            elf(&[(5, IMAGE_BASE, 16), (6, IMAGE_BASE + PAGE_BYTES, PAGE_BYTES + 1)]),
        ],
        "pci" => vec![pci()],
        _ => Vec::new(),
    }
}

fn lines(lines: &[&str]) -> Vec<Vec<u8>> {
    lines.iter().map(|line| line.as_bytes().to_vec()).collect()
}

/// Lines of memcached's protocols, each behind the byte that says whose they are and how they are cut.
fn kv() -> Vec<Vec<u8>> {
    let lines = [
        "set a 1 0 5\r\n",
        "hello\r\n",
        "get a b a\r\n",
        "gets a\r\n",
        "gat 100 a\r\n",
        "gats 0 a b\r\n",
        "add b 0 100 2 noreply\r\n",
        "12\r\n",
        "incr b 5\r\n",
        "decr b 9 noreply\r\n",
        "append a 0 0 1\r\n",
        "x\r\n",
        "prepend a 0 0 1\r\n",
        "y\r\n",
        "replace a 7 -1 3\r\n",
        "abc\r\n",
        "cas a 0 0 1 1\r\n",
        "z\r\n",
        "touch a 5\r\n",
        "delete a\r\n",
        "flush_all 2\r\n",
        "flush_all noreply\r\n",
        "stats\r\n",
        "stats settings\r\n",
        "stats items\r\n",
        "stats slabs\r\n",
        "stats sizes\r\n",
        "stats conns\r\n",
        "stats reset\r\n",
        "verbosity 1\r\n",
        "version\r\n",
        "set big 0 0 2000\r\n",
        "mg a v t f k s c O1 q\r\n",
        "mg YQ== b v h l\r\n",
        "mg a N30 R5 T9 E7 v\r\n",
        "ms a 2 T0 F1 c k O2 I\r\n",
        "zz\r\n",
        "ms a 1 MA q\r\n",
        "q\r\n",
        "ma b D3 N0 J7 MI v t c\r\n",
        "ma b MD q\r\n",
        "md a I T3 C5 x\r\n",
        "md YQ== b q\r\n",
        "me a\r\n",
        "mn\r\n",
        "quit\r\n",
    ];
    let behind = |first: u8, lines: &[&str]| -> Vec<u8> {
        lines.iter().flat_map(|line| [&[first], line.as_bytes()].concat()).collect()
    };
    let mut seeds: Vec<Vec<u8>> = lines.windows(4).map(|some| behind(4, some)).collect();
    seeds.push(behind(4, &lines));
    seeds.push(behind(0x25, &lines[..20]));
    seeds.push(behind(0x45, &lines[2..30]));
    seeds
}

fn symbols() -> Vec<u8> {
    let mut bytes = vec![0; 32];
    bytes.extend(*b"IXSYMS01");
    bytes.extend([2, 0, 0, 0, 0, 0, 0, 0]);
    for (address, size, name) in [(0u64, 4u32, 0u32), (0x100, 0, 5)] {
        bytes.extend(address.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(name.to_le_bytes());
    }
    bytes.extend([3, 0, b'o', b'n', b'e', 3, 0, b't', b'w', b'o']);
    bytes
}

/// A file of some segments (access, address, bytes in memory).
fn elf(segments: &[(u32, u64, u64)]) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0];
    file.extend(1u32.to_le_bytes());
    file.extend((IMAGE_BASE + 1).to_le_bytes());
    file.extend(64u64.to_le_bytes());
    file.extend([0; 12]);
    for half in [64, 56, segments.len() as u16, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for (flags, address, bytes) in segments {
        file.extend(1u32.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for word in [0, *address, *address, 16, *bytes, 4096] {
            file.extend(word.to_le_bytes());
        }
    }
    file
}

/// Four capabilities, as QEMU lays them out.
fn pci() -> Vec<u8> {
    let mut space = vec![0; 256];
    space[..8].copy_from_slice(&[0xf4, 0x1a, 0x41, 0x10, 7, 4, 0x10, 0]);
    space[0x34] = 0x40;
    for (i, kind) in [1u8, 3, 4, 2].into_iter().enumerate() {
        let at = 0x40 + i * 0x20;
        let next = if i == 3 { 0 } else { at as u8 + 0x20 };
        space[at..at + 5].copy_from_slice(&[9, next, 20, kind, 4]);
        space[at + 9] = (i as u8) << 4;
        space[at + 13] = 0x10;
        space[at + 16] = 4;
    }
    space
}
