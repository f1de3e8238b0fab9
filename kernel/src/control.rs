//! The control page.

pub fn crashed() {}
