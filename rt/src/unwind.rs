//! What the unwind tables of precompiled `core` name. With `panic = "abort"` neither is ever called;
//! the tables themselves are discarded by the linker script.
#![allow(unsafe_code, reason = "exported C symbols")]

#[cfg_attr(not(test), unsafe(export_name = "rust_eh_personality"))]
pub extern "C" fn eh_personality() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

#[cfg_attr(not(test), unsafe(export_name = "_Unwind_Resume"))]
pub extern "C" fn unwind_resume() -> ! {
    loop {
        core::hint::spin_loop();
    }
}
