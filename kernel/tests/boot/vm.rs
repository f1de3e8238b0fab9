//! Boots the kernel in QEMU with a time limit and collects its serial output and exit status.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ix_kernel_core::{archive, symbols};

pub const OK: i32 = 33;
pub const PANIC: i32 = 35;
pub const EXCEPTION: i32 = 37;
pub const APP_FAILED: i32 = 39;
pub const APP_KILLED: i32 = 41;
pub const UNSUPPORTED: i32 = 43;

pub const KERNEL: &str = env!("CARGO_BIN_EXE_ix-kernel");
pub const TESTAPP: &str = env!("CARGO_BIN_EXE_ix-testapp");
const QEMU: &str = "qemu-system-x86_64";
const LIMIT: Duration = Duration::from_secs(60);

/// The name of the test application in the archive.
pub const APP: &str = "testapp";

/// A machine to be booted.
pub struct Vm {
    pub machine: &'static str,
    pub cpu: &'static str,
    pub cores: u32,
    pub memory_mib: u32,
    pub cmdline: String,
    pub archive: bool,
    /// Another image than the kernel's own.
    pub kernel: Option<PathBuf>,
    pub serial: &'static str,
    pub extra: Vec<String>,
}

/// What came of it.
pub struct Run {
    pub status: Option<i32>,
    pub log: String,
    pub took: Duration,
}

impl Run {
    /// Fails the test with the whole log unless the machine ended with `status`.
    #[track_caller]
    pub fn ended_with(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "after {:?}:\n{}", self.took, self.log);
        self
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.log.contains(text), "`{text}` is missing:\n{}", self.log);
        self
    }

    #[track_caller]
    pub fn does_not_say(self, text: &str) -> Self {
        assert!(!self.log.contains(text), "`{text}` is there:\n{}", self.log);
        self
    }
}

/// Whether QEMU can be run; else says that the running test is skipped, past the harness's capture.
pub fn qemu_is_there() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND
        .get_or_init(|| Command::new(QEMU).arg("--version").stdout(Stdio::null()).status().is_ok());
    if !found {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("?");
        let line = format!("SKIPPED {name}: {QEMU} is not installed (qemu-system-x86)\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
    found
}

/// The archive with the symbol table and the test application.
pub fn archive_file() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let kernel = std::fs::read(KERNEL).expect("the kernel is built");
        let table = symbols::build(&kernel).expect("the kernel has symbols");
        let app = std::fs::read(TESTAPP).expect("the test application is built");
        let bytes = archive::build(&[(symbols::MEMBER, &table), (APP, &app)]).expect("packs");
        let path = scratch("archive");
        std::fs::write(&path, bytes).expect("writes the archive");
        path
    })
}

/// A file name of this process alone.
pub fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
}

impl Vm {
    pub fn new(cmdline: impl Into<String>) -> Self {
        Self {
            machine: "q35",
            cpu: "max",
            cores: 2,
            memory_mib: 256,
            cmdline: cmdline.into(),
            archive: true,
            kernel: None,
            serial: "stdio",
            extra: Vec::new(),
        }
    }

    pub fn extra(mut self, args: &[&str]) -> Self {
        self.extra.extend(args.iter().map(ToString::to_string));
        self
    }

    pub fn command(&self) -> Command {
        let mut c = Command::new(QEMU);
        c.args([
            "-M",
            self.machine,
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-monitor",
            "none",
        ])
        .args(["-serial", self.serial, "-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-cpu", self.cpu, "-m", &self.memory_mib.to_string()])
        .args(["-smp", &self.cores.to_string(), "-append", &self.cmdline])
        .arg("-kernel")
        .arg(self.kernel.as_deref().unwrap_or(Path::new(KERNEL)))
        .args(&self.extra)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
        if self.archive {
            c.arg("-initrd").arg(archive_file());
        }
        c
    }

    /// Boots and waits for the end, for [`LIMIT`] at most. `None`: there is no QEMU.
    pub fn run(&self) -> Option<Run> {
        self.run_with(|_| {})
    }

    /// The same, calling `meanwhile` every few milliseconds while the machine runs.
    pub fn run_with(&self, mut meanwhile: impl FnMut(Duration)) -> Option<Run> {
        if !qemu_is_there() {
            return None;
        }
        let begin = Instant::now();
        let mut child = self.command().spawn().expect("QEMU starts");
        let mut out = child.stdout.take().expect("piped");
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = out.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let status = loop {
            if let Some(status) = child.try_wait().expect("can be waited for") {
                break status.code();
            }
            if begin.elapsed() > LIMIT {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            meanwhile(begin.elapsed());
            std::thread::sleep(Duration::from_millis(5));
        };
        let log = reader.join().expect("the reader does not panic");
        Some(Run { status, log, took: begin.elapsed() })
    }
}
