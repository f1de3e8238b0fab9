//! A machine started without `ixcp`, as a real one is: QEMU with a firmware and a disc. Its serial port is
//! read and written, its monitor (QMP) answers, every wait has a deadline, dropping it ends it.
use ix_kernel_core::pixels::{CELL_HEIGHT, CELL_WIDTH, intensity};
use ixcp::net::{Claimed, Forward, Protocol};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the monitor may take to answer.
const MONITOR_MAX: Duration = Duration::from_secs(20);

/// A machine that runs.
#[derive(Debug)]
pub struct Bare {
    child: Child,
    serial: ChildStdin,
    said: Arc<Mutex<Vec<u8>>>,
    dir: temp_dir::TempDir,
    forwarded: Claimed,
}

impl Bare {
    /// Starts QEMU with these arguments besides those that every machine has. Guest port `guest` can be
    /// reached through [`Bare::address`].
    pub fn start(program: &std::path::Path, args: &[&str], guest: u16) -> Bare {
        let dir = temp_dir::TempDir::with_prefix("ix-bare-").expect("a directory");
        let free = Forward {
            host: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
            guest,
            protocol: Protocol::Tcp,
        };
        let forwarded = free.claim().expect("a free port");
        let port = forwarded.forward.host.port();
        let net = format!("user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-:{guest}");
        let qmp = format!("unix:{},server=on,wait=off", dir.path().join("qmp").display());
        let mut child = Command::new(program)
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none"])
            .args(["-accel", "tcg", "-serial", "stdio", "-qmp", &qmp])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-netdev", &net])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("QEMU starts");
        let serial = child.stdin.take().expect("piped");
        let mut from = child.stdout.take().expect("piped");
        let said = Arc::new(Mutex::new(Vec::new()));
        let to = said.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n) = from.read(&mut bytes) {
                if n == 0 {
                    return;
                }
                to.lock().unwrap_or_else(PoisonError::into_inner).extend(&bytes[..n]);
            }
        });
        Bare { child, serial, said, dir, forwarded }
    }

    /// Everything that came over the serial port, with what terminals understand left out.
    pub fn log(&self) -> String {
        let bytes = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        text.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
    }

    /// Waits for a text on the serial port, pressing `key` twice a second until it is there.
    #[track_caller]
    pub fn wait_for_pressing(&mut self, text: &str, key: Option<char>, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut next = Instant::now();
        while !self.log().contains(text) {
            if let Ok(Some(status)) = self.child.try_wait() {
                std::thread::sleep(Duration::from_millis(100));
                if self.log().contains(text) {
                    return;
                }
                panic!("QEMU ended ({status}) without {text:?}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "no {text:?} in {patience:?}:\n{}", self.log());
            // Into a menu, not into the firmware's setup.
            if let (Some(key), true) = (key, Instant::now() > next && self.log().contains("IX: ")) {
                next = Instant::now() + Duration::from_millis(500);
                let _ = write!(self.serial, "{key}").and_then(|()| self.serial.flush());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for a text on the serial port.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str, patience: Duration) {
        self.wait_for_pressing(text, None, patience);
    }

    /// Waits until QEMU ends; its status.
    #[track_caller]
    pub fn wait_end(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("waited for") {
                std::thread::sleep(Duration::from_millis(50));
                return status.code();
            }
            assert!(Instant::now() < deadline, "did not end in {patience:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Where the guest's port can be reached.
    pub fn address(&self) -> SocketAddr {
        self.forwarded.forward.host.into()
    }

    /// Asks the monitor.
    #[track_caller]
    pub fn monitor(&self, command: &str, arguments: &Value) -> Value {
        let stream = UnixStream::connect(self.dir.path().join("qmp")).expect("a monitor");
        stream.set_read_timeout(Some(MONITOR_MAX)).expect("a time limit");
        let mut reader = BufReader::new(stream.try_clone().expect("another handle"));
        let mut answer = || {
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("an answer of the monitor");
                let value: Value = serde_json::from_str(&line).expect("JSON");
                if value.get("event").is_none() {
                    return value;
                }
            }
        };
        let _greeting = answer();
        for (name, arguments) in [("qmp_capabilities", &json!({})), (command, arguments)] {
            let line = json!({ "execute": name, "arguments": arguments });
            writeln!(&stream, "{line}").expect("the monitor takes it");
            let value = answer();
            assert!(value.get("error").is_none(), "{name}: {value}");
            if name == command {
                return value["return"].clone();
            }
        }
        Value::Null
    }

    /// A file for the monitor to write.
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The lines of VGA text, read from the adapter's memory.
    #[track_caller]
    pub fn vga_text(&self) -> Vec<String> {
        let file = self.file("vga");
        self.monitor("pmemsave", &json!({ "val": 0xB_8000, "size": 4000, "filename": file }));
        let bytes = std::fs::read(&file).expect("the adapter's memory");
        let line = |row: &[u8]| -> String { row.iter().step_by(2).map(|b| *b as char).collect() };
        bytes.chunks(160).map(|row| line(row).trim_end().to_owned()).collect()
    }

    /// The lines of text on a framebuffer, read off a picture of the screen by the console's own font.
    #[track_caller]
    pub fn framebuffer_text(&self) -> Vec<String> {
        let file = self.file("screen.ppm");
        self.monitor("screendump", &json!({ "filename": file }));
        let (width, height, pixels) = read_ppm(&std::fs::read(&file).expect("a picture"));
        let glyphs: Vec<(char, Vec<u8>)> = (b' '..=b'~').map(|c| (c as char, glyph(c))).collect();
        let row = |top: usize| -> String {
            let cell = |left: usize| {
                let at = |i: usize| (top + i / CELL_WIDTH) * width + left + i % CELL_WIDTH;
                (0..CELL_WIDTH * CELL_HEIGHT).map(|i| pixels[at(i)]).collect::<Vec<u8>>()
            };
            let read =
                |cell: Vec<u8>| glyphs.iter().find(|(_, g)| *g == cell).map_or('\u{FFFD}', |g| g.0);
            let columns = (0..width / CELL_WIDTH).map(|column| read(cell(column * CELL_WIDTH)));
            columns.collect::<String>().trim_end().to_owned()
        };
        (0..height / CELL_HEIGHT).map(|r| row(r * CELL_HEIGHT)).collect()
    }
}

fn glyph(c: u8) -> Vec<u8> {
    (0..CELL_WIDTH * CELL_HEIGHT).map(|i| intensity(c, i % CELL_WIDTH, i / CELL_WIDTH)).collect()
}

/// Width, height and the green of each pixel of a binary PPM.
fn read_ppm(bytes: &[u8]) -> (usize, usize, Vec<u8>) {
    let mut parts = bytes.splitn(4, |b| *b == b'\n');
    assert_eq!(parts.next(), Some(&b"P6"[..]));
    let size = String::from_utf8_lossy(parts.next().expect("a size")).into_owned();
    let mut size = size.split(' ').map(|n| n.parse::<usize>().expect("a number"));
    let (width, height) = (size.next().expect("a width"), size.next().expect("a height"));
    assert_eq!(parts.next(), Some(&b"255"[..]));
    let data = parts.next().expect("pixels");
    (width, height, data.chunks_exact(3).map(|p| p[1]).collect())
}

impl Drop for Bare {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the machine said:\n{}\n---", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
