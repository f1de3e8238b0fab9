//! A machine with a card, made of files: what `/sys`, `/proc` and `/dev` would show of it.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The card.
pub const CARD: &str = "0000:01:00.0";
/// Its second port, in the same group.
pub const SECOND: &str = "0000:01:00.1";
/// The bridge above both, in the same group, too.
pub const BRIDGE: &str = "0000:00:01.0";
/// Its group.
pub const GROUP: u32 = 12;

/// The files; removed with it.
pub struct MadeHost(PathBuf);

impl Drop for MadeHost {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl MadeHost {
    /// A machine in which all is well.
    pub fn good() -> MadeHost {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // In memory, for the control pages of instances.
        let dir = PathBuf::from(format!("/dev/shm/ix-made-{}-{number}", std::process::id()));
        fs::create_dir(&dir).expect("a directory in memory");
        let host = MadeHost(dir);
        host.function(CARD, "0x8086", "0x10fb", "0x020000");
        host.function(SECOND, "0x8086", "0x10fb", "0x020000");
        host.function(BRIDGE, "0x8086", "0x1901", "0x060400");
        for bdf in [CARD, SECOND, BRIDGE] {
            host.put_in_group(bdf, GROUP);
        }
        host.bind(CARD, Some("vfio-pci"));
        host.bind(BRIDGE, Some("pcieport"));
        host.write(&format!("sys/bus/pci/devices/{CARD}/reset_method"), "flr bus\n");
        host.write(&format!("sys/bus/pci/devices/{CARD}/reset"), "");
        fs::write(host.path(&format!("sys/bus/pci/devices/{CARD}/config")), config(63, true))
            .expect("written");
        host.write("sys/class/iommu/dmar0/name", "");
        host.write("sys/module/kvm_intel/refcnt", "0\n");
        host.write("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\n");
        host.write("proc/self/status", "Name:\tixcp\nCapEff:\t0000000000000000\n");
        host.lock_limit("unlimited");
        host.write(
            "proc/net/route",
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n",
        );
        host.write("proc/net/if_inet6", "");
        for name in ["kvm", "vfio/vfio", &format!("vfio/{GROUP}")] {
            host.write(&format!("dev/{name}"), "");
        }
        host
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, text).expect("written");
    }

    pub fn remove(&self, name: &str) {
        let path = self.path(name);
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path).expect("removed");
        } else {
            fs::remove_file(path).expect("removed");
        }
    }

    pub fn function(&self, bdf: &str, vendor: &str, device: &str, class: &str) {
        let ids = [("vendor", vendor), ("device", device), ("class", class)];
        for (name, value) in ids {
            self.write(&format!("sys/bus/pci/devices/{bdf}/{name}"), &format!("{value}\n"));
        }
    }

    pub fn put_in_group(&self, bdf: &str, group: u32) {
        let devices = self.path(&format!("sys/kernel/iommu_groups/{group}/devices"));
        fs::create_dir_all(&devices).expect("made");
        let device = self.path(&format!("sys/bus/pci/devices/{bdf}"));
        symlink(&device, devices.join(bdf)).expect("linked");
        symlink(devices.parent().expect("a group"), device.join("iommu_group")).expect("linked");
    }

    pub fn bind(&self, bdf: &str, driver: Option<&str>) {
        let link = self.path(&format!("sys/bus/pci/devices/{bdf}/driver"));
        let _ = fs::remove_file(&link);
        if let Some(driver) = driver {
            symlink(self.path(&format!("sys/bus/pci/drivers/{driver}")), link).expect("linked");
        }
    }

    /// Gives a function an interface of Linux, that is up if its flags say so.
    pub fn interface(&self, bdf: &str, name: &str, flags: &str) {
        self.write(&format!("sys/bus/pci/devices/{bdf}/net/{name}/flags"), flags);
        self.write(&format!("sys/class/net/{name}/flags"), flags);
    }

    pub fn lock_limit(&self, soft: &str) {
        self.write(
            "proc/self/limits",
            &format!(
                "Limit  Soft Limit  Hard Limit  Units\nMax locked memory  {soft}  {soft}  bytes\n"
            ),
        );
    }
}

/// Configuration space with PCI Express and MSI-X.
pub fn config(last_vector: u16, function_reset: bool) -> Vec<u8> {
    let mut config = vec![0; 256];
    config[0x34] = 0x40;
    config[0x40] = 0x10;
    config[0x41] = 0x70;
    config[0x47] = if function_reset { 0x10 } else { 0 };
    config[0x70] = 0x11;
    config[0x72..0x74].copy_from_slice(&last_vector.to_le_bytes());
    config
}
