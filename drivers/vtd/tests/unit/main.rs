//! The driver of remapping units against a unit in software: what a device reaches, when, and what is said of the rest.
mod dmar;
mod domain;
mod model;
mod unit;
