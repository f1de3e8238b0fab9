//! A hierarchical timing wheel: arm, cancel and fire in O(1), 16 bytes per timer.
//!
//! One per flow group, so that a group's timers move with it. Ticks are 2^14 ns (16.384 µs). Five
//! levels of 64 slots reach 2^30 ticks (4.9 hours); what lies beyond waits in one list until the
//! wheel has turned that far. A timer is at the level of the highest base-64 digit in which its
//! tick differs from the present one (Varghese and Lauck 1987, with the placement by XOR that makes
//! the earliest slot a matter of `trailing_zeros`), and moves down at most five times.
//!
//! A timer never fires early, and at the first `advance` to or past its tick: at most one tick
//! late. Timers that one `advance` finds due may come out in any order.
use crate::time::Instant;
use alloc::vec::Vec;

#[cfg(test)]
mod tests;

/// log2 of a tick in nanoseconds.
const TICK_SHIFT: u32 = 14;
/// A tick, in nanoseconds.
pub const TICK_NS: u64 = 1 << TICK_SHIFT;
const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = 5;
/// The list of timers beyond the last level, and that of timers that have fired.
const FAR: usize = LEVELS * SLOTS;
const EXPIRED: usize = FAR + 1;
const LISTS: usize = EXPIRED + 1;

const NIL: u32 = u32::MAX;
/// In `Node::prev` of the first of a list: the rest of the word is the list's number.
const HEAD: u32 = 1 << 31;
/// Timers that one wheel can have.
pub const CAPACITY_MAX: u32 = HEAD - 1;
/// In `Node::tick`: not armed. No deadline reaches it, for a tick has only 50 bits.
const IDLE: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    tick: u64,
    next: u32,
    /// The one before, or `HEAD | list`.
    prev: u32,
}

const _: () = assert!(size_of::<Node>() == 16);

/// A wheel with timers numbered from 0.
#[derive(Debug)]
pub struct Wheel {
    nodes: Vec<Node>,
    /// First of each list.
    heads: [u32; LISTS],
    /// Last of what has expired, if anything has.
    expired_tail: u32,
    armed: u32,
    /// Slots that are not empty, by level. All are ahead of the present digit of their level.
    occupied: [u64; LEVELS],
    /// Everything at or before this tick has been moved to `EXPIRED`.
    present: u64,
}

impl Wheel {
    /// A wheel at `now` for timers 0 to `capacity - 1`. Allocates 16 bytes for each.
    pub fn new(now: Instant, capacity: u32) -> Wheel {
        let mut wheel = Wheel {
            nodes: Vec::new(),
            heads: [NIL; LISTS],
            expired_tail: NIL,
            armed: 0,
            occupied: [0; LEVELS],
            present: now.0 >> TICK_SHIFT,
        };
        assert!(wheel.grow(capacity), "no memory for a wheel of {capacity} timers");
        wheel
    }

    /// Makes room for timers up to `capacity - 1`; never shrinks. The only other allocation: `false`
    /// if there is no memory for it.
    #[must_use]
    pub fn grow(&mut self, capacity: u32) -> bool {
        assert!(capacity <= CAPACITY_MAX, "{capacity} timers in one wheel");
        let more = (capacity as usize).saturating_sub(self.nodes.len());
        if more > 0 {
            if self.nodes.try_reserve(more).is_err() {
                return false;
            }
            self.nodes.resize(capacity as usize, Node { tick: IDLE, next: NIL, prev: NIL });
        }
        true
    }

    /// How many timers there is room for.
    pub fn capacity(&self) -> u32 {
        self.nodes.len() as u32
    }

