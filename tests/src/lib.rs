//! Support for the tests of handfast: a [simulated world](world); and against Linux, namespaces, peers made of kernel sockets,
//! captures.
//!
//! The tests themselves are in `tests/`. Those that need a network of their own need root and say so when they skip.

pub mod apps;
pub mod capture;
pub mod example;
pub mod fuzz;
pub mod kernel;
pub mod lab;
pub mod netns;
pub mod pick;
pub mod process;
pub mod world;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// True if this process may make networks. Otherwise says which test is skipped, past the test harness's capture.
pub fn root_or_skip(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(test, "needs root");
    }
    root
}

/// Says that a test, or a part of one, is skipped and why.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIP: {test}: {why}");
}

/// Says what a test did or measured, past the test harness's capture.
pub fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "    {line}");
}

/// Whoever holds this is the only one to load the machine: timing and cores are shared by everything else.
pub fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The full numbers of bytes were asked for, by `HANDFAST_FULL=1`: they take minutes.
pub fn full() -> bool {
    std::env::var_os("HANDFAST_FULL").is_some_and(|value| value == "1")
}

/// A folder that goes when the test ends.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes one, empty, which others may read.
    pub fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("handfast-tests-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Scratch { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
