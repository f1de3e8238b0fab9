//! Seeded mutations of inputs, for runs that no coverage guides.
use ix_dataplane::rng::Rng;

/// Bytes that are often where something changes.
const EDGES: [u8; 10] = [0, 1, 2, 0x7f, 0x80, 0xff, 0xfe, 16, 64, 32];

/// A new input out of old ones.
pub fn mutate(corpus: &[Vec<u8>], rng: &mut Rng, bytes_max: usize) -> Vec<u8> {
    let any = |rng: &mut Rng| match corpus {
        [] => Vec::new(),
        corpus => corpus[rng.below(corpus.len() as u64) as usize].clone(),
    };
    let mut input = any(rng);
    for _ in 0..1 + rng.below(5) {
        let at = rng.below(input.len() as u64 + 1) as usize;
        match rng.below(8) {
            0 | 1 if at < input.len() => input[at] ^= 1 << rng.below(8),
            2 if at < input.len() => input[at] = rng.next_u32() as u8,
            3 if at < input.len() => input[at] = EDGES[rng.below(EDGES.len() as u64) as usize],
            4 => {
                let end = (at + 1 + rng.below(8) as usize).min(input.len());
                input.drain(at..end);
            }
            5 => {
                // The rest of another.
                let other = any(rng);
                let from = rng.below(other.len() as u64 + 1) as usize;
                input.truncate(at);
                input.extend(&other[from..]);
            }
            6 => {
                // Some of itself, again.
                let end = (at + 1 + rng.below(16) as usize).min(input.len());
                let piece = input[at..end].to_vec();
                input.extend(piece);
            }
            _ => {
                let mut bytes = vec![0; 1 + rng.below(8) as usize];
                rng.fill(&mut bytes);
                input.splice(at..at, bytes);
            }
        }
    }
    input.truncate(bytes_max);
    input
}
