//! Commands to a running kernel: one writer at a time, each with a sequence number and the epoch
//! that the writer saw, answered within a bound or reported as unanswered (`docs/control.md`).
use crate::page::Page;
use crate::snapshot::{self, PageError};
use ix_abi::Status;
use ix_abi::control::{CommandCode, command, header, outcome};
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time between two looks at the page.
const LOOK: Duration = Duration::from_millis(1);

/// Why a command was not carried out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The page makes no sense.
    #[error(transparent)]
    Page(#[from] PageError),
    /// Another program holds the lock for too long.
    #[error(
        "another program has been writing commands to this dataplane for {0:?}: try again, or end it (it holds {1})"
    )]
    Locked(Duration, String),
    /// The lock file cannot be used.
    #[error("cannot lock {0}: {1}")]
    Lock(String, String),
    /// An earlier command has no answer yet.
    #[error(
        "the kernel has not answered an earlier command (number {pending}) within {waited:?}: it does not look at its control page"
    )]
    Pending {
        /// Its number.
        pending: u64,
        /// How long we waited.
        waited: Duration,
    },
    /// No answer in time.
    #[error(
        "no answer from the kernel within {0:?}: the command may still be carried out; look at `ixcp status`"
    )]
    TimedOut(Duration),
    /// The machine booted again in between.
    #[error("the kernel was started anew while the command was under way: it was not carried out")]
    Restarted,
    /// An answer to a command that nobody sent.
    #[error("the control page is corrupted: it answers command {found} where {expected} was sent")]
    Sequence {
        /// What it says.
        found: u64,
        /// What was sent.
        expected: u64,
    },
    /// The kernel says no.
    #[error("the kernel refuses: {0}")]
    Refused(Status),
}

impl CommandError {
    /// Whether the kernel may have carried it out, or may do so yet.
    pub fn leaves_open(&self) -> bool {
        use CommandError::{Page, Sequence, TimedOut};
        matches!(self, TimedOut(_) | Sequence { .. } | Page(PageError::Line(_)))
    }

    /// Told with what was not changed by it, if that is known.
    pub fn told(self, unchanged: &'static str) -> anyhow::Error {
        let known =
            if self.leaves_open() { "it is not known whether this was done" } else { unchanged };
        anyhow::Error::new(self).context(known)
    }
}

/// The right to write commands; given up when dropped.
#[derive(Debug)]
pub struct Writer {
    _file: File,
}

impl Writer {
    /// Waits for the lock, at most `patience`.
    pub fn lock(path: &Path, patience: Duration) -> Result<Writer, CommandError> {
        let name = || path.display().to_string();
        let failed = |e: std::io::Error| CommandError::Lock(name(), e.to_string());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(path)
            .map_err(failed)?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Writer { _file: file }),
                Err(TryLockError::WouldBlock) if start.elapsed() < patience => {
                    std::thread::sleep(LOOK);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(CommandError::Locked(patience, name()));
                }
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
    }

    /// Sends one command and waits for its outcome; gives the outcome's value.
    pub fn send(
        &self,
        page: &Page,
        code: CommandCode,
        args: [u64; 4],
        patience: Duration,
    ) -> Result<u64, CommandError> {
        self.send_with(page, code, args, patience, |_| {})
    }

    /// The same; `prepare` fills the bulk area, once no earlier command can be using it any more.
    pub fn send_with(
        &self,
        page: &Page,
        code: CommandCode,
        args: [u64; 4],
        patience: Duration,
        prepare: impl FnOnce(&Page),
    ) -> Result<u64, CommandError> {
        let epoch = snapshot::check(page)?;
        let deadline = Instant::now() + patience;
        let last = page.load(command::SEQUENCE);
        // The words of an unanswered command may be read at any moment: they must not change.
        if !wait(page, epoch, deadline, |answered| answered == last)? {
            return Err(CommandError::Pending { pending: last, waited: patience });
        }
        prepare(page);
        // Laying it there may have taken long, over a serial line.
        let deadline = Instant::now() + patience;
        let sequence = last.wrapping_add(1);
        page.store(command::EPOCH, epoch);
        page.store(command::CODE, code.0.into());
        for (i, arg) in args.into_iter().enumerate() {
            page.store(command::ARGS + i * 8, arg);
        }
        page.store_release(command::SEQUENCE, sequence);
        if !wait(page, epoch, deadline, |answered| answered != last)? {
            return Err(CommandError::TimedOut(patience));
        }
        let found = page.load_acquire(outcome::SEQUENCE);
        if found != sequence {
            return Err(CommandError::Sequence { found, expected: sequence });
        }
        let status = page.load(outcome::STATUS);
        match Status(u16::try_from(status).unwrap_or(u16::MAX)) {
            Status::Ok => Ok(page.load(outcome::VALUE)),
            refused => Err(CommandError::Refused(refused)),
        }
    }
}

/// Waits until the number of the last answered command satisfies `done`.
fn wait(
    page: &Page,
    epoch: u64,
    deadline: Instant,
    done: impl Fn(u64) -> bool,
) -> Result<bool, CommandError> {
    loop {
        let its = page.load(header::EPOCH);
        if let Some(why) = page.failure() {
            return Err(PageError::Line(why).into());
        }
        if its != epoch {
            return Err(CommandError::Restarted);
        }
        if done(page.load_acquire(outcome::SEQUENCE)) {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests;
