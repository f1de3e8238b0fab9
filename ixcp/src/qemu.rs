//! The QEMU command line of a dataplane, and what QEMU's exit status means.
use crate::cli::Control;
use crate::net::{Address, Address6, Backend, Forward};
use crate::vfio::Bdf;
use anyhow::{Result, bail};
use ix_abi::control::PAGE_BYTES;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// How guest instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Accelerator {
    /// Translated: needs nothing, runs anywhere.
    Tcg,
    /// By the processor's virtualisation: needs /dev/kvm.
    Kvm,
}

/// The network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Card {
    /// QEMU's own virtio-net.
    Virtio,
    /// Another program's (`nic.rs`).
    VfioUser {
        /// Where it serves the device.
        socket: PathBuf,
        /// Where its cable ends; QEMU's user network is plugged in there.
        wire: PathBuf,
    },
    /// One of this machine (`vfio.rs`).
    Vfio(Bdf),
    /// None: the kernel has one of its own.
    Loopback,
}

/// Everything that decides the command line.
#[derive(Clone, Debug)]
pub struct Machine {
    /// QEMU's program.
    pub qemu: PathBuf,
    /// The kernel's image.
    pub kernel: PathBuf,
    /// The archive of applications.
    pub archive: PathBuf,
    /// Virtual cores.
    pub cores: u32,
    /// Memory.
    pub memory_mib: u32,
    /// Accelerator.
    pub accel: Accelerator,
    /// Network back end.
    pub net: Backend,
    /// Network card.
    pub card: Card,
    /// Queue pairs that the back end offers.
    pub queues: u32,
    /// Whether this QEMU's receive-side scaling can be relied on.
    pub rss: bool,
    /// Forwarded ports (user network only).
    pub forwards: Vec<Forward>,
    /// An IOMMU stands between card and memory.
    pub iommu: bool,
    /// The guest's address.
    pub address: Address,
    /// Its IPv6 addresses.
    pub address6: Address6,
    /// The kernel's command line.
    pub append: String,
    /// The control page's file, or the socket of the serial line that leads to it.
    pub control: PathBuf,
    /// Which of them.
    pub control_by: Control,
    /// Where the serial line is written.
    pub serial: PathBuf,
    /// More arguments, as they are.
    pub extra: Vec<OsString>,
}

impl Machine {
    /// QEMU's arguments, without the program.
    pub fn args(&self) -> Vec<OsString> {
        let mut args = Args(Vec::new());
        args.flag("-nodefaults").flag("-no-reboot");
        // Its threads have names then, by which `top -H` tells what a core costs.
        args.pair("-name", "ix,debug-threads=on");
        match self.card {
            Card::Virtio | Card::Vfio(_) | Card::Loopback => args.pair("-machine", "q35"),
            // The other program sees the machine's memory.
            Card::VfioUser { .. } => {
                let memory = self.memory_mib;
                let object = format!("memory-backend-memfd,id=ram,size={memory}M,share=on");
                args.pair("-object", object).pair("-machine", "q35,memory-backend=ram")
            }
        };
        match self.accel {
            Accelerator::Tcg => args.pair("-accel", "tcg").pair("-cpu", "max"),
            Accelerator::Kvm => args.pair("-accel", "kvm").pair("-cpu", "host"),
        };
        args.pair("-smp", self.cores.to_string());
        args.pair("-m", format!("{}M", self.memory_mib));
        args.pair("-display", "none").pair("-monitor", "none");
        args.option("-chardev", &["file,id=serial,path="], &self.serial, "");
        args.pair("-serial", "chardev:serial");
        args.pair("-device", "isa-debug-exit,iobase=0xf4,iosize=4");
        match self.control_by {
            Control::Shared => {
                let head =
                    format!("memory-backend-file,id=control,size={PAGE_BYTES},share=on,mem-path=");
                args.option("-object", &[&head], &self.control, "");
                args.pair("-device", "ivshmem-plain,memdev=control");
            }
            Control::Serial => {
                let head = ["socket,id=control,server=on,wait=off,path="];
                args.option("-chardev", &head, &self.control, "");
                args.pair("-serial", "chardev:control");
            }
        }
        if self.iommu {
            // It tells cards that others play of what they may reach now, also where they might nothing before.
            args.pair("-device", "intel-iommu,caching-mode=on");
        }
        self.network(&mut args);
        args.pair("-kernel", &self.kernel);
        args.pair("-initrd", &self.archive);
        args.pair("-append", &self.append);
        args.0.extend(self.extra.iter().cloned());
        args.0
    }

    fn network(&self, args: &mut Args) {
        match &self.card {
            Card::Virtio => self.virtio(args),
            Card::VfioUser { socket, wire } => self.vfio_user(args, socket, wire),
            // What the card has for booting from the network is not run.
            Card::Vfio(bdf) => drop(args.pair("-device", format!("vfio-pci,host={bdf},rombar=0"))),
            Card::Loopback => {}
        }
    }

