//! Who is connected, for `stats conns` and the idle timeout: a register for each core, in which a
//! connection stays until it ends, whichever core has it by then.
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use libix::SocketAddress;

/// One connection.
#[derive(Debug)]
pub struct Client {
    /// Its number, never used again.
    pub id: u64,
    /// The other end.
    pub remote: SocketAddress,
    home: usize,
    /// Second in which something last came from it.
    seen: AtomicU32,
}

impl Client {
    /// Something has come from it.
    #[inline]
    pub fn note(&self, now: u32) {
        self.seen.store(now, Relaxed);
    }

    /// For how many seconds nothing has come from it.
    pub fn idle(&self, now: u32) -> u32 {
        now.saturating_sub(self.seen.load(Relaxed))
    }
}

/// The connections of one core, by number.
type Register = spin::Mutex<BTreeMap<u64, Arc<Client>>>;

/// All connections.
#[derive(Debug)]
pub struct Clients {
    registers: Box<[Register]>,
    next: AtomicU64,
}

impl Clients {
    /// Registers for so many cores.
    pub fn new(cores: usize) -> Clients {
        let registers = (0..cores).map(|_| Register::default()).collect();
        // The numbers before are the listeners'.
        Clients { registers, next: AtomicU64::new(10) }
    }

    /// Core `home` has a new one.
    pub fn join(&self, home: usize, remote: SocketAddress, now: u32) -> Arc<Client> {
        let id = self.next.fetch_add(1, Relaxed);
        let client = Arc::new(Client { id, remote, home, seen: AtomicU32::new(now) });
        self.registers[home].lock().insert(id, Arc::clone(&client));
        client
    }

    /// It is gone.
    pub fn leave(&self, client: &Client) {
        self.registers[client.home].lock().remove(&client.id);
    }

    /// Some of them, at most `most`, in the order of their numbers.
    pub fn list(&self, most: usize) -> Vec<Arc<Client>> {
        let mut all = Vec::new();
        for register in &self.registers {
            all.extend(register.lock().values().take(most).cloned());
        }
        all.sort_by_key(|client| client.id);
        all.truncate(most);
        all
    }
}
