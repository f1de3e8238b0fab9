//! A control page at the other end of a serial line: asks for words of it, and writes some, in frames (`ix_abi::frame`).
//!
//! The line may lose and spoil bytes, and the kernel may look late: a request without its answer is repeated, with a
//! bound. Repeating is harmless: what is written twice is the same.
use ix_abi::frame::{
    self, Decoder, Kind, READ_WORDS_MAX, REPLY_BYTES_MAX, REQUEST_BYTES_MAX, Range, WRITE_WORDS_MAX,
};
use nix::sys::termios::{self, BaudRate, FlushArg, SetArg, SpecialCharacterIndices};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// How long nothing of an answer may come: all of it takes 50 ms on a real line, and core 0 of a busy machine is late.
const ANSWER: Duration = Duration::from_millis(500);
/// How long one may take that comes in pieces: an emulator's line is as slow as its machine. From try to try this is longer, too: of
/// a line that needs longer for each answer none would ever come.
const ANSWER_MAX: Duration = Duration::from_millis(3000);
/// How often a request is made. From try to try the silence may be longer: to a machine that is slow, what comes too early is one
/// more thing that it has to answer, and a half request is forgotten only when its own clock says so.
const TRIES: u32 = 6;
/// How long one look at the line may take.
const LOOK: Duration = Duration::from_millis(100);
/// How long words that were read count as those of now.
const FRESH: Duration = Duration::from_millis(100);
const CHUNK_BYTES: usize = READ_WORDS_MAX * 8;

/// What goes wrong on a line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// A system call failed.
    #[error("{action}: {cause}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// Not something that carries bytes both ways.
    #[error("it is neither a terminal nor a socket")]
    Kind,
    /// Somebody else has it.
    #[error("another program uses it")]
    InUse,
    /// The other end has gone.
    #[error("the other end has hung up")]
    Closed,
    /// Nobody answers.
    #[error(
        "no answer in {TRIES} tries: is the kernel running, does it have no shared memory (only then it listens on COM2), and does no other program use the line?"
    )]
    Silent,
    /// The kernel will not.
    #[error("the kernel refuses the request")]
    Refused,
    /// An answer that is none to what was asked.
    #[error("the kernel's answer makes no sense")]
    Nonsense,
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> LineError {
    move |cause| LineError::Io { action, cause }
}

#[derive(Debug)]
enum Port {
    Socket(UnixStream),
    Terminal(File),
}

impl Port {
    fn open(path: &Path) -> Result<Port, LineError> {
        let kind = std::fs::metadata(path).map_err(failed("cannot examine it"))?.file_type();
        if kind.is_socket() {
            let socket = UnixStream::connect(path).map_err(failed("cannot connect"))?;
            socket.set_read_timeout(Some(LOOK)).map_err(failed("cannot set a time limit"))?;
            socket.set_write_timeout(Some(ANSWER)).map_err(failed("cannot set a time limit"))?;
            return Ok(Port::Socket(socket));
        }
        if !kind.is_char_device() {
            return Err(LineError::Kind);
        }
        let flags = nix::fcntl::OFlag::O_NOCTTY;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(path);
        let file = file.map_err(failed("cannot open it"))?;
        file.try_lock().map_err(|_| LineError::InUse)?;
        raw(&file).map_err(|e| failed("cannot set it to 115200 8N1")(e.into()))?;
        Ok(Port::Terminal(file))
    }

