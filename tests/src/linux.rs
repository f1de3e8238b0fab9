//! A Linux guest: Debian's kernel and an archive that holds one program of ours (`cargo xtask linux-guest`). It
//! serves and opens streams of checked data, asked over its console; dropping it ends it.
use crate::need;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long it may take to boot, on a busy machine.
const BOOT_MAX: Duration = Duration::from_secs(120);
/// Where a guest's server listens.
const PORT: u16 = 5001;
/// The speculation that mitigations are against does not exist under translation; the clock is the one that
/// a dataplane uses, too. Both make Linux faster.
pub(crate) const APPEND: &str =
    "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off tsc=reliable clocksource=tsc";

/// Kernel and archive.
#[derive(Clone, Debug)]
pub struct Images {
    kernel: PathBuf,
    initrd: PathBuf,
}

/// The guest's images; `None` after saying SKIPPED.
pub fn images() -> Option<Images> {
    images_in("build/linux", "cargo xtask linux-guest")
}

/// The same, of a directory that a command makes.
pub(crate) fn images_in(dir: &str, maker: &str) -> Option<Images> {
    let dir = need::workspace().join(dir);
    let images = Images { kernel: dir.join("vmlinuz"), initrd: dir.join("initrd") };
    for file in [&images.kernel, &images.initrd] {
        if !file.is_file() {
            let file = file.strip_prefix(need::workspace()).unwrap_or(file).display();
            need::skip(&format!("no {file}: {maker} makes it out of packages"));
            return None;
        }
    }
    Some(images)
}

/// Which way the data goes, as the guest that opens the connection sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the guest.
    Send,
    /// To the guest.
    Receive,
}

/// How a transfer went.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Bytes that arrived.
    pub bytes: u64,
    /// From the established connection to the receiver's verdict.
    pub time: Duration,
    /// Where the first byte was that was not the one sent.
    pub wrong: Option<u64>,
    /// Segments that the guest's kernel has sent again meanwhile.
    pub retransmitted: u64,
    /// Its retransmission timeouts.
    pub timeouts: u64,
    /// Its loss probes.
    pub probes: u64,
}

impl Outcome {
    /// Millions of bytes in a second.
    pub fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.time.as_secs_f64()
    }
}

/// A guest that runs.
#[derive(Debug)]
pub struct Linux {
    child: Child,
    console: ChildStdin,
    said: Arc<Mutex<Vec<String>>>,
    /// Lines that were looked at.
    read: usize,
    ip: Ipv4Addr,
}

impl Linux {
    /// Starts it, with the machine that `ixcp run` gives a dataplane of one core.
    pub fn start(images: &Images, number: u8, socket: &Path) -> Linux {
        let ip = Ipv4Addr::new(10, 0, 2, 100 + number);
        let qemu = need::program("qemu-system-x86_64").expect("looked for before");
        let mut append = format!("{APPEND} ix.address={ip}/24");
        // For whoever looks for the cause of a difference: `IX_LINUX_APPEND="ix.sysctl=net.ipv4.tcp_sack=0"`.
        if let Ok(more) = std::env::var("IX_LINUX_APPEND") {
            append += &format!(" {more}");
        }
        let netdev =
            format!("stream,id=net,server=off,addr.type=unix,addr.path={}", socket.display());
        let device = "virtio-net-pci,netdev=net,disable-legacy=on,romfile=";
        let mut command = Command::new(qemu);
        command
            .args(["-nodefaults", "-no-reboot", "-machine", "q35", "-accel", "tcg", "-cpu", "max"])
            .args(["-smp", "1", "-m", "1024M", "-netdev", &netdev])
            .args(["-device", &format!("{device},mac=52:54:00:00:00:{number:02x}")]);
        Linux::boot(command, images, &append, ip)
    }

