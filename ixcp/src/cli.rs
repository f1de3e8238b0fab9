//! The command line of `ixcp`.
use crate::net::{Address, Address6, Backend, Forward};
use crate::qemu::Accelerator;
use crate::vfio::Bdf;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ix_abi::control::DATAPLANE_NAME_BYTES;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

mod policy;
mod watch;
pub use policy::{Daemon, Plot, Policy, PolicyAction, PolicyLog, PolicySet, PolicyShow};
pub use policy::{Record, Simulate};
pub use watch::{Completions, Metrics, Top};

/// What the exit codes mean; those above 2 are of `run` only ([`crate::qemu::Ending`]).
const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed (the message says why), 2 wrong usage; of `ixcp run` also \
    3 kernel panic, 4 CPU exception in the kernel, 5 QEMU failed, 6 the application failed, 7 the kernel ended the \
    application (6 and 7 with --append onexit=stop), 8 the kernel cannot run on this machine or with this command line, \
    9 a self-test failed.";

/// Launches, watches and steers IX dataplanes.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = EXIT_CODES
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts a dataplane in QEMU and stays with it until it ends, or until Ctrl-C
    Run(Box<Run>),
    /// Shows what a running dataplane does
    Status(Status),
    /// Ends a dataplane
    Stop(Stop),
    /// Ends the application of a dataplane and starts it afresh
    RestartApp(RestartApp),
    /// Lists the dataplanes that run
    Ls(Ls),
    /// Shows rates by core, again and again; one frame of plain text if this is no terminal
    Top(Top),
    /// Serves the counters of all dataplanes to Prometheus, on this machine only
    Metrics(Metrics),
    /// Shows which cores serve, or sets how many do
    Cores(Cores),
    /// Shows which core has which flow group, or moves one
    Flows(Flows),
    /// Sets the bound of a receive batch
    Batch(Batch),
    /// Decides about the cores of all dataplanes, by the policy of each, until Ctrl-C
    Daemon(Daemon),
    /// Shows, sets and tries out policies
    Policy(Policy),
    /// Writes load, cores and queueing delay of a running dataplane, line by line
    Record(Record),
    /// Draws what `record` or `policy simulate --csv` has written, as SVG
    Plot(Plot),
    /// Captures packets of a running dataplane, for Wireshark and its like
    Pcap(Pcap),
    /// Prints each packet on the dataplane's console, or no longer
    Trace(Trace),
    /// Shows the last events of each core, also of a dataplane that has crashed
    Events(Events),
    /// Shows, sets and tries out the firewall's rules
    #[command(subcommand)]
    Acl(Acl),
    /// Prints a script that lets a shell complete what is typed after `ixcp`
    Completions(Completions),
}

