//! A slab with generations: values named by cookies that never come back meaning something else.

use alloc::vec::Vec;
use ix_abi::Cookie;

/// Values in numbered slots. A key is the slot and how often it was used, so the key of a value that
/// is gone finds nothing. All operations are O(1); no allocation once it has reached its peak.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    /// An empty one.
    pub const fn new() -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new() }
    }

    /// Keeps `value`, under a key that was never used before.
    pub fn insert(&mut self, value: T) -> Cookie {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, value: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.value = Some(value);
        key(index, slot.generation)
    }

    /// The value of a key.
    pub fn get_mut(&mut self, key: Cookie) -> Option<&mut T> {
        self.slot(key)?.value.as_mut()
    }

    /// Takes the value of a key out.
    pub fn remove(&mut self, key: Cookie) -> Option<T> {
        let value = self.slot(key)?.value.take()?;
        self.free.push(key.0 as u32);
        Some(value)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn slot(&mut self, key: Cookie) -> Option<&mut Slot<T>> {
        let generation = (key.0 >> 32) as u32;
        self.slots.get_mut(key.0 as u32 as usize).filter(|slot| slot.generation == generation)
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab::new()
    }
}

fn key(index: u32, generation: u32) -> Cookie {
    Cookie(u64::from(generation) << 32 | u64::from(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_removed_value_finds_nothing_even_when_its_slot_is_used_again() {
        let mut slab = Slab::new();
        let a = slab.insert('a');
        assert_eq!(slab.remove(a), Some('a'));
        let b = slab.insert('b');
        assert_eq!(a.0 as u32, b.0 as u32, "the slot is used again");
        assert_eq!(slab.get_mut(a), None);
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.get_mut(b), Some(&mut 'b'));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn keys_of_no_slot_find_nothing() {
        let mut slab: Slab<u8> = Slab::new();
        assert_eq!(slab.get_mut(Cookie(u64::MAX)), None);
        assert_eq!(slab.remove(Cookie(0)), None);
        assert!(slab.is_empty());
    }
}
