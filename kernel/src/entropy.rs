//! Randomness for keys and seeds, drawn at boot: RDRAND where the CPU has it, always mixed with the
//! counter's jitter, so that a machine without it does not use the same keys at every boot.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::time;

static STATE: AtomicU64 = AtomicU64::new(0);

/// Whether the CPU has a generator of its own.
pub fn has_hardware() -> bool {
    raw_cpuid::CpuId::new().get_feature_info().is_some_and(|f| f.has_rdrand())
}

fn hardware() -> Option<u64> {
    has_hardware().then(x86_64::instructions::random::RdRand::new).flatten()?.get_u64()
}

/// Time between readings of a device-backed clock differs by more than its own resolution.
fn jitter() -> u64 {
    let mut x = 0u64;
    for _ in 0..64 {
        x = x.rotate_left(7) ^ time::tsc();
        core::hint::spin_loop();
    }
    x
}

/// The next 64 random bits. Boot and control only.
pub fn next() -> u64 {
    let mut z = STATE.load(Ordering::Relaxed) ^ hardware().unwrap_or(0) ^ jitter();
    STATE.store(z.wrapping_add(0x9E37_79B9_7F4A_7C15), Ordering::Relaxed);
    // Finaliser of splitmix64: every input bit reaches every output bit.
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

pub fn fill(bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]);
    }
}
