//! The kernel's command line: `key=value` separated by spaces; after ` -- ` the application's own
//! arguments. A key that is not known is an error that names it: a typing mistake must not be silent.

use core::str::FromStr;

#[cfg(test)]
mod tests;

/// Longest command line that is read.
pub const BYTES_MAX: usize = 2048;

/// What an idle core does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idle {
    /// Polls for ever.
    Poll,
    /// Polls for a bounded time, then halts until an interrupt.
    Adaptive,
}

/// Where the dataplane is, for the times of TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tcp {
    Internet,
    Datacentre,
}

/// The dataplane's IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address {
    Dhcp,
    Static { addr: [u8; 4], prefix: u8 },
}

/// Where the dataplane's IPv6 addresses come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address6 {
    Off,
    /// From routers, with identifiers that are hashes.
    Auto,
    /// From routers, with identifiers made of the hardware address.
    Eui64,
    Static {
        addr: [u8; 16],
        prefix: u8,
    },
}

/// What TCP controls congestion by, unless an application says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Congestion {
    Cubic,
    NewReno,
    Dctcp,
}

/// Whether an IOMMU is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iommu {
    /// If there is one that sees the network card.
    Auto,
    /// The kernel does not run without.
    On,
    /// It is left as the firmware left it.
    Off,
}

/// Which network card is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// The first one of the machine that there is a driver for.
    Auto,
    /// None: what is sent comes back.
    Loopback,
}

/// The serial port of the framed control channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Com2,
    Com3,
    Com4,
}

impl Line {
    /// Its I/O ports, by the PC's convention.
    pub const fn port(self) -> u16 {
        match self {
            Self::Com2 => 0x2F8,
            Self::Com3 => 0x3E8,
            Self::Com4 => 0x2E8,
        }
    }

    /// As people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Com2 => "COM2",
            Self::Com3 => "COM3",
            Self::Com4 => "COM4",
        }
    }
}

/// Whether the kernel becomes a monitor that runs dataplanes under VT-x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vmx {
    /// If the CPU has what it takes, and no hypervisor is there already.
    Auto,
    /// The kernel does not run otherwise.
    On,
    Off,
}

/// Explicit congestion notification.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ecn {
    Off,
    /// If the peer asks.
    Accept,
    /// Asked for.
    On,
}

/// Everything the command line says, with defaults for what it does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config<'a> {
    /// Archive member to run; the kernel runs none without it.
    pub app: Option<&'a str>,
    /// Cores to use; all there are without it.
    pub cores: Option<usize>,
    /// How many of them, the last ones, are for background threads of the application.
    pub background: usize,
    pub address: Address,
    pub gateway: Option<[u8; 4]>,
    pub address6: Address6,
    /// Of a static IPv6 address.
    pub gateway6: Option<[u8; 16]>,
    /// Receive batch bound B.
    pub batch: Option<usize>,
    pub idle: Idle,
    pub congestion: Congestion,
    pub ecn: Ecn,
    /// The largest IP packet; `None`: as the network card says.
    pub mtu: Option<u16>,
    pub nic: Nic,
    pub line: Line,
    /// Whether an IOMMU keeps the network card from memory that it was not given.
    pub iommu: Iommu,
    /// Whether the network card sends and obeys pause frames.
    pub pause: bool,
    /// The only VLAN of the network card.
    pub vlan: Option<u16>,
    /// Whether fragmented datagrams are put together.
    pub reassemble: bool,
    pub log: log_level::Level,
    /// A boot-time self-test to run instead of an application.
    pub selftest: Option<&'a str>,
    /// Milliseconds that an application may keep a core before it is taken back.
    pub bound_ms: u32,
    /// Milliseconds after which an application that does not return is ended; 0: never.
    pub limit_ms: u32,
    /// End the machine when the application ends (tests), instead of waiting for `ixcp`.
    pub exit_with_app: bool,
    /// Heap arena mapped for the application, MiB; a share of the memory without it.
    pub heap_mib: Option<u64>,
    /// Archive member with the firewall's rules.
    pub acl: Option<&'a str>,
    /// Times of TCP.
    pub tcp: Tcp,
    /// Whether dataplanes run under the monitor.
    pub vmx: Vmx,
    /// Archive member that tells which dataplanes the monitor runs.
    pub dataplanes: Option<&'a str>,
    /// Print the full boot report.
    pub report: bool,
    /// Print a line for each packet.
    pub verbose: bool,
    /// The application's arguments.
    pub args: &'a str,
}

/// Log levels, without depending on the `log` crate here.
pub mod log_level {
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
    pub enum Level {
        Error,
        Warn,
        Info,
        Debug,
        Trace,
    }
}