/// `ixcp run`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Run {
    /// Application to start; nictest is a self-test of the network card (docs/hardware.md)
    #[arg(long, default_value = "kv")]
    pub app: String,
    /// Cores
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cores: u32,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    pub memory: u32,
    /// Network: user, stream=PATH (a peer listens on that Unix socket) or tap=INTERFACE
    #[arg(long, default_value = "user")]
    pub net: Backend,
    /// Network card; ixgbe is an Intel 82599 that another program plays, and needs a QEMU with vfio-user; loopback is none: what
    /// the dataplane sends comes back to it (for the application kvcheck)
    #[arg(long, default_value = "virtio")]
    pub nic: Nic,
    /// The program that plays it [default: ixgbe-vfio-user beside this one]
    #[arg(long, value_name = "PATH")]
    pub nic_program: Option<PathBuf>,
    /// An IOMMU between network card and memory (Intel VT-d): the card reaches what it was given, and nothing else
    #[arg(long)]
    pub iommu: bool,
    /// A card of this machine for the guest, by its PCI function (01:00.0): in place of --nic and --net, with an address of its
    /// network by --ip (docs/hardware.md)
    #[arg(long, value_name = "BDF", conflicts_with_all = ["nic", "nic_program", "net", "forward"])]
    pub vfio: Option<Bdf>,
    /// Port of this machine that leads to the guest: `[ADDRESS:]HOST:GUEST[/udp]`; may be repeated.
    /// Host port 0 takes a free one. Default: the application's usual port, with --net user; one that its arguments
    /// make listen elsewhere wants this
    #[arg(long, value_name = "HOST:GUEST")]
    pub forward: Vec<Forward>,
    /// Name of this dataplane [default: the application's]
    #[arg(long)]
    pub name: Option<String>,
    /// How instructions are executed [default: tcg; with --vfio kvm, if it works]
    #[arg(long)]
    pub accel: Option<Accelerator>,
    /// QEMU's program
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
    /// The guest's address: A.B.C.D/LENGTH or dhcp [default: 10.0.2.15/24; with --vfio none]
    #[arg(long)]
    pub ip: Option<Address>,
    /// The guest's gateway [default: 10.0.2.2 with the default address]
    #[arg(long)]
    pub gw: Option<Ipv4Addr>,
    /// The guest's IPv6 addresses: auto, eui64, off or ADDRESS/LENGTH
    #[arg(long, default_value = "auto")]
    pub ip6: Address6,
    /// The guest's IPv6 gateway, for a fixed address
    #[arg(long)]
    pub gw6: Option<Ipv6Addr>,
    /// What an idle core does
    #[arg(long)]
    pub idle: Option<Idle>,
    /// Largest receive batch
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub batch: Option<u32>,
    /// Largest IP packet, if the network card takes it; the interface on the host is not changed
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1280..))]
    pub mtu: Option<u16>,
    /// The only VLAN of the dataplane, if the network card can tag frames (an 82599 can, virtio-net cannot)
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
    pub vlan: Option<u16>,
    /// Prints a line for each packet, from the boot on (`ixcp trace off` ends it)
    #[arg(long)]
    pub verbose: bool,
    /// Rules of the firewall, in force from the first packet on (docs/acl.md)
    #[arg(long, value_name = "FILE")]
    pub acl: Option<PathBuf>,
    /// How ixcp reaches the control page
    #[arg(long, default_value = "shared")]
    pub control: Control,
    /// More words for the kernel's command line
    #[arg(long, value_name = "WORDS")]
    pub append: Option<String>,
    /// One more argument for QEMU; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub qemu_arg: Vec<OsString>,
    /// Directory of kernel and initrd [default: $IX_IMAGES or build/images]
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Prints the QEMU command and starts nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Arguments of the application; if they make it listen on another port, --forward leads there
    #[arg(last = true)]
    pub args: Vec<String>,
}

impl Run {
    /// The guest's address, as given, or of QEMU's user network; a card of this machine is not in that.
    pub fn address(&self) -> Address {
        let usual = if self.vfio.is_some() { Address::Dhcp } else { Address::USUAL };
        self.ip.unwrap_or(usual)
    }
}

/// Network cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Nic {
    /// virtio-net over PCI.
    Virtio,
    /// An Intel 82599 over vfio-user.
    Ixgbe,
    /// The kernel's own, without a wire.
    Loopback,
}

/// What an idle core does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Idle {
    /// Polls for ever.
    Poll,
    /// Polls for a while, then halts.
    Adaptive,
}

impl Idle {
    /// As the kernel's command line says it.
    pub fn word(self) -> &'static str {
        match self {
            Idle::Poll => "poll",
            Idle::Adaptive => "adaptive",
        }
    }
}

/// Which dataplane.
#[derive(Debug, Args)]
pub struct Target {
    /// Name of the dataplane; not needed if only one runs
    #[arg(long, global = true)]
    pub name: Option<String>,
    /// Serial line that leads to it (a terminal or a Unix socket), if it shares no memory with this machine
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "name", value_parser = line_path)]
    pub serial: Option<String>,
}

