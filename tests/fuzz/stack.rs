//! The target `stack`, guided by coverage: `scripts/fuzz --guided stack`.
#![no_main]

use handfast_tests::fuzz::{Seen, target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| (target("stack").expect("a target").run)(bytes, &mut Seen::default()));
