//! handfast against kernel sockets over one veth pair. `scripts/bench-veth` runs it.

use std::process::ExitCode;

use clap::Parser;
use handfast_bench::veth::{self, Args};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    veth::run(Args::parse())
}