impl Target {
    /// A name, or the path of a line, which has a slash.
    pub fn which(&self) -> Option<&str> {
        self.serial.as_deref().or(self.name.as_deref())
    }
}

fn line_path(path: &str) -> Result<String, std::convert::Infallible> {
    Ok(if path.contains('/') { path.to_owned() } else { format!("./{path}") })
}

/// How `ixcp` reaches the control page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Control {
    /// Memory that both share (ivshmem).
    #[default]
    Shared,
    /// Frames over the second serial port.
    Serial,
}

/// `ixcp status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Which dataplane.
    #[command(flatten)]
    pub target: Target,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}

/// `ixcp cores`.
#[derive(Debug, Args)]
pub struct Cores {
    /// What to do; shows them if it is not given.
    #[command(subcommand)]
    pub action: Option<CoresAction>,
    /// Which dataplane.
    #[command(flatten)]
    pub target: Target,
    /// Prints JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// What is done about cores.
#[derive(Debug, Subcommand)]
pub enum CoresAction {
    /// So many serve, from core 0 on; connections go with their flow groups, the other cores are parked
    Set {
        /// How many
        #[arg(value_parser = clap::value_parser!(u16).range(1..=64))]
        count: u16,
    },
    /// One fewer: hands a core's connections to the others, and halts it
    Park {
        /// Which one; not core 0, which also answers commands
        #[arg(value_parser = parked)]
        core: u16,
    },
    /// One more: a parked core serves again
    Unpark {
        /// Which one
        #[arg(value_parser = clap::value_parser!(u16).range(0..=63))]
        core: u16,
    },
    /// One goes to another dataplane that lists it, under IX's monitor (docs/vtx.md); that one gives it back in the same way
    Give {
        /// Which one, by its number in this dataplane; not core 0
        #[arg(value_parser = clap::value_parser!(u16).range(0..=63))]
        core: u16,
        /// Name of the dataplane that gets it, as in the boot configuration [default: the next that lists the core]
        #[arg(long, value_name = "DATAPLANE", value_parser = dataplane)]
        to: Option<String>,
        /// Seconds to wait until the core is away
        #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
        timeout: Duration,
    },
    /// So many of the last cores are for background threads of the application: cores that are parked
    Reserve {
        /// How many
        #[arg(value_parser = clap::value_parser!(u16).range(0..=63))]
        count: u16,
    },
}

/// `ixcp flows`.
#[derive(Debug, Args)]
pub struct Flows {
    /// What to do; shows them if it is not given.
    #[command(subcommand)]
    pub action: Option<FlowsAction>,
    /// Which dataplane.
    #[command(flatten)]
    pub target: Target,
    /// Prints JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// What is done about flow groups.
#[derive(Debug, Subcommand)]
pub enum FlowsAction {
    /// Moves a flow group, with its connections, to a core that serves
    Move {
        /// Its number
        group: u16,
        /// The core
        core: u16,
    },
}

/// `ixcp batch`.
#[derive(Debug, Args)]
pub struct Batch {
    /// Most frames that a core takes at once
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub frames: u16,
    /// Which dataplane.
    #[command(flatten)]
    pub target: Target,
}

/// `ixcp stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// Which dataplane.
    #[command(flatten)]
    pub target: Target,
    /// Seconds to wait for it
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
    /// If the kernel does not answer, end its QEMU
    #[arg(long)]
    pub force: bool,
}

/// `ixcp restart-app`.
#[derive(Debug, Args)]
pub struct RestartApp {
    /// Which dataplane.
    #[command(flatten)]
    pub target: Target,
    /// Seconds to wait until the application serves again
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
}

/// `ixcp ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}

/// Which packets; all criteria that are given must hold.
#[derive(Clone, Debug, Default, Args)]
pub struct FilterArgs {
    /// Only packets from or to this address or prefix, such as 10.0.2.2 or 10.0.2.0/24
    #[arg(long, value_name = "PREFIX")]
    pub address: Option<String>,
    /// Only TCP and UDP packets from or to this port
    #[arg(long)]
    pub port: Option<u16>,
    /// Only packets of this flow group
    #[arg(long)]
    pub group: Option<u16>,
    /// Only this protocol: tcp, udp, icmp, arp, ip, an IP protocol's number or an EtherType
    #[arg(long)]
    pub protocol: Option<String>,
    /// Only received (in) or sent (out) packets
    #[arg(long)]
    pub direction: Option<Way>,
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Received.
    In,
    /// Sent.
    Out,
}

/// `ixcp pcap`.
#[derive(Debug, Args)]
pub struct Pcap {
    /// Which dataplane.
    #[command(flatten)]
    pub target: Target,
    /// Which packets.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Bytes of each packet that are kept
    #[arg(long, value_name = "BYTES", default_value_t = 2048, value_parser = clap::value_parser!(u16).range(1..=2048))]
    pub snaplen: u16,
    /// Ends after so many packets
    #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Ends after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub seconds: Option<Duration>,
    /// File to write; `-` is standard output, which is the default if it is not a terminal
    #[arg(short, long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Format of the file; pcap has no directions, groups and counts of missed packets
    #[arg(long, default_value = "pcapng")]
    pub format: Format,
}

/// Formats of capture files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The new one.
    Pcapng,
    /// The classic one, with nanoseconds.
    Pcap,
}

