//! What is to be done before a function can be passed, as commands that can be copied.
use super::{Bdf, Function, Host, LENDER};
use std::fmt::Write;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// No group: nothing tells the card's accesses from others'.
pub fn no_iommu(host: &Host, bdf: Bdf) -> String {
    let any =
        std::fs::read_dir(host.sys.join("class/iommu")).is_ok_and(|mut dir| dir.next().is_some());
    if any {
        return format!(
            "{bdf} has no IOMMU group although this machine has an IOMMU: the card is behind none. Try another slot, or a \
             firmware update"
        );
    }
    let (word, setup) = match host.cpu_vendor().as_str() {
        "GenuineIntel" => ("intel_iommu=on", "VT-d"),
        "AuthenticAMD" => ("amd_iommu=on", "AMD-Vi, also called IOMMU"),
        _ => ("intel_iommu=on (Intel) or amd_iommu=on (AMD)", "VT-d or AMD-Vi"),
    };
    format!(
        "{bdf} has no IOMMU group: Linux uses no IOMMU, without which a card could write anywhere in this machine's memory. \
         Switch it on in the firmware's setup ({setup}), boot Linux with {word} iommu=pt (Debian: GRUB_CMDLINE_LINUX in \
         /etc/default/grub, then update-grub), and look at `dmesg | grep -i -e DMAR -e IOMMU`"
    )
}

/// Functions that drivers of Linux have.
pub fn binding(host: &Host, card: &Function, strangers: &[&Function], group: u32) -> String {
    let mut text = String::new();
    let bdf = card.bdf;
    let own = card.driver.as_deref() != Some(LENDER);
    if own {
        let has = card.driver.as_deref().map_or_else(
            || "has no driver".to_owned(),
            |driver| format!("belongs to Linux's driver {driver}"),
        );
        let _ = write!(text, "{bdf} {has}, and VFIO passes only what {LENDER} has.");
    }
    for f in strangers {
        let driver = f.driver.as_deref().unwrap_or("none");
        let _ = write!(
            text,
            "{}{} ({:04x}:{:04x}) is in the same IOMMU group {group} and belongs to Linux's driver {driver}: what is in a group is \
             passed together or not at all.",
            if text.is_empty() { "" } else { "\n" },
            f.bdf,
            f.vendor,
            f.device
        );
    }
    let all: Vec<&Function> =
        own.then_some(card).into_iter().chain(strangers.iter().copied()).collect();
    for f in &all {
        for interface in &f.interfaces {
            text += &warn_of(host, interface);
        }
    }
    text += "\nTo lend it (as root; ixcp does not do that by itself):\n  modprobe vfio-pci";
    for f in &all {
        let _ = write!(text, "\n  echo {LENDER} > /sys/bus/pci/devices/{0}/driver_override", f.bdf);
        if f.driver.is_some() {
            let _ = write!(text, "\n  echo {0} > /sys/bus/pci/devices/{0}/driver/unbind", f.bdf);
        }
        let _ = write!(text, "\n  echo {0} > /sys/bus/pci/drivers_probe", f.bdf);
    }
    text += "\nTo give it back afterwards:";
    for f in &all {
        let _ = write!(
            text,
            "\n  echo > /sys/bus/pci/devices/{0}/driver_override\n  echo {0} > /sys/bus/pci/devices/{0}/driver/unbind\n  echo {0} > \
             /sys/bus/pci/drivers_probe",
            f.bdf
        );
    }
    if !strangers.is_empty() {
        text += "\nOr put the card into a slot where it has a group of its own.";
    }
    text
}

/// What is lost with an interface of Linux.
fn warn_of(host: &Host, name: &str) -> String {
    const IFF_UP: u32 = 1;
    let flags = std::fs::read_to_string(host.sys.join("class/net").join(name).join("flags"));
    let flags = flags.unwrap_or_default();
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap_or(0);
    let routes = std::fs::read_to_string(host.proc.join("net/route")).unwrap_or_default();
    let own = || {
        let fields = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        fields.filter(|fields| fields.first() == Some(&name))
    };
    let default = own().any(|f| f.get(1) == Some(&"00000000") && f.get(7) == Some(&"00000000"));
    let six = std::fs::read_to_string(host.proc.join("net/if_inet6")).unwrap_or_default();
    // fe80::/10 has every interface that is up.
    let six =
        six.lines().any(|line| line.ends_with(&format!(" {name}")) && !line.starts_with("fe8"));
    let carries = match (default, own().next().is_some() || six) {
        (true, _) => "carries the default route",
        (false, true) => "has addresses",
        _ if flags & IFF_UP != 0 => "is up",
        _ => return format!("\nIts interface {name}, which is not in use, will be gone."),
    };
    format!(
        "\nWARNING: its interface {name} {carries} and will be gone: whoever works on this machine through it is cut off."
    )
}

/// A file of VFIO's that cannot be opened.
pub fn device_file(host: &Host, path: &Path, bdf: Bdf, error: &Error) -> String {
    let head = format!("{bdf} cannot be had: {} cannot be opened ({error})", path.display());
    let rest = match error.kind() {
        ErrorKind::NotFound => "the module is not loaded (modprobe vfio-pci)".to_owned(),
        ErrorKind::PermissionDenied => who_may(path),
        ErrorKind::ResourceBusy => "another program has it: a guest that runs?".to_owned(),
        _ => format!("look at dmesg, and at {}", host.dev.join("vfio").display()),
    };
    format!("{head}: {rest}")
}

/// Whose a file is, and how it becomes this user's.
fn who_may(path: &Path) -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "USER".to_owned());
    let whose = match std::fs::metadata(path) {
        Ok(meta) => format!(
            "it is user {}'s and group {}'s, mode {:04o}",
            meta.uid(),
            meta.gid(),
            meta.mode() & 0o7777
        ),
        Err(_) => "it is another user's".to_owned(),
    };
    format!(
        "{whose}; as root: chown {user} {} (until the next boot; a rule for udev is SUBSYSTEM==\"vfio\", OWNER=\"{user}\")",
        path.display()
    )
}

/// Too little memory may be kept from being moved and swapped.
pub fn memory_lock(limit: u64, wanted: u64, memory_mib: u32) -> String {
    let kib = wanted.div_ceil(1024);
    format!(
        "the card may reach all of the guest's memory, so it must stay where it is: {} MiB for --memory {memory_mib}, and this user \
         may keep {} MiB (ulimit -l). Raise that: as root, prlimit --pid $$ --memlock={wanted} in the shell that starts ixcp; for \
         good, the line \"USER - memlock {kib}\" in /etc/security/limits.d/ix.conf, and log in anew; or give less --memory",
        wanted.div_ceil(1 << 20),
        limit >> 20
    )
}
