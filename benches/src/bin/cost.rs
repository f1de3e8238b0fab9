//! See `ix_bench::cost`.
fn main() -> anyhow::Result<()> {
    ix_bench::cost::main()
}
