//! Bytes that tell their place: no two words of a stream are alike, so that whatever is lost, doubled or
//! swapped shows. Cheap to make and to check: an addition for eight bytes.

/// Odd, so that its multiples pass through all words before one comes again.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A place in the pattern of a seed.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    seed: u64,
    at: u64,
}

impl Pattern {
    /// The beginning.
    pub fn new(seed: u64) -> Pattern {
        Pattern { seed, at: 0 }
    }

    /// How many bytes lie before this place.
    pub fn at(&self) -> u64 {
        self.at
    }

    fn word(&self) -> u64 {
        self.seed.wrapping_add((self.at / 8 + 1).wrapping_mul(STEP))
    }

    fn byte(&self) -> u8 {
        self.word().to_le_bytes()[(self.at % 8) as usize]
    }

    /// Bytes up to the next whole word, at most `len`.
    fn edge(&self, len: usize) -> usize {
        (((8 - self.at % 8) % 8) as usize).min(len)
    }

    /// Writes the bytes that follow.
    pub fn fill(&mut self, out: &mut [u8]) {
        let (edge, rest) = out.split_at_mut(self.edge(out.len()));
        self.fill_bytes(edge);
        let (words, tail) = rest.as_chunks_mut::<8>();
        let mut word = self.word();
        for out in &mut *words {
            *out = word.to_le_bytes();
            word = word.wrapping_add(STEP);
        }
        self.at += 8 * words.len() as u64;
        self.fill_bytes(tail);
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        for out in out {
            *out = self.byte();
            self.at += 1;
        }
    }

    /// Passes over bytes that should be those that follow; where the first is that is not.
    pub fn check(&mut self, bytes: &[u8]) -> Option<u64> {
        let begin = *self;
        let (edge, rest) = bytes.split_at(self.edge(bytes.len()));
        let mut differs = self.check_bytes(edge).is_some();
        let (words, tail) = rest.as_chunks::<8>();
        let (mut word, mut difference) = (self.word(), 0);
        for bytes in words {
            difference |= u64::from_le_bytes(*bytes) ^ word;
            word = word.wrapping_add(STEP);
        }
        self.at += 8 * words.len() as u64;
        differs |= difference != 0;
        differs |= self.check_bytes(tail).is_some();
        if differs { { begin }.check_bytes(bytes) } else { None }
    }

    fn check_bytes(&mut self, bytes: &[u8]) -> Option<u64> {
        let mut first = None;
        for byte in bytes {
            if *byte != self.byte() {
                first = first.or(Some(self.at));
            }
            self.at += 1;
        }
        first
    }
}
