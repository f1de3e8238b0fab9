//! `cargo bench -p ix-bench`: the same as the program.
fn main() -> anyhow::Result<()> {
    ix_bench::cost::main()
}
