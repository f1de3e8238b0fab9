//! What the ABI promises, seen from ring 3.

use core::arch::asm;

use ix_abi::call::Direct;
use ix_abi::layout::{HEAP_BASE, IMAGE_BASE, INFO_BASE, InfoPage, PAGE_BYTES, RX_BASE};
use ix_abi::status::Status;

use crate::{call, check, raw_call};

fn failed(result: u64, with: Status) -> bool {
    result == u64::from(with.0).wrapping_neg()
}

/// The information page and the stack at start.
pub fn start(info: &'static InfoPage) {
    check(core::ptr::from_ref(info) as u64 == INFO_BASE, "second argument is not the info page");
    check(ix_abi::VERSION.accepts(info.version), "version");
    check(info.cores >= 1 && info.groups >= 1, "cores or groups");
    check(info.tsc_khz > 1000, "frequency");
    check(info.heap_bytes >= PAGE_BYTES && info.heap_max_bytes >= info.heap_bytes, "heap");
    let rsp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp) };
    check(rsp.is_multiple_of(8), "stack alignment");
    // SAFETY: all of the heap that the page names is mapped, zeroed and writable; RX is readable.
    unsafe {
        for at in [HEAP_BASE, HEAP_BASE + info.heap_bytes - 8] {
            let p = at as *mut u64;
            check(p.read_volatile() == 0, "the heap is not zeroed");
            p.write_volatile(at);
            check(p.read_volatile() == at, "the heap does not keep what is written");
        }
        let _ = (RX_BASE as *const u64).read_volatile();
    }
}

/// Callee-saved registers survive a system call; of the others nothing of the kernel is seen.
pub fn registers() {
    let mut out = [0u64; 15];
    for _ in 0..1000 {
        // SAFETY: everything that is changed is restored or declared.
        unsafe {
            asm!(
                "push rbx",
                "push rbp",
                "push rdi",
                "mov rbx, 0x1111111111111111",
                "mov rbp, 0x2222222222222222",
                "mov r12, 0x3333333333333333",
                "mov r13, 0x4444444444444444",
                "mov r14, 0x5555555555555555",
                "mov r15, 0x6666666666666666",
                "mov rdi, 0",
                "mov rsi, -1",
                "mov rdx, -1",
                "mov r8, -1",
                "mov r9, -1",
                "mov r10, -1",
                "mov eax, 3", // clock
                "syscall",
                "xchg [rsp], rdi", // the array; its place keeps rdi
                "mov [rdi], rbx",
                "mov [rdi + 8], rbp",
                "mov [rdi + 16], r12",
                "mov [rdi + 24], r13",
                "mov [rdi + 32], r14",
                "mov [rdi + 40], r15",
                "mov [rdi + 48], rsi",
                "mov [rdi + 56], rdx",
                "mov [rdi + 64], r8",
                "mov [rdi + 72], r9",
                "mov [rdi + 80], r10",
                "pop rsi",
                "mov [rdi + 88], rsi",
                "lea rsi, [rip]",
                "mov [rdi + 96], rcx",
                "mov [rdi + 104], rsi",
                "mov [rdi + 112], r11",
                "pop rbp",
                "pop rbx",
                inout("rdi") out.as_mut_ptr() => _,
                out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            );
        }
        for (i, want) in (1..=6u64).enumerate() {
            check(out[i] == want * 0x1111_1111_1111_1111, "a callee-saved register changed");
        }
        check(out[6..12].iter().all(|&r| r == 0), "a caller-saved register is not cleared");
        check(out[13].wrapping_sub(out[12]) < 256, "rcx is not the return address");
        check(out[14] & !0x8D5 == 0x202, "r11 holds more than harmless flags");
    }
}

/// System calls without pause for a while, for interrupts to hit every instruction of the way.
pub fn storm() {
    let start = call(Direct::Clock, 0, 0, 0);
    while call(Direct::Clock, 0, 0, 0) - start < 500_000_000 {
        registers();
    }
}

