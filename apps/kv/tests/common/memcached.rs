//! A stock memcached beside the tests, if the system has one.
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A stock memcached; it ends with this value.
pub struct Memcached {
    child: Child,
    pub address: SocketAddr,
}

impl Memcached {
    /// Starts one, or says why not. It runs without the threads that take references to items in the
    /// background: `decr` pads an item that nobody refers to, and replaces any other.
    pub fn start(memory_mib: usize) -> Result<Memcached, String> {
        Self::start_with(memory_mib, &["-o", "no_lru_maintainer,no_lru_crawler,no_slab_reassign"])
    }

    /// Starts one with these options.
    pub fn start_with(memory_mib: usize, options: &[&str]) -> Result<Memcached, String> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(|error| format!("no free port: {error}"))?
            .port();
        let child = Command::new("memcached")
            .args(["-l", "127.0.0.1", "-u", "nobody", "-t", "1"])
            .args(options)
            .args(["-p", &port.to_string(), "-U", &port.to_string(), "-m", &memory_mib.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("memcached does not start: {error}"))?;
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let memcached = Memcached { child, address };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                return Err("memcached does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(memcached)
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
