//! The rings between the cores of a dataplane: received frames for the core that owns their group,
//! buffers going home, and control messages. One set for each ordered pair of cores.
//!
//! Frames, buffers and messages of one pair keep their order, each kind by itself. A sender rings
//! a bell per batch, not per item ([`Endpoint::flush`]); a receiver looks at one word per peer
//! ([`Endpoint::refresh`]; a busy one at one peer in turn, [`Endpoint::glance`]) and at the rings only of those
//! that rang. Every cache line here is written by one core.
use crate::device::RxFrame;
use crate::mbuf::Mbuf;
use crate::spsc::{Consumer, Padded, Producer, ring};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use ix_abi::CoreId;
use ix_abi::limits::CORES_MAX;
use sweep::Sweeps;

mod sweep;
#[cfg(test)]
mod tests;

/// Slots of the rings of one ordered pair of cores.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Received frames.
    pub frames: usize,
    /// Buffers going home.
    pub homes: usize,
    /// Control messages.
    pub messages: usize,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { frames: 512, homes: 512, messages: 64 }
    }
}

/// Counts the batches that a sender has made visible; written by the sender only.
type Bell = Arc<Padded<AtomicU32>>;

#[derive(Debug)]
struct Outgoing<M> {
    frames: Producer<RxFrame>,
    homes: Producer<Mbuf>,
    messages: Producer<M>,
    bell: Bell,
    rung: u32,
}

#[derive(Debug)]
struct Incoming<M> {
    frames: Consumer<RxFrame>,
    homes: Consumer<Mbuf>,
    messages: Consumer<M>,
}

/// A peer's bell.
#[derive(Debug)]
struct Watch {
    bell: Bell,
    heard: u32,
    peer: CoreId,
}

impl Watch {
    #[inline]
    fn has_rung(&self) -> bool {
        self.bell.0.load(Ordering::Acquire) != self.heard
    }
}

/// The rings of a core by what they carry.
#[derive(Clone, Copy)]
enum Kind {
    Frame,
    Home,
    Message,
}

/// One core's ends of all its rings.
#[derive(Debug)]
pub struct Endpoint<M> {
    core: CoreId,
    /// By core; `None` at this one.
    to: Vec<Option<Outgoing<M>>>,
    from: Vec<Option<Incoming<M>>>,
    /// Of all other cores.
    watched: Vec<Watch>,
    /// Cores to ring at the next flush, a bit each.
    unflushed: u64,
    /// Cores whose rings may hold something, a bit each, by [`Kind`].
    waiting: [u64; 3],
    /// What `refresh` has said last, the other way round.
    quiet: bool,
    /// So many glances still look at all peers; 0 only while nothing waits. Else `glance_at` is 0.
    attentive: u32,
    /// The next glance looks at the peer before this place; 0: at none, it begins again.
    glance_at: usize,
    /// Where the next search begins, by [`Kind`], so that no peer starves another.
    cursors: [u32; 3],
    /// Cores that are away, a bit each: nobody counts on them.
    absent: u64,
    sweeps: Sweeps,
}

const _: () = assert!(CORES_MAX <= u64::BITS as usize);

/// After a peer has rung, so many glances look at all: who has sent one frame sends more.
const ATTENTIVE_GLANCES: u32 = 64;

/// The endpoints of all cores, by core.
pub fn build<M: Send>(cores: u16, sizes: Sizes) -> Vec<Endpoint<M>> {
    let cores = usize::from(cores);
    assert!(cores <= CORES_MAX, "{cores} cores");
    let none = |_| (0..cores).map(|_| None).collect::<Vec<_>>();
    let mut to: Vec<Vec<Option<Outgoing<M>>>> = (0..cores).map(none).collect();
    let mut endpoints = Vec::with_capacity(cores);
    for core in 0..cores {
        let mut watched = Vec::with_capacity(cores - 1);
        let incoming = |(peer, row): (usize, &mut Vec<Option<Outgoing<M>>>)| {
            (peer != core).then(|| {
                let (outgoing, incoming) = link(sizes);
                let (bell, peer) = (Arc::clone(&outgoing.bell), CoreId(peer as u16));
                watched.push(Watch { bell, heard: 0, peer });
                row[core] = Some(outgoing);
                incoming
            })
        };
        let from = to.iter_mut().enumerate().map(incoming).collect();
        let core = CoreId(core as u16);
        endpoints.push(Endpoint {
            core,
            to: Vec::new(),
            from,
            watched,
            unflushed: 0,
            waiting: [0; 3],
            quiet: true,
            attentive: 1,
            glance_at: 0,
            cursors: [0; 3],
            absent: 0,
            sweeps: Sweeps::new(cores),
        });
    }
    for (endpoint, to) in endpoints.iter_mut().zip(to) {
        endpoint.to = to;
    }
    endpoints
}

