# Into user mode and back, as one function call. AT&T syntax.
#
#   ix_enter_user(state: rdi, percore: rsi) -> eax    0: SYSCALL, 1: interrupt or exception
#
# `state` is UserState (state.rs); its offsets are asserted there. Interrupts are off on entry and on
# return, on in between (ring 3). Kernel stack while in user mode, from the saved pointer upwards:
# state, r15, r14, r13, r12, rbp, rbx, return address.

.set ST_MODE, 0
.set ST_RIP, 8
.set ST_RSP, 16
.set ST_RFLAGS, 24
.set ST_RBX, 32
.set ST_RBP, 40
.set ST_R12, 48
.set ST_R13, 56
.set ST_R14, 64
.set ST_R15, 72
.set ST_RAX, 80
.set ST_RDI, 88
.set ST_RSI, 96
.set ST_RDX, 104
.set ST_R10, 112
.set ST_R8, 120
.set ST_R9, 128
.set ST_RCX, 136
.set ST_R11, 144
.set ST_FX, 192

.set PC_USER_RSP, 0
.set PC_KERNEL_RSP, 8
.set PC_BYTES, 256

.set USER_CS, 0x23
.set USER_SS, 0x1b

.text
.balign 16
.globl ix_enter_user
ix_enter_user:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushq %rdi
    movq %rsp, PC_KERNEL_RSP(%rsi)
    cmpl $0, ST_MODE(%rdi)
    jne 1f

    # After a SYSCALL: SYSRET. The application gets its callee-saved registers and rax; the rest is 0.
    pxor %xmm0, %xmm0
    pxor %xmm1, %xmm1
    pxor %xmm2, %xmm2
    pxor %xmm3, %xmm3
    pxor %xmm4, %xmm4
    pxor %xmm5, %xmm5
    pxor %xmm6, %xmm6
    pxor %xmm7, %xmm7
    pxor %xmm8, %xmm8
    pxor %xmm9, %xmm9
    pxor %xmm10, %xmm10
    pxor %xmm11, %xmm11
    pxor %xmm12, %xmm12
    pxor %xmm13, %xmm13
    pxor %xmm14, %xmm14
    pxor %xmm15, %xmm15
    ldmxcsr ix_mxcsr_default(%rip)
    movq ST_RBX(%rdi), %rbx
    movq ST_RBP(%rdi), %rbp
    movq ST_R12(%rdi), %r12
    movq ST_R13(%rdi), %r13
    movq ST_R14(%rdi), %r14
    movq ST_R15(%rdi), %r15
    movq ST_RAX(%rdi), %rax
    movq ST_RIP(%rdi), %rcx             # below 2^47: checked by the caller (SYSRET with another faults in ring 0)
    movq ST_RFLAGS(%rdi), %r11
    movq ST_RSP(%rdi), %rsp
    xorl %edx, %edx
    xorl %esi, %esi
    xorl %r8d, %r8d
    xorl %r9d, %r9d
    xorl %r10d, %r10d
    xorl %edi, %edi
    sysretq

    # First entry, or after an interrupt: everything from the state, by IRET.
1:  fxrstor64 ST_FX(%rdi)
    pushq $USER_SS
    pushq ST_RSP(%rdi)
    pushq ST_RFLAGS(%rdi)
    pushq $USER_CS
    pushq ST_RIP(%rdi)
    movq ST_RBX(%rdi), %rbx
    movq ST_RBP(%rdi), %rbp
    movq ST_R12(%rdi), %r12
    movq ST_R13(%rdi), %r13
    movq ST_R14(%rdi), %r14
    movq ST_R15(%rdi), %r15
    movq ST_RAX(%rdi), %rax
    movq ST_RSI(%rdi), %rsi
    movq ST_RDX(%rdi), %rdx
    movq ST_R10(%rdi), %r10
    movq ST_R8(%rdi), %r8
    movq ST_R9(%rdi), %r9
    movq ST_RCX(%rdi), %rcx
    movq ST_R11(%rdi), %r11
    movq ST_RDI(%rdi), %rdi
    iretq

# One SYSCALL entry per core: the core's own addresses are in the code, no register is needed to find
# its stack. Interrupts are off (SFMASK); an NMI here uses its own stack and does not look at rsp.
.macro SYSCALL_STUB n
.balign 32
ix_syscall_stub_\n:
    movq %rsp, IX_PERCORE + \n * PC_BYTES + PC_USER_RSP(%rip)
    movq IX_PERCORE + \n * PC_BYTES + PC_KERNEL_RSP(%rip), %rsp
    pushq IX_PERCORE + \n * PC_BYTES + PC_USER_RSP(%rip)
    jmp ix_syscall_common
.endm
.altmacro
.macro SYSCALL_STUB_VALUE n
    SYSCALL_STUB \n
.endm
.set i, 0
.rept 64
    SYSCALL_STUB_VALUE %i
    .set i, i + 1
.endr

.balign 16
ix_syscall_common:
    pushq %r11
    pushq %rcx
    movq 24(%rsp), %rcx                 # state
    movq %rax, ST_RAX(%rcx)
    movq %rdi, ST_RDI(%rcx)
    movq %rsi, ST_RSI(%rcx)
    movq %rdx, ST_RDX(%rcx)
    movq %rbx, ST_RBX(%rcx)
    movq %rbp, ST_RBP(%rcx)
    movq %r12, ST_R12(%rcx)
    movq %r13, ST_R13(%rcx)
    movq %r14, ST_R14(%rcx)
    movq %r15, ST_R15(%rcx)
    popq ST_RIP(%rcx)
    popq ST_RFLAGS(%rcx)
    popq ST_RSP(%rcx)
    ldmxcsr ix_mxcsr_default(%rip)
    xorl %eax, %eax                     # EXIT_SYSCALL
    # fall through

# rsp: the kernel stack as ix_enter_user left it; eax: the exit code.
.globl ix_leave_user
ix_leave_user:
    addq $8, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    retq

.section .rodata
.balign 8
.globl ix_syscall_stubs
ix_syscall_stubs:
    .set i, 0
.macro SYSCALL_ADDRESS n
    .quad ix_syscall_stub_\n
.endm
.rept 64
    SYSCALL_ADDRESS %i
    .set i, i + 1
.endr
.noaltmacro
.text
