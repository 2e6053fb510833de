//! How fast the kernels are, and how far from what the adapter can do.
//!
//! `cargo bench` measures everything, `cargo bench -- conv` what has "conv" in its name. Times are GPU timestamps around
//! many runs of one recording; where the adapter has none, the wall clock around submit and wait. After criterion's own
//! output comes one table: shares are of the copy or the matrix product that this adapter itself reached.
//!
//! `FREEGUIDE_BENCH_RECORD=1` appends the table to `benches/results/ADAPTER.csv`, dated `FREEGUIDE_BENCH_DATE` if set.
//! `FREEGUIDE_BENCH_PROFILE=1` also prints the time of each kernel of what is measured, and the host's.
//! The adapter is the one the library would choose: `WGPU_ADAPTER_NAME` picks another.

mod attention;
mod autoencoder;
mod ceilings;
mod conv;
mod elementwise;
mod group_norm;
mod guided_step;
mod harness;
mod linear_rows;
mod networks;
mod optimizer;
mod report;
mod row;
mod start;

use harness::Bench;

fn main() {
    if start::was_child() {
        return;
    }
    let mut bench = Bench::new();
    ceilings::run(&mut bench);
    conv::run(&mut bench);
    group_norm::run(&mut bench);
    attention::run(&mut bench);
    linear_rows::run(&mut bench);
    elementwise::run(&mut bench);
    guided_step::run(&mut bench);
    optimizer::run(&mut bench);
    networks::run(&mut bench);
    autoencoder::run(&mut bench);
    start::run(&mut bench);
    let rows = bench.finish();
    if !rows.is_empty() {
        report::finish(&bench, rows);
    }
}
