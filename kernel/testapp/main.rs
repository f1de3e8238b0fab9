//! The boot tests' application: does what its first argument says, mostly something that an application
//! must not be able to get away with. Exit code 0: everything was as the ABI promises.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "raw system calls, and misbehaviour on purpose")]

use ix_rt as _;

use core::arch::{asm, naked_asm};

use ix_abi::call::Direct;
use ix_abi::layout::{
    CONTEXT_BASE, EVENT_PAGE, HEAP_BASE, IMAGE_BASE, INFO_BASE, InfoPage, PAGE_BYTES, RX_BASE,
    STACK_PAGE,
};

mod checks;

#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "jmp {main}", main = sym main)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(101)
}

pub fn call(number: Direct, a: u64, b: u64, c: u64) -> u64 {
    raw_call(u64::from(number.0), a, b, c)
}

pub fn raw_call(number: u64, a: u64, b: u64, c: u64) -> u64 {
    let result;
    // SAFETY: the clobbers are the ABI's.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            inlateout("rdi") a => _,
            inlateout("rsi") b => _,
            inlateout("rdx") c => _,
            clobber_abi("sysv64"),
        );
    }
    result
}

pub fn exit(code: u64) -> ! {
    loop {
        call(Direct::Exit, code, 0, 0);
    }
}

pub fn log(text: &str) {
    call(Direct::Log, text.as_ptr() as u64, text.len() as u64, 3);
}

/// Ends with 1 and a line, unless `ok`.
#[track_caller]
pub fn check(ok: bool, what: &str) {
    if !ok {
        log(what);
        exit(1)
    }
}

/// An instruction that the kernel is to end this program for.
macro_rules! misdeed {
    ($($arg:tt)*) => {{
        // SAFETY: none: see above.
        unsafe { asm!($($arg)*) }
    }};
}

fn write(at: u64) {
    // SAFETY: none: the kernel is to end this program here.
    unsafe { (at as *mut u64).write_volatile(1) }
}

fn read(at: u64) -> u64 {
    // SAFETY: none: the kernel is to end this program here.
    unsafe { (at as *const u64).read_volatile() }
}

fn jump(to: u64) {
    // SAFETY: none: the kernel is to end this program here.
    misdeed!("jmp {}", in(reg) to, options(noreturn));
}

extern "C" fn main(context: u64, info: &'static InfoPage) -> ! {
    let args = &info.args[..info.args_len as usize];
    let mode = core::str::from_utf8(args).unwrap_or("");
    if context != 0 && mode != "enter" {
        // One core is enough to misbehave; the others serve.
        loop {
            call(Direct::Enter, 0, 0, 0);
        }
    }
    match mode {
        "ok" => {}
        "abi" => checks::start(info),
        "registers" => checks::registers(),
        "storm" => checks::storm(),
        "vectors" => checks::vectors(),
        "flags" => checks::flags(),
        "calls" => checks::calls(),
        "memory" => checks::memory(info),
        "preempted" => checks::survives_preemption(),
        "enter" => loop {
            call(Direct::Ready, 0, 0, 0);
            call(Direct::Enter, 0, 0, 0);
        },
        "fail" => exit(3),
        "null" => write(0),
        "kernel-read" => _ = read(0xFFFF_FFFF_8020_A000),
        "direct-map" => write(0xFFFF_8000_0010_0000),
        "non-canonical" => _ = read(0x0000_8000_0000_0000),
        "text" => write(IMAGE_BASE),
        "rx" => write(RX_BASE),
        "info" => write(INFO_BASE),
        "events" => write(CONTEXT_BASE + EVENT_PAGE),
        "stack" => write(CONTEXT_BASE + STACK_PAGE - 8),
        "heap-end" => write(HEAP_BASE + info.heap_bytes),
        "execute" => jump(HEAP_BASE),
        "jump-kernel" => jump(0xFFFF_FFFF_8020_A000),
        "jump-wild" => jump(0x1234_0000_0000_0000),
        "cli" => misdeed!("cli"),
        "hlt" => misdeed!("hlt"),
        "port" => misdeed!("out dx, al", in("dx") 0xF4u16, in("al") 0u8),
        "msr" => misdeed!("wrmsr", in("ecx") 0xC000_0082u32, in("eax") 0, in("edx") 0),
        "cr3" => misdeed!("mov {}, cr3", out(reg) _),
        "int" => misdeed!("int 0xF2"),
        "int3" => misdeed!("int3"),
        "sidt" => {
            let mut table = [0u8; 16];
            misdeed!("sidt [{}]", in(reg) &raw mut table);
        }
        "trap-flag" => misdeed!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop"),
        "ud2" => misdeed!("ud2"),
        "divide" => misdeed!("xor ecx, ecx", "div ecx", out("eax") _, out("ecx") _, out("edx") _),
        "bad-stack" => misdeed!("mov rsp, 0x8000000000000", "push 1", options(noreturn)),
        "simd" => checks::simd_error(),
        "loop" => loop {
            core::hint::spin_loop();
        },
        "clock-loop" => loop {
            call(Direct::Clock, 0, 0, 0);
        },
        "top-syscall" => checks::syscall_at_the_top(),
        _ => {
            log("unknown mode");
            exit(2)
        }
    }
    exit(0)
}

const _: () = assert!(PAGE_BYTES == 2 << 20);