    /// What has come; nothing, if nothing has for a while.
    fn read(&mut self, to: &mut [u8]) -> Result<usize, LineError> {
        let (read, ends) = match self {
            Port::Socket(socket) => (socket.read(to), true),
            Port::Terminal(file) => (file.read(to), false),
        };
        match read {
            Ok(0) if ends => Err(LineError::Closed),
            Ok(count) => Ok(count),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(0),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(0),
            Err(e) => Err(failed("cannot read from it")(e)),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LineError> {
        let written = match self {
            Port::Socket(socket) => socket.write_all(bytes),
            Port::Terminal(file) => file.write_all(bytes),
        };
        match written {
            // Nobody takes them: then nobody answers, either.
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(LineError::Closed),
            other => other.map_err(failed("cannot write to it")),
        }
    }
}

/// Bytes as they are, at 115200 baud; a read gives up after [`LOOK`].
fn raw(file: &File) -> nix::Result<()> {
    let mut settings = termios::tcgetattr(file)?;
    termios::cfmakeraw(&mut settings);
    termios::cfsetspeed(&mut settings, BaudRate::B115200)?;
    let chars = &mut settings.control_chars;
    chars[SpecialCharacterIndices::VMIN as usize] = 0;
    chars[SpecialCharacterIndices::VTIME as usize] = (LOOK.as_millis() / 100) as u8;
    termios::tcsetattr(file, SetArg::TCSANOW, &settings)?;
    termios::tcflush(file, FlushArg::TCIOFLUSH)
}

/// A serial line with a kernel at its other end. This process has it for itself.
#[derive(Debug)]
pub struct Line {
    port: Port,
    decoder: Decoder<REPLY_BYTES_MAX>,
    sequence: u16,
}

impl Line {
    /// Opens a terminal or a Unix socket, and sees whether a kernel is there.
    pub fn open(path: &Path) -> Result<Line, LineError> {
        let port = Port::open(path)?;
        // Answers to a client before us may still be on the way: they have other numbers.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let sequence = now.map_or(1, |now| now.subsec_nanos() >> 8) as u16;
        let mut line = Line { port, decoder: Decoder::new(), sequence };
        line.ask(Kind::Ping, Kind::Pong, &[])?;
        Ok(line)
    }

    /// Reads words from a byte offset on.
    pub fn read(&mut self, offset: usize, words: usize) -> Result<Vec<u64>, LineError> {
        let range = Range { offset, words };
        let payload = self.ask(Kind::Read, Kind::Words, &[&range.to_bytes()])?;
        match Range::split(&payload, READ_WORDS_MAX) {
            Some((found, bytes)) if found == range && bytes.len() == words * 8 => {
                Ok(frame::words(bytes).collect())
            }
            _ => Err(LineError::Nonsense),
        }
    }

    /// Writes words from a byte offset on.
    pub fn write(&mut self, offset: usize, words: &[u64]) -> Result<(), LineError> {
        let range = Range { offset, words: words.len() };
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let payload = self.ask(Kind::Write, Kind::Written, &[&range.to_bytes(), &bytes])?;
        if payload == range.to_bytes() { Ok(()) } else { Err(LineError::Nonsense) }
    }

    fn ask(&mut self, kind: Kind, wanted: Kind, parts: &[&[u8]]) -> Result<Vec<u8>, LineError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = [0; REQUEST_BYTES_MAX];
        let len = frame::encode(&mut request, kind, self.sequence, parts);
        let request = &request[..len.ok_or(LineError::Refused)?];
        for attempt in 0..TRIES {
            self.decoder.reset();
            self.port.write(request)?;
            match self.answer(attempt / 2 + 1)? {
                Some((Kind::Refused, _)) => return Err(LineError::Refused),
                Some((kind, payload)) if kind == wanted => return Ok(payload),
                Some(_) => return Err(LineError::Nonsense),
                None => {}
            }
        }
        Err(LineError::Silent)
    }

    /// The answer to the last request, if the line is not silent for too long. Others are of earlier ones.
    fn answer(&mut self, patience: u32) -> Result<Option<(Kind, Vec<u8>)>, LineError> {
        let start = Instant::now();
        let (silence, all) = (ANSWER * patience, ANSWER_MAX * patience);
        let mut deadline = start + silence;
        let mut bytes = [0; 1024];
        while Instant::now() < deadline {
            let count = self.port.read(&mut bytes)?;
            if count > 0 {
                deadline = (Instant::now() + silence).min(start + all);
            }
            for byte in &bytes[..count] {
                if let Some(frame) = self.decoder.push(*byte)
                    && frame.sequence == self.sequence
                {
                    return Ok(Some((frame.kind, frame.payload.to_vec())));
                }
            }
        }
        Ok(None)
    }
}

/// A copy of the page at the other end of a line, fetched in pieces when they are wanted.
#[derive(Debug)]
pub struct Shadow {
    line: Line,
    /// Words that were fetched, by piece, and when.
    chunks: HashMap<usize, (Instant, Vec<u64>)>,
    /// Words to be written, from an offset on.
    pending: (usize, Vec<u64>),
    /// Why there is nothing more to be had.
    failure: Option<String>,
}

impl Shadow {
    /// Of the page at the other end.
    pub fn new(line: Line) -> Shadow {
        Shadow { line, chunks: HashMap::new(), pending: (0, Vec::new()), failure: None }
    }

    /// Why words are 0 that should not be.
    pub fn failure(&mut self) -> Option<String> {
        self.flush();
        self.failure.clone()
    }

    /// A word as it was a moment ago; `acquire`: as it is now, and all that is read later at least as new.
    pub fn load(&mut self, offset: usize, acquire: bool) -> u64 {
        self.flush();
        if acquire {
            self.chunks.clear();
        }
        let chunk = offset / CHUNK_BYTES;
        let fresh = self.chunks.get(&chunk).is_some_and(|(at, _)| at.elapsed() < FRESH);
        if !fresh && !self.fetch(chunk) {
            return 0;
        }
        let words = self.chunks.get(&chunk).map(|(_, words)| &words[..]).unwrap_or_default();
        words.get(offset % CHUNK_BYTES / 8).copied().unwrap_or(0)
    }

    fn fetch(&mut self, chunk: usize) -> bool {
        let offset = chunk * CHUNK_BYTES;
        if self.failure.is_some() || offset >= frame::PAGE_BYTES {
            return false;
        }
        match self.line.read(offset, READ_WORDS_MAX) {
            Ok(words) => {
                self.chunks.insert(chunk, (Instant::now(), words));
                true
            }
            Err(e) => {
                self.failure = Some(e.to_string());
                false
            }
        }
    }

    /// Writes a word; with others beside it, unless it is to be seen at once.
    pub fn store(&mut self, offset: usize, value: u64, release: bool) {
        let (from, words) = &mut self.pending;
        if words.len() == WRITE_WORDS_MAX || *from + words.len() * 8 != offset {
            self.flush();
        }
        if self.pending.1.is_empty() {
            self.pending.0 = offset;
        }
        self.pending.1.push(value);
        self.chunks.remove(&(offset / CHUNK_BYTES));
        if release {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let (offset, words) = std::mem::take(&mut self.pending);
        if words.is_empty() || self.failure.is_some() {
            return;
        }
        if let Err(e) = self.line.write(offset, &words) {
            self.failure = Some(e.to_string());
        }
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        self.flush();
    }
}
