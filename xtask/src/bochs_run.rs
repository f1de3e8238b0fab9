//! `cargo xtask bochs-run`: the boot images in Bochs, an emulator that has Intel's VT-x where QEMU has not. GRUB starts
//! them from a disc that is made for the run, or that is there; COM1 is shown as it speaks. The status is what QEMU's would
//! be: Bochs' own is always 1, so it is read from the kernel's last line.
use crate::packages::{self, Package};
use crate::workspace::build_dir;
use crate::{bochs, image, say};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use ix_kernel_core::archive::{self, Archive};
use nix::fcntl::OFlag;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

/// Status when the time is over, as of timeout(1).
const TIME_OVER: u8 = 124;
/// Status of a machine that the kernel has ended in order, as of QEMU.
pub const IN_ORDER: u8 = 33;
/// What the kernel says last, with its status behind it.
const ENDS: &str = "ix: halted (status ";
/// How long the machine may take to go off after its last line.
const OFF_MAX: Duration = Duration::from_secs(2);

/// What the machine is, and how long it may run.
#[derive(Debug, Args)]
pub struct Options {
    /// Cores
    #[arg(long, default_value_t = 4)]
    cores: u32,
    /// Memory in MiB
    #[arg(long, default_value_t = 256)]
    memory: u32,
    /// Bochs' name of the CPU; not all have VT-x with what the monitor needs
    #[arg(long, default_value = "corei7_skylake_x")]
    model: String,
    /// A boot configuration: lines of dataplanes (docs/vtx.md); the kernel gets it as dataplanes=NAME
    #[arg(long)]
    dataplanes: Option<PathBuf>,
    /// A disc that is there (`cargo xtask iso`) instead of one made for the run: what its menu says is booted
    #[arg(long, conflicts_with_all = ["dataplanes", "words"])]
    disc: Option<PathBuf>,
    /// COM2: a terminal (control page over the line), or a file that what it says is written to
    #[arg(long)]
    com2: Option<PathBuf>,
    /// COM3, likewise
    #[arg(long)]
    com3: Option<PathBuf>,
    /// Ends the run as soon as COM1 has said this, or one of several, with status 0
    #[arg(long)]
    until: Vec<String>,
    /// Seconds after which it is ended, with status 124
    #[arg(long, default_value_t = 120)]
    time: u64,
    /// Ends it, with status 0, when standard input ends: for programs that start it
    #[arg(long)]
    tied: bool,
    /// Takes kernel and applications as they were built last
    #[arg(long)]
    no_build: bool,
    /// The kernel's command line
    #[arg(trailing_var_arg = true)]
    words: Vec<String>,
}

/// A directory for one run, gone afterwards.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A machine that ends with the run: it listens to no other signal.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the machine to its end; the status.
pub fn run(options: &Options) -> Result<u8> {
    let root = bochs::fetch()?;
    let scratch = Scratch(std::env::temp_dir().join(format!("ix-bochs-{}", std::process::id())));
    std::fs::create_dir_all(&scratch.0)
        .with_context(|| format!("cannot make {}", scratch.0.display()))?;
    let disc = match &options.disc {
        Some(disc) => {
            disc.canonicalize().with_context(|| format!("cannot boot {}", disc.display()))?
        }
        None => made_disc(options, &scratch.0)?,
    };
    let rc = scratch.0.join("bochsrc");
    std::fs::write(&rc, config(options, &root, &disc, &scratch.0)?)?;
    let mut machine = Machine(start(&root, &rc)?);
    watch(options, &mut machine.0, &scratch.0.join("serial"))
}

