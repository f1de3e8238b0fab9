//! Counts instructions: runs one scenario of this program under callgrind.
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Finds valgrind.
pub fn valgrind() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("valgrind")).find(|p| p.is_file())
}

/// What a run collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collected {
    /// Instructions within `collect::counted_region`.
    pub instructions: u64,
    /// Operations that they were for.
    pub operations: u64,
}

impl Collected {
    /// Instructions of one operation.
    pub fn each(&self) -> f64 {
        self.instructions as f64 / self.operations as f64
    }
}

/// Caches as of one core: what misses the second level costs tens of nanoseconds.
const CACHES: [&str; 4] =
    ["--cache-sim=yes", "--I1=32768,8,64", "--D1=32768,8,64", "--LL=524288,8,64"];

/// Runs `program run ARGS` and counts; `profile` receives callgrind's file, with misses of simulated caches if
/// `caches`.
pub fn count(
    program: &Path,
    args: &[String],
    profile: Option<&Path>,
    caches: bool,
) -> Result<Collected> {
    let valgrind = valgrind().context("no valgrind (Debian package valgrind)")?;
    let out = profile.unwrap_or(Path::new("/dev/null"));
    let output = Command::new(valgrind)
        .args(["--tool=callgrind", "--instr-atstart=no", "--toggle-collect=*counted_region*"])
        .args(["--dump-instr=yes", "--dump-line=no", "--compress-pos=no"])
        .arg("--compress-strings=no")
        .args(CACHES.iter().filter(|_| caches))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .arg("run")
        .env("RUST_BACKTRACE", "0")
        .args(args)
        .output()
        .context("cannot run valgrind")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let heard = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let why: Vec<&str> =
            heard.lines().filter(|line| !line.starts_with("==") && !line.is_empty()).collect();
        bail!("run {}: {}\n{}", args.join(" "), output.status, why.join("\n"));
    }
    let number = |text: &str, mark: &str| {
        let line = text.lines().find_map(|line| line.split_once(mark))?;
        line.1.split_whitespace().next()?.parse().ok()
    };
    let instructions = number(&heard, "Collected : ").context("callgrind collected nothing")?;
    let operations = number(&said, "operations: ").context("no number of operations")?;
    Ok(Collected { instructions, operations })
}
