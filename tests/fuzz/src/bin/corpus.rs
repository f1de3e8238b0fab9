//! Corpora for the door (`cargo xtask fuzz`): lists the targets, unpacks a corpus into the directory
//! that libFuzzer works in, and packs one up again.
use ix_fuzz::{TARGETS, corpus, seeds};
use std::path::Path;
use std::process::ExitCode;

fn unpack(name: &str, directory: &Path) -> Result<(), String> {
    let say = |e: std::io::Error| format!("{}: {e}", directory.display());
    std::fs::create_dir_all(directory).map_err(say)?;
    for (number, input) in corpus::of(name)?.iter().chain(&seeds::of(name)).enumerate() {
        std::fs::write(directory.join(format!("kept-{number:05}")), input).map_err(say)?;
    }
    Ok(())
}

fn pack(name: &str, directory: &Path) -> Result<(), String> {
    let say = |e: std::io::Error| format!("{}: {e}", directory.display());
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(say)? {
        inputs.push(std::fs::read(entry.map_err(say)?.path()).map_err(say)?);
    }
    std::fs::create_dir_all(corpus::directory()).map_err(say)?;
    let file = corpus::directory().join(format!("{name}.bin"));
    std::fs::write(&file, corpus::pack(inputs)).map_err(|e| format!("{}: {e}", file.display()))
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["list"] => {
            for target in TARGETS {
                println!("{} {} {}", target.name, target.bytes_max, target.share);
            }
            Ok(())
        }
        ["unpack", name, directory] => unpack(name, Path::new(directory)),
        ["pack", name, directory] => pack(name, Path::new(directory)),
        _ => Err("list, unpack NAME DIRECTORY or pack NAME DIRECTORY".into()),
    };
    if let Err(error) = done {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
