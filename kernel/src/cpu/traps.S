# Interrupt and exception entry. AT&T syntax. Every gate has an IST stack, so that the CPU switches
# stacks whatever was interrupted: precompiled `core` uses the red zone below the kernel's stack
# pointer, and a user's stack pointer is not to be trusted.

.text
.balign 16
.macro TRAP_STUB n
.balign 16
ix_trap_stub_\n:
    .if \n == 8 || (\n >= 10 && \n <= 14) || \n == 17 || \n == 21 || \n == 29 || \n == 30
    .else
    pushq $0                            # these push no error code: keep one frame layout
    .endif
    pushq $\n
    jmp ix_trap_common
.endm

.altmacro
.macro TRAP_STUB_VALUE n
    TRAP_STUB \n
.endm
.set i, 0
.rept 256
    TRAP_STUB_VALUE %i
    .set i, i + 1
.endr

# On the stack: ss, rsp, rflags, cs, rip, error code, vector.
.balign 16
ix_trap_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushq $2                            # clears AC (SMAP!), NT, DF, TF whatever ring 3 had set
    popfq
    movq %rsp, %rdi
    movq %rsp, %rbx
    subq $512, %rsp
    andq $-16, %rsp
    fxsave64 (%rsp)
    ldmxcsr ix_mxcsr_default(%rip)
    movq %rsp, %rsi
    xorl %ebp, %ebp                     # a backtrace ends here; the frame has the interrupted rbp
    callq ix_trap                       # ix_trap(frame, fx) -> 0: go on; else the kernel stack
    testq %rax, %rax
    jnz 1f
    fxrstor64 (%rsp)
    movq %rbx, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq
1:  movq %rax, %rsp                     # user mode ends: return from ix_enter_user
    movl $1, %eax                       # EXIT_TRAP
    jmp ix_leave_user

.section .rodata
.balign 8
.globl ix_trap_stubs
ix_trap_stubs:                          # addresses for the IDT
    .set i, 0
.macro TRAP_ADDRESS n
    .quad ix_trap_stub_\n
.endm
.rept 256
    TRAP_ADDRESS %i
    .set i, i + 1
.endr
.noaltmacro
.balign 4
.globl ix_mxcsr_default
ix_mxcsr_default:
    .long 0x1f80
.text