/// A disc for this run: GRUB, the images and the command line, started without a menu.
fn made_disc(options: &Options, dir: &Path) -> Result<PathBuf> {
    packages::install(&[Package::GRUB, Package::GRUB_BIOS, Package::XORRISO], true)?;
    if !options.no_build {
        image::build()?;
    }
    let images = build_dir().join("images");
    let boot = dir.join("tree/boot");
    std::fs::create_dir_all(boot.join("grub"))
        .with_context(|| format!("cannot make {}", boot.display()))?;
    let read = |name: &str| {
        let path = images.join(name);
        std::fs::read(&path).with_context(|| format!("no {}: cargo xtask image", path.display()))
    };
    let mut words = options.words.join(" ");
    let mut initrd = read("initrd")?;
    if let Some(file) = &options.dataplanes {
        initrd = with_member(&initrd, file)?;
        words = format!("dataplanes={} {words}", name_of(file)?);
    }
    if words.chars().any(|c| c.is_control() || "'\"\\$;{}|&<>#".contains(c)) {
        bail!("{words:?} has a character that the boot menu cannot hold");
    }
    std::fs::write(boot.join("kernel"), read("kernel")?)?;
    std::fs::write(boot.join("initrd"), initrd)?;
    let menu = format!(
        "set timeout=0\nmenuentry IX {{\n  multiboot2 /boot/kernel {words}\n  \
         module2 /boot/initrd initrd\n  set gfxpayload=text\n}}\n"
    );
    std::fs::write(boot.join("grub/grub.cfg"), menu)?;
    let disc = dir.join("ix.iso");
    let output = Command::new("grub-mkrescue")
        .args(["--locales=", "--themes=", "--fonts=", "--directory=/usr/lib/grub/i386-pc"])
        .args(["--install-modules=multiboot2 normal biosdisk iso9660", "-o"])
        .arg(&disc)
        .arg(dir.join("tree"))
        .stdin(Stdio::null())
        .output()
        .context("cannot start grub-mkrescue")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && disc.is_file(), "grub-mkrescue failed: {said}");
    Ok(disc)
}

fn name_of(file: &Path) -> Result<&str> {
    let name = file.file_name().and_then(|name| name.to_str());
    name.with_context(|| format!("{} has no name that is text", file.display()))
}

/// The archive with one more member.
fn with_member(initrd: &[u8], file: &Path) -> Result<Vec<u8>> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let old = Archive::parse(initrd).map_err(|e| anyhow::anyhow!("{e}"))?;
    let mut members: Vec<(&str, &[u8])> = old.members().collect();
    members.push((name_of(file)?, &text));
    archive::build(&members).map_err(|e| anyhow::anyhow!("{e}"))
}

fn config(options: &Options, root: &Path, disc: &Path, dir: &Path) -> Result<String> {
    let Options { cores, memory, model, .. } = options;
    let mut config = String::new();
    for line in [
        format!("romimage: file={}/usr/share/bochs/BIOS-bochs-latest", root.display()),
        format!("vgaromimage: file={}/usr/share/vgabios/vgabios.bin", root.display()),
        format!("megs: {memory}"),
        format!("ata0-master: type=cdrom, path={}, status=inserted", disc.display()),
        "boot: cdrom".to_owned(),
        format!("com1: enabled=1, mode=file, dev={}/serial", dir.display()),
        format!("log: {}/log", dir.display()),
        "panic: action=fatal".to_owned(),
        "pci: enabled=1, chipset=i440fx, slot1=pcivga".to_owned(),
        "clock: sync=none, time0=local".to_owned(),
        "display_library: term".to_owned(),
        format!("cpu: model={model}, count={cores}, ips=50000000, reset_on_triple_fault=0"),
        "sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy".to_owned(),
    ] {
        writeln!(config, "{line}")?;
    }
    for (port, device) in [("com2", &options.com2), ("com3", &options.com3)] {
        let Some(device) = device else { continue };
        let is_terminal = std::fs::metadata(device).is_ok_and(|m| m.file_type().is_char_device());
        let mode = if is_terminal { "term" } else { "file" };
        writeln!(config, "{port}: enabled=1, mode={mode}, dev={}", device.display())?;
    }
    Ok(config)
}