    /// The card reaches other networks by itself; to QEMU's own one leads its cable, and a hub of two ports.
    fn vfio_user(&self, args: &mut Args, socket: &Path, wire: &Path) {
        if self.net == Backend::User {
            args.pair("-netdev", self.user_network());
            let head = ["stream,id=wire,server=off,addr.type=unix,addr.path="];
            args.option("-netdev", &head, wire, "");
            for end in ["net", "wire"] {
                args.pair("-netdev", format!("hubport,id=hub-{end},hubid=0,netdev={end}"));
            }
        }
        let socket = serde_json::json!({"type": "unix", "path": socket.to_string_lossy()});
        let device = serde_json::json!({"driver": "vfio-user-pci", "socket": socket});
        args.pair("-device", device.to_string());
    }

    fn user_network(&self) -> String {
        let mut text = "user,id=net".to_owned();
        if self.address6 == Address6::Off {
            text += ",ipv6=off";
        }
        for f in &self.forwards {
            let guest = match self.address {
                Address::Static { ip, .. } => ip.to_string(),
                // QEMU's DHCP server gives its first address, which is QEMU's default.
                Address::Dhcp => String::new(),
            };
            text += &format!(",hostfwd={}:{}-{guest}:{}", f.protocol, f.host, f.guest);
        }
        text
    }

    fn virtio(&self, args: &mut Args) {
        match &self.net {
            Backend::User => {
                args.pair("-netdev", self.user_network());
            }
            Backend::Stream(path) => {
                let head = ["stream,id=net,server=off,addr.type=unix,addr.path="];
                args.option("-netdev", &head, path, "");
            }
            Backend::Tap(name) => {
                let queues = match self.queues {
                    0 | 1 => String::new(),
                    n => format!(",queues={n}"),
                };
                let text = format!("tap,id=net,ifname={name},script=no,downscript=no,vhost=off");
                args.pair("-netdev", text + &queues);
            }
        }
        let mut device = "virtio-net-pci,netdev=net,disable-legacy=on,romfile=".to_owned();
        if self.iommu {
            device += ",iommu_platform=on";
        }
        if self.queues > 1 {
            // Two vectors for each pair, one for configuration changes, one for control.
            let rss = if self.rss { "on" } else { "off" };
            device += &format!(",mq=on,rss={rss},vectors={}", 2 * self.queues + 2);
        }
        args.pair("-device", device);
    }

    /// The command as one could type it into a shell.
    pub fn shell(&self) -> String {
        shell_words(&self.qemu, &self.args())
    }
}

