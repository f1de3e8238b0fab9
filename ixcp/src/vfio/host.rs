//! Where this machine tells what it has: `/sys`, `/proc` and `/dev`, or a tree that a test has made.
use anyhow::{Context, Result};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

/// CAP_IPC_LOCK: whose memory is not bounded.
const MAY_LOCK_ALL: u64 = 1 << 14;

/// The three trees.
#[derive(Clone, Debug)]
pub struct Host {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

impl Host {
    /// This machine's, or those below `IX_HOST_ROOT` (tests).
    pub fn from_env() -> Host {
        Host::at(&std::env::var_os("IX_HOST_ROOT").map_or_else(|| "/".into(), PathBuf::from))
    }

    /// Those below a directory.
    pub fn at(root: &Path) -> Host {
        Host { sys: root.join("sys"), proc: root.join("proc"), dev: root.join("dev") }
    }

    /// How many bytes this user may keep in memory; `None`: as many as there are.
    pub fn memory_lock(&self) -> Result<Option<u64>> {
        let of_self = |name: &str| {
            let path = self.proc.join("self").join(name);
            std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))
        };
        let status = of_self("status")?;
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        if effective.unwrap_or(0) & MAY_LOCK_ALL != 0 {
            return Ok(None);
        }
        let limits = of_self("limits")?;
        let soft = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
        Ok(soft.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse().ok()))
    }

    /// `GenuineIntel`, `AuthenticAMD` or another.
    pub fn cpu_vendor(&self) -> String {
        let text = std::fs::read_to_string(self.proc.join("cpuinfo")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("vendor_id"));
        line.map_or_else(String::new, |rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
    }
}

/// Why KVM cannot be used, if it cannot. A `/dev/kvm` that is there is not yet a processor that runs guests.
pub fn kvm_trouble(host: &Host) -> Option<String> {
    let path = host.dev.join("kvm");
    if !path.exists() {
        return Some(
            "this machine has no /dev/kvm: virtualisation is off in the firmware's setup (VT-x, SVM), or its module is not \
             loaded (modprobe kvm_intel, or kvm_amd)"
                .to_owned(),
        );
    }
    // Another module may serve the same file: one for guests of a guest (PVM), in which the kernel's instructions are emulated.
    let real = ["kvm_intel", "kvm_amd"];
    if !real.iter().any(|module| host.sys.join("module").join(module).exists()) {
        return Some(
            "/dev/kvm is there, but it is neither kvm_intel's nor kvm_amd's: the processor does not run guests by itself here (this \
             machine is a guest, perhaps with PVM), and the kernel does not start so"
                .to_owned(),
        );
    }
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    opened.err().map(|error| {
        format!("/dev/kvm cannot be opened ({error}): add the user to the group kvm (usermod -aG kvm USER), and log in anew")
    })
}
