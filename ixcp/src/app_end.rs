//! How an application has ended, as the control page tells it (`docs/control.md` §2, APP_EXIT).
use crate::page::Page;
use ix_abi::control::{State, header};

/// The kernel ended it; the reason is in the low half.
const BY_KERNEL: u64 = 1 << 32;
/// Where a fault's vector is.
const VECTOR_SHIFT: u32 = 40;
/// The reason that is `ixcp restart-app`.
const COMMAND: u32 = 4;

/// In words.
pub fn text(exit: u64) -> String {
    let low = exit as u32;
    match (exit & BY_KERNEL != 0, low) {
        (false, code) => format!("exit code {}", code.cast_signed()),
        (true, 1) => format!("the kernel ended it: fault, vector {}", exit >> VECTOR_SHIFT & 0xff),
        (true, 2) => "the kernel ended it: it did not respond".to_owned(),
        (true, 3) => "the kernel ended it: impossible ring index".to_owned(),
        (true, COMMAND) => "by command".to_owned(),
        (true, reason) => format!("the kernel ended it: reason {reason}"),
    }
}

/// The exit word of an application that has ended, and not to be started afresh.
pub fn of(page: &Page) -> Option<u64> {
    if page.load(header::STATE) != u64::from(State::AppEnded.0) {
        return None;
    }
    Some(page.load(header::APP_EXIT)).filter(|exit| *exit != BY_KERNEL | u64::from(COMMAND))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::scene;

    #[test]
    fn every_way_to_end_has_its_words() {
        assert_eq!(text(0), "exit code 0");
        assert_eq!(text(u64::from(u32::MAX)), "exit code -1");
        assert_eq!(text(1 << 32 | 14 << 40 | 1), "the kernel ended it: fault, vector 14");
        assert!(text(1 << 32 | 2).contains("respond"));
        assert!(text(1 << 32 | 99).contains("reason 99"));
    }

    #[test]
    fn one_that_serves_or_is_restarted_has_not_ended() {
        let scene = scene(1);
        scene.page.store(header::APP_EXIT, 7);
        assert_eq!(of(&scene.page), None);
        scene.page.store(header::STATE, State::AppEnded.0.into());
        assert_eq!(of(&scene.page), Some(7));
        scene.page.store(header::APP_EXIT, 1 << 32 | 4);
        assert_eq!(of(&scene.page), None);
    }
}
