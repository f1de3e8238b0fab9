//! Packets that wait: one slab for the table, singly linked into a queue per address.
use alloc::vec::Vec;
use ix_abi::addr::IpAddress;
use smoltcp::wire::EthernetAddress;

const NIL: u32 = u32::MAX;

/// A queue in the slab.
#[derive(Clone, Debug)]
pub(super) struct Fifo {
    head: u32,
    tail: u32,
    len: usize,
}

impl Fifo {
    pub(super) const EMPTY: Fifo = Fifo { head: NIL, tail: NIL, len: 0 };

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// A packet with what it waits for.
#[derive(Debug)]
pub(super) struct Waiter<P> {
    pub(super) ip: IpAddress,
    pub(super) mac: EthernetAddress,
    pub(super) packet: P,
}

#[derive(Debug)]
struct Cell<P> {
    waiter: Option<Waiter<P>>,
    next: u32,
}

/// The slab.
#[derive(Debug)]
pub(super) struct Pending<P> {
    cells: Vec<Cell<P>>,
    free: u32,
    len: usize,
}

impl<P> Pending<P> {
    pub(super) fn new(capacity: usize) -> Pending<P> {
        let next = |i: usize| if i + 1 < capacity { i as u32 + 1 } else { NIL };
        let cells = (0..capacity).map(|i| Cell { waiter: None, next: next(i) }).collect();
        Pending { cells, free: if capacity == 0 { NIL } else { 0 }, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_full(&self) -> bool {
        self.free == NIL
    }

    /// Appends to a queue; gives the packet back if the slab is full.
    pub(super) fn push(
        &mut self,
        fifo: &mut Fifo,
        ip: IpAddress,
        mac: EthernetAddress,
        packet: P,
    ) -> Result<(), P> {
        let at = self.free;
        let Some(cell) = self.cells.get_mut(at as usize) else { return Err(packet) };
        self.free = cell.next;
        *cell = Cell { waiter: Some(Waiter { ip, mac, packet }), next: NIL };
        self.len += 1;
        self.append(fifo, Fifo { head: at, tail: at, len: 1 });
        Ok(())
    }

    /// Takes the oldest of a queue.
    pub(super) fn pop(&mut self, fifo: &mut Fifo) -> Option<Waiter<P>> {
        let at = fifo.head;
        let cell = self.cells.get_mut(at as usize)?;
        let waiter = cell.waiter.take();
        fifo.head = cell.next;
        fifo.len -= 1;
        if fifo.head == NIL {
            fifo.tail = NIL;
        }
        cell.next = self.free;
        self.free = at;
        self.len -= 1;
        waiter
    }

    /// Puts all of `more` behind `fifo`.
    pub(super) fn append(&mut self, fifo: &mut Fifo, more: Fifo) {
        if more.head == NIL {
            return;
        }
        match self.cells.get_mut(fifo.tail as usize) {
            Some(tail) => tail.next = more.head,
            None => fifo.head = more.head,
        }
        fifo.tail = more.tail;
        fifo.len += more.len;
    }

    /// Notes the link address in all of a queue.
    pub(super) fn resolve(&mut self, fifo: &Fifo, mac: EthernetAddress) {
        let mut at = fifo.head;
        while let Some(cell) = self.cells.get_mut(at as usize) {
            if let Some(waiter) = &mut cell.waiter {
                waiter.mac = mac;
            }
            at = cell.next;
        }
    }
}
