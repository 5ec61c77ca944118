//! The target `parsers`, guided by coverage: `scripts/fuzz --guided parsers`.
#![no_main]

use handfast_tests::fuzz::{Seen, target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| (target("parsers").expect("a target").run)(bytes, &mut Seen::default()));
