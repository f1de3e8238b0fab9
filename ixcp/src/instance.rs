//! Instances: each running dataplane has a directory with its control page, its serial log and a
//! description. A lock, inherited by QEMU, tells whether it lives: whatever is left of a dead one is
//! cleaned away by the next user of its name.
use crate::page::Page;
use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Directory of all of this user's instances.
#[derive(Clone, Debug)]
pub struct Base(PathBuf);

impl Base {
    /// `IX_RUNTIME_DIR`, or `ix` in `XDG_RUNTIME_DIR`, or `ix-UID` in the temporary directory.
    pub fn from_env() -> Result<Base> {
        if let Some(dir) = std::env::var_os("IX_RUNTIME_DIR") {
            return Base::at(PathBuf::from(dir));
        }
        let dir = match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
            Some(dir) if dir.is_dir() => dir.join("ix"),
            _ => {
                let uid = geteuid().as_raw();
                std::env::temp_dir().join(format!("ix-{uid}"))
            }
        };
        Base::at(dir)
    }

    /// A given directory, made if it is missing. It must be this user's, and closed to others.
    pub fn at(dir: PathBuf) -> Result<Base> {
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(e).with_context(|| format!("cannot make {}", dir.display()));
            }
            _ => {}
        }
        let meta = std::fs::symlink_metadata(&dir)
            .with_context(|| format!("cannot examine {}", dir.display()))?;
        ensure!(
            meta.is_dir() && meta.uid() == geteuid().as_raw() && meta.mode() & 0o077 == 0,
            "{} is not a directory of this user alone (mode 0700): another program has made it; set \
             IX_RUNTIME_DIR to a directory of yours",
            dir.display()
        );
        // Programs with another working directory must find the same files.
        Ok(Base(dir.canonicalize().with_context(|| format!("cannot resolve {}", dir.display()))?))
    }

    /// Every instance that lives, by name.
    pub fn list(&self) -> Result<Vec<Instance>> {
        let mut found = Vec::new();
        let entries = std::fs::read_dir(&self.0)
            .with_context(|| format!("cannot list {}", self.0.display()))?;
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if check_name(&name).is_ok() {
                let instance = Instance { dir: entry.path(), name, line: None };
                if instance.lives() {
                    found.push(instance);
                }
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The one of that name; without a name, the only one.
    pub fn find(&self, name: Option<&str>) -> Result<Instance> {
        if let Some(line) = name.filter(|name| name.contains('/')) {
            check_line(Path::new(line))?;
            return Ok(self.on_line(line));
        }
        let mut all = self.list()?;
        let names = all.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", ");
        if let Some(name) = name {
            return match all.into_iter().find(|i| i.name == name) {
                Some(instance) => Ok(instance),
                None if names.is_empty() => bail!(
                    "no dataplane named {name} runs (none runs at all in {}){}",
                    self.0.display(),
                    self.left_by(name)
                ),
                None => {
                    bail!("no dataplane named {name} runs; these do: {names}{}", self.left_by(name))
                }
            };
        }
        match all.len() {
            0 => bail!(
                "no dataplane runs (looked in {}): start one with `ixcp run`",
                self.0.display()
            ),
            1 => Ok(all.remove(0)),
            _ => bail!("several dataplanes run, choose one with --name: {names}"),
        }
    }

    /// What is to be said of the files that one of that name has left, which has not ended in order.
    fn left_by(&self, name: &str) -> String {
        // Anything else is no name, and no directory of ours.
        let left = self.directory(name);
        if check_name(name).is_err() || !left.join("serial.log").is_file() {
            return String::new();
        }
        let events = match left.join("control").is_file() {
            true => format!("; its last events: `ixcp events --name {name}`"),
            false => String::new(),
        };
        format!("; what the last one of that name has left is in {}{events}", left.display())
    }

    /// The one of that name, if it is given; else all.
    pub fn all(&self, name: Option<&str>) -> Result<Vec<Instance>> {
        match name {
            Some(line) if line.contains('/') => Ok(vec![self.on_line(line)]),
            Some(name) => Ok(self.list()?.into_iter().filter(|i| i.name == name).collect()),
            None => self.list(),
        }
    }

    /// What is at the other end of a serial line, of which nothing else is known.
    fn on_line(&self, path: &str) -> Instance {
        Instance { name: path.to_owned(), dir: self.0.clone(), line: Some(PathBuf::from(path)) }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where an instance of that name has its files.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Complains if a dataplane of that name runs. Nobody keeps it from being taken afterwards: see [`Base::claim`].
    pub fn ensure_free(&self, name: &str) -> Result<()> {
        check_name(name)?;
        match self.list()?.iter().find(|instance| instance.name == name) {
            Some(instance) => Err(taken(instance)),
            None => Ok(()),
        }
    }

    /// Takes a name for a new instance; gives the lock that marks it as alive.
    pub fn claim(&self, name: &str) -> Result<Claim> {
        check_name(name)?;
        let instance = Instance { dir: self.0.join(name), name: name.to_owned(), line: None };
        // Readers take the lock for a moment when they look whether an instance lives.
        for attempt in 0.. {
            match instance.try_claim()? {
                Some(claim) => return Ok(claim),
                None if attempt < 10 => std::thread::sleep(Duration::from_millis(10)),
                None => break,
            }
        }
        Err(taken(&instance))
    }
}

fn taken(instance: &Instance) -> anyhow::Error {
    let pid = instance.describe().ok().and_then(|d| d.get("launcher_pid")?.as_u64());
    let whose = pid.map(|p| format!(" (process {p})")).unwrap_or_default();
    let name = &instance.name;
    anyhow::anyhow!(
        "a dataplane named {name} runs already{whose}: choose another name with --name, or end \
         it with `ixcp stop --name {name}`"
    )
}

/// One instance's directory.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its name.
    pub name: String,
    dir: PathBuf,
    /// All that is known of it: the serial line that leads to it.
    line: Option<PathBuf>,
}

