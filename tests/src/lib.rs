//! End to end, simulation and hostile-input tests of IX.

pub mod sim;
