//! Which machine a frame is for: a switch that learns addresses from what it sees.
use std::collections::HashMap;

/// Addresses that are remembered; machines have few.
const ADDRESSES_MAX: usize = 1024;
/// Destination and source of an Ethernet header.
const ADDRESSES_BYTES: usize = 12;

type Mac = [u8; 6];

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// It is no frame, or for where it came from.
    Nowhere,
    /// To this port.
    One(usize),
    /// To all ports but its own.
    Others,
}

/// What was learnt.
#[derive(Debug, Default)]
pub struct Switch {
    ports: HashMap<Mac, usize>,
}

impl Switch {
    /// Where this frame, which came in at port `from`, goes.
    pub fn route(&mut self, from: usize, frame: &[u8]) -> To {
        let Some(head) = frame.first_chunk::<ADDRESSES_BYTES>() else { return To::Nowhere };
        let (mut to, mut source): (Mac, Mac) = ([0; 6], [0; 6]);
        to.copy_from_slice(&head[..6]);
        source.copy_from_slice(&head[6..]);
        let group = |mac: &Mac| mac[0] & 1 != 0;
        let known = self.ports.get(&source) == Some(&from);
        if !known && !group(&source) && self.ports.len() < ADDRESSES_MAX {
            self.ports.insert(source, from);
        }
        if group(&to) {
            return To::Others;
        }
        match self.ports.get(&to) {
            Some(port) if *port == from => To::Nowhere,
            Some(port) => To::One(*port),
            None => To::Others,
        }
    }
}
