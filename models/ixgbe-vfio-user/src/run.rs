//! The loop: one client, one wire, and the chip's time, waited for together.
use crate::Device;
use crate::server::Server;
use crate::socket::Socket;
use crate::wire::{BUFFER_BYTES, Wire};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Frames taken from the wire before the client is looked at again: its processors wait while it is not.
const FRAMES_AT_ONCE: usize = 64;

/// Makes a socket and listens there; one that nobody serves any more is replaced.
///
/// # Errors
/// Somebody listens there, or there is something else.
pub fn listen(path: &Path) -> Result<UnixListener> {
    let stale = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
        && UnixStream::connect(path).is_err();
    if stale {
        std::fs::remove_file(path)
            .with_context(|| format!("cannot remove the old socket {}", path.display()))?;
    }
    UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))
}

/// Waits for a client. The socket's name goes away then: there is one client only.
///
/// # Errors
/// Nobody comes in time.
pub fn accept(listener: &UnixListener, path: &Path, patience: Duration) -> Result<Socket> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut fds, Some(TimeSpec::from_duration(left)), None) {
            Ok(0) => bail!("no client has come to {} in {} s", path.display(), patience.as_secs()),
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e).context("cannot wait"),
        }
    }
    let (stream, _) = listener.accept().context("cannot take a client")?;
    let _ = std::fs::remove_file(path);
    Socket::new(stream)
}

/// What the program can be asked for while it runs: by SIGUSR1, that the chip hangs.
#[derive(Debug)]
pub struct Requests(SignalFd);

impl Requests {
    /// The signal does not end the program from now on.
    ///
    /// # Errors
    /// The system does not allow it.
    pub fn open() -> Result<Requests> {
        let mask = SigSet::from(Signal::SIGUSR1);
        mask.thread_block().context("cannot block a signal")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Requests(SignalFd::with_flags(&mask, flags).context("cannot wait for a signal")?))
    }

    /// Whether the chip is to hang.
    fn take(&self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }
}

/// Serves a client until it leaves.
///
/// # Errors
/// The client does not keep to the protocol.
pub fn serve<D: Device>(
    server: &mut Server<D>,
    client: &mut Socket,
    wire: &mut Wire,
    requests: &Requests,
) -> Result<()> {
    let started = Instant::now();
    let mut buffer = vec![0; BUFFER_BYTES];
    let now = || started.elapsed().as_nanos() as u64;
    loop {
        let now_ns = now();
        server.tick(now_ns, wire);
        wire.flush();
        let timeout = server.device.next_tick_ns().map(|at| at.saturating_sub(now_ns));
        let Woken { asked, frames, requested } =
            wait(client, wire, requests, timeout.map(Duration::from_nanos))?;
        if requested && requests.take() {
            server.device.hang();
        }
        if asked {
            let Some(mut request) = client.receive()? else { return Ok(()) };
            let answer = server.request(&mut request, wire);
            client.done(request);
            // First the frames: the client may wait for the answer and then look for them.
            wire.flush();
            if let Some(answer) = answer {
                client.send(&answer)?;
            }
        }
        if frames {
            // They come now, and not when it was looked last: a pause frame asks for silence from now on.
            server.tick(now(), wire);
        }
        for _ in 0..if frames { FRAMES_AT_ONCE } else { 0 } {
            let Some(len) = wire.receive(&mut buffer) else { break };
            server.receive(&buffer[..len], wire);
        }
    }
}

/// What there is to do.
struct Woken {
    /// The client asks.
    asked: bool,
    /// The wire has something.
    frames: bool,
    /// A signal has come.
    requested: bool,
}

/// Until there is something to do.
fn wait(
    client: &Socket,
    wire: &Wire,
    requests: &Requests,
    timeout: Option<Duration>,
) -> Result<Woken> {
    let input = wire.has_input();
    let timeout = if input { Some(Duration::ZERO) } else { timeout };
    let mut want = PollFlags::POLLIN;
    want.set(PollFlags::POLLOUT, wire.is_behind());
    let wire = wire.as_fd().map(|fd| PollFd::new(fd, want));
    let count = 2 + usize::from(wire.is_some());
    let read = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let client = read(client.as_fd());
    let mut fds = [client.clone(), read(requests.0.as_fd()), wire.unwrap_or(client)];
    match ppoll(&mut fds[..count], timeout.map(TimeSpec::from_duration), None) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(e) => return Err(e).context("cannot wait"),
    }
    let any = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
    let frames = input || count == 3 && any(&fds[2]);
    Ok(Woken { asked: any(&fds[0]), frames, requested: any(&fds[1]) })
}
