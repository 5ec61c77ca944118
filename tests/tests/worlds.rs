//! Worlds by their seeds: some hundred in a test run, any number by hand.
//!
//! ```sh
//! cargo test -p handfast-tests --test worlds -- --seeds 10000
//! cargo test -p handfast-tests --test worlds -- --seed 4711 --pcap world.pcapng
//! ```

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use std::{panic, thread};

use clap::Parser;
use handfast_tests::world::mix::{self, Outcome};

/// Runs simulated worlds; says how to run those again that fail.
#[derive(Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 400)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run this one alone, and say what it came to.
    #[arg(long)]
    seed: Option<u64>,
    /// Record what the links carry; with --seed.
    #[arg(long, requires = "seed")]
    pcap: Option<PathBuf>,
    /// Begin no more once one has failed.
    #[arg(long)]
    fail_fast: bool,
    /// How many at a time.
    #[arg(long, default_value_t = thread::available_parallelism().map_or(1, |n| n.get()))]
    threads: usize,
    /// Of the test harness: run only if the name contains this.
    filter: Option<String>,
    /// Of the test harness, without meaning here.
    #[arg(long, hide = true)]
    show_output: bool,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    list: bool,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, hide = true)]
    include_ignored: bool,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
    #[arg(long, hide = true)]
    skip: Vec<String>,
}

const NAME: &str = "worlds";

fn main() {
    let args = Args::parse();
    let filtered = args.filter.as_ref().is_some_and(|filter| !NAME.contains(filter.as_str()))
        || args.skip.iter().any(|skip| NAME.contains(skip.as_str()))
        || args.ignored;
    if args.list {
        return println!("{NAME}: test");
    }
    if filtered {
        return result(0, 0, 1, 0.0);
    }
    let begun = Instant::now();
    let seeds = args.seed.map_or(args.from..args.from + args.seeds, |seed| seed..seed + 1);
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let sum = Mutex::new(Sum::default());
    if args.seed.is_none() {
        panic::set_hook(Box::new(|_| {})); // a failure is told with its seed
    }
    thread::scope(|scope| {
        for _ in 0..args.threads.max(1) {
            scope.spawn(|| {
                let enough = || args.fail_fast && !failed.lock().expect("nobody panics with it").is_empty();
                while let Some(seed) = Some(next.fetch_add(1, Relaxed)).filter(|seed| seeds.contains(seed) && !enough())
                {
                    let run = panic::catch_unwind(|| mix::run(seed, args.pcap.as_deref()));
                    match run {
                        Ok(outcome) => sum.lock().expect("nobody panics with it").add(seed, &outcome),
                        Err(why) => failed.lock().expect("nobody panics with it").push((seed, words(&*why))),
                    }
                }
            });
        }
    });
    let (failed, seconds) = (failed.into_inner().expect("no panics"), begun.elapsed().as_secs_f64());
    sum.into_inner().expect("no panics").tell(seconds);
    if !failed.is_empty() {
        println!("failures:");
    }
    for (seed, why) in &failed {
        let why: String = why.chars().take(WORDS_MAX).collect();
        println!("test seed {seed} ... FAILED\n{why}");
        println!("again: cargo test -p handfast-tests --test worlds -- --seed {seed} --pcap world-{seed}.pcapng\n");
    }
    result(u64::from(failed.is_empty()), failed.len(), 0, seconds);
    if !failed.is_empty() {
        std::process::exit(101);
    }
}

/// As the test harness ends, for whoever counts its tests: all seeds are one.
fn result(passed: u64, failed: usize, filtered: u64, seconds: f64) {
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out; finished in {seconds:.2}s"
    );
}

fn words(why: &(dyn std::any::Any + Send)) -> String {
    let text = why.downcast_ref::<String>().cloned();
    text.or_else(|| why.downcast_ref::<&str>().map(|why| (*why).to_owned())).unwrap_or_default()
}

#[derive(Default)]
struct Sum {
    worlds: u64,
    of: Outcome,
    /// The world with the most segments, and how many.
    busiest: (u64, u64),
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        if outcome.segments > self.busiest.1 {
            self.busiest = (seed, outcome.segments);
        }
        self.worlds += 1;
        self.of.connections += outcome.connections;
        self.of.segments += outcome.segments;
        self.of.bytes += outcome.bytes;
        self.of.crashes += outcome.crashes;
        self.of.seconds += outcome.seconds;
        let (sum, accidents) = (&mut self.of.accidents, &outcome.accidents);
        sum.lost += accidents.lost;
        sum.darkened += accidents.darkened;
        sum.overflowed += accidents.overflowed;
        sum.duplicated += accidents.duplicated;
        sum.strayed += accidents.strayed;
        sum.too_big += accidents.too_big;
        sum.reordered += accidents.reordered;
        sum.damaged += accidents.damaged;
    }

    fn tell(&self, seconds: f64) {
        let Outcome { connections, segments, bytes, crashes, .. } = self.of;
        println!("    {} worlds in {seconds:.1} s, {:.1} days of theirs", self.worlds, self.of.seconds / 86_400.0);
        println!(
            "    {connections} connections, {segments} segments, {bytes} bytes, {crashes} crashes; {:?}",
            self.of.accidents
        );
        println!("    the busiest world was seed {} with {} segments", self.busiest.0, self.busiest.1);
    }
}

const WORDS_MAX: usize = 3_000;