fn link<M: Send>(sizes: Sizes) -> (Outgoing<M>, Incoming<M>) {
    let (frames_in, frames) = ring(sizes.frames);
    let (homes_in, homes) = ring(sizes.homes);
    let (messages_in, messages) = ring(sizes.messages);
    let bell = Bell::default();
    let outgoing =
        Outgoing { frames: frames_in, homes: homes_in, messages: messages_in, bell, rung: 0 };
    (outgoing, Incoming { frames, homes, messages })
}

impl<M: Send> Endpoint<M> {
    /// The core that holds it.
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// Cores of the mesh, this one included.
    pub fn cores(&self) -> u16 {
        self.to.len() as u16
    }

    /// Hands a received frame to another core; back if its ring is full, or there is no such core.
    #[inline]
    pub fn send_frame(&mut self, to: CoreId, frame: RxFrame) -> Result<(), RxFrame> {
        let Some(link) = peer(&mut self.to, to) else { return Err(frame) };
        link.frames.push(frame)?;
        self.unflushed |= 1 << to.0;
        Ok(())
    }

    /// Sends a buffer to its home core; back if the ring is full, to be tried again.
    #[inline]
    pub fn send_home(&mut self, to: CoreId, mbuf: Mbuf) -> Result<(), Mbuf> {
        let Some(link) = peer(&mut self.to, to) else { return Err(mbuf) };
        link.homes.push(mbuf)?;
        self.unflushed |= 1 << to.0;
        Ok(())
    }

    /// Sends a control message; back if the ring is full, to be tried again.
    pub fn send(&mut self, to: CoreId, message: M) -> Result<(), M> {
        let Some(link) = peer(&mut self.to, to) else { return Err(message) };
        link.messages.push(message)?;
        self.unflushed |= 1 << to.0;
        Ok(())
    }

    /// Room for control messages to all other cores that are there: how many broadcasts cannot fail now.
    pub fn broadcast_room(&self) -> usize {
        let room = |core: CoreId| {
            let link = self.to.get(usize::from(core.0))?.as_ref()?;
            Some(link.messages.capacity() as usize - link.messages.len())
        };
        self.others().filter_map(room).min().unwrap_or(usize::MAX)
    }

    /// Whether there is room for a control message to a core.
    pub fn has_room(&mut self, to: CoreId) -> bool {
        peer(&mut self.to, to).is_some_and(|link| !link.messages.is_full())
    }

    /// Says which cores are away, a bit each; this one is not among them.
    pub fn set_absent(&mut self, absent: u64) {
        self.absent = absent & !(1 << self.core.0);
    }

    /// The cores that are away, as far as this one knows.
    pub fn absent(&self) -> u64 {
        self.absent
    }

    /// Whether a core is.
    #[inline]
    pub fn is_absent(&self, core: CoreId) -> bool {
        self.absent >> core.0 & 1 != 0
    }

    /// All other cores that are there.
    pub fn others(&self) -> impl Iterator<Item = CoreId> + use<M> {
        let (me, absent) = (self.core, self.absent);
        (0..self.cores()).map(CoreId).filter(move |core| *core != me && absent >> core.0 & 1 == 0)
    }

    /// Makes what was sent since the last flush known to its receivers, and calls `wake` for each.
    /// Without it nothing arrives; once per batch is enough.
    #[inline]
    pub fn flush(&mut self, mut wake: impl FnMut(CoreId)) {
        if self.unflushed == 0 {
            return;
        }
        let mut cores = core::mem::take(&mut self.unflushed);
        while cores != 0 {
            let core = CoreId(cores.trailing_zeros() as u16);
            cores &= cores - 1;
            if let Some(link) = peer(&mut self.to, core) {
                link.rung = link.rung.wrapping_add(1);
                link.bell.0.store(link.rung, Ordering::Release);
                wake(core);
            }
        }
    }

    /// Looks who has rung: once per loop, and again before a halt. Whether anything may be waiting.
    #[inline(never)]
    pub fn refresh(&mut self) -> bool {
        let mut rung = 0;
        for watch in &mut self.watched {
            let now = watch.bell.0.load(Ordering::Acquire);
            if now != watch.heard {
                watch.heard = now;
                rung |= 1 << watch.peer.0;
            }
        }
        self.waiting.iter_mut().for_each(|waiting| *waiting |= rung);
        let any = self.waiting != [0; 3];
        self.quiet = !any;
        if any {
            self.attentive = ATTENTIVE_GLANCES;
            self.glance_at = 0;
        }
        any
    }

