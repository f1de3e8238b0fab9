//! A Linux guest with the Intel 82599 that `ixgbe-vfio-user` plays: Linux's own driver as the judge of the model.
use crate::linux::{self, APPEND, Images, Linux};
use crate::need;
use crate::vm::Config;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The guest's address.
pub const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The card's.
pub const MAC: [u8; 6] = [0x02, 0x82, 0x59, 0x90, 0, 1];
/// How long the card's program may take to begin.
const BEGIN_MAX: Duration = Duration::from_secs(10);
/// What the guest and QEMU have of memory.
const MEMORY: &str = "512M";

/// What such a guest takes.
#[derive(Clone, Debug)]
pub struct Tools {
    /// A QEMU with vfio-user.
    pub qemu: PathBuf,
    /// The card's program.
    pub player: PathBuf,
    images: Images,
}

/// All of it; `None` after saying SKIPPED.
pub fn tools() -> Option<Tools> {
    let images = linux::images_in("build/linux-ixgbe", "cargo xtask linux-guest --ixgbe")?;
    let (qemu, player) = card()?;
    Some(Tools { qemu, player, images })
}

/// What plays the card for any guest: QEMU and the card's program; `None` after saying SKIPPED.
pub fn card() -> Option<(PathBuf, PathBuf)> {
    let Some(qemu) = qemu() else {
        need::skip("no QEMU with vfio-user: cargo xtask qemu --vfio-user fetches one");
        return None;
    };
    let Some(player) = player() else {
        need::skip("no ixgbe-vfio-user: cargo build --release -p ixgbe-vfio-user");
        return None;
    };
    Some((qemu, player))
}

/// The same machine with the card in place of the usual one; `None` after saying SKIPPED.
pub fn with_card(config: Config) -> Option<Config> {
    let (qemu, player) = card()?;
    let config = config.with("--nic", "ixgbe");
    Some(config.with("--qemu", qemu).with("--nic-program", player))
}

/// The fetched one, or the installed one if it is new enough.
pub fn qemu() -> Option<PathBuf> {
    let fetched = need::workspace().join("build/qemu-vfio-user/qemu-system-x86_64");
    let candidates = [Some(fetched), need::program("qemu-system-x86_64")];
    candidates.into_iter().flatten().find(|program| ixcp::nic::has_vfio_user(program))
}

/// The card's program, where tests are built, or as a release.
fn player() -> Option<PathBuf> {
    let target = need::workspace().join("target");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(target, PathBuf::from);
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(|exe| exe.ancestors().nth(2)).map(Path::to_owned);
    let dirs = [beside, Some(target.join("release"))];
    dirs.into_iter().flatten().map(|dir| dir.join("ixgbe-vfio-user")).find(|path| path.is_file())
}

/// The guest's iperf3, to be run on this machine: as a program of a distribution that need not be this one.
pub fn iperf3() -> Command {
    let root = need::workspace().join("build/linux-ixgbe/programs/root");
    let libraries = ["lib", "usr/lib"].map(|dir| root.join(dir).join("x86_64-linux-gnu"));
    let loader = libraries.iter().map(|dir| dir.join("ld-linux-x86-64.so.2"));
    let mut command =
        Command::new(loader.into_iter().find(|path| path.exists()).unwrap_or_default());
    let path = libraries.map(|dir| dir.to_string_lossy().into_owned()).join(":");
    command.args(["--library-path", &path]).arg(root.join("usr/bin/iperf3"));
    command
}

