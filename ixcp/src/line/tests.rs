use super::*;
use crate::command::{CommandError, Writer};
use crate::page::{MapError, Page};
use crate::snapshot::{self, PageError};
use ix_abi::Status;
use ix_abi::control::{self, BULK_BASE, CommandCode, command, header, outcome};
use ix_abi::frame::Request;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

/// A kernel at the other end: a page of words, carries out every command with `Ok` and the sum of its arguments. Every
/// `bad`th byte of its line, in either direction, is lost or spoilt; 0: none.
struct Kernel {
    words: Vec<u64>,
    bad: u64,
    random: u64,
    decoder: Decoder<REQUEST_BYTES_MAX>,
    /// Commands carried out.
    done: Arc<AtomicU64>,
}

impl Kernel {
    fn new(bad: u64) -> Kernel {
        let mut words = vec![0; frame::PAGE_BYTES / 8];
        words[header::MAGIC / 8] = control::MAGIC;
        words[header::VERSION / 8] =
            u64::from(ix_abi::VERSION.major) | u64::from(ix_abi::VERSION.minor) << 16;
        words[header::EPOCH / 8] = 77;
        Kernel {
            words,
            bad,
            random: 0x9e37_79b9_7f4a_7c15,
            decoder: Decoder::new(),
            done: Arc::default(),
        }
    }

    /// A byte, as the line has it.
    fn spoil(&mut self, byte: u8) -> Option<u8> {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if self.bad == 0 || !self.random.is_multiple_of(self.bad) {
            return Some(byte);
        }
        (self.random & 1 << 40 != 0).then_some(byte ^ 0x10)
    }

    fn take(&mut self, byte: u8) -> Option<Vec<u8>> {
        let byte = self.spoil(byte)?;
        let asked = self.decoder.push(byte)?;
        let (number, request) = (asked.sequence, Request::decode(&asked));
        let mut out = [0; REPLY_BYTES_MAX];
        let len = match request {
            Some(Request::Ping) => frame::encode(&mut out, Kind::Pong, number, &[&[0; 32]]),
            Some(Request::Read(range)) => {
                let words = &self.words[range.offset / 8..][..range.words];
                let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
                frame::encode(&mut out, Kind::Words, number, &[&range.to_bytes(), &bytes])
            }
            Some(Request::Write(range, bytes)) => {
                let to = &mut self.words[range.offset / 8..];
                to.iter_mut().zip(frame::words(bytes)).for_each(|(to, word)| *to = word);
                frame::encode(&mut out, Kind::Written, number, &[&range.to_bytes()])
            }
            None => frame::encode(&mut out, Kind::Refused, number, &[]),
        };
        self.command();
        let reply = out[..len.unwrap()].to_vec();
        Some(reply.into_iter().filter_map(|byte| self.spoil(byte)).collect())
    }

    fn command(&mut self) {
        let sequence = self.words[command::SEQUENCE / 8];
        if sequence == self.words[outcome::SEQUENCE / 8] {
            return;
        }
        self.done.fetch_add(1, Ordering::Relaxed);
        let args: u64 = self.words[command::ARGS / 8..][..4].iter().sum();
        self.words[outcome::STATUS / 8] = Status::Ok.0.into();
        self.words[outcome::VALUE / 8] = args;
        self.words[outcome::SEQUENCE / 8] = sequence;
    }

    fn serve(mut self, mut io: impl Read + Write) -> Kernel {
        let mut byte = [0];
        let mut heard = Instant::now();
        while let Ok(1) = io.read(&mut byte) {
            // As the kernel does: what is left of a frame after a pause is none.
            if heard.elapsed() > ANSWER / 2 {
                self.decoder.reset();
            }
            heard = Instant::now();
            if let Some(reply) = self.take(byte[0])
                && io.write_all(&reply).is_err()
            {
                break;
            }
        }
        self
    }
}

struct Scene {
    _dir: temp_dir::TempDir,
    path: std::path::PathBuf,
    done: Arc<AtomicU64>,
    kernel: JoinHandle<Kernel>,
}

