//! Loads a TCP with connections, and says what happened. See `handfast-load --help`.

use std::process::ExitCode;

use clap::Parser;
use handfast_bench::load::{self, args::Args};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    load::run(Args::parse())
}
