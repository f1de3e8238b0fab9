//! Instructions that ring 3 must not execute, or that raise an exception.
#![allow(unsafe_code, reason = "instructions that the kernel is to end this program for")]

use core::arch::{asm, global_asm};

/// An instruction that the kernel is to end this program for.
macro_rules! misdeed {
    ($($arg:tt)*) => {{
        // SAFETY: none: see above.
        unsafe { asm!($($arg)*) }
    }};
}

/// LSTAR: where SYSCALL goes.
const LSTAR: u32 = 0xC000_0082;
const NOT_CANONICAL: u64 = 0x8000_0000_0000_0000;

/// `None`: not of this kind.
pub fn commit(name: &str, number: u64) -> Option<()> {
    // Limit 0xFFFF, base 0: what an application would like the tables to be.
    let mut room = [0xFFFFu64, 0, 0, 0];
    let at = room.as_mut_ptr();
    match name {
        "hlt" => misdeed!("hlt"),
        "cli" => misdeed!("cli"),
        "sti" => misdeed!("sti"),
        "in" => misdeed!("in al, dx", in("dx") 0x3F8u16, out("al") _),
        "out" => misdeed!("out dx, al", in("dx") 0xF4u16, in("al") 0u8),
        "outsb" => {
            misdeed!("rep outsb", in("dx") 0x3F8u16, inout("ecx") 4 => _, inout("rsi") at => _);
        }
        "rdmsr" => misdeed!("rdmsr", in("ecx") LSTAR, out("eax") _, out("edx") _),
        "wrmsr" => misdeed!("wrmsr", in("ecx") LSTAR, in("eax") 0, in("edx") 0),
        "rdpmc" => misdeed!("rdpmc", in("ecx") 0, out("eax") _, out("edx") _),
        "lgdt" => misdeed!("lgdt [{}]", in(reg) at),
        "lidt" => misdeed!("lidt [{}]", in(reg) at),
        "lldt" => misdeed!("lldt {:x}", in(reg) 0u32),
        "ltr" => misdeed!("ltr {:x}", in(reg) 0x28u32),
        "lmsw" => misdeed!("lmsw {:x}", in(reg) 0u32),
        "clts" => misdeed!("clts"),
        "sgdt" => misdeed!("sgdt [{}]", in(reg) at),
        "sidt" => misdeed!("sidt [{}]", in(reg) at),
        "sldt" => misdeed!("sldt {:r}", out(reg) _),
        "str" => misdeed!("str {:r}", out(reg) _),
        "smsw" => misdeed!("smsw {:r}", out(reg) _),
        "invlpg" => misdeed!("invlpg [{}]", in(reg) at),
        "invd" => misdeed!("invd"),
        "wbinvd" => misdeed!("wbinvd"),
        "swapgs" => misdeed!("swapgs"),
        "sysret" => {
            misdeed!("sysretq", in("rcx") 0xFFFF_FFFF_8020_A000u64, in("r11") 0x202u64, options(noreturn));
        }
        "sysenter" => misdeed!("sysenter"),
        "sysexit" => misdeed!("sysexit", in("rcx") at, in("rdx") at, options(noreturn)),
        "ud2" => misdeed!("ud2", options(noreturn)),
        "into" => misdeed!(".byte 0xCE"),
        "int3" => misdeed!("int3"),
        "int1" => misdeed!(".byte 0xF1"),
        "int" => interrupt(number),
        "divide" => misdeed!("xor ecx, ecx", "div ecx", out("eax") _, out("ecx") _, out("edx") _),
        "simd-error" => simd_error(),
        "x87-error" => {
            misdeed!("fninit", "fldcw [{}]", "fld1", "fldz", "fdivp st(1), st", "fwait", in(reg) &raw const X87_UNMASKED);
        }
        "vmcall" => misdeed!("vmcall"),
        "vmmcall" => misdeed!("vmmcall"),
        "vmxon" => misdeed!("vmxon [{}]", in(reg) at),
        "monitor" => misdeed!("monitor", in("rax") at, in("ecx") 0, in("edx") 0),
        "stac" => misdeed!("stac"),
        "clac" => misdeed!("clac"),
        "xsetbv" => misdeed!("xsetbv", in("ecx") 0, in("eax") 7, in("edx") 0),
        "wrfsbase" => misdeed!("wrfsbase {}", in(reg) 0u64),
        "wrgsbase" => misdeed!("wrgsbase {}", in(reg) NOT_CANONICAL),
        _ => return registers(name).or_else(|| far(name, at)),
    }
    Some(())
}

fn registers(name: &str) -> Option<()> {
    match name {
        "cr0-read" => misdeed!("mov {}, cr0", out(reg) _),
        "cr0-write" => misdeed!("mov cr0, {}", in(reg) 0x8000_0031u64),
        "cr3-read" => misdeed!("mov {}, cr3", out(reg) _),
        "cr3-write" => misdeed!("mov cr3, {}", in(reg) 0u64),
        "cr4-write" => misdeed!("mov cr4, {}", in(reg) 0x6A0u64),
        "cr8-write" => misdeed!("mov cr8, {}", in(reg) 15u64),
        "dr7-write" => misdeed!("mov dr7, {}", in(reg) 0x401u64),
        _ => return None,
    }
    Some(())
}

/// Far transfers. Selector 8 is the kernel's code, 0x1B user data, 0x28 the task register's.
fn far(name: &str, at: *mut u64) -> Option<()> {
    match name {
        "iret-kernel" => misdeed!(
            "mov rax, rsp",
            "push 0x10",
            "push rax",
            "push 0x202",
            "push 8",
            "lea rax, [rip]",
            "push rax",
            "iretq",
            options(noreturn)
        ),
        "retf-kernel" => {
            misdeed!("push 8", "lea rax, [rip]", "push rax", "retfq", options(noreturn));
        }
        "retf-ldt" => misdeed!("push 7", "lea rax, [rip]", "push rax", "retfq", options(noreturn)),
        // FF /3 and FF /5 with a 16:32 pointer: offset, then selector.
        "far-call-tss" => {
            misdeed!("mov dword ptr [rax], 0", "mov word ptr [rax + 4], 0x28", ".byte 0xFF, 0x18", in("rax") at);
        }
        "far-jump-kernel" => {
            misdeed!("mov dword ptr [rax], 0", "mov word ptr [rax + 4], 8", ".byte 0xFF, 0x28", in("rax") at);
        }
        _ => return None,
    }
    Some(())
}

/// All exceptions unmasked, double precision.
pub static X87_UNMASKED: u16 = 0x0240;

fn simd_error() {
    let unmasked: u32 = 0;
    misdeed!("ldmxcsr [{}]", "pxor xmm0, xmm0", "divss xmm0, xmm0", in(reg) &raw const unmasked, out("xmm0") _);
}

// INT n, RET: three bytes for each n.
global_asm!(
    ".balign 16",
    "hostile_interrupts:",
    ".set vector, 0",
    ".rept 256",
    ".byte 0xCD, vector, 0xC3",
    ".set vector, vector + 1",
    ".endr",
);

unsafe extern "C" {
    static hostile_interrupts: [u8; 768];
}

fn interrupt(vector: u64) {
    let at = &raw const hostile_interrupts as u64 + vector % 256 * 3;
    misdeed!("call {}", in(reg) at, clobber_abi("sysv64"));
}
