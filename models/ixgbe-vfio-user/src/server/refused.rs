//! What a client is refused, and what is said about it.
use crate::message::Header;
use nix::errno::Errno;

/// Lines after which nothing more is said: a client may ask nonsense for ever.
const LINES_MAX: u64 = 50;

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// For the client.
    pub errno: Errno,
    /// For people.
    pub what: String,
}

impl Refused {
    /// With both.
    pub fn new(errno: Errno, what: impl Into<String>) -> Refused {
        Refused { errno, what: what.into() }
    }
}

impl From<&str> for Refused {
    fn from(what: &str) -> Refused {
        Refused::new(Errno::EINVAL, what)
    }
}

impl From<String> for Refused {
    fn from(what: String) -> Refused {
        Refused::new(Errno::EINVAL, what)
    }
}

/// Short for an error.
///
/// # Errors
/// Always.
pub fn refuse<T>(errno: Errno, what: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::new(errno, what))
}

/// How often a client was refused something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Complaints(u64);

impl Complaints {
    /// Counts one, and says so as long as there are few.
    pub fn add(&mut self, header: &Header, refused: &Refused) {
        self.0 += 1;
        if self.0 <= LINES_MAX {
            let Header { id, number, .. } = header;
            eprintln!(
                "ixgbe-vfio-user: refused message {id} (command {number}): {}: {}",
                refused.what,
                refused.errno.desc()
            );
        }
        if self.0 == LINES_MAX {
            eprintln!("ixgbe-vfio-user: more of that is not told");
        }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0
    }
}
