//! Throws cases at a target: those of seeds, or one from a file. `scripts/fuzz` runs the fuzzer that coverage guides.
//!
//! ```text
//! cargo run --profile fuzz -p handfast-tests --bin fuzz -- stack --cases 10000000
//! cargo run --profile fuzz -p handfast-tests --bin fuzz -- stack --file case
//! ```

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use std::{env, fs, thread};

use handfast_tests::fuzz::{self, Seen, Target};

const USAGE: &str =
    "usage: fuzz <parsers|stack> [--cases N] [--seed FIRST] [--threads N] | fuzz <parsers|stack> --file FILE";

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let Some(target) = arguments.next().and_then(|name| fuzz::target(&name)) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let (mut cases, mut first, mut threads) = (1_000_000, 0, thread::available_parallelism().map_or(1, |n| n.get()));
    while let Some(option) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        let number = value.parse();
        match (option.as_str(), number) {
            ("--cases", Ok(number)) => cases = number,
            ("--seed", Ok(number)) => first = number,
            ("--threads", Ok(number)) => threads = (number as usize).max(1),
            ("--file", _) => return one(target, &value.into()),
            _ => {
                eprintln!("{option} {value}: {USAGE}");
                return ExitCode::FAILURE;
            }
        }
    }
    seeds(target, first, cases, threads)
}

fn one(target: &Target, file: &PathBuf) -> ExitCode {
    match fs::read(file) {
        Ok(bytes) => (target.run)(&bytes, &mut Seen { tell: true, ..Seen::default() }),
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    println!("{}: nothing wrong", file.display());
    ExitCode::SUCCESS
}

/// Seeds `first..first + cases`, on so many threads. The first that fails is printed and ends the run.
fn seeds(target: &'static Target, first: u64, cases: u64, threads: usize) -> ExitCode {
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let begun = Instant::now();
    let work = || {
        let (mut seen, mut bytes) = (Seen::default(), Vec::new());
        while !failed.load(Ordering::Relaxed) {
            let from = next.fetch_add(CHUNK, Ordering::Relaxed);
            for seed in from..(from + CHUNK).min(first + cases) {
                fuzz::bytes_of_seed(seed, target.len_max, &mut bytes);
                if panic::catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes, &mut seen))).is_err() {
                    failed.store(true, Ordering::Relaxed);
                    let file = env::temp_dir().join(format!("fuzz-{}-{seed}", target.name));
                    let kept =
                        fs::write(&file, &bytes).map_or(String::new(), |()| format!(" or --file {}", file.display()));
                    eprintln!("seed {seed} failed. Again: fuzz {} --seed {seed} --cases 1{kept}", target.name);
                    return seen;
                }
            }
            if from + CHUNK >= first + cases {
                break;
            }
        }
        seen
    };
    let mut seen = Seen::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| seen.merge(&worker.join().unwrap_or_default()));
    });
    let span = begun.elapsed().as_secs_f64();
    println!("{}: {} cases in {span:.0} s on {threads} threads, {} frames", target.name, seen.cases, seen.frames);
    if seen.frames > 0 {
        println!("turns in each state: {}", seen.states_by_name());
        let counts: Vec<_> = seen.metrics.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("counted: {}", counts.join(", "));
    }
    if failed.into_inner() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

const CHUNK: u64 = 64;
