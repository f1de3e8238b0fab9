//! What needs no machine; `tests/vfio.rs` has a made-up one.
use super::*;
use std::io::{Error, ErrorKind};

#[test]
fn functions_are_written_as_lspci_does() {
    let read = |text: &str| text.parse::<Bdf>().map(|bdf| bdf.to_string());
    assert_eq!(read("01:00.0").unwrap(), "0000:01:00.0");
    assert_eq!(read("0001:Ff:1f.7").unwrap(), "0001:ff:1f.7");
    for bad in [
        "",
        "01:00",
        "1.0",
        "01:20.0",
        "01:00.8",
        "100:00.0",
        "0:0:0:0.0",
        "+1:00.0",
        "01:00.0 ",
        "a,b:00.0",
        "eth0",
    ] {
        let said = read(bad).unwrap_err();
        assert!(said.contains("lspci -D"), "{bad}: {said}");
    }
}

#[test]
fn exactly_what_the_kernel_has_drivers_for_is_taken() {
    for device in 0..=u16::MAX {
        for vendor in [0x8086, 0x1af4, 0x10de] {
            let known = ix_ixgbe::pci::media(vendor, device).is_some()
                || ix_virtio_net::pci::is_virtio_net(vendor, device);
            assert_eq!(driver(vendor, device).is_some(), known, "{vendor:04x}:{device:04x}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_told_with_who_may() {
    let (host, bdf) = (Host::at(Path::new("/none")), "1:0.0".parse().unwrap());
    let dir = temp_dir::TempDir::new().unwrap();
    let file = dir.child("12");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let said = |kind| advice::device_file(&host, &file, bdf, &Error::from(kind));
    let may_not = said(ErrorKind::PermissionDenied);
    assert!(may_not.contains("mode 0600") && may_not.contains("chown"), "{may_not}");
    assert!(may_not.contains("SUBSYSTEM==\"vfio\""), "{may_not}");
    assert!(said(ErrorKind::ResourceBusy).contains("another program has it"));
    assert!(said(ErrorKind::NotFound).contains("modprobe vfio-pci"));
}

#[test]
fn a_control_page_on_a_disk_is_refused() {
    let said = check_control(Path::new("/proc/self/status")).unwrap_err().to_string();
    assert!(
        said.contains("IX_RUNTIME_DIR=/dev/shm/ix") && said.contains("--control serial"),
        "{said}"
    );
    assert!(check_control(Path::new("/dev/shm")).is_ok());
}
