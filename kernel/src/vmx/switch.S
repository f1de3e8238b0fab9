# The world switch. AT&T syntax. `GuestRegisters` in enter.rs has the layout: FXSAVE area, the general registers in the
# order of their numbers (the stack pointer's place is not used: the VMCS has it), CR2.
#
# The monitor is compiled code that uses SSE, so the guest's vector registers are saved at every exit. Upper halves of
# wider registers are touched by nothing in between.

.set IX_GPR, 512
.set IX_CR2, 512 + 16 * 8

.text
.balign 16
# ix_vmx_enter(registers: rdi, launched: esi) -> 0: the guest ran and came out; 1: no current VMCS; 2: refused, with an error
.globl ix_vmx_enter
ix_vmx_enter:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushq %rdi
    movl $0x6c14, %eax                  # HOST_RSP
    vmwrite %rsp, %rax
    fxrstor64 (%rdi)
    movq IX_CR2(%rdi), %rax
    movq %rax, %cr2
    testl %esi, %esi                    # the flags last until the jump
    movq IX_GPR + 0 * 8(%rdi), %rax
    movq IX_GPR + 1 * 8(%rdi), %rcx
    movq IX_GPR + 2 * 8(%rdi), %rdx
    movq IX_GPR + 3 * 8(%rdi), %rbx
    movq IX_GPR + 5 * 8(%rdi), %rbp
    movq IX_GPR + 6 * 8(%rdi), %rsi
    movq IX_GPR + 8 * 8(%rdi), %r8
    movq IX_GPR + 9 * 8(%rdi), %r9
    movq IX_GPR + 10 * 8(%rdi), %r10
    movq IX_GPR + 11 * 8(%rdi), %r11
    movq IX_GPR + 12 * 8(%rdi), %r12
    movq IX_GPR + 13 * 8(%rdi), %r13
    movq IX_GPR + 14 * 8(%rdi), %r14
    movq IX_GPR + 15 * 8(%rdi), %r15
    movq IX_GPR + 7 * 8(%rdi), %rdi
    jnz 1f
    vmlaunch
    jmp 2f
1:  vmresume
2:  movl $1, %eax                       # VMfailInvalid: CF
    jc 3f
    movl $2, %eax                       # VMfailValid: ZF
    jmp 3f

# Where the CPU comes back to (HOST_RIP). All registers but rsp are the guest's.
.globl ix_vmx_exit
ix_vmx_exit:
    pushq %rdi
    movq 8(%rsp), %rdi
    movq %rax, IX_GPR + 0 * 8(%rdi)
    movq %rcx, IX_GPR + 1 * 8(%rdi)
    movq %rdx, IX_GPR + 2 * 8(%rdi)
    movq %rbx, IX_GPR + 3 * 8(%rdi)
    movq %rbp, IX_GPR + 5 * 8(%rdi)
    movq %rsi, IX_GPR + 6 * 8(%rdi)
    movq %r8, IX_GPR + 8 * 8(%rdi)
    movq %r9, IX_GPR + 9 * 8(%rdi)
    movq %r10, IX_GPR + 10 * 8(%rdi)
    movq %r11, IX_GPR + 11 * 8(%rdi)
    movq %r12, IX_GPR + 12 * 8(%rdi)
    movq %r13, IX_GPR + 13 * 8(%rdi)
    movq %r14, IX_GPR + 14 * 8(%rdi)
    movq %r15, IX_GPR + 15 * 8(%rdi)
    popq IX_GPR + 7 * 8(%rdi)
    movq %cr2, %rax
    movq %rax, IX_CR2(%rdi)
    fxsave64 (%rdi)
    xorl %eax, %eax
3:  cld
    ldmxcsr ix_mxcsr_default(%rip)
    popq %rdi
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret

# An NMI that made the guest exit keeps further ones out until an IRET. This is one, to the caller.
.balign 16
.globl ix_vmx_unblock_nmi
ix_vmx_unblock_nmi:
    movq %rsp, %rax
    movl %ss, %ecx
    pushq %rcx
    pushq %rax
    pushfq
    movl %cs, %ecx
    pushq %rcx
    leaq 1f(%rip), %rcx
    pushq %rcx
    iretq
1:  ret
