//! How long each body takes.
//!
//! ```text
//! cargo bench -p handfast-bench --bench speed                       all of them, a few minutes
//! cargo bench -p handfast-bench --bench speed -- connection         those with that in their name
//! HANDFAST_QUICK=1 cargo bench -p handfast-bench --bench speed      a few seconds; without the tables of ten million
//! ```
//! As a test (`cargo test --benches`, or `-- --test`) each runs once.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use handfast_bench::bodies;

fn main() {
    let testing = std::env::args().any(|arg| arg == "--test") || !std::env::args().any(|arg| arg == "--bench");
    let quick = testing || std::env::var_os("HANDFAST_QUICK").is_some();
    let mut criterion = Criterion::default().configure_from_args();
    if quick {
        criterion = criterion
            .sample_size(10)
            .warm_up_time(Duration::from_millis(20))
            .measurement_time(Duration::from_millis(100))
            .without_plots();
    }
    for body in bodies::ALL.iter().filter(|body| !(quick && body.heavy)) {
        let (group, name) = body.name.split_once('/').expect("a name has a group");
        let mut group = criterion.benchmark_group(group);
        group.throughput(match body.bytes {
            0 => Throughput::Elements(1),
            bytes => Throughput::Bytes(bytes),
        });
        group.bench_function(name, |bencher| {
            let mut work = (body.make)();
            bencher.iter_custom(|n| {
                let begun = Instant::now();
                work(n);
                begun.elapsed()
            });
        });
        group.finish();
    }
    criterion.final_summary();
}
