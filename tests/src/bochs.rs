//! A machine in Bochs, as `cargo xtask bochs` unpacks it: it boots a disc and is ended when its serial port
//! has said what was waited for.
use crate::need;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Bochs' root directory; `None` after saying SKIPPED.
pub fn root() -> Option<PathBuf> {
    let root = need::workspace().join("build/bochs/root");
    if root.join("usr/bin/bochs-bin").is_file() {
        return Some(root);
    }
    need::skip("no Bochs: cargo xtask bochs fetches it");
    None
}

/// Boots a disc on a CPU model until one of the texts is said; what the serial port said.
pub fn boot(
    root: &std::path::Path,
    iso: &std::path::Path,
    model: &str,
    until: &[&str],
    patience: Duration,
) -> String {
    let dir = temp_dir::TempDir::with_prefix("ix-bochs-").expect("a directory");
    let serial = dir.path().join("serial");
    let mut config = String::new();
    for line in [
        format!("romimage: file={}/usr/share/bochs/BIOS-bochs-latest", root.display()),
        format!("vgaromimage: file={}/usr/share/vgabios/vgabios.bin", root.display()),
        "megs: 256".to_owned(),
        format!("ata0-master: type=cdrom, path={}, status=inserted", iso.display()),
        "boot: cdrom".to_owned(),
        format!("com1: enabled=1, mode=file, dev={}", serial.display()),
        format!("log: {}/log", dir.path().display()),
        "panic: action=fatal".to_owned(),
        "pci: enabled=1, chipset=i440fx".to_owned(),
        "clock: sync=none, time0=local".to_owned(),
        "display_library: term".to_owned(),
        format!("cpu: model={model}, count=2, ips=50000000, reset_on_triple_fault=0"),
        "sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy".to_owned(),
    ] {
        let _ = writeln!(config, "{line}");
    }
    let rc = dir.path().join("bochsrc");
    std::fs::write(&rc, config).expect("a configuration");
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let mut child = Command::new(root.join("lib64/ld-linux-x86-64.so.2"))
        .arg("--library-path")
        .arg(format!("{}:{}/lib/x86_64-linux-gnu", libraries.display(), root.display()))
        .arg(root.join("usr/bin/bochs-bin"))
        .args(["-q", "-f"])
        .arg(&rc)
        .env("TERM", "linux")
        .env("LTDL_LIBRARY_PATH", libraries.join("bochs/plugins"))
        .env("BXSHARE", root.join("usr/share/bochs"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("Bochs starts");
    let said = || {
        let bytes = std::fs::read(&serial).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let deadline = Instant::now() + patience;
    while !until.iter().any(|text| said().contains(text)) {
        if Instant::now() > deadline || !matches!(child.try_wait(), Ok(None)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // It does not listen to a word: killed, and by its number, which is its own until it is waited for.
    let _ = child.kill();
    let _ = child.wait();
    said()
}
