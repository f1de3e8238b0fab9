//! `memcpy` and its relatives, in assembly: written in Rust the compiler would recognise the loops
//! and call the very functions they implement.
//!
//! Copies and fills move 16 bytes at a time with SSE2 (part of x86-64). `rep movsq` would be shorter,
//! but QEMU's TCG runs it at a fifth of the speed, and it has a long start-up on real cores. Up to
//! 64 bytes everything is loaded before anything is stored, which makes the short cases safe for
//! overlapping areas without a test.
#![allow(unsafe_code, reason = "naked assembly, exported C symbols")]

use core::arch::naked_asm;

/// # Safety
/// `src` must be readable and `dst` writable for `n` bytes. Unlike C's, this one allows overlap.
#[cfg_attr(not(test), unsafe(export_name = "memcpy"))]
#[unsafe(naked)]
pub unsafe extern "C" fn memcpy(dst: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    naked_asm!("jmp {}", sym memmove)
}

/// # Safety
/// `src` must be readable and `dst` writable for `n` bytes; they may overlap.
#[cfg_attr(not(test), unsafe(export_name = "memmove"))]
#[unsafe(naked)]
pub unsafe extern "C" fn memmove(dst: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 16",
        "jb 20f",
        "cmp rdx, 32",
        "ja 10f",
        // 16..=32: first and last 16 bytes.
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + rdx - 16]",
        "movups [rdi], xmm0",
        "movups [rdi + rdx - 16], xmm1",
        "ret",
        "10:",
        "cmp rdx, 64",
        "ja 11f",
        // 33..=64: first and last 32 bytes.
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups xmm2, [rsi + rdx - 32]",
        "movups xmm3, [rsi + rdx - 16]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "movups [rdi + rdx - 32], xmm2",
        "movups [rdi + rdx - 16], xmm3",
        "ret",
        "11:",
        "mov rcx, rdi",
        "sub rcx, rsi",
        "cmp rcx, rdx",
        "jb 14f", // dst starts inside src: go backwards
        // Forwards: the last 64 bytes are read first and written last.
        "movups xmm4, [rsi + rdx - 64]",
        "movups xmm5, [rsi + rdx - 48]",
        "movups xmm6, [rsi + rdx - 32]",
        "movups xmm7, [rsi + rdx - 16]",
        "lea rcx, [rdi + rdx - 64]",
        "12:",
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups xmm2, [rsi + 32]",
        "movups xmm3, [rsi + 48]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "movups [rdi + 32], xmm2",
        "movups [rdi + 48], xmm3",
        "add rsi, 64",
        "add rdi, 64",
        "cmp rdi, rcx",
        "jb 12b",
        "movups [rcx], xmm4",
        "movups [rcx + 16], xmm5",
        "movups [rcx + 32], xmm6",
        "movups [rcx + 48], xmm7",
        "ret",
        // Backwards: the first 64 bytes are read first and written last.
        "14:",
        "movups xmm4, [rsi]",
        "movups xmm5, [rsi + 16]",
        "movups xmm6, [rsi + 32]",
        "movups xmm7, [rsi + 48]",
        "15:",
        "movups xmm0, [rsi + rdx - 16]",
        "movups xmm1, [rsi + rdx - 32]",
        "movups xmm2, [rsi + rdx - 48]",
        "movups xmm3, [rsi + rdx - 64]",
        "movups [rdi + rdx - 16], xmm0",
        "movups [rdi + rdx - 32], xmm1",
        "movups [rdi + rdx - 48], xmm2",
        "movups [rdi + rdx - 64], xmm3",
        "sub rdx, 64",
        "cmp rdx, 64",
        "ja 15b",
        "movups [rdi], xmm4",
        "movups [rdi + 16], xmm5",
        "movups [rdi + 32], xmm6",
        "movups [rdi + 48], xmm7",
        "ret",
        // 0..=15
        "20:",
        "cmp edx, 8",
        "jb 21f",
        "mov rcx, [rsi]",
        "mov r8, [rsi + rdx - 8]",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], r8",
        "ret",
        "21:",
        "cmp edx, 4",
        "jb 22f",
        "mov ecx, [rsi]",
        "mov r8d, [rsi + rdx - 4]",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], r8d",
        "ret",
        "22:",
        "cmp edx, 2",
        "jb 23f",
        "movzx ecx, word ptr [rsi]",
        "movzx r8d, word ptr [rsi + rdx - 2]",
        "mov [rdi], cx",
        "mov [rdi + rdx - 2], r8w",
        "ret",
        "23:",
        "test edx, edx",
        "je 24f",
        "movzx ecx, byte ptr [rsi]",
        "mov [rdi], cl",
        "24:",
        "ret",
    )
}

