//! Reading a frame's pieces, in order, as the device does it.
use crate::Host;
use ix_dataplane::device::{BusAddr, Fragment};

/// A place in a frame that is read.
#[derive(Clone, Debug)]
pub struct Gather<'a> {
    rest: &'a [Fragment],
    /// Bytes of the first of them that were read.
    done: u32,
}

impl<'a> Gather<'a> {
    pub fn new(fragments: &'a [Fragment]) -> Gather<'a> {
        Gather { rest: fragments, done: 0 }
    }

    /// Fills `to` with what comes next; `false`: there is not so much, or it cannot be read.
    #[must_use]
    pub fn read<H: Host>(&mut self, host: &H, to: &mut [u8]) -> bool {
        let mut at = 0;
        while at < to.len() {
            let Some((bus, len)) = self.next(to.len() - at) else { return false };
            if !host.read(bus, &mut to[at..at + len]) {
                return false;
            }
            at += len;
        }
        true
    }

    /// Passes over `bytes`; `false`: there are not so many.
    #[must_use]
    pub fn skip(&mut self, mut bytes: usize) -> bool {
        while bytes > 0 {
            let Some((_, len)) = self.next(bytes) else { return false };
            bytes -= len;
        }
        true
    }

    /// The next piece of at most `most` bytes.
    fn next(&mut self, most: usize) -> Option<(BusAddr, usize)> {
        loop {
            let (first, others) = self.rest.split_first()?;
            let left = first.len.saturating_sub(self.done) as usize;
            if left == 0 {
                self.rest = others;
                self.done = 0;
                continue;
            }
            let (bus, len) = (first.bus.offset(u64::from(self.done)), left.min(most));
            self.done += len as u32;
            return Some((bus, len));
        }
    }
}