impl Default for Config<'_> {
    fn default() -> Self {
        Self {
            app: None,
            cores: None,
            background: 0,
            address: Address::Dhcp,
            gateway: None,
            address6: Address6::Auto,
            gateway6: None,
            batch: None,
            idle: Idle::Adaptive,
            congestion: Congestion::Cubic,
            ecn: Ecn::Accept,
            mtu: None,
            nic: Nic::Auto,
            line: Line::Com2,
            iommu: Iommu::Auto,
            vlan: None,
            pause: false,
            reassemble: true,
            log: log_level::Level::Info,
            selftest: None,
            bound_ms: 10,
            limit_ms: 10_000,
            exit_with_app: false,
            heap_mib: None,
            acl: None,
            tcp: Tcp::Internet,
            vmx: Vmx::Auto,
            dataplanes: None,
            report: false,
            verbose: false,
            args: "",
        }
    }
}

/// A word that could not be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadWord<'a> {
    pub word: &'a str,
    pub why: &'static str,
}

impl core::fmt::Display for BadWord<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "command line: `{}`: {}", self.word, self.why)
    }
}

/// Reads a command line.
pub fn parse(line: &str) -> Result<Config<'_>, BadWord<'_>> {
    let (line, args) = match line.split_once(" -- ") {
        Some((ours, args)) => (ours, args.trim()),
        None => line.strip_prefix("-- ").map_or((line, ""), |args| ("", args.trim())),
    };
    let mut c = Config { args, ..Config::default() };
    for word in line.split_ascii_whitespace() {
        // A boot loader may put the kernel's path first.
        if word.starts_with('/') || word == "--" {
            continue;
        }
        apply(&mut c, word).map_err(|why| BadWord { word, why })?;
    }
    fits_loopback(&c).map_err(|why| BadWord { word: "nic=loopback", why })?;
    Ok(c)
}