    /// The look of a core that has enough to do, at the same cost however many cores there are: at one peer in turn
    /// as long as none has rung lately, so that one that does is heard within an iteration for each core. Else as
    /// [`Endpoint::refresh`].
    #[inline(always)]
    pub fn glance(&mut self) -> bool {
        // Downwards: to compare with 0 is cheapest. All that a core alone does is to count.
        let Some(at) = self.glance_at.checked_sub(1) else { return self.glance_anew() };
        self.glance_at = at;
        self.watched.get(at).is_some_and(Watch::has_rung) && self.refresh()
    }

    /// One has looked at each peer, or at all at once.
    #[inline(always)]
    fn glance_anew(&mut self) -> bool {
        if self.attentive > 0 {
            self.attentive -= 1;
            return self.refresh();
        }
        self.glance_at = if self.watched.is_empty() { usize::MAX } else { self.watched.len() };
        false
    }

    /// The next glance looks at all peers: this core has nothing else to do, and may be about to halt.
    #[inline]
    pub fn attend(&mut self) {
        self.attentive = self.attentive.max(1);
        self.glance_at = 0;
    }

    /// Whether nothing waits, as of the last [`Endpoint::refresh`].
    #[inline(always)]
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Frames of other cores that were not taken.
    pub fn frames_waiting(&self) -> usize {
        self.from.iter().flatten().map(|link| link.frames.available()).sum()
    }

    /// Where the frames of a core end now, for [`Endpoint::has_taken`]. They are taken next, also those that it has not rung
    /// for.
    pub fn frames_end(&mut self, from: CoreId) -> u32 {
        let Some(link) = self.incoming(from) else { return 0 };
        let end = link.frames.end();
        if !link.frames.has_passed(end) {
            self.waiting[Kind::Frame as usize] |= 1 << from.0;
            self.quiet = false;
        }
        end
    }

    /// Whether all frames of a core before `end` were taken, however many came since.
    pub fn has_taken(&self, from: CoreId, end: u32) -> bool {
        self.incoming(from).is_none_or(|link| link.frames.has_passed(end))
    }

    fn incoming(&self, from: CoreId) -> Option<&Incoming<M>> {
        self.from.get(usize::from(from.0))?.as_ref()
    }

    /// The next frame from another core, of those that [`Endpoint::refresh`] has seen.
    #[inline]
    pub fn next_frame(&mut self) -> Option<(CoreId, RxFrame)> {
        self.next(Kind::Frame, |link| link.frames.pop())
    }

    /// The next buffer that comes home.
    #[inline]
    pub fn next_home(&mut self) -> Option<(CoreId, Mbuf)> {
        self.next(Kind::Home, |link| link.homes.pop())
    }

    /// Whether messages of the last [`Endpoint::refresh`], or that are to be heeded, were not read.
    pub fn has_messages(&self) -> bool {
        self.waiting[Kind::Message as usize] != 0
    }

    /// The messages of these cores, a bit each, are read next, also those that they have not rung for: until
    /// [`Endpoint::has_messages`] says no, something that had been sent before may be unread.
    pub fn heed(&mut self, cores: u64) {
        self.waiting[Kind::Message as usize] |= cores;
    }

    /// The next control message.
    #[inline]
    pub fn next_message(&mut self) -> Option<(CoreId, M)> {
        self.next(Kind::Message, |link| link.messages.pop())
    }

    /// The next control message of one core, also one for which it has not rung: it may have been stopped in between.
    pub fn next_message_of(&mut self, core: CoreId) -> Option<M> {
        self.from.get_mut(usize::from(core.0))?.as_mut()?.messages.pop()
    }

    /// One item from the next peer in turn that has one.
    #[inline]
    fn next<T>(
        &mut self,
        kind: Kind,
        pop: impl Fn(&mut Incoming<M>) -> Option<T>,
    ) -> Option<(CoreId, T)> {
        let waiting = &mut self.waiting[kind as usize];
        let cursor = &mut self.cursors[kind as usize];
        while *waiting != 0 {
            let above = *waiting >> *cursor << *cursor;
            let at = if above != 0 { above } else { *waiting }.trailing_zeros();
            let link = self.from.get_mut(at as usize).and_then(Option::as_mut);
            if let Some(item) = link.and_then(&pop) {
                *cursor = (at + 1) % u64::BITS;
                return Some((CoreId(at as u16), item));
            }
            *waiting &= !(1 << at);
        }
        None
    }
}

#[inline]
fn peer<L>(links: &mut [Option<L>], core: CoreId) -> Option<&mut L> {
    links.get_mut(usize::from(core.0))?.as_mut()
}