/// A claimed name.
#[derive(Debug)]
pub struct Claim {
    /// The new instance.
    pub instance: Instance,
    /// Held as long as this process or a child that inherits it lives.
    lock: File,
    /// Files of a dead instance were found and removed.
    pub cleaned: bool,
}

impl Claim {
    /// Lets children started from now on share the lock.
    pub fn share_lock(&self) -> Result<()> {
        fcntl(&self.lock, FcntlArg::F_SETFD(FdFlag::empty()))
            .context("cannot share the instance's lock with QEMU")?;
        Ok(())
    }

    /// Writes the description, whole or not at all.
    pub fn write_description(&self, description: &Value) -> Result<()> {
        let path = self.instance.description();
        let fresh = path.with_extension("new");
        let text = serde_json::to_string_pretty(description)?;
        std::fs::write(&fresh, text + "\n")
            .and_then(|()| std::fs::rename(&fresh, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes the directory: the instance has ended and leaves nothing to look at.
    pub fn remove(self) {
        // Failing to clean is no failure: the next user of the name will.
        let _ = std::fs::remove_dir_all(&self.instance.dir);
    }
}

impl Instance {
    /// The control page: a file, or the serial line over which it is told.
    pub fn control(&self) -> PathBuf {
        self.line.clone().unwrap_or_else(|| self.dir.join("control"))
    }

    /// Whether nothing is known of it but a serial line.
    pub fn is_line(&self) -> bool {
        self.line.is_some()
    }

    /// The lock of those who write commands.
    pub fn writer_lock(&self) -> PathBuf {
        // A line is one program's at a time anyway.
        self.dir.join(if self.line.is_some() { "line.lock" } else { "control.lock" })
    }

    /// The guest's serial log.
    pub fn serial(&self) -> PathBuf {
        self.dir.join("serial.log")
    }

    /// What QEMU itself said.
    pub fn qemu_log(&self) -> PathBuf {
        self.dir.join("qemu.log")
    }

    /// What the program that plays the network card said.
    pub fn nic_log(&self) -> PathBuf {
        self.dir.join("nic.log")
    }

    /// The description's file.
    pub fn description(&self) -> PathBuf {
        self.dir.join("instance.json")
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The description.
    pub fn describe(&self) -> Result<Value> {
        let path = self.description();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}: it is about to start", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Whether its launcher or its QEMU lives.
    pub fn lives(&self) -> bool {
        if let Some(line) = &self.line {
            return Page::open(line).is_ok();
        }
        let lock = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(self.alive_lock());
        lock.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Its QEMU's process number, if that process still is this instance's QEMU.
    pub fn qemu_pid(&self) -> Option<Pid> {
        let pid = i32::try_from(self.describe().ok()?.get("qemu_pid")?.as_i64()?).ok()?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let control = self.control();
        let mark = control.to_str()?.replace(',', ",,");
        let ours = String::from_utf8_lossy(&command).contains(&mark);
        ours.then_some(Pid::from_raw(pid))
    }

    fn alive_lock(&self) -> PathBuf {
        self.dir.join("alive.lock")
    }

    fn try_claim(&self) -> Result<Option<Claim>> {
        match std::fs::DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(e).with_context(|| format!("cannot make {}", self.dir.display()));
            }
            _ => {}
        }
        let path = self.alive_lock();
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path);
        let lock = match lock {
            // The directory was removed meanwhile by its last owner.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("cannot open {}", path.display()))?,
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => {
                return Err(e).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        // The last owner may have removed the file between opening and locking.
        let same = std::fs::metadata(&path).is_ok_and(|there| {
            lock.metadata().is_ok_and(|m| (m.ino(), m.dev()) == (there.ino(), there.dev()))
        });
        if !same {
            return Ok(None);
        }
        let mut cleaned = false;
        let stale = [
            self.control(),
            self.writer_lock(),
            self.serial(),
            self.qemu_log(),
            self.nic_log(),
            self.dir.join("nic"),
            self.dir.join("wire"),
            self.description(),
            self.dir.join("policy.toml"),
            self.dir.join("policy.log"),
        ];
        for file in stale {
            cleaned |= std::fs::remove_file(file).is_ok();
        }
        Ok(Some(Claim { instance: self.clone(), lock, cleaned }))
    }
}

/// A serial line is a terminal or a socket; anything else would be taken for a control page.
fn check_line(path: &Path) -> Result<()> {
    let meta = std::fs::metadata(path)
        .with_context(|| format!("cannot open the serial line {}", path.display()))?;
    let kind = meta.file_type();
    ensure!(
        kind.is_socket() || kind.is_char_device(),
        "{} is no serial line: it is neither a terminal nor a socket",
        path.display()
    );
    Ok(())
}

/// A name is also a file name, and is typed in shells.
pub fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    ensure!(
        !name.is_empty()
            && name.len() <= 32
            && !name.starts_with(['.', '-'])
            && name.chars().all(good),
        "{name:?} is not a good name: 1 to 32 letters, digits, '-', '_' or '.', not starting with '.' or '-'"
    );
    Ok(())
}

#[cfg(test)]
mod tests;
