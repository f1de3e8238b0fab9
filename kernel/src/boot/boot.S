# Entry of the boot core by PVH (`qemu -kernel`) or multiboot2 (GRUB), and of the other cores by SIPI.
# AT&T syntax.
#
# Both loaders enter in 32-bit protected mode, paging off, ebx = their information. The boot page tables
# map the first 4 GiB three times (identity, direct map, kernel image), writable and executable: they
# live only until mem::init has built the real ones. Other cores pass through them for a few instructions.

# Multiboot2 Specification 2.0, 3.1. All requests are optional: what is missing is dealt with later.
.section .boot.mb2, "a"
.align 8
ix_mb2_header:
    .long 0xe85250d6, 0, ix_mb2_end - ix_mb2_header
    .long -(0xe85250d6 + (ix_mb2_end - ix_mb2_header))
    .short 1, 1                         # information: command line, loader, modules, memory map,
    .long 48                            # framebuffer, EFI system table, ACPI old and new, EFI memory map,
    .long 1, 2, 3, 6, 8, 12, 14, 15, 17, 4
    .short 4, 1                         # console: VGA text will do
    .long 12, 2, 0
    .short 5, 1                         # framebuffer: of any size and depth
    .long 20, 0, 0, 0, 0
    .short 6, 1                         # modules at page boundaries
    .long 8
    .short 0, 0
    .long 8
ix_mb2_end:

.section .note.pvh, "a", @note
.align 4
    .long 4                             # name size
    .long 8                             # descriptor size: QEMU reads 8 bytes from an ELF64
    .long 18                            # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad ix_pvh_start

.section .boot.text, "ax"

# CR4: PAE, OSFXSR, OSXMMEXCPT and nothing else: firmware may leave LA57 set, which would make five
# levels of our four. EFER: SCE, LME, NXE. CR0: PG, WP, NE, MP, not EM or TS, caches on.
# Afterwards in compatibility mode; the caller jumps to 64-bit code.
.macro ENABLE_LONG_MODE
    movl $0x620, %eax
    movl %eax, %cr4
    movl $ix_boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x901, %eax
    wrmsr
    movl %cr0, %eax
    andl $0x9ffffff3, %eax              # not CD, NW, EM, TS: a core comes out of INIT with caches off
    orl $0x80010022, %eax
    movl %eax, %cr0
.endm

.code32
.globl _start
_start:                                 # multiboot2: its magic number is in eax
    movl %eax, %edi
    jmp ix_boot32
.globl ix_pvh_start
ix_pvh_start:
    movl $0x336ec578, %edi              # boot protocol: PVH
ix_boot32:
    cli
    cld
    movl %ebx, %esi
    movl $(ix_boot_stack_top - 0xffffffff80000000), %esp
    call ix_check_cpu
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

# What the code below and compiled code take for granted; comes back if all of it is there. Keeps esi and
# edi. No CPU that lacks one of these gets as far as Rust, so it is said here, on COM1 and VGA text.
# SYSCALL is not among them: Intel's CPUs show its bit in 64-bit mode only (`features::lacks`).
.code32
ix_check_cpu:
    pushfl                              # CPUID is there if EFLAGS.ID can be changed
    popl %eax
    movl %eax, %ecx
    xorl $0x200000, %eax
    pushl %eax
    popfl
    pushfl
    popl %eax
    xorl %ecx, %eax
    testl $0x200000, %eax
    jz 1f
    movl $1, %eax
    cpuid
    movl %edx, ix_cpu_edx
    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb 1f
    movl $0x80000001, %eax
    cpuid
    movl %edx, ix_cpu_edx + 4
1:  movl $ix_cpu_needs, %ebp
    xorl %ebx, %ebx                     # how many are missing
2:  movl (%ebp), %eax                   # address of the word
    testl %eax, %eax
    jz 5f
    movl (%eax), %eax
    testl 4(%ebp), %eax
    jnz 4f
    movl $ix_text_comma, %edx
    incl %ebx
    cmpl $1, %ebx
    jne 3f
    call ix_start_com1
    movl $ix_text_lacks, %edx
3:  call ix_say
    movl 8(%ebp), %edx
    call ix_say
4:  addl $12, %ebp
    jmp 2b
5:  testl %ebx, %ebx
    jnz 6f
    ret
6:  movl $ix_text_end, %edx
    call ix_say
    movl $(43 >> 1), %eax                 # exit.rs: Unsupported
    movw $0xf4, %dx
    outl %eax, %dx
7:  hlt
    jmp 7b

# 115200 baud, 8N1, FIFO on.
ix_start_com1:
    movl $ix_com1_setup, %eax
1:  movw (%eax), %dx
    testw %dx, %dx
    jz 2f
    movb 2(%eax), %cl
    xchgl %eax, %ecx
    outb %al, %dx
    xchgl %eax, %ecx
    addl $3, %eax
    jmp 1b
2:  ret

# Writes the text at edx, to its zero byte. Changes eax, ecx and edx.
ix_say:
    pushl %esi
    movl %edx, %esi
1:  lodsb
    testb %al, %al
    jz 4f
    movb %al, %ah
    cmpb $32, %al
    jb 5f
    movl ix_vga_at, %ecx
    movb %al, (%ecx)
    movb $0x4f, 1(%ecx)                 # white on red
    addl $2, ix_vga_at
5:
    movl $100000, %ecx                  # a port that is never ready must not hang us
    movw $0x3fd, %dx
2:  inb %dx, %al
    testb $0x20, %al
    jnz 3f
    decl %ecx
    jnz 2b
3:  movb %ah, %al
    movw $0x3f8, %dx
    outb %al, %dx
    jmp 1b
4:  popl %esi
    ret

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
ix_cpu_edx: .long 0, 0                  # of CPUID leaves 1 and 80000001h
ix_vga_at:  .long 0xb8000
ix_cpu_needs:
    .long ix_cpu_edx + 4, 1 << 29, ix_text_lm
    .long ix_cpu_edx, 1 << 6, ix_text_pae
    .long ix_cpu_edx, 1 << 5, ix_text_msr
    .long ix_cpu_edx, 1 << 4, ix_text_tsc
    .long ix_cpu_edx, 1 << 9, ix_text_apic
    .long ix_cpu_edx, 1 << 13, ix_text_pge
    .long ix_cpu_edx, 1 << 24, ix_text_fxsr
    .long ix_cpu_edx, 1 << 25, ix_text_sse
    .long ix_cpu_edx, 1 << 26, ix_text_sse2
    .long ix_cpu_edx + 4, 1 << 20, ix_text_nx
    .long 0
ix_text_lacks: .asciz "ix: error: this CPU lacks: "
ix_text_comma: .asciz ", "
ix_text_end:   .asciz ". IX needs a 64-bit CPU with all of these.\r\n"
ix_text_lm:    .asciz "64-bit mode"
ix_text_pae:   .asciz "PAE"
ix_text_msr:   .asciz "MSRs"
ix_text_tsc:   .asciz "a time-stamp counter"
ix_text_apic:  .asciz "a local APIC"
ix_text_pge:   .asciz "global pages"
ix_text_fxsr:  .asciz "FXSAVE"
ix_text_sse:   .asciz "SSE"
ix_text_sse2:  .asciz "SSE2"
ix_text_nx:    .asciz "no-execute pages"
.macro COM1 register, value
    .short 0x3f8 + \register
    .byte \value
.endm
ix_com1_setup:
    COM1 1, 0
    COM1 3, 0x80
    COM1 0, 1
    COM1 1, 0
    COM1 3, 3
    COM1 2, 7
    COM1 4, 3
    .short 0
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