    /// Timers that are armed, or have expired and were not popped.
    pub fn len(&self) -> u32 {
        self.armed
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Arms a timer, or moves it if it is armed (or expired and not popped). One whose time has
    /// come already fires at the next tick, never within the present one: a handler that arms for
    /// the past cannot keep its caller in a loop. [`Instant::NEVER`] disarms.
    #[inline]
    pub fn arm(&mut self, id: u32, at: Instant) {
        // Not as a call if there is nothing to do: nearly all that arm a timer have just seen it fire.
        if self.nodes[id as usize].tick != IDLE {
            self.cancel(id);
        }
        if at == Instant::NEVER {
            return;
        }
        // Rounded up, so that it is never early.
        let tick = (at.0 >> TICK_SHIFT) + u64::from(at.0 & (TICK_NS - 1) != 0);
        self.armed += 1;
        self.insert(id, tick.max(self.present + 1));
    }

    /// Disarms a timer; nothing if it is not armed.
    #[inline]
    pub fn cancel(&mut self, id: u32) {
        let node = self.nodes[id as usize];
        if node.tick == IDLE {
            return;
        }
        self.unlink(id, node);
        self.nodes[id as usize].tick = IDLE;
        self.armed -= 1;
    }

    /// When the timer fires: what it was armed for, rounded up to a tick. `None` if not armed.
    #[inline]
    pub fn deadline(&self, id: u32) -> Option<Instant> {
        let tick = self.nodes[id as usize].tick;
        (tick != IDLE).then_some(Instant(tick << TICK_SHIFT))
    }

    /// Turns the wheel to `now`: what is due can be popped. A `now` in the past does nothing. The
    /// work is O(1) per timer over its life, whatever the distance.
    #[inline]
    pub fn advance(&mut self, now: Instant) {
        let now = now.0 >> TICK_SHIFT;
        if now > self.present {
            self.turn(now);
        }
    }

    /// Whether to advance to `now`, or to pop.
    #[inline(always)]
    pub fn is_due(&self, now: Instant) -> bool {
        now.0 >> TICK_SHIFT > self.present || self.heads[EXPIRED] != NIL
    }

    fn turn(&mut self, now: u64) {
        while let Some((level, slot, start)) = self.earliest_slot() {
            if start > now {
                break;
            }
            self.present = start;
            self.occupied[level] &= !(1 << slot);
            self.redistribute(level * SLOTS + slot, now);
        }
        // No slot before `now` is left, so all digits above the lowest may change at once: what is
        // in the levels is ahead of them.
        let far_due = self.heads[FAR] != NIL && far_boundary(self.present) <= now;
        self.present = now;
        if far_due {
            self.redistribute(FAR, now);
        }
    }

    /// Takes an expired timer; it is then not armed.
    #[inline]
    pub fn pop_expired(&mut self) -> Option<u32> {
        let id = self.heads[EXPIRED];
        if id == NIL {
            return None;
        }
        let node = &mut self.nodes[id as usize];
        node.tick = IDLE;
        let next = node.next;
        self.heads[EXPIRED] = next;
        if next != NIL {
            self.nodes[next as usize].prev = HEAD | EXPIRED as u32;
        }
        self.armed -= 1;
        Some(id)
    }

    /// When to advance next: never later than the earliest deadline, in the past if something has
    /// expired and was not popped, [`Instant::NEVER`] if nothing is armed. Can be early (a timer has
    /// to move to a lower level then), at most five times for each.
    #[inline]
    pub fn next_deadline(&self) -> Instant {
        if self.heads[EXPIRED] != NIL {
            return Instant(0);
        }
        if let Some((_, _, start)) = self.earliest_slot() {
            return Instant(start << TICK_SHIFT);
        }
        if self.heads[FAR] != NIL {
            return Instant(far_boundary(self.present) << TICK_SHIFT);
        }
        Instant::NEVER
    }

    /// The lowest level that has anything holds the earliest: higher levels begin where the lower
    /// ones end.
    #[inline]
    fn earliest_slot(&self) -> Option<(usize, usize, u64)> {
        for (level, occupied) in self.occupied.iter().enumerate() {
            if *occupied != 0 {
                let slot = occupied.trailing_zeros() as usize;
                let shift = DIGIT_BITS * level as u32;
                let base = self.present >> (shift + DIGIT_BITS) << (shift + DIGIT_BITS);
                return Some((level, slot, base | (slot as u64) << shift));
            }
        }
        None
    }

    /// Puts the timers of a list where they belong now. What is due by `now` has expired, which is nearly all as a rule: they
    /// stay linked as they are, and become the tail of that list.
    fn redistribute(&mut self, list: usize, now: u64) {
        let (mut first, mut last) = (NIL, HEAD | EXPIRED as u32);
        let mut id = core::mem::replace(&mut self.heads[list], NIL);
        while id != NIL {
            let node = &mut self.nodes[id as usize];
            let (tick, next) = (node.tick, node.next);
            if tick > now {
                self.insert(id, tick);
            } else {
                node.prev = last;
                match last & HEAD {
                    0 => self.nodes[last as usize].next = id,
                    _ => first = id,
                }
                last = id;
            }
            id = next;
        }
        if first != NIL {
            self.expire(first, last);
        }
    }

    /// Puts a chain behind what has expired: who waits longest is popped first.
    fn expire(&mut self, first: u32, last: u32) {
        let before = core::mem::replace(&mut self.expired_tail, last);
        self.nodes[last as usize].next = NIL;
        if self.heads[EXPIRED] == NIL {
            self.heads[EXPIRED] = first;
        } else {
            self.nodes[before as usize].next = first;
            self.nodes[first as usize].prev = before;
        }
    }

    /// Links a timer in at its level; `tick` is ahead of the present.
    #[inline]
    fn insert(&mut self, id: u32, tick: u64) {
        debug_assert!(tick > self.present);
        // The lowest bit changes no digit, and so the compiler knows that it is not 0.
        let digit = (tick ^ self.present | 1).ilog2() / DIGIT_BITS;
        let level = digit as usize;
        let list = if level < LEVELS {
            let slot = (tick >> (DIGIT_BITS * digit)) as usize & (SLOTS - 1);
            self.occupied[level] |= 1 << slot;
            level * SLOTS + slot
        } else {
            FAR
        };
        let next = core::mem::replace(&mut self.heads[list], id);
        if next != NIL {
            self.nodes[next as usize].prev = id;
        }
        self.nodes[id as usize] = Node { tick, next, prev: HEAD | list as u32 };
    }

    #[inline]
    fn unlink(&mut self, id: u32, node: Node) {
        if node.next != NIL {
            self.nodes[node.next as usize].prev = node.prev;
        } else if self.expired_tail == id {
            // Or it was the last of that list some time ago, and this says nothing.
            self.expired_tail = node.prev;
        }
        if node.prev & HEAD == 0 {
            self.nodes[node.prev as usize].next = node.next;
            return;
        }
        let list = (node.prev & !HEAD) as usize;
        self.heads[list] = node.next;
        if node.next == NIL && list < FAR {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }
}

/// The first tick that the levels cannot reach from `present`.
const fn far_boundary(present: u64) -> u64 {
    const BITS: u32 = DIGIT_BITS * LEVELS as u32;
    ((present >> BITS) + 1) << BITS
}
