//! x
#[test]
fn file() {
    let Ok(path) = std::env::var("IX_FUZZ_INPUT") else { return };
    let name = std::env::var("IX_FUZZ_TARGET").unwrap();
    (ix_fuzz::target(&name).unwrap().run)(&std::fs::read(path).unwrap());
}
