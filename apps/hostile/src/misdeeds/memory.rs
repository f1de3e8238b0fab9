//! Memory that is not the application's to write, to read, to execute.
#![allow(unsafe_code, reason = "jumps to where it must not")]

use core::arch::asm;

use ix_abi::layout::{HEAP_BASE, IMAGE_BASE, INFO_BASE, RX_BASE, context_base};

use crate::raw::{self, peek, poke};

const KERNEL: u64 = 0xFFFF_FFFF_8020_A000;
const DIRECT_MAP: u64 = 0xFFFF_8000_0010_0000;
const NOT_CANONICAL: u64 = 0x0000_8000_0000_0000;

/// `None`: not of this kind.
pub fn commit(name: &str) -> Option<()> {
    match name {
        "write-info" => poke(INFO_BASE, 1),
        "write-events" => poke(context_base(0), 1),
        "write-rx" => poke(RX_BASE, 1),
        "write-code" => poke(IMAGE_BASE, 1),
        "write-null" => poke(0, 1),
        "write-kernel" => poke(KERNEL, 1),
        "write-direct-map" => poke(DIRECT_MAP, 1),
        "write-not-canonical" => poke(NOT_CANONICAL, 1),
        "read-kernel" => _ = peek(KERNEL),
        "read-percore" => _ = peek(super::state::KERNEL_STACK),
        "read-past-heap" => _ = peek(HEAP_BASE + raw::info().heap_bytes),
        "stack-overflow" => _ = recurse(1),
        "jump-kernel" => jump(KERNEL),
        "jump-heap" => jump(HEAP_BASE),
        "jump-rx" => jump(RX_BASE),
        "jump-not-canonical" => jump(0x1234_0000_0000_0000),
        "jump-top" => jump(0x7FFF_FFFF_FFFE),
        _ => return None,
    }
    Some(())
}

/// How often the mark is in the receive area, at any alignment.
pub fn marks() -> u64 {
    let end = RX_BASE + raw::info().rx_bytes - 8;
    let mut found = 0;
    let mut before = 0;
    for at in (RX_BASE..end).step_by(8) {
        let word = peek(at);
        if word != 0 || before != 0 {
            let both = u128::from(before) | u128::from(word) << 64;
            let mark = u64::from_le_bytes(hostile::MARK);
            found += (0..8).filter(|byte| (both >> (byte * 8)) as u64 == mark).count() as u64;
        }
        before = word;
    }
    found
}

fn jump(to: u64) {
    // SAFETY: none: the kernel is to end this program here.
    unsafe { asm!("jmp {}", in(reg) to, options(noreturn)) }
}

#[allow(unconditional_recursion, reason = "that is the misdeed")]
#[inline(never)]
fn recurse(n: u64) -> u64 {
    let here = core::hint::black_box([n; 512]);
    recurse(here[1] + 1) + here[2]
}