fn start(root: &Path, rc: &Path) -> Result<Child> {
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    Command::new(root.join("lib64/ld-linux-x86-64.so.2"))
        .arg("--library-path")
        .arg(format!("{}:{}/lib/x86_64-linux-gnu", libraries.display(), root.display()))
        .arg(root.join("usr/bin/bochs-bin"))
        .args(["-q", "-f"])
        .arg(rc)
        .env("TERM", "linux")
        .env("LTDL_LIBRARY_PATH", libraries.join("bochs/plugins"))
        .env("BXSHARE", root.join("usr/share/bochs"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start Bochs")
}

/// Bochs' text screen: a terminal of its own, which somebody has to read, or Bochs stops when it is full.
struct Screen(File);

impl Screen {
    /// Once it is open. What Bochs has inherited is somebody else's.
    fn of(machine: &Child) -> Option<Self> {
        let ours = terminals(Path::new("/proc/self"));
        let theirs = terminals(&PathBuf::from(format!("/proc/{}", machine.id())));
        let number = theirs.into_iter().find(|number| !ours.contains(number))?;
        let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
        let path = format!("/dev/pts/{number}");
        OpenOptions::new().read(true).custom_flags(flags).open(path).ok().map(Self)
    }

    fn read(&mut self) {
        let mut text = [0; 4096];
        while self.0.read(&mut text).is_ok_and(|len| len > 0) {}
    }
}

/// Numbers of the pseudo-terminals that a process has the master of.
fn terminals(process: &Path) -> Vec<String> {
    let number = |info: String| {
        let number = info.lines().find_map(|line| line.strip_prefix("tty-index:"))?.trim();
        Some(number.to_owned())
    };
    let all = std::fs::read_dir(process.join("fdinfo")).into_iter().flatten().flatten();
    all.filter_map(|entry| number(std::fs::read_to_string(entry.path()).ok()?)).collect()
}

/// Shows what COM1 says until the machine ends, or the time; the status.
fn watch(options: &Options, machine: &mut Child, serial: &Path) -> Result<u8> {
    let mut deadline = Instant::now() + Duration::from_secs(options.time);
    let mut screen = Screen::of(machine);
    let mut shown = 0;
    let mut status = None;
    let (hold, let_go) = std::sync::mpsc::channel::<()>();
    if options.tied {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            drop(hold);
        });
    } else {
        // Never let go.
        std::mem::forget(hold);
    }
    loop {
        let off = machine.try_wait()?.is_some();
        screen = screen.or_else(|| Screen::of(machine));
        if let Some(screen) = &mut screen {
            screen.read();
        }
        let said = std::fs::read(serial).unwrap_or_default();
        say::bytes(&said[shown.min(said.len())..]);
        shown = said.len();
        let text = String::from_utf8_lossy(&said);
        let is_enough = options.until.iter().any(|until| text.contains(until));
        if is_enough || let_go.try_recv() == Err(TryRecvError::Disconnected) {
            return Ok(0);
        }
        if status.is_none()
            && let Some(found) = status_of(&text)
        {
            status = Some(found);
            deadline = deadline.min(Instant::now() + OFF_MAX);
        }
        if off || Instant::now() > deadline {
            let none = if off { 1 } else { TIME_OVER };
            return Ok(status.unwrap_or(none));
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// The status that the kernel has ended with.
fn status_of(text: &str) -> Option<u8> {
    let (_, rest) = text.rsplit_once(ENDS)?;
    rest.split_once(')')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_the_last_line_that_tells_one() {
        assert_eq!(
            status_of("ix: IX starts\nix: halted (status 33): in order; the machine"),
            Some(33)
        );
        assert_eq!(status_of("ix: halted (status 3"), None);
        assert_eq!(status_of("ix: halted (status x)"), None);
        assert_eq!(status_of("ix: ready"), None);
    }
}