/// # Safety
/// `dst` must be writable for `n` bytes.
#[cfg_attr(not(test), unsafe(export_name = "memset"))]
#[unsafe(naked)]
pub unsafe extern "C" fn memset(dst: *mut u8, c: i32, n: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "movzx esi, sil",
        "mov rcx, 0x0101010101010101",
        "imul rcx, rsi",
        "cmp rdx, 16",
        "jb 20f",
        "movq xmm0, rcx",
        "punpcklqdq xmm0, xmm0",
        "movups [rdi], xmm0",
        "movups [rdi + rdx - 16], xmm0",
        "cmp rdx, 32",
        "jbe 13f",
        "movups [rdi + 16], xmm0",
        "movups [rdi + rdx - 32], xmm0",
        "cmp rdx, 64",
        "jbe 13f",
        "lea rcx, [rdi + rdx - 64]",
        "12:",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm0",
        "movups [rdi + 32], xmm0",
        "movups [rdi + 48], xmm0",
        "add rdi, 64",
        "cmp rdi, rcx",
        "jb 12b",
        "movups [rcx], xmm0",
        "movups [rcx + 16], xmm0",
        "13:",
        "ret",
        "20:",
        "cmp edx, 8",
        "jb 21f",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], rcx",
        "ret",
        "21:",
        "cmp edx, 4",
        "jb 22f",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], ecx",
        "ret",
        "22:",
        "cmp edx, 2",
        "jb 23f",
        "mov [rdi], cx",
        "mov [rdi + rdx - 2], cx",
        "ret",
        "23:",
        "test edx, edx",
        "je 24f",
        "mov [rdi], cl",
        "24:",
        "ret",
    )
}

/// # Safety
/// Both areas must be readable for `n` bytes.
#[cfg_attr(not(test), unsafe(export_name = "memcmp"))]
#[unsafe(naked)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    naked_asm!(
        "2:",
        "cmp rdx, 8",
        "jb 4f",
        "mov rax, [rdi]",
        "mov rcx, [rsi]",
        "add rdi, 8",
        "add rsi, 8",
        "sub rdx, 8",
        "cmp rax, rcx",
        "je 2b",
        // The first differing byte decides: compare as big-endian numbers.
        "bswap rax",
        "bswap rcx",
        "cmp rax, rcx",
        "sbb eax, eax", // -1 if below, 0 if above
        "or eax, 1",
        "ret",
        "4:",
        "test edx, edx",
        "je 6f",
        "movzx eax, byte ptr [rdi]",
        "movzx ecx, byte ptr [rsi]",
        "inc rdi",
        "inc rsi",
        "dec edx",
        "sub eax, ecx",
        "je 4b",
        "ret",
        "6:",
        "xor eax, eax",
        "ret",
    )
}

/// # Safety
/// Both areas must be readable for `n` bytes.
#[cfg_attr(not(test), unsafe(export_name = "bcmp"))]
#[unsafe(naked)]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    naked_asm!("jmp {}", sym memcmp)
}

/// # Safety
/// `s` must point to a readable, NUL-terminated string.
#[cfg_attr(not(test), unsafe(export_name = "strlen"))]
#[unsafe(naked)]
pub unsafe extern "C" fn strlen(s: *const u8) -> usize {
    naked_asm!(
        "xor eax, eax",
        "2:",
        "cmp byte ptr [rdi + rax], 0",
        "je 3f",
        "inc rax",
        "jmp 2b",
        "3:",
        "ret",
    )
}

#[cfg(test)]
mod tests;
