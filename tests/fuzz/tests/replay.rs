//! x
#[test]
fn empty() { ix_fuzz::engine::run(&[]); }
