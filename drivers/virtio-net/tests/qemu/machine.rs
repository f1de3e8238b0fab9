//! A QEMU whose processor is halted, and whose device the test drives: registers by the qtest
//! protocol (QEMU's docs/devel/testing, "QTest"), memory by a shared file.
#![allow(unsafe_code, reason = "maps the memory of the machine")]

use ix_dataplane::device::{BusAddr, Dma, DmaRegion, Mmio};
use ix_dataplane::limits::MBUF_BYTES;
use ix_dataplane::mbuf::Area;
use ix_virtio_net::{Transport, pci};
use std::cell::RefCell;
use std::ffi::c_void;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::ptr::NonNull;
use std::rc::Rc;

pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const MEMORY_BYTES: usize = 64 << 20;
/// Below are the BIOS's own areas.
const MEMORY_FIRST: usize = 2 << 20;
/// Where the device's memory BARs go: in the hole below 4 GiB.
const BAR_BASE: u32 = 0xe000_0000;
const BAR_BYTES: u32 = 0x10_0000;
/// Slot 2 of bus 0.
const FUNCTION: u32 = 0x8000_0000 | 2 << 11;

unsafe extern "C" {
    fn mmap(
        at: *mut c_void,
        len: usize,
        prot: i32,
        flags: i32,
        fd: i32,
        offset: i64,
    ) -> *mut c_void;
}

struct Wire {
    folder: PathBuf,
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Wire {
    fn try_ask(&mut self, command: &str) -> Option<u64> {
        writeln!(self.commands, "{command}").ok()?;
        self.commands.flush().ok()?;
        let mut line = String::new();
        if self.answers.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("OK"), "{command}: {line}");
        let number = words.next().map(|w| u64::from_str_radix(w.trim_start_matches("0x"), 16));
        Some(number.map_or(0, |n| n.expect("a number")))
    }

    fn ask(&mut self, command: &str) -> u64 {
        self.try_ask(command).expect("QEMU is alive")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // TERM, which `timeout` passes on: KILL would leave QEMU behind.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Registers, as the kernel would map them.
#[derive(Clone)]
pub struct Registers {
    wire: Rc<RefCell<Wire>>,
    base: u64,
    len: usize,
}

impl std::fmt::Debug for Registers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}+{:#x}", self.base, self.len)
    }
}

impl Registers {
    fn read(&self, offset: usize, width: usize, letter: char) -> u64 {
        if offset + width > self.len || !offset.is_multiple_of(width) {
            return u64::MAX;
        }
        self.wire.borrow_mut().ask(&format!("read{letter} {:#x}", self.base + offset as u64))
    }

    fn write(&self, offset: usize, width: usize, letter: char, value: u32) {
        if offset + width <= self.len && offset.is_multiple_of(width) {
            let at = self.base + offset as u64;
            self.wire.borrow_mut().ask(&format!("write{letter} {at:#x} {value:#x}"));
        }
    }
}

impl Mmio for Registers {
    fn read8(&self, offset: usize) -> u8 {
        self.read(offset, 1, 'b') as u8
    }
    fn read16(&self, offset: usize) -> u16 {
        self.read(offset, 2, 'w') as u16
    }
    fn read32(&self, offset: usize) -> u32 {
        self.read(offset, 4, 'l') as u32
    }
    fn write8(&self, offset: usize, value: u8) {
        self.write(offset, 1, 'b', u32::from(value));
    }
    fn write16(&self, offset: usize, value: u16) {
        self.write(offset, 2, 'w', u32::from(value));
    }
    fn write32(&self, offset: usize, value: u32) {
        self.write(offset, 4, 'l', value);
    }
}

pub struct Machine {
    wire: Rc<RefCell<Wire>>,
    memory: NonNull<u8>,
    next: usize,
}

/// Says that the running test is skipped, past the test harness's capture.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {reason}\n", thread.name().unwrap_or("?"));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// A new folder of this test's own.
pub fn folder() -> PathBuf {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("ix-virtio-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A BIOS that halts at the reset vector with interrupts off.
fn halting_bios(folder: &Path) -> PathBuf {
    let mut image = vec![0xf4; 65536];
    image[0xfff0..0xfff4].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfd]);
    let path = folder.join("bios");
    std::fs::write(&path, image).unwrap();
    path
}

