//! The targets that are not a whole engine.
pub mod boot;
pub mod control;
pub mod kv;
pub mod memory;
pub mod records;
