//! See `ix_bench::cost`.
#[global_allocator]
static ALLOCATOR: ix_bench::heap::Counting = ix_bench::heap::Counting;

fn main() -> anyhow::Result<()> {
    ix_bench::cost::main()
}
