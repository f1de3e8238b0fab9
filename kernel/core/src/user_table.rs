//! User memory as the kernel sees it.
