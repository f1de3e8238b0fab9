//! The function's interrupts, each with the client's eventfd: MSI-X, MSI, or the line.
use crate::eventfd::EventFd;
use nix::errno::Errno;

/// Kinds of interrupts, by their numbers in `vfio.h`.
pub const INTX: u32 = 0;
/// One message.
pub const MSI: u32 = 1;
/// Messages by a table.
pub const MSIX: u32 = 2;
/// Errors of the link to the device, which there are none of: QEMU misses it otherwise.
pub const ERROR: u32 = 3;
/// How many kinds there are: the last one (a request to give the device back) has none here.
pub const KINDS: u32 = 5;

/// Entries of the MSI-X table.
const VECTORS: usize = ix_model_ixgbe::Chip::MSIX_VECTORS as usize;

/// What the client asks about a range of interrupts.
#[derive(Debug)]
pub enum Action {
    /// These are told by these from now on.
    Assign(Vec<EventFd>),
    /// So many are told to nobody from now on; none: all of the kind.
    Remove(u32),
    /// So many happen now, for a test.
    Trigger(u32),
    /// So many do not happen until they are unmasked.
    Mask(u32),
    /// They happen again.
    Unmask(u32),
}

#[derive(Debug, Default)]
struct Vector {
    told_by: Option<EventFd>,
    masked: bool,
    /// It happened while nobody was told or it was masked.
    pending: bool,
}

impl Vector {
    fn fire(&mut self) {
        match &self.told_by {
            Some(event) if !self.masked => event.signal(),
            _ => self.pending = true,
        }
    }

    fn catch_up(&mut self) {
        if self.pending && self.told_by.is_some() && !self.masked {
            self.pending = false;
            self.fire();
        }
    }
}

/// All of them.
#[derive(Debug)]
pub struct Irqs {
    line: Vec<Vector>,
    message: Vec<Vector>,
    table: Vec<Vector>,
    error: Vec<Vector>,
}

impl Default for Irqs {
    fn default() -> Irqs {
        let vectors = |count: usize| (0..count).map(|_| Vector::default()).collect();
        let table = vectors(VECTORS);
        Irqs { line: vectors(1), message: vectors(1), table, error: vectors(1) }
    }
}

impl Irqs {
    /// How many a kind has.
    pub fn count(kind: u32) -> u32 {
        match kind {
            INTX | MSI | ERROR => 1,
            MSIX => VECTORS as u32,
            _ => 0,
        }
    }

    /// Does what the client asks.
    ///
    /// # Errors
    /// `EINVAL` for interrupts that are not there.
    pub fn act(&mut self, kind: u32, start: u32, action: Action) -> Result<(), Errno> {
        let vectors = match kind {
            INTX => &mut self.line,
            MSI => &mut self.message,
            MSIX => &mut self.table,
            ERROR => &mut self.error,
            _ => return Err(Errno::EINVAL),
        };
        let start = start as usize;
        let count = match &action {
            Action::Assign(events) => events.len(),
            // Which is how a client ends with a kind.
            Action::Remove(0) if start == 0 => vectors.len(),
            Action::Remove(n) | Action::Trigger(n) | Action::Mask(n) | Action::Unmask(n) => {
                *n as usize
            }
        };
        let end = start.checked_add(count).ok_or(Errno::EINVAL)?;
        let whole = (start, end) == (0, vectors.len());
        let range = vectors.get_mut(start..end).ok_or(Errno::EINVAL)?;
        match action {
            Action::Assign(events) => {
                for (vector, event) in range.iter_mut().zip(events) {
                    vector.told_by = Some(event);
                    vector.catch_up();
                }
            }
            Action::Remove(_) if whole => range.fill_with(Vector::default),
            Action::Remove(_) => range.iter_mut().for_each(|v| v.told_by = None),
            Action::Trigger(_) => range.iter_mut().for_each(Vector::fire),
            Action::Mask(_) => range.iter_mut().for_each(|v| v.masked = true),
            Action::Unmask(_) => {
                for vector in range {
                    vector.masked = false;
                    vector.catch_up();
                }
            }
        }
        Ok(())
    }

    /// The chip sends the message of an entry of its table. Entry 0 is also the line and MSI's only message, whichever
    /// the client has asked for.
    pub fn interrupt(&mut self, number: u16) {
        let in_use = |vectors: &[Vector]| vectors.iter().any(|v| v.told_by.is_some());
        if number == 0 && !in_use(&self.table) {
            if in_use(&self.message) {
                return self.message[0].fire();
            }
            if in_use(&self.line) {
                return self.line[0].fire();
            }
        }
        if let Some(vector) = self.table.get_mut(usize::from(number)) {
            vector.fire();
        }
    }
}

#[cfg(test)]
mod tests;
