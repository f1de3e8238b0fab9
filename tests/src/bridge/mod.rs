//! A bridge between machines: joins QEMU's `-netdev stream` back ends as an Ethernet switch does, and on the way
//! delays, drops and reorders frames by a seed. One thread, no rights needed, statistics counted.
//!
//! ```text
//! machine ── port ── link (delay, loss, reordering) ──▶ switch ──▶ queue of another port ── machine
//! ```
//! A frame passes one link, its sender's; so the round trip is twice the delay.
mod link;
mod port;
mod switch;
#[cfg(test)]
mod tests;

pub use link::{Counts, Impairment};

use link::Link;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use port::Port;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use switch::{Switch, To};

/// Longest sleep, after which it is looked whether anything is wanted.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Shared {
    /// What the links are to do from now on; taken by the thread.
    wanted: Mutex<Option<Impairment>>,
    counts: Mutex<Vec<Counts>>,
    ended: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running bridge; dropping it ends it.
#[derive(Debug)]
pub struct Bridge {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Bridge {
    /// Joins the machines at the other ends of these sockets.
    pub fn start(machines: Vec<UnixStream>, impairment: Impairment) -> Bridge {
        let shared = Arc::new(Shared::default());
        *locked(&shared.counts) = vec![Counts::default(); machines.len()];
        let links = (0..machines.len()).map(|i| Link::new(impairment, i as u64)).collect();
        let ports = machines.into_iter().map(Port::new).collect();
        let mut work = Work { ports, links, switch: Switch::default(), shared: shared.clone() };
        let thread = std::thread::Builder::new().name("bridge".to_owned());
        let thread = thread.spawn(move || work.run()).expect("a thread");
        Bridge { shared, thread: Some(thread) }
    }

    /// What the links do from now on, with seeds and counts that begin anew. Frames that are under way stay so.
    pub fn set(&self, impairment: Impairment) {
        *locked(&self.shared.wanted) = Some(impairment);
        let deadline = Instant::now() + Duration::from_secs(5);
        while locked(&self.shared.wanted).is_some() {
            assert!(Instant::now() < deadline, "the bridge has ended");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What has happened on the way from each machine since the last [`Bridge::set`].
    pub fn counts(&self) -> Vec<Counts> {
        locked(&self.shared.counts).clone()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread.
#[derive(Debug)]
struct Work {
    ports: Vec<Port>,
    links: Vec<Link>,
    switch: Switch,
    shared: Arc<Shared>,
}

impl Work {
    fn run(&mut self) {
        // The kernel otherwise lets sleeps take 50 µs longer than they should.
        let _ = nix::sys::prctl::set_timerslack(1);
        while !self.shared.ended.load(Ordering::Relaxed) {
            self.take_orders();
            let now = Instant::now();
            for (port, link) in self.ports.iter_mut().zip(&mut self.links) {
                port.read(|frame| link.push(now, frame));
            }
            self.release();
            for port in &mut self.ports {
                port.write();
            }
            self.publish();
            self.sleep();
        }
    }

    fn take_orders(&mut self) {
        if let Some(impairment) = locked(&self.shared.wanted).take() {
            for (i, link) in self.links.iter_mut().enumerate() {
                link.set(impairment, i as u64);
            }
        }
    }

    /// What has been under way for long enough goes to where it belongs.
    fn release(&mut self) {
        let now = Instant::now();
        for from in 0..self.links.len() {
            while let Some(frame) = self.links[from].pop(now) {
                let fits = match self.switch.route(from, &frame) {
                    To::Nowhere => true,
                    To::One(to) => self.ports[to].send(&frame),
                    To::Others => {
                        let others = self.ports.iter_mut().enumerate().filter(|(i, _)| *i != from);
                        others.fold(true, |fits, (_, port)| port.send(&frame) && fits)
                    }
                };
                if !fits {
                    self.links[from].counts.overflowed += 1;
                }
            }
        }
    }

    fn publish(&mut self) {
        // Whoever reads has patience; this thread has not.
        if let Ok(mut counts) = self.shared.counts.try_lock() {
            for (to, link) in counts.iter_mut().zip(&self.links) {
                *to = link.counts;
            }
        }
    }

    /// Until a frame comes, a queue moves, or a frame is due.
    fn sleep(&self) {
        let due = self.links.iter().filter_map(Link::due).min();
        let time = due.map_or(LOOK, |due| due.saturating_duration_since(Instant::now()).min(LOOK));
        if time.is_zero() {
            return;
        }
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(self.ports.len());
        for port in self.ports.iter().filter(|p| !p.ended()) {
            let mut interest = PollFlags::POLLIN;
            interest.set(PollFlags::POLLOUT, port.backlog() > 0);
            fds.push(PollFd::new(port.stream().as_fd(), interest));
        }
        // Waking up early, for whatever reason, does no harm.
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(time)), None);
    }
}
