//! As much HTTP/1.1 as a scrape needs: one request at a time, one request a connection, each with a deadline and a
//! bounded size. Whoever connects is a stranger, if one of this machine.
use anyhow::Result;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The only path.
pub const PATH: &str = "/metrics";
/// A request's head is at most so long.
const HEAD_BYTES_MAX: usize = 8192;
/// And has at most so many fields.
const FIELDS_MAX: usize = 64;
/// A connection lasts at most so long, whatever its other end does: the next one waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long, and how much, is read from somebody who has got an error, so that the answer reaches them.
const LINGER: Duration = Duration::from_millis(200);
const LINGER_BYTES_MAX: usize = 65536;

/// What a request's head asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is not all there yet.
    More,
    /// The metrics.
    Metrics,
    /// Another path.
    NotFound,
    /// Another method.
    NotAllowed,
    /// No HTTP, or too long.
    Bad,
}

/// Judges what has come of a head.
pub fn asked(bytes: &[u8]) -> Asked {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Asked::More,
        _ => return Asked::Bad,
    }
    let (Some(method), Some(target)) = (request.method, request.path) else { return Asked::Bad };
    match (method, target.split('?').next() == Some(PATH)) {
        ("GET", true) => Asked::Metrics,
        ("GET", false) => Asked::NotFound,
        _ => Asked::NotAllowed,
    }
}

/// Answers for ever. `metrics` makes the text.
pub fn serve(listener: &TcpListener, metrics: impl Fn() -> Result<String>) -> ! {
    loop {
        match listener.accept() {
            // What goes wrong with one client is that client's affair.
            Ok((stream, _)) => drop(converse(&stream, &metrics)),
            // No file left, or a client that has gone already: not to be asked for in a tight loop.
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// One connection.
pub fn converse(mut stream: &TcpStream, metrics: impl Fn() -> Result<String>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let asked = read_head(stream, deadline)?;
    let (status, more, body) = match asked {
        Asked::Metrics => match metrics() {
            Ok(text) => ("200 OK", "", text),
            Err(e) => ("500 Internal Server Error", "", format!("{e:#}\n")),
        },
        Asked::NotFound => ("404 Not Found", "", format!("the metrics are at {PATH}\n")),
        // Without words: an answer to HEAD must not have any.
        Asked::NotAllowed => ("405 Method Not Allowed", "Allow: GET\r\n", String::new()),
        Asked::More | Asked::Bad => (
            "400 Bad Request",
            "",
            format!("an HTTP request of at most {HEAD_BYTES_MAX} bytes is wanted\n"),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\n{more}Connection: close\r\n\r\n",
        body.len()
    );
    // Making the text may have taken its time; each write has what is left, or a little.
    write_all(stream, (head + &body).as_bytes(), deadline + LINGER)?;
    stream.shutdown(Shutdown::Write)?;
    if asked != Asked::Metrics {
        // Closing with bytes unread resets the connection, and the answer would be lost.
        let until = Instant::now() + LINGER;
        let mut rest = [0; 4096];
        let mut read = 0;
        while read < LINGER_BYTES_MAX {
            stream.set_read_timeout(Some(left(until)?))?;
            match stream.read(&mut rest)? {
                0 => break,
                n => read += n,
            }
        }
    }
    Ok(())
}

/// Reads until the head is complete, impossible or too long; an error if the client goes away or is too slow.
fn read_head(mut stream: &TcpStream, deadline: Instant) -> io::Result<Asked> {
    let mut head = [0; HEAD_BYTES_MAX];
    let mut read = 0;
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut head[read..])? {
            0 if read == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => return Ok(Asked::Bad),
            n => read += n,
        }
        match asked(&head[..read]) {
            Asked::More => {}
            other => return Ok(other),
        }
    }
}

/// A timeout for each write would let a client that reads byte by byte stay for ever.
fn write_all(mut stream: &TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(bytes)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => bytes = &bytes[n..],
        }
    }
    Ok(())
}

/// The time until then.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests;
