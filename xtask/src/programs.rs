//! The workspace's test programs, built once and then run one by one, so that each can be run where and when it suits.
use crate::workspace::{cargo, root};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A test program that cargo has built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// What it is of: `ixcp/src/lib.rs`, `ixcp/tests/top.rs`.
    pub source: String,
    executable: PathBuf,
    /// Its package's directory, where cargo would run it.
    dir: PathBuf,
}

impl Program {
    /// What runs it, as cargo does.
    pub fn command(&self, when: When) -> Command {
        let mut command = when.command(&self.executable);
        command.current_dir(&self.dir).env("CARGO_MANIFEST_DIR", &self.dir);
        command.arg("--format=pretty");
        command
    }
}

/// What else wants the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It gets its share.
    Always,
    /// It gets what nobody else wants: Linux's idle class, or else the lowest priority.
    Idle,
}

impl When {
    /// A program in its class.
    pub fn command(self, program: &Path) -> Command {
        let through: &[&str] = match self {
            When::Always => &[],
            When::Idle if has_idle_class() => &IDLE,
            When::Idle => &["nice", "-n", "19"],
        };
        let Some((first, rest)) = through.split_first() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }

    /// Cargo in its class.
    pub fn cargo(self) -> Command {
        let mut command = self.command(Path::new(cargo().get_program()));
        command.current_dir(root());
        command
    }
}

const IDLE: [&str; 3] = ["chrt", "--idle", "0"];

/// Not everywhere is it there and allowed.
fn has_idle_class() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    let tried =
        || Command::new(IDLE[0]).args(&IDLE[1..]).arg("true").stderr(Stdio::null()).status();
    *HAS.get_or_init(|| tried().is_ok_and(|status| status.success()))
}

/// Builds what `cargo test` would with these arguments, and tells the programs that it would run, in its order.
pub fn build(when: When, args: &[&str]) -> Result<Vec<Program>> {
    let mut command = when.cargo();
    command.args(["test", "--quiet", "--no-run", "--message-format=json-render-diagnostics"]);
    let output = command
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo test --no-run failed ({})", output.status);
    let mut programs = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        programs.extend(program(line));
    }
    ensure!(!programs.is_empty(), "cargo has told of no test program");
    programs.sort_by(|a, b| a.source.cmp(&b.source));
    Ok(programs)
}

/// The program of a line of cargo's; `None` if it is about something else.
fn program(line: &str) -> Option<Program> {
    let executable = text(line, "executable")?;
    // Programs that tests start are told, too, and are no tests.
    line.contains(r#""test":true},"features""#).then_some(())?;
    let manifest = PathBuf::from(text(line, "manifest_path")?);
    let source = PathBuf::from(text(line, "src_path")?);
    let source = source.strip_prefix(root()).unwrap_or(&source).display().to_string();
    let dir = manifest.parent()?.to_owned();
    Some(Program { source, executable: executable.into(), dir })
}

/// A text in a line of JSON that cargo has written: names of files, of which none here has a character that JSON has to escape.
fn text<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("\"{name}\":\""))?;
    rest.split_once('"').map(|(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(test: bool, executable: &str) -> String {
        let root = root().display().to_string();
        format!(
            "{{\"reason\":\"compiler-artifact\",\"manifest_path\":\"{root}/ixcp/Cargo.toml\",\"target\":{{\"kind\":\
             [\"test\"],\"name\":\"top\",\"src_path\":\"{root}/ixcp/tests/top.rs\",\"test\":true}},\"profile\":\
             {{\"opt_level\":\"1\",\"test\":{test}}},\"features\":[],\"executable\":{executable},\"fresh\":true}}"
        )
    }

    #[test]
    fn test_programs_are_told_from_other_ones() {
        let found = program(&line(true, "\"/t/debug/deps/top-1\"")).expect("a program");
        assert_eq!((&*found.source, found.dir), ("ixcp/tests/top.rs", root().join("ixcp")));
        assert_eq!(found.executable, Path::new("/t/debug/deps/top-1"));
        assert_eq!(program(&line(false, "\"/t/debug/ixcp\"")), None);
        assert_eq!(program(&line(true, "null")), None);
        assert_eq!(program("{\"reason\":\"build-finished\",\"success\":true}"), None);
    }
}
