//! Hostile bytes: the kept corpus, each case that once found something among it, and thousands of seeds. `scripts/fuzz` throws more.

use std::fs;
use std::path::Path;

use handfast::DropReason;
use handfast_tests::fuzz::{self, Seen, TARGETS};

#[test]
fn the_kept_corpus_finds_nothing() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for target in TARGETS {
        let folder = corpus.join(target.name);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut seen = Seen::default();
        for file in files.flatten() {
            let bytes = fs::read(file.path()).expect("a case can be read");
            // Printed if the test fails.
            println!("{}", file.path().display());
            (target.run)(&bytes, &mut seen);
        }
        assert!(seen.cases > 0, "{} is empty", folder.display());
    }
}

#[test]
fn thousands_of_seeds_find_nothing_and_come_far() {
    for target in TARGETS {
        let (mut seen, mut bytes) = (Seen::default(), Vec::new());
        for seed in 0..SEEDS {
            fuzz::bytes_of_seed(seed, target.len_max, &mut bytes);
            println!("{} seed {seed}", target.name);
            (target.run)(&bytes, &mut seen);
        }
        assert_eq!(seen.cases, SEEDS);
        if target.name == "stack" {
            // All states but CLOSED, the last.
            assert!(seen.states[..9].iter().all(|turns| *turns > 0), "not every state: {}", seen.states_by_name());
            let is_reached = |reason: &DropReason| seen.metrics.drops(*reason) > 0 || SELDOM.contains(reason);
            let others: Vec<_> = DropReason::ALL.iter().filter(|reason| !is_reached(reason)).collect();
            assert!(others.is_empty(), "never dropped for {others:?}");
        }
    }
}

const SEEDS: u64 = 20_000;
/// What these seeds come to by luck or not at all: there are neither VLANs nor routes nor other cores.
const SELDOM: [DropReason; 7] = [
    DropReason::Vlan,
    DropReason::NoRoute,
    DropReason::HandoverFull,
    DropReason::NoFrames,
    DropReason::TransmitFull,
    DropReason::TimeWaitFull,
    DropReason::ReassemblyFull,
];