/// Where the card's cable leads.
#[derive(Clone, Copy, Debug)]
pub enum Cable<'a> {
    /// To QEMU's user network.
    User,
    /// To a peer that listens there.
    Peer(&'a Path),
    /// To a TAP interface of this machine.
    Tap(&'a str),
}

fn joined(head: &str, path: &Path) -> OsString {
    let mut text = OsString::from(head);
    text.push(path);
    text
}

/// A guest with its card; both end with this value, the guest first.
#[derive(Debug)]
pub struct Rig {
    /// The guest.
    pub linux: Linux,
    card: Card,
    dir: temp_dir::TempDir,
}

/// The card's program.
#[derive(Debug)]
struct Card(Child);

impl Drop for Card {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Rig {
    /// Starts both, and waits until the guest has its address.
    #[track_caller]
    pub fn start(tools: &Tools, cores: u32, cable: Cable<'_>) -> Rig {
        Rig::begin(tools, cores, cable, &["-machine", "q35,memory-backend=ram"], APPEND)
    }

    /// The same with Intel's IOMMU between card and memory, which the guest opens page by page.
    #[track_caller]
    pub fn behind_iommu(tools: &Tools, cores: u32, cable: Cable<'_>) -> Rig {
        let machine = "q35,kernel-irqchip=split,memory-backend=ram";
        let iommu = "intel-iommu,caching-mode=on,intremap=on";
        let append = format!("{APPEND} intel_iommu=on iommu.strict=1");
        Rig::begin(tools, cores, cable, &["-machine", machine, "-device", iommu], &append)
    }

    #[track_caller]
    fn begin(tools: &Tools, cores: u32, cable: Cable<'_>, machine: &[&str], append: &str) -> Rig {
        let dir = temp_dir::TempDir::with_prefix("ix-ixgbe-").expect("a directory");
        let (socket, wire) = (dir.child("nic"), dir.child("wire"));
        let place = match cable {
            Cable::User => joined("listen=", &wire),
            Cable::Peer(path) => joined("stream=", path),
            Cable::Tap(name) => format!("tap={name}").into(),
        };
        let log = std::fs::File::create(dir.child("log")).expect("a file");
        let card = Command::new(&tools.player)
            .arg("--socket")
            .arg(&socket)
            .arg("--wire")
            .arg(place)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("the card's program starts");
        let card = Card(card);
        let deadline = Instant::now() + BEGIN_MAX;
        while !socket.exists() {
            assert!(Instant::now() < deadline, "no card");
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut qemu = Command::new(&tools.qemu);
        qemu.args(["-nodefaults", "-no-reboot", "-accel", "tcg", "-cpu", "max"])
            .args(["-m", MEMORY, "-smp", &cores.to_string()])
            .args(machine)
            .args(["-object", &format!("memory-backend-memfd,id=ram,size={MEMORY},share=on")]);
        if let Cable::User = cable {
            let wire =
                format!("stream,id=wire,server=off,addr.type=unix,addr.path={}", wire.display());
            qemu.args(["-netdev", "user,id=net", "-netdev", &wire]);
            for end in ["net", "wire"] {
                let port = format!("hubport,id=hub-{end},hubid=0,netdev={end}");
                qemu.args(["-netdev", &port]);
            }
        }
        let address = serde_json::json!({"type": "unix", "path": socket.to_str()});
        let device = serde_json::json!({"driver": "vfio-user-pci", "socket": address});
        qemu.args(["-device", &device.to_string()]);
        let append = format!("{append} ix.address={IP}/24");
        let linux = Linux::boot(qemu, &tools.images, &append, IP);
        let mut rig = Rig { linux, card, dir };
        rig.linux.wait_ready();
        rig
    }

    /// Whether the card's program still runs.
    pub fn card_lives(&mut self) -> bool {
        matches!(self.card.0.try_wait(), Ok(None))
    }

    /// What the card's program has complained about.
    pub fn card_log(&self) -> String {
        std::fs::read_to_string(self.dir.child("log")).unwrap_or_default()
    }

    /// Statistics by `ethtool -S`: name and number.
    #[track_caller]
    pub fn statistics(&mut self) -> Vec<(String, u64)> {
        let lines = self.linux.run_ok("ethtool -S eth0", Duration::from_secs(30));
        let pair = |line: &String| {
            let (name, value) = line.trim().split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        lines.iter().filter_map(pair).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the card's program said:\n{}\n---", self.card_log());
        }
    }
}