/// A kernel that serves one client at a Unix socket, as QEMU's does.
fn scene(kernel: Kernel) -> Scene {
    let dir = temp_dir::TempDir::new().unwrap();
    let path = dir.path().join("control");
    let listener = UnixListener::bind(&path).unwrap();
    let done = Arc::clone(&kernel.done);
    let kernel = std::thread::spawn(move || kernel.serve(listener.accept().unwrap().0));
    Scene { _dir: dir, path, done, kernel }
}

fn exchange(line: &mut Line, rounds: u64) {
    for round in 0..rounds {
        let words: Vec<u64> = (0..=round % 16).map(|i| round * 1000 + i).collect();
        let at = BULK_BASE + (round as usize % 100) * 8;
        line.write(at, &words).unwrap();
        assert_eq!(line.read(at, words.len()).unwrap(), words, "round {round}");
    }
}

#[test]
fn words_come_and_go() {
    let scene = scene(Kernel::new(0));
    let mut line = Line::open(&scene.path).unwrap();
    exchange(&mut line, 200);
    assert_eq!(line.read(header::MAGIC, 1).unwrap(), [control::MAGIC]);
    assert_eq!(line.read(0, 64).unwrap().len(), 64);
    assert!(matches!(line.write(header::EPOCH, &[1]), Err(LineError::Refused)));
    assert!(matches!(line.read(frame::PAGE_BYTES, 1), Err(LineError::Refused)));
    assert!(matches!(line.read(0, 65), Err(LineError::Refused)));
    drop(line);
    assert_eq!(scene.kernel.join().unwrap().words[header::EPOCH / 8], 77);
}

#[test]
fn lost_and_spoilt_bytes_are_made_up_for() {
    let scene = scene(Kernel::new(1500));
    let mut line = Line::open(&scene.path).unwrap();
    exchange(&mut line, 60);
}

#[test]
fn commands_over_a_bad_line_are_carried_out_once_each() {
    let scene = scene(Kernel::new(4000));
    let page = Page::open(&scene.path).unwrap();
    let writer = Writer::lock(&scene.path.with_extension("lock"), FRESH).unwrap();
    for n in 1..=20 {
        let answered =
            writer.send(&page, CommandCode::Nop, [n, 1, 0, 0], Duration::from_secs(10)).unwrap();
        assert_eq!((answered, scene.done.load(Ordering::Relaxed)), (n + 1, n));
    }
    assert_eq!(snapshot::check(&page), Ok(77));
}

#[test]
fn a_terminal_is_set_to_carry_bytes_as_they_are_and_is_one_programs_own() {
    let pty = nix::pty::openpty(None, None).unwrap();
    let path = nix::unistd::ttyname(&pty.slave).unwrap();
    let kernel = Kernel::new(0);
    let master = File::from(pty.master);
    let thread = std::thread::spawn(move || kernel.serve(master));
    let mut line = Line::open(&path).unwrap();
    // Bytes that a terminal would make something of: interrupts, ends of lines, flow control.
    let words: Vec<u64> =
        [0x0302_0100, 0x0d0a_1113_1104_1a1c, u64::MAX, 0x7f15_1712_160f_0000].into();
    line.write(BULK_BASE, &words).unwrap();
    assert_eq!(line.read(BULK_BASE, 4).unwrap(), words);
    assert!(matches!(Line::open(&path), Err(LineError::InUse)));
    drop((line, pty.slave));
    thread.join().unwrap();
}

