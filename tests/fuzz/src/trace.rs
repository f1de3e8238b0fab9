//! The story of one input, told on standard error: for whoever has to find out what it did.
use std::sync::OnceLock;

/// Whether `IX_FUZZ_TRACE` is set.
pub fn on() -> bool {
    static ON: OnceLock<bool> = OnceLock::new();
    *ON.get_or_init(|| std::env::var_os("IX_FUZZ_TRACE").is_some())
}

/// Tells something, if somebody listens.
macro_rules! tell {
    ($($what:tt)*) => {
        if $crate::trace::on() {
            eprintln!($($what)*);
        }
    };
}
pub(crate) use tell;