/// Vector registers come back cleared, MXCSR reset.
pub fn vectors() {
    let mut seen = [0u64; 32];
    let mut mxcsr = 0u32;
    let ones = [u64::MAX; 2];
    let masked: u32 = 0x1F80 | 0x6000; // another rounding mode
    // SAFETY: everything that is changed is declared; the arrays are large enough.
    unsafe {
        asm!(
            "ldmxcsr [{masked}]",
            "movups xmm0, [{ones}]", "movups xmm1, [{ones}]", "movups xmm6, [{ones}]",
            "movups xmm7, [{ones}]", "movups xmm8, [{ones}]", "movups xmm15, [{ones}]",
            "mov eax, 3",
            "xor edi, edi",
            "syscall",
            "movups [r12], xmm0", "movups [r12 + 16], xmm1", "movups [r12 + 32], xmm2",
            "movups [r12 + 48], xmm3", "movups [r12 + 64], xmm4", "movups [r12 + 80], xmm5",
            "movups [r12 + 96], xmm6", "movups [r12 + 112], xmm7",
            "movups [r12 + 128], xmm8", "movups [r12 + 144], xmm9",
            "movups [r12 + 160], xmm10", "movups [r12 + 176], xmm11",
            "movups [r12 + 192], xmm12", "movups [r12 + 208], xmm13",
            "movups [r12 + 224], xmm14", "movups [r12 + 240], xmm15",
            "stmxcsr [r13]",
            masked = in(reg) &raw const masked,
            ones = in(reg) &raw const ones,
            inout("r12") seen.as_mut_ptr() => _,
            inout("r13") &raw mut mxcsr => _,
            out("rax") _, out("rdi") _,
            clobber_abi("sysv64"),
        );
    }
    check(seen.iter().all(|&w| w == 0), "a vector register holds something");
    check(mxcsr == 0x1F80, "MXCSR is not reset");
}

/// Hostile flags at the system call: they do not reach the kernel, nor come back.
pub fn flags() {
    // DF, NT, AC, ID; each alone and all together.
    for bits in [0x400u64, 0x4000, 0x4_0000, 0x20_0000, 0x24_4400] {
        let after: u64;
        // SAFETY: the flags are back to harmless ones after the call.
        unsafe {
            asm!(
                "pushfq",
                "or [rsp], r13",
                "popfq",
                "mov eax, 3",
                "xor edi, edi",
                "syscall",
                "pushfq",
                "pop r13",
                inout("r13") bits => after,
                out("rax") _, out("rdi") _,
                clobber_abi("sysv64"),
            );
        }
        check(after & 0x24_4500 == 0, "a hostile flag came back");
    }
}

/// Direct calls with arguments that make no sense.
pub fn calls() {
    let t = call(Direct::Clock, 0, 0, 0);
    check(call(Direct::Clock, 0, 0, 0) >= t && t > 0, "the clock runs backwards");
    check(failed(call(Direct::Clock, 7, 0, 0), Status::Invalid), "clock 7");
    check(call(Direct::Clock, 1, 0, 0) > 1_600_000_000_000_000_000, "wall clock");
    for number in [11, 99, 0xFFFF, 0x1_0000, u64::MAX] {
        check(failed(raw_call(number, 0, 0, 0), Status::Invalid), "an unknown call");
    }
    check(failed(call(Direct::Thread, 0, 0, 0), Status::State), "thread, without a core for it");
    check(failed(raw_call(10, 0, 0, 0), Status::Denied), "leave, by an elastic thread");
    let kernel = 0xFFFF_FFFF_8020_A000;
    let last = IMAGE_BASE + 3 * PAGE_BYTES;
    for addr in [0, kernel, u64::MAX, u64::MAX - 3, 0x7FFF_FFFF_FFFF, last] {
        check(failed(call(Direct::Log, addr, 16, 3), Status::Fault), "log from a bad address");
    }
    check(call(Direct::Log, IMAGE_BASE, u64::MAX, 5) == 0, "a log that is too long is cut");
    let text = "two\nlines\x1b[31m";
    check(call(Direct::Log, text.as_ptr() as u64, text.len() as u64, 3) == 0, "log");
}