impl Machine {
    /// Starts it with a network back end and a device, with options. `None`: there is no QEMU here.
    pub fn start(folder: &Path, net: &str, options: &str) -> Option<Machine> {
        let qemu = std::env::var("IX_QEMU").unwrap_or_else(|_| "qemu-system-x86_64".into());
        let path = folder.join("memory");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(MEMORY_BYTES as u64).unwrap();
        let backend = format!(
            "memory-backend-file,id=m0,size={MEMORY_BYTES},mem-path={},share=on",
            path.display()
        );
        let device = format!(
            "virtio-net-pci,netdev=n0,addr=2,disable-legacy=on,romfile=,mac=52:54:00:12:34:56,{options}"
        );
        let machine = "q35,accel=tcg,memory-backend=m0";
        let child = Command::new("timeout")
            .args([
                "--kill-after=5",
                "120",
                &qemu,
                "-nodefaults",
                "-display",
                "none",
                "-qtest",
                "stdio",
            ])
            .args(["-qtest-log", "none", "-machine", machine, "-m", "64", "-object", &backend])
            .args(["-bios", halting_bios(folder).to_str()?, "-netdev", net, "-device", &device])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            skip(&format!("neither timeout nor {qemu} can be run"));
            return None;
        };
        let commands = child.stdin.take()?;
        let answers = BufReader::new(child.stdout.take()?);
        // SAFETY: a new shared mapping of a file that stays; never unmapped.
        let memory = unsafe { mmap(std::ptr::null_mut(), MEMORY_BYTES, 3, 1, file.as_raw_fd(), 0) };
        assert!(memory.addr() != usize::MAX, "mmap failed");
        let memory = NonNull::new(memory.cast()).unwrap();
        let wire =
            Rc::new(RefCell::new(Wire { folder: folder.to_owned(), child, commands, answers }));
        let machine = Machine { wire, memory, next: MEMORY_FIRST };
        if Command::new(&qemu).arg("--version").stdout(Stdio::null()).status().is_err() {
            skip(&format!("{qemu} is not installed"));
            return None;
        }
        Some(machine)
    }

    /// Whether QEMU started and shows the device.
    pub fn alive(&self) -> bool {
        let mut wire = self.wire.borrow_mut();
        wire.try_ask(&format!("outl 0xcf8 {FUNCTION:#x}")).is_some()
            && wire.try_ask("inl 0xcfc") == Some(0x1041_1af4)
    }

    fn config_read(&self, offset: u16) -> u32 {
        let mut wire = self.wire.borrow_mut();
        wire.ask(&format!("outl 0xcf8 {:#x}", FUNCTION | u32::from(offset)));
        wire.ask("inl 0xcfc") as u32
    }

    fn config_write(&self, offset: u16, value: u32) {
        let mut wire = self.wire.borrow_mut();
        wire.ask(&format!("outl 0xcf8 {:#x}", FUNCTION | u32::from(offset)));
        wire.ask(&format!("outl 0xcfc {value:#x}"));
    }

    /// Does what firmware and kernel would do: assigns the BARs, finds the windows, maps them.
    pub fn transport(&self) -> Transport<Registers> {
        let ids = self.config_read(0);
        assert!(pci::is_virtio_net(ids as u16, (ids >> 16) as u16));
        for bar in [1, 4] {
            self.config_write(0x10 + 4 * bar, BAR_BASE + u32::from(bar) * BAR_BYTES);
        }
        self.config_write(0x10 + 4 * 5, 0);
        // Memory space and bus master.
        self.config_write(4, 0x6);
        let layout =
            pci::parse(|offset| self.config_read(offset)).unwrap_or_else(|e| panic!("{e}"));
        Transport::map(&layout, |window| {
            let base = BAR_BASE + u32::from(window.bar) * BAR_BYTES + window.offset;
            let len = window.length as usize;
            Ok::<_, ()>(Registers { wire: self.wire.clone(), base: u64::from(base), len })
        })
        .unwrap()
    }

    pub fn area(&mut self, buffers: u32) -> &'static Area {
        let region = self.alloc(buffers as usize * MBUF_BYTES, 4096).unwrap();
        // SAFETY: a region of its own, never freed.
        let area = unsafe { Area::new(region.ptr, region.bus, 0x8000_0000, 1, buffers) };
        Box::leak(Box::new(area))
    }

    pub fn write(&self, bus: u64, bytes: &[u8]) {
        assert!(bus as usize + bytes.len() <= MEMORY_BYTES);
        // SAFETY: within the mapping; the device does not read it before it is kicked.
        unsafe {
            let to = self.memory.as_ptr().add(bus as usize);
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }
}

impl Dma for Machine {
    fn alloc(&mut self, len: usize, align: usize) -> Option<DmaRegion> {
        let at = self.next.next_multiple_of(align);
        self.next = at + len;
        if self.next > MEMORY_BYTES {
            return None;
        }
        // SAFETY: within the mapping.
        let ptr = unsafe { self.memory.add(at) };
        Some(DmaRegion { ptr, bus: BusAddr(at as u64), len })
    }
}
