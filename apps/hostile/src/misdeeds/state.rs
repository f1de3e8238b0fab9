//! Registers as they should not be, at every entry of the kernel: SYSCALL (`clock`, `log`, `map`,
//! `ready`, `enter`), interrupts, preemption. What the kernel lets live comes back here.
#![allow(unsafe_code, reason = "registers that no compiler would set so")]

use core::arch::{asm, naked_asm};

use ix_abi::layout::{STACK_PAGE, context_base};

use super::check;
use super::privileged::X87_UNMASKED;
use crate::app::Verdict;
use crate::raw;

/// Into the main stack of core 0.
pub const KERNEL_STACK: u64 = 0xFFFF_D000_0000_0000 + (256 << 10);
const NOT_CANONICAL: u64 = 0x8000_0000_0000_0000;
/// Longer than the bound after which the core is taken back.
const SPIN_MS: u64 = 30;

const AC: u64 = 1 << 18;
const NT: u64 = 1 << 14;
const DF: u64 = 1 << 10;

pub fn commit(name: &str) -> Option<Verdict> {
    let ticks = u64::from(raw::info().tsc_khz) * SPIN_MS;
    match name {
        "rsp-0" => with_rsp(0, ticks),
        "rsp-not-canonical" => with_rsp(NOT_CANONICAL, ticks),
        "rsp-kernel" => with_rsp(KERNEL_STACK, ticks),
        "rsp-unmapped" => with_rsp(context_base(0) + STACK_PAGE - 8, ticks),
        "flags" => {
            // RF, VIF, VIP, ID, IOPL 3.
            for bits in [AC, NT, DF, 1 << 16, 1 << 19, 1 << 20, 1 << 21, 3 << 12, 0x3F_7400] {
                with_flags(bits, ticks / 3);
            }
        }
        "flags-tf-syscall" => trap_into_syscall(),
        "flags-tf-mov-ss" => trap_behind_mov_ss(),
        "segment-registers" => segments(ticks),
        "mxcsr" => mxcsr(ticks),
        "x87" => x87(ticks),
        "registers" => return Some(registers()),
        _ => return end(name).map(|()| Err("it was let live")),
    }
    // Still here, on the right stack, with clean flags.
    Some(check(raw::now_ns() > 0, "the clock stands"))
}

/// Those that it does not survive.
fn end(name: &str) -> Option<()> {
    // SAFETY: none: the kernel is to end this program in each of them.
    unsafe {
        match name {
            "rsp-kernel-fault" => {
                asm!("mov rsp, {}", "ud2", in(reg) KERNEL_STACK, options(noreturn))
            }
            "rsp-kernel-push" => asm!("mov rsp, {}", "push 1", in(reg) KERNEL_STACK),
            "rsp-not-canonical-push" => asm!("mov rsp, {}", "push 1", in(reg) NOT_CANONICAL),
            "flags-fault" => {
                asm!("push {}", "popfq", "ud2", in(reg) AC | NT | DF | 2, options(noreturn))
            }
            "flags-tf" => asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop"),
            "segment-kernel" => asm!("mov ds, {:e}", in(reg) 0x10),
            "segment-ldt" => asm!("mov es, {:e}", in(reg) 7),
            "segment-beyond" => asm!("mov fs, {:e}", in(reg) 0xFFF3),
            "segment-ss-null" => asm!("mov ss, {:e}", in(reg) 0),
            "mxcsr-reserved" => {
                let reserved: u32 = 0xFFFF_0000;
                asm!("ldmxcsr [{}]", in(reg) &raw const reserved);
            }
            _ => return None,
        }
    }
    Some(())
}

/// Every direct call but `exit`, and a spin that is interrupted and preempted, with `rsp`.
#[unsafe(naked)]
extern "C" fn with_rsp(rsp: u64, ticks: u64) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "mov r12, rsp",
        "mov r13, rsi",
        "mov rsp, rdi",
        "mov eax, 3",
        "xor edi, edi",
        "syscall", // clock
        "mov eax, 2",
        "xor edi, edi",
        "mov esi, 16",
        "syscall", // log of a bad address
        "mov eax, 4",
        "xor edi, edi",
        "mov esi, 1",
        "syscall", // map of a bad address
        "mov eax, 9",
        "syscall", // ready
        "mov eax, 0",
        "xor edi, edi",
        "syscall", // enter: until the timer
        "rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "add r13, rax",
        "2:",
        "rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "cmp rax, r13",
        "jb 2b",
        "mov eax, 0",
        "xor edi, edi",
        "syscall",
        "mov rsp, r12",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

