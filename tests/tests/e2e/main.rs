//! End to end: the booted kernel in QEMU, real programs and a peer in Rust as its clients. What the
//! machine lacks is SKIPPED with the reason (`docs/testing.md`).
mod acl;
mod background;
mod boot;
mod bridge;
mod card;
mod control;
mod cores;
mod daemon;
mod hostile;
mod instructions;
mod iommu;
mod iso;
mod ixgbe;
mod loopback;
mod memcached;
mod nictest;
mod qemu;
mod restarts;
mod serial;
mod six;
mod stream;
mod tap;
mod user;
mod vtx;
mod vtx_moves;
mod wake;
mod watch;

/// What kv's own tests compare it with the stock server by.
#[path = "../../../apps/kv/tests/common"]
#[allow(dead_code, reason = "used in part")]
mod common {
    pub mod linear;
    pub mod memcached;
    pub mod rng;
    pub mod script;
}

use ix_tests::vm::Vm;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A memcached client of a few lines: says a request, gives the answer up to its last line.
struct Kv(BufReader<TcpStream>);

impl Kv {
    #[track_caller]
    fn connect(vm: &Vm) -> Kv {
        Kv(BufReader::new(vm.connect(11211)))
    }

    #[track_caller]
    fn to(address: std::net::SocketAddr) -> Kv {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        Kv(BufReader::new(stream))
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    #[track_caller]
    fn set(&mut self, key: &str, value: &[u8]) {
        let head = format!("set {key} 0 0 {}\r\n", value.len());
        let request = [head.as_bytes(), value, b"\r\n"].concat();
        self.0.get_mut().write_all(&request).expect("written");
        assert_eq!(self.line(), "STORED");
    }

    #[track_caller]
    fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        self.0.get_mut().write_all(format!("get {key}\r\n").as_bytes()).expect("written");
        let head = self.line();
        if head == "END" {
            return None;
        }
        let len = head.rsplit(' ').next().and_then(|n| n.parse::<usize>().ok());
        let mut value = vec![0; len.unwrap_or_else(|| panic!("strange answer {head:?}")) + 2];
        self.0.read_exact(&mut value).expect("the value");
        assert_eq!(self.line(), "END");
        value.truncate(value.len() - 2);
        Some(value)
    }
}

/// A key-value dataplane answers: what every boot test ends with.
#[track_caller]
fn serves(vm: &Vm) {
    let mut kv = Kv::connect(vm);
    kv.set("served", b"yes");
    assert_eq!(kv.get("served").as_deref(), Some(&b"yes"[..]));
    assert_eq!(kv.get("missing"), None);
}

/// Bytes that look like nothing, the same for the same seed; `at` is a position in the stream.
fn fill(seed: u64, at: u64, out: &mut [u8]) {
    for (i, byte) in out.iter_mut().enumerate() {
        let n = (at + i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed);
        *byte = (n ^ (n >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes()[7];
    }
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    fill(seed, 0, &mut out);
    out
}