/// A program and its arguments as one could type them into a shell.
pub fn shell_words(program: &Path, args: &[OsString]) -> String {
    let words = std::iter::once(program.as_os_str()).chain(args.iter().map(OsString::as_os_str));
    words.map(|w| quote(&w.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

struct Args(Vec<OsString>);

impl Args {
    fn flag(&mut self, flag: &str) -> &mut Args {
        self.0.push(flag.into());
        self
    }

    fn pair(&mut self, flag: &str, value: impl Into<OsString>) -> &mut Args {
        self.0.push(flag.into());
        self.0.push(value.into());
        self
    }

    /// An option with a path inside; QEMU wants its commas doubled.
    fn option(&mut self, flag: &str, head: &[&str], path: &Path, tail: &str) -> &mut Args {
        let mut value = head.concat().into_bytes();
        for &byte in path.as_os_str().as_bytes() {
            value.push(byte);
            if byte == b',' {
                value.push(byte);
            }
        }
        value.extend_from_slice(tail.as_bytes());
        self.pair(flag, OsString::from_vec(value))
    }
}

/// Quotes a word for a shell where needed.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What the kernel's command line is made of.
#[derive(Clone, Debug)]
pub struct Boot<'a> {
    /// Archive member to start.
    pub app: &'a str,
    /// Cores.
    pub cores: u32,
    /// Address.
    pub address: Address,
    /// Gateway.
    pub gateway: Option<Ipv4Addr>,
    /// IPv6 addresses.
    pub address6: Address6,
    /// IPv6 gateway.
    pub gateway6: Option<Ipv6Addr>,
    /// `poll` or `adaptive`.
    pub idle: Option<&'a str>,
    /// Receive batch bound.
    pub batch: Option<u32>,
    /// Archive member with the firewall's rules.
    pub acl: Option<&'a str>,
    /// More words.
    pub extra: Option<&'a str>,
    /// The application's arguments.
    pub args: &'a [String],
}

impl Boot<'_> {
    /// The line, or why it cannot be written.
    pub fn line(&self) -> Result<String> {
        let mut words = vec![format!("app={}", self.app), format!("cores={}", self.cores)];
        words.push(format!("ip={}", self.address));
        words.extend(self.gateway.map(|gw| format!("gw={gw}")));
        // What is usual is left out: such lines may be long.
        if self.address6 != Address6::Auto {
            words.push(format!("ip6={}", self.address6));
        }
        words.extend(self.gateway6.map(|gw| format!("gw6={gw}")));
        words.extend(self.batch.map(|b| format!("batch={b}")));
        words.extend(self.idle.map(|i| format!("idle={i}")));
        words.extend(self.acl.map(|name| format!("acl={name}")));
        words.extend(self.extra.map(str::to_owned));
        let mut line = words.join(" ");
        if !self.args.is_empty() {
            if let Some(odd) = self.args.iter().find(|a| a.is_empty() || a.contains(' ')) {
                bail!("the application's argument {odd:?} is empty or has a space: not possible");
            }
            line += " -- ";
            line += &self.args.join(" ");
        }
        if let Some(odd) = line.chars().find(|c| c.is_control()) {
            bail!("the kernel's command line would have a control character ({odd:?})");
        }
        Ok(line)
    }
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The kernel stopped in order.
    Ok,
    /// The kernel panicked.
    Panic,
    /// The processor raised an exception that the kernel did not expect.
    Exception,
    /// The application failed, and `onexit=stop` was on the kernel's command line.
    AppFailed,
    /// The kernel ended the application, and `onexit=stop` was on its command line.
    AppKilled,
    /// The kernel cannot run on this machine or with this command line.
    Unsupported,
    /// A boot-time self-test failed.
    SelftestFailed,
    /// QEMU was ended by this program's signal.
    Killed,
    /// Anything else.
    Other(ExitStatus),
}

impl Ending {
    /// By isa-debug-exit, a value `v` becomes the status `2 * v + 1`.
    pub fn of(status: ExitStatus, killed: bool) -> Ending {
        match status.code() {
            Some(33) => Ending::Ok,
            Some(35) => Ending::Panic,
            Some(37) => Ending::Exception,
            Some(39) => Ending::AppFailed,
            Some(41) => Ending::AppKilled,
            Some(43) => Ending::Unsupported,
            Some(45) => Ending::SelftestFailed,
            _ if killed => Ending::Killed,
            _ => Ending::Other(status),
        }
    }

    /// Exit code of `ixcp run`.
    pub fn exit_code(self) -> u8 {
        match self {
            Ending::Ok | Ending::Killed => 0,
            Ending::Panic => 3,
            Ending::Exception => 4,
            Ending::Other(_) => 5,
            Ending::AppFailed => 6,
            Ending::AppKilled => 7,
            Ending::Unsupported => 8,
            Ending::SelftestFailed => 9,
        }
    }

    /// For people.
    pub fn text(self) -> String {
        match self {
            Ending::Ok => "the dataplane has stopped".to_owned(),
            Ending::Panic => "the kernel panicked: the lines above say where".to_owned(),
            Ending::Exception => {
                "the kernel met a CPU exception: the lines above say which and where".to_owned()
            }
            Ending::AppFailed => "the application ended with an error".to_owned(),
            Ending::AppKilled => "the kernel ended the application".to_owned(),
            Ending::Unsupported => {
                "the kernel cannot run like this: its last line says why".to_owned()
            }
            Ending::SelftestFailed => "a self-test of the kernel failed".to_owned(),
            Ending::Killed => "QEMU was ended".to_owned(),
            Ending::Other(status) => match status.code() {
                Some(0) => "QEMU ended by itself: a reset or a triple fault of the guest, or \
                            somebody closed it"
                    .to_owned(),
                _ => format!("QEMU failed ({status})"),
            },
        }
    }
}

/// The oldest QEMU whose RSS is used. 7.2 loses, in one boot of five, every frame that its software
/// RSS moves to another queue than the one it came from; 10.0 never did. Without RSS the back end's
/// own choice of queue stands, and the kernel steers.
const RSS_SINCE: u32 = 10;

/// Whether a QEMU's receive-side scaling can be relied on; asks the program for its version.
pub fn has_good_rss(qemu: &Path) -> bool {
    ask_major_version(qemu).is_some_and(|major| major >= RSS_SINCE)
}

/// A QEMU's major version, as the program says it.
pub fn ask_major_version(qemu: &Path) -> Option<u32> {
    let said = std::process::Command::new(qemu).arg("--version").output().ok()?;
    major_version(&String::from_utf8_lossy(&said.stdout))
}

fn major_version(said: &str) -> Option<u32> {
    said.split_once("version ")?.1.split('.').next()?.parse().ok()
}

/// Whether a program is there and may be run.
pub fn runs(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Finds QEMU: the given program, or the usual one in the search path.
pub fn find(given: Option<&Path>, search: Option<OsString>) -> Result<PathBuf> {
    const NAME: &str = "qemu-system-x86_64";
    let wanted = given.unwrap_or(Path::new(NAME));
    if wanted.components().count() > 1 {
        if runs(wanted) {
            return Ok(wanted.to_owned());
        }
        bail!("there is no program {}", wanted.display());
    }
    let found = std::env::split_paths(&search.unwrap_or_default())
        .map(|dir| dir.join(wanted))
        .find(|path| runs(path));
    match found {
        Some(path) => Ok(path),
        None => bail!(
            "{} is not in the search path: install it (Debian: apt-get install \
             --no-install-recommends qemu-system-x86), or name one with --qemu PATH",
            wanted.display()
        ),
    }
}

#[cfg(test)]
mod tests;
