# Entry of the boot core by PVH (`qemu -kernel`) and of the other cores by SIPI. AT&T syntax.
#
# The loader enters in 32-bit protected mode, paging off, ebx = hvm_start_info. The boot page tables map
# the first 4 GiB three times (identity, direct map, kernel image), writable and executable: they live
# only until mem::init has built the real ones. Other cores pass through them for a few instructions.

.section .note.pvh, "a", @note
.align 4
    .long 4                             # name size
    .long 8                             # descriptor size: QEMU reads 8 bytes from an ELF64
    .long 18                            # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad ix_pvh_start

.section .boot.text, "ax"

# CR4: PAE, OSFXSR, OSXMMEXCPT. EFER: SCE, LME, NXE. CR0: PG, WP, NE, MP, not EM, caches on.
# Afterwards in compatibility mode; the caller jumps to 64-bit code.
.macro ENABLE_LONG_MODE
    movl %cr4, %eax
    orl $0x620, %eax
    movl %eax, %cr4
    movl $ix_boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x901, %eax
    wrmsr
    movl %cr0, %eax
    andl $0x9ffffffb, %eax              # not CD, NW, EM: a core comes out of INIT with caches off
    orl $0x80010022, %eax
    movl %eax, %cr0
.endm

.code32
.globl _start
_start:
ix_pvh_start:
    cli
    cld
    movl $0x336ec578, %edi              # boot protocol: PVH
    movl %ebx, %esi
    ENABLE_LONG_MODE
    lgdt ix_boot_gdtr
    ljmp $0x08, $ix_boot64

.code64
ix_boot64:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movabsq $ix_boot_stack_top, %rsp
    xorl %ebp, %ebp
    movabsq $ix_boot_main, %rax
    callq *%rax                         # ix_boot_main(protocol: edi, info: esi)
2:  hlt
    jmp 2b

# Other cores: the 32-bit step after the real-mode trampoline.
.code32
ix_ap_boot32:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    ENABLE_LONG_MODE
    ljmp $0x08, $ix_ap_boot64
.code64
ix_ap_boot64:
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movq ix_ap_core, %rdi
    movq ix_ap_cr3, %rdx
    movq ix_ap_stack, %rcx
    movabsq $ix_ap_high, %rax
    jmpq *%rax

.section .boot.data, "aw"
.align 4096
.globl ix_boot_pml4
ix_boot_pml4:
    .quad ix_boot_pdpt + 3              # identity
    .fill 255, 8, 0
    .quad ix_boot_pdpt + 3              # 256: direct map
    .fill 254, 8, 0
    .quad ix_boot_pdpt_high + 3         # 511: kernel image
ix_boot_pdpt:
    .quad ix_boot_pd + 0x0003, ix_boot_pd + 0x1003, ix_boot_pd + 0x2003, ix_boot_pd + 0x3003
    .fill 508, 8, 0
ix_boot_pdpt_high:
    .fill 510, 8, 0
    .quad ix_boot_pd + 0x0003, ix_boot_pd + 0x1003
ix_boot_pd:
    .set i, 0
    .rept 2048
    .quad (i << 21) + 0x83
    .set i, i + 1
    .endr
.align 8
ix_boot_gdt:
    .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff, 0x00cf9a000000ffff
ix_boot_gdtr:
    .short 31
    .long ix_boot_gdt
.align 8
.globl ix_ap_core, ix_ap_cr3, ix_ap_stack
ix_ap_core:  .quad 0
ix_ap_cr3:   .quad 0
ix_ap_stack: .quad 0

# Copied to a page below 1 MiB; a SIPI starts it in real mode with cs = page / 16.
.section .rodata.trampoline, "a"
.code16
.globl ix_trampoline_start, ix_trampoline_end
ix_trampoline_start:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl (ix_trampoline_gdtr - ix_trampoline_start)
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $0x18, $ix_ap_boot32
.align 4
ix_trampoline_gdtr:
    .short 31
    .long ix_boot_gdt
ix_trampoline_end:

.text
.code64
# The real page tables and stack; from here on nothing of the boot mapping is used.
ix_ap_high:
    movq %rdx, %cr3
    movq %rcx, %rsp
    xorl %ebp, %ebp
    callq ix_ap_main                    # ix_ap_main(core: rdi)
2:  hlt
    jmp 2b

.section .bss
.align 4096
    .skip 65536
.globl ix_boot_stack_top
ix_boot_stack_top:
.text
