//! The registers of an application thread while it is not running. Offsets are shared with `enter.S`.

use core::mem::offset_of;

use crate::cpu::trap::Frame;

/// An FXSAVE image.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct Fx(pub [u8; 512]);

impl Fx {
    /// As after FNINIT, with the default MXCSR: nothing of anybody in it.
    pub const fn clean() -> Self {
        let mut fx = [0; 512];
        fx[0] = 0x7F; // FCW 0x037F
        fx[1] = 0x03;
        fx[24] = 0x80; // MXCSR 0x1F80
        fx[25] = 0x1F;
        Self(fx)
    }
}

/// How the thread goes on.
#[repr(u64)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// It made a SYSCALL: only what the ABI keeps is restored.
    Sysret = 0,
    /// It was interrupted, or never ran: every register is restored.
    Iret = 1,
}

#[repr(C, align(64))]
pub struct UserState {
    pub mode: Mode,
    pub rip: u64,
    pub rsp: u64,
    pub rflags: u64,
    pub rbx: u64,
    pub rbp: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rax: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub r10: u64,
    pub r8: u64,
    pub r9: u64,
    pub rcx: u64,
    pub r11: u64,
    pub vector: u64,
    pub error: u64,
    pub cr2: u64,
    pub pad: [u64; 2],
    pub fx: Fx,
}

const _: () = {
    assert!(offset_of!(UserState, mode) == 0);
    assert!(offset_of!(UserState, rip) == 8);
    assert!(offset_of!(UserState, rsp) == 16);
    assert!(offset_of!(UserState, rflags) == 24);
    assert!(offset_of!(UserState, rbx) == 32);
    assert!(offset_of!(UserState, r15) == 72);
    assert!(offset_of!(UserState, rax) == 80);
    assert!(offset_of!(UserState, rdi) == 88);
    assert!(offset_of!(UserState, rdx) == 104);
    assert!(offset_of!(UserState, r10) == 112);
    assert!(offset_of!(UserState, r9) == 128);
    assert!(offset_of!(UserState, rcx) == 136);
    assert!(offset_of!(UserState, r11) == 144);
    assert!(offset_of!(UserState, fx) == 192);
};

/// Status flags that survive a system call.
const FLAGS_KEPT: u64 = 0x8D5;
/// Reserved bit 1 and IF.
const FLAGS_FORCED: u64 = 0x202;

impl UserState {
    /// A thread that starts at `entry` with a clean set of registers. The stack is as after a call
    /// (System V ABI: 8 modulo 16), the return address being 0.
    pub fn start(entry: u64, stack_top: u64, first: u64, second: u64) -> Self {
        Self {
            mode: Mode::Iret,
            rip: entry,
            rsp: stack_top - 8,
            rflags: FLAGS_FORCED,
            rbx: 0,
            rbp: 0,
            r12: 0,
            r13: 0,
            r14: 0,
            r15: 0,
            rax: 0,
            rdi: first,
            rsi: second,
            rdx: 0,
            r10: 0,
            r8: 0,
            r9: 0,
            rcx: 0,
            r11: 0,
            vector: 0,
            error: 0,
            cr2: 0,
            pad: [0; 2],
            fx: Fx::clean(),
        }
    }

    /// After a SYSCALL: flags made harmless. What the application had set of TF, DF, NT, AC is gone.
    pub fn after_syscall(&mut self) {
        self.mode = Mode::Sysret;
        self.rflags = (self.rflags & FLAGS_KEPT) | FLAGS_FORCED;
    }

    /// After an interrupt or a fault: everything, to be resumed or reported.
    pub fn save_interrupted(&mut self, f: &Frame, fx: &Fx, cr2: u64) {
        self.mode = Mode::Iret;
        self.rip = f.rip;
        self.rsp = f.rsp;
        self.rflags = (f.rflags & (FLAGS_KEPT | 0x400 | 0x1_0000)) | FLAGS_FORCED;
        (self.rbx, self.rbp, self.r12) = (f.rbx, f.rbp, f.r12);
        (self.r13, self.r14, self.r15) = (f.r13, f.r14, f.r15);
        (self.rax, self.rdi, self.rsi) = (f.rax, f.rdi, f.rsi);
        (self.rdx, self.r10, self.r8) = (f.rdx, f.r10, f.r8);
        (self.r9, self.rcx, self.r11) = (f.r9, f.rcx, f.r11);
        (self.vector, self.error, self.cr2) = (f.vector, f.error, cr2);
        self.fx = *fx;
    }
}
