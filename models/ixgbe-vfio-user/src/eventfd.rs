//! An interrupt as the client wants to hear of it.
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::write;
use std::os::fd::OwnedFd;

/// A counter in the kernel of this machine; adding one to it is the interrupt.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Takes a client's descriptor.
    ///
    /// # Errors
    /// `EINVAL` if it is a file, a pipe, a socket, …: writing there would be more than counting. An eventfd is nothing of all that.
    pub fn take(fd: OwnedFd) -> Result<EventFd, Errno> {
        let kind = SFlag::from_bits_truncate(fstat(&fd)?.st_mode) & SFlag::S_IFMT;
        if !kind.is_empty() {
            return Err(Errno::EINVAL);
        }
        nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        Ok(EventFd(fd))
    }

    /// Counts one. A counter that is full wakes its reader anyway.
    pub fn signal(&self) {
        let _ = write(&self.0, &1u64.to_ne_bytes());
    }
}
