//! Links the binary as a freestanding IX application: see `libix/app.ld`.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../libix/app.ld");
    println!("cargo:rerun-if-changed={script}");
    for arg in [
        "-nostdlib",
        "-static",
        "-no-pie",
        &format!("-Wl,-T,{script}"),
        "-Wl,--build-id=none",
        "-Wl,-z,norelro",
        "-Wl,-z,max-page-size=4096",
    ] {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
}