#[test]
fn who_does_not_answer_is_given_up_with_words() {
    let dir = temp_dir::TempDir::new().unwrap();
    let path = dir.path().join("control");
    assert!(matches!(Line::open(&path), Err(LineError::Io { .. })));
    let _silent = UnixListener::bind(&path).unwrap();
    let start = Instant::now();
    let Err(MapError::Line { cause, .. }) = Page::open(&path) else { panic!("somebody answers") };
    assert!(matches!(cause, LineError::Silent), "{cause}");
    let took = start.elapsed();
    assert!(took > 2 * ANSWER * TRIES - ANSWER && took < 3 * ANSWER * TRIES, "{took:?}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(Line::open(&file), Err(LineError::Kind)));
    assert!(matches!(Line::open(Path::new("/dev/null")), Err(LineError::Io { .. })));
}

#[test]
fn a_line_that_dies_meanwhile_is_named() {
    let dir = temp_dir::TempDir::new().unwrap();
    let path = dir.path().join("control");
    let listener = UnixListener::bind(&path).unwrap();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let kernel = std::thread::spawn(move || {
        let socket = listener.accept().unwrap().0;
        let own = socket.try_clone().unwrap();
        let kernel = std::thread::spawn(move || Kernel::new(0).serve(own));
        ended.recv().unwrap();
        socket.shutdown(std::net::Shutdown::Both).unwrap();
        kernel.join().unwrap();
    });
    let page = Page::open(&path).unwrap();
    assert_eq!(snapshot::check(&page), Ok(77));
    end.send(()).unwrap();
    kernel.join().unwrap();
    let Err(PageError::Line(why)) = snapshot::check(&page) else { panic!("it goes on") };
    assert!(why.contains("hung up"), "{why}");
    let writer = Writer::lock(&path.with_extension("lock"), FRESH).unwrap();
    let sent = writer.send(&page, CommandCode::Nop, [0; 4], ANSWER);
    assert!(matches!(sent, Err(CommandError::Page(PageError::Line(_)))), "{sent:?}");
    assert_eq!(page.load(header::EPOCH), 0);
}

#[test]
fn answers_to_somebody_else_and_noise_are_passed_over() {
    let dir = temp_dir::TempDir::new().unwrap();
    let path = dir.path().join("control");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        let mut stale = [0; 64];
        for number in [0, 1, 0x7fff] {
            let len = frame::encode(&mut stale, Kind::Words, number, &[&[1; 16]]).unwrap();
            let _ = socket.write_all(&stale[..len]);
        }
        let _ = socket.write_all(b"ix: ready\r\n\x5a\xa5\x08\x00");
        Kernel::new(0).serve(socket)
    });
    let mut line = Line::open(&path).unwrap();
    exchange(&mut line, 3);
}

/// A line on which a piece of an answer takes as long as an emulator on a busy machine needs for it.
struct Slow(UnixStream, Duration);

impl Read for Slow {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        std::thread::sleep(self.1);
        self.0.write(&bytes[..bytes.len().min(128)])
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn an_answer_that_is_still_coming_is_not_asked_for_again() {
    let dir = temp_dir::TempDir::new().unwrap();
    let path = dir.path().join("control");
    let listener = UnixListener::bind(&path).unwrap();
    let piece = ANSWER * 2 / 5;
    let kernel =
        std::thread::spawn(move || Kernel::new(0).serve(Slow(listener.accept().unwrap().0, piece)));
    let mut line = Line::open(&path).unwrap();
    let start = Instant::now();
    assert_eq!(line.read(0, 64).unwrap()[0], control::MAGIC);
    let took = start.elapsed();
    assert!(took > ANSWER && took < 4 * ANSWER, "{took:?}");
    drop(line);
    kernel.join().unwrap();
}

#[test]
fn a_line_that_needs_longer_for_each_answer_is_waited_for_longer() {
    let dir = temp_dir::TempDir::new().unwrap();
    let path = dir.path().join("control");
    let listener = UnixListener::bind(&path).unwrap();
    // Of the five pieces of 64 words the last comes behind the end of the first tries.
    let piece = ANSWER_MAX / 4;
    std::thread::spawn(move || Kernel::new(0).serve(Slow(listener.accept().unwrap().0, piece)));
    let mut line = Line { port: Port::open(&path).unwrap(), decoder: Decoder::new(), sequence: 0 };
    assert_eq!(line.read(0, 64).unwrap()[0], control::MAGIC);
}

#[test]
fn a_line_that_never_stops_talking_is_given_up() {
    let dir = temp_dir::TempDir::new().unwrap();
    let path = dir.path().join("control");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        while socket.write_all(b"ix: ready\r\n").is_ok() {
            std::thread::sleep(LOOK / 4);
        }
    });
    let mut line = Line { port: Port::open(&path).unwrap(), decoder: Decoder::new(), sequence: 0 };
    let start = Instant::now();
    assert!(line.answer(1).unwrap().is_none());
    assert!(start.elapsed() < ANSWER_MAX + ANSWER, "{:?}", start.elapsed());
}