/// `ixcp trace`.
#[derive(Debug, Args)]
pub struct Trace {
    /// Whether packets are printed
    pub switch: Switch,
    /// Which dataplane.
    #[command(flatten)]
    pub target: Target,
    /// Which packets.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// From now on.
    On,
    /// No longer.
    Off,
}

/// `ixcp events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Which dataplane; with --name also one that has crashed and left its files
    #[command(flatten)]
    pub target: Target,
    /// Reads this control page
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    pub file: Option<PathBuf>,
    /// Only this core's
    #[arg(long)]
    pub core: Option<usize>,
    /// Goes on with what happens, until the dataplane ends or Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// Prints JSON (with --follow one object a line)
    #[arg(long)]
    pub json: bool,
}

/// `ixcp acl`.
#[derive(Debug, Subcommand)]
pub enum Acl {
    /// Shows the rules in force and how often each has decided
    Show(AclShow),
    /// Takes the rules of a file into force, on all cores
    Set(AclSet),
    /// Checks a file, and says which of its rules decides about a packet; needs no dataplane
    Test(AclTest),
}

/// `ixcp acl show`.
#[derive(Debug, Args)]
pub struct AclShow {
    /// Which dataplane.
    #[command(flatten)]
    pub target: Target,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}

/// `ixcp acl set`.
#[derive(Debug, Args)]
pub struct AclSet {
    /// The rules
    pub file: PathBuf,
    /// Which dataplane.
    #[command(flatten)]
    pub target: Target,
}

/// `ixcp acl test`.
#[derive(Debug, Args)]
pub struct AclTest {
    /// The rules
    pub file: PathBuf,
    /// A packet, like "tcp 10.0.2.2:4000 -> :11211"; may be repeated
    #[arg(long, value_name = "PACKET")]
    pub packet: Vec<String>,
    /// Our address, for rules that ask for it
    #[arg(long, value_name = "A.B.C.D")]
    pub local: Option<Ipv4Addr>,
}

/// A name as a boot configuration can have it.
fn dataplane(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=DATAPLANE_NAME_BYTES).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err("a name of at most 32 letters, digits, - and _ is wanted".to_owned())
}

/// A core that can be parked.
fn parked(text: &str) -> Result<u16, &'static str> {
    match text.parse() {
        Ok(0) => Err("core 0 always serves, since it also answers commands"),
        Ok(core @ 1..=63) => Ok(core),
        _ => Err("a core from 1 to 63 is wanted"),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is wanted")?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "a number of seconds is wanted".to_owned())
}

#[cfg(test)]
mod tests;
