//! The targets that are not a whole engine.
pub mod acl;
pub mod boot;
pub mod commands;
pub mod control;
pub mod firmware;
pub mod kv;
pub mod memory;
pub mod records;
