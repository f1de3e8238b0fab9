//! The Internet checksum (RFC 1071): partial sums of 64-bit words with end-around carry.
//!
//! A partial sum is in native byte order, which the ones' complement sum permits (RFC 1071 §2.B):
//! folded to 16 bits and stored in native order it reads right on the wire.
#![allow(unsafe_code, reason = "sums memory that others may write meanwhile")]

use core::arch::asm;

/// The partial sum of a byte slice.
#[inline(always)]
pub fn sum(bytes: &[u8]) -> u64 {
    // SAFETY: a slice is readable.
    unsafe { sum_raw(bytes.as_ptr(), bytes.len()) }
}

/// The partial sum of raw memory, which may change while it is read.
///
/// # Safety
/// `len` bytes at `ptr` are readable.
#[inline(always)]
pub(crate) unsafe fn sum_raw(ptr: *const u8, len: usize) -> u64 {
    let mut at = ptr;
    let mut total: u64 = 0;
    let mut blocks = len / 32;
    if blocks > 0 {
        // Assembly, since the memory may be shared with the application, for which Rust has no
        // unaligned wide load, and since the carry chain is what makes this fast.
        // SAFETY: reads `blocks * 32 <= len` bytes from `ptr`; writes no memory and no stack.
        unsafe {
            asm!(
                "xor {t:e}, {t:e}",
                "2:",
                "adc {s}, qword ptr [{p}]",
                "adc {s}, qword ptr [{p} + 8]",
                "adc {s}, qword ptr [{p} + 16]",
                "adc {s}, qword ptr [{p} + 24]",
                "lea {p}, [{p} + 32]",
                "dec {n}",
                "jnz 2b",
                "adc {s}, 0",
                t = out(reg) _,
                s = inout(reg) total,
                p = inout(reg) at,
                n = inout(reg) blocks,
                options(nostack, readonly),
            );
        }
    }
    let _ = blocks;
    if len.is_multiple_of(32) {
        return total;
    }
    let rest = len % 32;
    for _ in 0..rest / 8 {
        let word: u64;
        // SAFETY: eight more bytes of the `len`.
        unsafe {
            asm!("mov {w}, qword ptr [{p}]", w = lateout(reg) word, p = in(reg) at,
                options(nostack, readonly, preserves_flags));
            at = at.add(8);
        }
        total = add(total, word);
    }
    if rest.is_multiple_of(8) {
        return total;
    }
    let mut word: u64 = 0;
    let mut shift = 0;
    if rest & 4 != 0 {
        let four: u32;
        // SAFETY: four more bytes of the `len`.
        unsafe {
            asm!("mov {w:e}, dword ptr [{p}]", w = lateout(reg) four, p = in(reg) at,
                options(nostack, readonly, preserves_flags));
            at = at.add(4);
        }
        word = u64::from(four);
        shift = 32;
    }
    for i in 0..rest % 4 {
        // SAFETY: the last bytes of the `len`.
        let byte = unsafe { at.add(i).read_volatile() };
        word |= u64::from(byte) << (shift + 8 * i);
    }
    add(total, word)
}

/// Adds two partial sums.
#[inline(always)]
pub const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

/// A partial sum of bytes that start at an odd offset of what is summed.
#[inline]
pub const fn at_odd_offset(partial: u64) -> u64 {
    fold(partial).swap_bytes() as u64
}

/// A partial sum as 16 bits, not complemented, in native order.
#[inline(always)]
pub const fn fold(partial: u64) -> u16 {
    // The upper half of x + rotated x is the sum of both halves with the end-around carry.
    let sum = (partial.wrapping_add(partial.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The bytes of a checksum field.
#[inline(always)]
pub const fn finish(partial: u64) -> [u8; 2] {
    (!fold(partial)).to_ne_bytes()
}

/// Whether a partial sum over data that includes its checksum says that it is intact: folded it is 0xffff. That is so if it is a
/// multiple of that and not 0.
#[inline(always)]
pub const fn is_good(partial: u64) -> bool {
    // 2^64 - 1 is 0xffff times this, which makes multiplying by its opposite a division, if there is no remainder: the quotient is at
    // most this. With a remainder it is more. `!x` is `-x - 1`, and so from 0 on.
    const MOST: u64 = u64::MAX / 0xffff;
    !partial.wrapping_mul(MOST) < MOST
}

/// The pseudo-header's partial sum (RFC 9293 §3.1) for IPv4 addresses in network order.
#[inline(always)]
pub const fn pseudo_v4(src: [u8; 4], dst: [u8; 4], protocol: u8, len: u16) -> u64 {
    let protocol_and_len = (protocol as u16).to_be() as u64 + len.to_be() as u64;
    u32::from_ne_bytes(src) as u64 + u32::from_ne_bytes(dst) as u64 + protocol_and_len
}

/// The same for IPv6 addresses (RFC 8200 §8.1).
#[inline(always)]
pub const fn pseudo_v6(src: &[u8; 16], dst: &[u8; 16], protocol: u8, len: u16) -> u64 {
    let (src, dst) = (u128::from_ne_bytes(*src), u128::from_ne_bytes(*dst));
    let source = add(src as u64, (src >> 64) as u64);
    let destination = add(dst as u64, (dst >> 64) as u64);
    let protocol_and_len = (protocol as u16).to_be() as u64 + len.to_be() as u64;
    add(add(source, destination), protocol_and_len)
}

#[cfg(test)]
mod tests;
