//! Links the kernel as a static image at the top 2 GiB: plain `cargo build` for the host target, with
//! our own linker script and none of libc.

fn main() {
    let dir = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets this");
    println!("cargo:rerun-if-changed=link.ld");
    for file in ["boot/boot.S", "cpu/traps.S", "user/enter.S", "vmx/switch.S"] {
        println!("cargo:rerun-if-changed=src/{file}");
    }
    println!("cargo:rerun-if-changed=testapp/link.ld");
    for (bin, script) in [("ix-kernel", "link.ld"), ("ix-testapp", "testapp/link.ld")] {
        for arg in [
            "-nostdlib",
            "-static",
            "-no-pie",
            &format!("-Wl,-T,{dir}/{script}"),
            "-Wl,--build-id=none",
            "-Wl,-z,norelro",
            "-Wl,-z,max-page-size=4096",
        ] {
            println!("cargo:rustc-link-arg-bin={bin}={arg}");
        }
    }
}
