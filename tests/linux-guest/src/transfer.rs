//! Streams of checked data over the kernel's TCP: what `apps/stream` does, by sockets.
use std::fmt;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use stream::{PORT, Pattern, REQUEST_BYTES, Request, Role, VERDICT_BYTES, Verdict};

/// Bytes given to the kernel or taken from it at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// A stream on which nothing moves for so long is dead.
const STALL_MAX: Duration = Duration::from_secs(60);

/// How a transfer went.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    verdict: Verdict,
    time: Duration,
    /// What this kernel has counted meanwhile, by [`COUNTERS`].
    counted: [u64; 3],
}

/// Files of counters in `/proc/net`, the prefix of their lines, and the kernel's names: segments sent
/// again, retransmission timeouts, loss probes.
const COUNTERS: [(&str, &str, &str); 3] = [
    ("snmp", "Tcp: ", "RetransSegs"),
    ("netstat", "TcpExt: ", "TCPTimeouts"),
    ("netstat", "TcpExt: ", "TCPLossProbes"),
];

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrong = self.verdict.wrong.map_or("none".to_owned(), |at| at.to_string());
        write!(
            f,
            "bytes={} time_us={} wrong={wrong} retransmitted={} timeouts={} probes={}",
            self.verdict.bytes,
            self.time.as_micros(),
            self.counted[0],
            self.counted[1],
            self.counted[2]
        )
    }
}

/// Serves whoever connects, each in a thread.
pub fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    std::thread::spawn(move || {
        for peer in listener.incoming().flatten() {
            // What went wrong shows at the other end.
            std::thread::spawn(move || answer(peer));
        }
    });
    Ok(())
}

fn answer(mut peer: TcpStream) -> Result<()> {
    limit(&peer)?;
    let mut bytes = [0; REQUEST_BYTES];
    peer.read_exact(&mut bytes)?;
    let request = Request::parse(&bytes).ok_or_else(|| Error::from(ErrorKind::InvalidData))?;
    match request.role {
        Role::Sink => {
            let verdict = sink(&mut peer, &request)?;
            peer.write_all(&verdict.to_bytes())
        }
        Role::Source => source(&mut peer, &request),
    }
}

/// One transfer as a client. The clock runs from the established connection to the verdict, or to the end of
/// the stream.
pub fn run(to: SocketAddr, request: &Request) -> Result<Outcome> {
    let mut peer = TcpStream::connect(to)?;
    limit(&peer)?;
    let before = COUNTERS.map(counter);
    let start = Instant::now();
    peer.write_all(&request.to_bytes())?;
    let verdict = match request.role {
        Role::Sink => {
            source(&mut peer, request)?;
            let mut bytes = [0; VERDICT_BYTES];
            peer.read_exact(&mut bytes)?;
            Verdict::parse(&bytes)
        }
        Role::Source => {
            let verdict = sink(&mut peer, request)?;
            if peer.read(&mut [0])? != 0 {
                return Err(Error::other("more than was asked for"));
            }
            verdict
        }
    };
    let time = start.elapsed();
    let after = COUNTERS.map(counter);
    let counted = std::array::from_fn(|i| after[i] - before[i]);
    Ok(Outcome { verdict, time, counted })
}

fn limit(peer: &TcpStream) -> Result<()> {
    peer.set_read_timeout(Some(STALL_MAX))?;
    peer.set_write_timeout(Some(STALL_MAX))
}

fn source(peer: &mut TcpStream, request: &Request) -> Result<()> {
    let mut pattern = Pattern::new(request.seed);
    let mut chunk = vec![0; CHUNK_BYTES];
    while pattern.at() < request.bytes {
        let left = usize::try_from(request.bytes - pattern.at()).unwrap_or(usize::MAX);
        let part = &mut chunk[..left.min(CHUNK_BYTES)];
        pattern.fill(part);
        peer.write_all(part)?;
    }
    peer.shutdown(Shutdown::Write)
}

/// Takes what was announced, or what comes before the end if that is less.
fn sink(peer: &mut TcpStream, request: &Request) -> Result<Verdict> {
    let mut pattern = Pattern::new(request.seed);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut wrong = None;
    while pattern.at() < request.bytes {
        let left = usize::try_from(request.bytes - pattern.at()).unwrap_or(usize::MAX);
        let n = peer.read(&mut chunk[..left.min(CHUNK_BYTES)])?;
        if n == 0 {
            break;
        }
        let found = pattern.check(&chunk[..n]);
        wrong = wrong.or(found);
    }
    Ok(Verdict { bytes: pattern.at(), wrong })
}

/// A counter of the kernel, which counts from its boot; 0 if it has none of that name.
fn counter((file, prefix, name): (&str, &str, &str)) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
    let mut rows = text.lines().filter_map(|line| line.strip_prefix(prefix));
    let (Some(names), Some(values)) = (rows.next(), rows.next()) else { return 0 };
    let mut columns = names.split(' ').zip(values.split(' '));
    columns.find(|(n, _)| *n == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_go_both_ways_and_are_verified() {
        serve().unwrap();
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        for (role, bytes) in [(Role::Sink, 0), (Role::Sink, 1_000_001), (Role::Source, 300_003)] {
            let outcome = run(to, &Request { role, seed: 5, bytes }).unwrap();
            assert_eq!(outcome.verdict, Verdict { bytes, wrong: None }, "{role:?}");
        }
        // A client that sends another pattern than it has announced.
        let mut peer = TcpStream::connect(to).unwrap();
        let mut lie = Request { role: Role::Sink, seed: 5, bytes: 100 };
        peer.write_all(&lie.to_bytes()).unwrap();
        lie.seed = 6;
        source(&mut peer, &lie).unwrap();
        let mut bytes = [0; VERDICT_BYTES];
        peer.read_exact(&mut bytes).unwrap();
        assert_eq!(Verdict::parse(&bytes), Verdict { bytes: 100, wrong: Some(0) });
    }
}
