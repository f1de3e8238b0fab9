//! User mode.
#![allow(unsafe_code, reason = "enters ring 3")]

pub mod state;

use core::arch::global_asm;
use core::sync::atomic::Ordering;

use state::UserState;

use crate::cpu::percore::{self, PERCORE_BYTES, PerCore};

global_asm!(include_str!("enter.S"), options(att_syntax, raw));
const _: () = assert!(PERCORE_BYTES == 256, "PC_BYTES of enter.S");

unsafe extern "C" {
    fn ix_enter_user(state: *mut UserState, core: *const PerCore) -> u32;
}