/// Behind the loopback card there is nobody but the dataplane itself, and that over IPv4.
fn fits_loopback(c: &Config<'_>) -> Result<(), &'static str> {
    match (c.nic, c.address, c.address6) {
        (Nic::Loopback, Address::Dhcp, _) => {
            Err("nobody gives addresses there: ip=A.B.C.D/LEN is wanted")
        }
        (Nic::Loopback, _, Address6::Static { .. }) => Err("there is no IPv6: leave ip6= out"),
        _ => Ok(()),
    }
}

/// The application that is a self-test of the network card.
pub const NICTEST: &str = "nictest";
/// RFC 8200 §5: no link of IPv6 takes less.
const MTU_MIN: u64 = 1280;
/// IEEE 802.1Q: 4,095 is reserved.
const VLAN_MAX: u64 = 4094;

fn apply<'a>(c: &mut Config<'a>, word: &'a str) -> Result<(), &'static str> {
    if word == "verbose" {
        c.verbose = true;
        return Ok(());
    }
    let (key, value) = word.split_once('=').ok_or("not of the form key=value")?;
    match key {
        // In the kernel itself: what it looks at, applications do not see.
        "app" if value == NICTEST => c.selftest = Some(NICTEST),
        "app" => c.app = Some(value),
        "acl" => c.acl = Some(value),
        "selftest" => c.selftest = Some(value),
        "cores" => {
            c.cores = Some(number(value, 1..=64, "a number from 1 to 64 is wanted")? as usize);
        }
        "background" => {
            c.background = number(value, 0..=63, "a number from 0 to 63 is wanted")? as usize;
        }
        "batch" => {
            c.batch = Some(number(value, 1..=1024, "a number from 1 to 1024 is wanted")? as usize);
        }
        "bound" => c.bound_ms = number(value, 1..=1000, "1 to 1000 milliseconds")? as u32,
        "limit" => c.limit_ms = number(value, 0..=3_600_000, "0 to 3600000 milliseconds")? as u32,
        "heap" => c.heap_mib = Some(number(value, 2..=65_536, "2 to 65536 MiB")?),
        "ip" if value == "dhcp" => c.address = Address::Dhcp,
        "ip" => c.address = address(value).ok_or("dhcp or A.B.C.D/LEN is wanted")?,
        "gw" => c.gateway = Some(ipv4(value).ok_or("an address A.B.C.D is wanted")?),
        "ip6" => {
            c.address6 = address6(value).ok_or("auto, eui64, off or ADDRESS/LEN is wanted")?;
        }
        "gw6" => c.gateway6 = Some(ipv6(value).ok_or("an IPv6 address is wanted")?),
        "idle" => {
            c.idle = match value {
                "poll" => Idle::Poll,
                "adaptive" => Idle::Adaptive,
                _ => return Err("poll or adaptive is wanted"),
            };
        }
        "congestion" => {
            c.congestion = match value {
                "cubic" => Congestion::Cubic,
                "newreno" => Congestion::NewReno,
                "dctcp" => Congestion::Dctcp,
                _ => return Err("cubic, newreno or dctcp is wanted"),
            };
        }
        "ecn" => {
            c.ecn = match value {
                "off" => Ecn::Off,
                "accept" => Ecn::Accept,
                "on" => Ecn::On,
                _ => return Err("off, accept or on is wanted"),
            };
        }
        "mtu" => {
            let range = MTU_MIN..=u64::from(u16::MAX);
            c.mtu = Some(number(value, range, "1280 to 65535 bytes are wanted")? as u16);
        }
        "vlan" => {
            c.vlan = Some(number(value, 1..=VLAN_MAX, "a VLAN from 1 to 4094 is wanted")? as u16);
        }
        "nic" => {
            c.nic = match value {
                "auto" => Nic::Auto,
                "loopback" => Nic::Loopback,
                _ => return Err("auto or loopback is wanted"),
            };
        }
        "line" => {
            c.line = match value {
                "com2" => Line::Com2,
                "com3" => Line::Com3,
                "com4" => Line::Com4,
                _ => return Err("com2, com3 or com4 is wanted"),
            };
        }
        "iommu" => {
            c.iommu = match value {
                "auto" => Iommu::Auto,
                "on" => Iommu::On,
                "off" => Iommu::Off,
                _ => return Err("auto, on or off is wanted"),
            };
        }
        "vmx" => {
            c.vmx = match value {
                "auto" => Vmx::Auto,
                "on" => Vmx::On,
                "off" => Vmx::Off,
                _ => return Err("auto, on or off is wanted"),
            };
        }
        "dataplanes" => c.dataplanes = Some(value),
        "pause" => {
            c.pause = match value {
                "on" => true,
                "off" => false,
                _ => return Err("on or off is wanted"),
            };
        }
        "fragments" => {
            c.reassemble = match value {
                "reassemble" => true,
                "drop" => false,
                _ => return Err("reassemble or drop is wanted"),
            };
        }
        "tcp" => {
            c.tcp = match value {
                "internet" => Tcp::Internet,
                "datacentre" => Tcp::Datacentre,
                _ => return Err("internet or datacentre is wanted"),
            };
        }
        "onexit" => {
            c.exit_with_app = match value {
                "stop" => true,
                "wait" => false,
                _ => return Err("stop or wait is wanted"),
            };
        }
        "report" => {
            c.report = match value {
                "1" => true,
                "0" => false,
                _ => return Err("1 or 0 is wanted"),
            };
        }
        "log" => c.log = level(value).ok_or("error, warn, info, debug or trace is wanted")?,
        _ => return Err("unknown key"),
    }
    Ok(())
}

fn level(value: &str) -> Option<log_level::Level> {
    use log_level::Level;
    Some(match value {
        "error" => Level::Error,
        "warn" => Level::Warn,
        "info" => Level::Info,
        "debug" => Level::Debug,
        "trace" => Level::Trace,
        _ => return None,
    })
}

fn number(
    s: &str,
    range: core::ops::RangeInclusive<u64>,
    why: &'static str,
) -> Result<u64, &'static str> {
    u64::from_str(s).ok().filter(|n| range.contains(n)).ok_or(why)
}

fn ipv4(s: &str) -> Option<[u8; 4]> {
    core::net::Ipv4Addr::from_str(s).ok().map(|a| a.octets())
}

/// The address of a host: no group's, not `::` or `::1`, no IPv4 address in disguise.
fn ipv6(s: &str) -> Option<[u8; 16]> {
    let address = core::net::Ipv6Addr::from_str(s).ok()?;
    let host = !address.is_multicast() && !address.is_loopback() && !address.is_unspecified();
    (host && address.to_ipv4_mapped().is_none()).then(|| address.octets())
}

fn address6(s: &str) -> Option<Address6> {
    match s {
        "off" => return Some(Address6::Off),
        "auto" => return Some(Address6::Auto),
        "eui64" => return Some(Address6::Eui64),
        _ => {}
    }
    let (addr, prefix) = s.split_once('/')?;
    let prefix = u8::from_str(prefix).ok().filter(|p| (1..=128).contains(p))?;
    Some(Address6::Static { addr: ipv6(addr)?, prefix })
}

fn address(s: &str) -> Option<Address> {
    let (addr, prefix) = s.split_once('/')?;
    let prefix = u8::from_str(prefix).ok().filter(|p| (1..=32).contains(p))?;
    Some(Address::Static { addr: ipv4(addr)?, prefix })
}
