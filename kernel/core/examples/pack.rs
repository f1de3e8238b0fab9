//! Packs a boot archive by hand: `pack OUT KERNEL.elf APP...` (what `xtask image` does for all apps).

use ix_kernel_core::{archive, symbols};
use std::path::Path;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [out, kernel, apps @ ..] = &args[..] else {
        eprintln!("usage: pack OUT KERNEL.elf APP...");
        std::process::exit(2);
    };
    let read = |p: &String| std::fs::read(p).unwrap_or_else(|e| panic!("{p}: {e}"));
    let table = symbols::build(&read(kernel)).expect("the kernel has a symbol table");
    let files: Vec<Vec<u8>> = apps.iter().map(read).collect();
    let mut members = vec![(symbols::MEMBER, &table[..])];
    for (path, file) in apps.iter().zip(&files) {
        let name = Path::new(path).file_name().and_then(|n| n.to_str()).expect("a file name");
        members.push((name, file));
    }
    let bytes = archive::build(&members).expect("names that fit");
    std::fs::write(out, bytes).unwrap_or_else(|e| panic!("{out}: {e}"));
}
