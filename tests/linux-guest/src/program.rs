//! Programs of others in the archive's `/bin`.
use std::io::{BufRead, BufReader, Error, Result, pipe};
use std::process::{Command, Stdio};

/// Runs one to its end, each of its lines told; gives its exit code.
pub fn run(words: &str, mut tell: impl FnMut(&str)) -> Result<i32> {
    let mut words = words.split_whitespace();
    let name = words.next().ok_or_else(|| Error::other("which program?"))?;
    let (from, to) = pipe()?;
    let mut child = Command::new(format!("/bin/{name}"))
        .args(words)
        .env("PATH", "/bin")
        .stdin(Stdio::null())
        .stdout(to.try_clone()?)
        .stderr(to)
        .spawn()
        .map_err(|e| Error::other(format!("{name}: {e}")))?;
    // The command, which held the pipe's other end, is gone: the last line ends with the program.
    for line in BufReader::new(from).split(b'\n') {
        tell(&String::from_utf8_lossy(&line?));
    }
    Ok(child.wait()?.code().unwrap_or(-1))
}