/// The same with flags, set anew before each, since the kernel clears them.
#[unsafe(naked)]
extern "C" fn with_flags(bits: u64, ticks: u64) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "mov r12, rdi",
        "mov r13, rsi",
        "or r12, 2",
        "mov eax, 3",
        "xor edi, edi",
        "push r12",
        "popfq",
        "syscall",
        "mov eax, 2",
        "xor edi, edi",
        "mov esi, 16",
        "push r12",
        "popfq",
        "syscall",
        "mov eax, 4",
        "xor edi, edi",
        "mov esi, 1",
        "push r12",
        "popfq",
        "syscall",
        "mov eax, 9",
        "push r12",
        "popfq",
        "syscall",
        "mov eax, 0",
        "xor edi, edi",
        "push r12",
        "popfq",
        "syscall",
        "rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "add r13, rax",
        "2:",
        "push r12",
        "popfq",
        "mov ecx, 1000",
        "3:",
        "dec ecx",
        "jnz 3b",
        "rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "cmp rax, r13",
        "jb 2b",
        "push 2",
        "popfq",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

/// The trap would come behind SYSCALL: in the kernel, if it did not mask the flag.
fn trap_into_syscall() {
    for _ in 0..100 {
        // SAFETY: the clobbers are the ABI's; the flag is gone after the call.
        unsafe {
            asm!(
                "mov eax, 3", "xor edi, edi",
                "pushfq", "or qword ptr [rsp], 0x100", "popfq",
                "syscall",
                out("rax") _, out("rdi") _, clobber_abi("sysv64"),
            );
        }
    }
}

/// MOV SS holds traps back for one instruction: SYSCALL.
fn trap_behind_mov_ss() {
    for _ in 0..100 {
        // SAFETY: as above; the selector is the one that is there.
        unsafe {
            asm!(
                "mov r12d, ss",
                "mov eax, 3", "xor edi, edi",
                "pushfq", "or qword ptr [rsp], 0x100", "popfq",
                "mov ss, r12d",
                "syscall",
                out("rax") _, out("rdi") _, out("r12") _, clobber_abi("sysv64"),
            );
        }
    }
}

fn calls_and_spin(ticks: u64) {
    with_flags(0, ticks);
}

fn segments(ticks: u64) {
    // Null selectors with any RPL, user data, user code (which can be read).
    for selector in [0, 1, 2, 3, 0x1B, 0x23] {
        // SAFETY: selectors that ring 3 may load; 64-bit code does not use them.
        unsafe {
            asm!("mov ds, {0:e}", "mov es, {0:e}", "mov fs, {0:e}", "mov gs, {0:e}", in(reg) selector);
        }
        calls_and_spin(ticks / 3);
    }
    // SAFETY: as they were.
    unsafe {
        asm!("mov ds, {0:e}", "mov es, {0:e}", "mov fs, {0:e}", "mov gs, {0:e}", in(reg) 0);
    }
}

fn mxcsr(ticks: u64) {
    // Unmasked, flags raised, flush to zero, another rounding mode.
    let (bad, good): (u32, u32) = (0xE03F, 0x1F80);
    for _ in 0..3 {
        // SAFETY: put right below; nothing in between computes.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const bad) };
        calls_and_spin(ticks / 3);
        // SAFETY: as above.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const good) };
    }
}

fn x87(ticks: u64) {
    // SAFETY: the exception stays pending until FNCLEX; nothing in between waits for it.
    unsafe {
        asm!(
            "fninit", "fldcw [{}]", "fld1", "fldz", "fdivp st(1), st",
            in(reg) &raw const X87_UNMASKED,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    calls_and_spin(ticks);
    // SAFETY: as it was.
    unsafe { asm!("fnclex", "fninit") };
}

/// Everything full of ones; what comes back is 0 or was kept.
fn registers() -> Verdict {
    let mut out = [1u64; 8];
    // SAFETY: everything that is changed is restored or declared.
    unsafe {
        asm!(
            "push rbx", "push rbp",
            "push {out}",
            "mov rbx, -1", "mov rbp, -1",
            "mov rdi, -1", "mov rsi, -1", "mov rdx, -1",
            "mov r8, -1", "mov r9, -1", "mov r10, -1",
            "mov r12, -1", "mov r13, -1", "mov r14, -1", "mov r15, -1",
            "mov rax, -1",
            "syscall",
            "pop rcx",
            "mov [rcx], rdi", "mov [rcx + 8], rsi", "mov [rcx + 16], rdx",
            "mov [rcx + 24], r8", "mov [rcx + 32], r9", "mov [rcx + 40], r10",
            "and rbx, rbp", "and rbx, r12", "and rbx, r13", "and rbx, r14", "and rbx, r15",
            "not rbx",
            "mov [rcx + 48], rbx",
            "pop rbp", "pop rbx",
            out = in(reg) out.as_mut_ptr(),
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            clobber_abi("sysv64"),
        );
    }
    check(out[..7].iter().all(|&r| r == 0), "a register holds what it should not")
}