    /// Boots it in a machine whose console and kernel are still to be named.
    pub(crate) fn boot(mut qemu: Command, images: &Images, append: &str, ip: Ipv4Addr) -> Linux {
        let mut child = qemu
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&images.kernel)
            .arg("-initrd")
            .arg(&images.initrd)
            .args(["-append", append])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("QEMU starts");
        let console = child.stdin.take().expect("piped");
        let from = child.stdout.take().expect("piped");
        let said = Arc::new(Mutex::new(Vec::new()));
        let to = said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                to.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Linux { child, console, said, read: 0, ip }
    }

    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// Waits until it serves.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        assert_eq!(self.answer(BOOT_MAX), "ready", "{}", self.log());
    }

    /// One stream between this guest and the server at `to`.
    pub fn transfer(
        &mut self,
        way: Way,
        to: Ipv4Addr,
        seed: u64,
        bytes: u64,
        patience: Duration,
    ) -> Result<Outcome, String> {
        let word = match way {
            Way::Send => "send",
            Way::Receive => "receive",
        };
        writeln!(self.console, "{word} {to} {PORT} {seed} {bytes}").map_err(|e| e.to_string())?;
        let answer = self.answer(patience);
        parse(&answer).ok_or(answer)
    }

    /// Runs a program of the archive to its end; gives its exit code and what it says.
    #[track_caller]
    pub fn run(&mut self, words: &str, patience: Duration) -> (i32, Vec<String>) {
        let from = self.read;
        writeln!(self.console, "run {words}").expect("the guest listens");
        let answer = self.answer(patience);
        let code = answer.strip_prefix("result exit=").and_then(|code| code.parse().ok());
        let code = code.unwrap_or_else(|| panic!("{words}: {answer}\n{}", self.log()));
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = said[from..self.read].iter().filter_map(|line| line.split_once("out: "));
        (code, lines.map(|(_, line)| line.to_owned()).collect())
    }

    /// The same of one that must do well.
    #[track_caller]
    pub fn run_ok(&mut self, words: &str, patience: Duration) -> Vec<String> {
        let (code, lines) = self.run(words, patience);
        assert_eq!(code, 0, "{words}: {}\n{}", lines.join("\n"), self.log());
        lines
    }

    /// The next line that the program says.
    #[track_caller]
    fn answer(&mut self, patience: Duration) -> String {
        let deadline = Instant::now() + patience;
        loop {
            {
                let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
                while let Some(line) = said.get(self.read) {
                    self.read += 1;
                    if let Some((_, answer)) = line.split_once("peer: ") {
                        return answer.to_owned();
                    }
                }
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the Linux guest ended ({status}):\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "no word in {patience:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Everything on its console.
    pub fn log(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the Linux guest at {} said:\n{}\n---", self.ip, self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(answer: &str) -> Option<Outcome> {
    let fields = answer.strip_prefix("result ")?;
    let value =
        |name: &str| fields.split(' ').find_map(|f| f.split_once('=').filter(|f| f.0 == name));
    let number = |name: &str| value(name)?.1.parse::<u64>().ok();
    let wrong = match value("wrong")?.1 {
        "none" => None,
        at => Some(at.parse().ok()?),
    };
    Some(Outcome {
        bytes: number("bytes")?,
        time: Duration::from_micros(number("time_us")?),
        wrong,
        retransmitted: number("retransmitted")?,
        timeouts: number("timeouts")?,
        probes: number("probes")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_and_failures_are_not_taken_for_them() {
        let outcome = parse(
            "result bytes=2000000 time_us=500000 wrong=none retransmitted=3 timeouts=1 probes=2",
        )
        .unwrap();
        assert_eq!((outcome.bytes, outcome.wrong, outcome.retransmitted), (2_000_000, None, 3));
        assert_eq!(outcome.megabytes_per_second(), 4.0);
        let wrong = parse("result bytes=1 time_us=1 wrong=77 retransmitted=0 timeouts=0 probes=0")
            .unwrap()
            .wrong;
        assert_eq!(wrong, Some(77));
        assert!(parse("failed: Connection refused (os error 111)").is_none());
    }
}
