//! A firewall's rules: decoded with distrust, compiled to a look-up whose cost does not depend on what
//! the rules say, and looked up. The kernel decides with it, `ixcp` explains with it: one code.
//!
//! - [`rule`]: what a rule says, checked, and the plain definition of when it matches;
//! - [`compile`]: from the wire format to a [`RuleSet`], in bounded slices and bounded memory;
//! - [`set`]: the compiled form and the look-up in it (`docs/adr/0005-rules-as-bit-vectors.md`);
//! - [`build`]: the wire format from rules, for clients.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

pub mod build;
pub mod compile;
pub mod rule;
mod search;
pub mod set;
mod wide;

pub use compile::{AclError, Compiler, decode};
pub use ix_abi::acl::Action;
pub use rule::{Direction, Flow, Prefix, Protocol, Rule};
pub use set::RuleSet;

#[cfg(test)]
mod tests;