/// `map` and `unmap`, with ranges that lie.
pub fn memory(info: &InfoPage) {
    let free = HEAP_BASE + info.heap_bytes;
    let max = HEAP_BASE + info.heap_max_bytes;
    for (addr, pages) in [
        (free + 4096, 1),
        (free, 0),
        (free, u64::MAX),
        (free, 1 << 60),
        (max, 1),
        (0, 1),
        (RX_BASE, 1),
        (IMAGE_BASE, 1),
        (!(PAGE_BYTES - 1), 1),
        (0xFFFF_8000_0000_0000, 1),
    ] {
        check(failed(call(Direct::Map, addr, pages, 0), Status::Invalid), "a bad map");
        check(failed(call(Direct::Unmap, addr, pages, 0), Status::Invalid), "a bad unmap");
    }
    check(failed(call(Direct::Map, HEAP_BASE, 1, 0), Status::InUse), "mapped already");
    check(failed(call(Direct::Unmap, free, 1, 0), Status::Fault), "not mapped");
    for round in 0..3u64 {
        let at = free + round * 2 * PAGE_BYTES;
        check(call(Direct::Map, at, 2, 0) == 0, "map");
        // SAFETY: just mapped.
        unsafe {
            for p in [at as *mut u64, (at + 2 * PAGE_BYTES - 8) as *mut u64] {
                check(p.read_volatile() == 0, "a mapped page is not zeroed");
                p.write_volatile(!0);
            }
        }
        check(call(Direct::Unmap, at, 2, 0) == 0, "unmap");
    }
    // Everything that is allowed, or as much as there is: the kernel survives either.
    let mut at = free + 6 * PAGE_BYTES;
    while at < max && call(Direct::Map, at, 1, 0) == 0 {
        at += PAGE_BYTES;
    }
}

/// Runs long enough to be interrupted many times; every register must survive each.
pub fn survives_preemption() {
    let start = call(Direct::Clock, 0, 0, 0);
    let mut rounds = 0u64;
    // On a busy machine a round takes longer than that.
    while rounds < 3 || call(Direct::Clock, 0, 0, 0) - start < 100_000_000 {
        let wrong: u64;
        // SAFETY: everything that is changed is declared.
        unsafe {
            asm!(
                "push rbx", "push rbp",
                "mov rbx, 1", "mov rbp, 2", "mov rsi, 3", "mov rdi, 4", "mov r8, 5", "mov r9, 6",
                "mov r10, 7", "mov r11, 8", "mov r12, 9", "mov r13, 10", "mov r14, 11", "mov r15, 12",
                "movq xmm0, rbx", "movq xmm7, rbp", "movq xmm15, r15",
                "fld1",
                "mov ecx, 2000000",
                "2:",
                "dec ecx",
                "jnz 2b",
                "fstp st(0)",
                "xor eax, eax",
                "movq rdx, xmm0", "xor rdx, 1", "or rax, rdx",
                "movq rdx, xmm7", "xor rdx, 2", "or rax, rdx",
                "movq rdx, xmm15", "xor rdx, 12", "or rax, rdx",
                "xor rbx, 1", "or rax, rbx", "xor rbp, 2", "or rax, rbp",
                "xor rsi, 3", "or rax, rsi", "xor rdi, 4", "or rax, rdi",
                "xor r8, 5", "or rax, r8", "xor r9, 6", "or rax, r9",
                "xor r10, 7", "or rax, r10", "xor r11, 8", "or rax, r11",
                "xor r12, 9", "or rax, r12", "xor r13, 10", "or rax, r13",
                "xor r14, 11", "or rax, r14", "xor r15, 12", "or rax, r15",
                "pop rbp", "pop rbx",
                out("rax") wrong, out("rcx") _, out("rdx") _, out("rsi") _,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _,
                out("r13") _, out("r14") _, out("r15") _,
                out("xmm0") _, out("xmm7") _, out("xmm15") _,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
        check(wrong == 0, "a register changed during preemption");
        rounds += 1;
    }
}

/// An unmasked SSE exception is this program's end, not the kernel's trouble.
pub fn simd_error() {
    let unmasked: u32 = 0;
    // SAFETY: none: the kernel is to end this program here.
    unsafe {
        asm!("ldmxcsr [{}]", "pxor xmm0, xmm0", "divss xmm0, xmm0", in(reg) &raw const unmasked, out("xmm0") _);
    }
}

/// A SYSCALL at the end of the lower half would return to an address that is not canonical. The page
/// cannot be had, so the jump itself is refused.
pub fn syscall_at_the_top() {
    let top = 0x7FFF_FFE0_0000u64;
    check(failed(call(Direct::Map, top, 1, 0), Status::Invalid), "the top page was mapped");
    // SAFETY: none: the kernel is to end this program here.
    unsafe { asm!("mov {0}, 0x7FFFFFFFFFFE", "jmp {0}", out(reg) _) };
}
