//! The rules of the house that no compiler knows, checked on the sources themselves.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use handfast::DropReason;

/// The modules of `stack/src`, from the ground up: each may import those before it. `app` and `stack` stand together, since what
/// an application sees is a view of the stack.
const ORDER: [&[&str]; 12] = [
    &["time"],
    &["rate_limit"],
    &["metrics"],
    &["wire"],
    &["timer_wheel"],
    &["ip"],
    &["config"],
    &["demux"],
    &["tcp"],
    &["trace"],
    &["app", "stack"],
    &["runtime"],
];

/// Only `runtime` has a clock, threads or I/O. Tests may.
const OUTSIDE_RUNTIME: [&str; 8] =
    ["std::time", "std::thread", "std::net", "std::fs", "std::io", "std::os", "std::env", "std::process"];

/// Where `unsafe` may stand, and why.
const UNSAFE: [(&str, &str); 3] = [
    ("drivers/", "memory that the kernel or a device writes too"),
    ("tests/src/netns.rs", "a thread that moves to a network namespace"),
    ("tests/src/process.rs", "what a child does between fork and exec"),
];

/// Files of more lines than `LINES_MAX`, and why they are not two.
const LINES_MAX: usize = 600;
const LONG: [(&str, &str); 2] = [
    ("drivers/src/xdp/program/tests.rs", "one table of packets and where the steering program sends them"),
    ("stack/src/stack/tests/segments.rs", "one table of states, segments and answers"),
];

#[test]
fn modules_import_only_what_is_below_them() {
    let place = |module: &str| ORDER.iter().position(|storey| storey.contains(&module));
    let mut wrong = String::new();
    for source in sources("stack/src/").filter(|source| !source.is_test() && source.path != "stack/src/lib.rs") {
        let module = source.path["stack/src/".len()..].split(['/', '.']).next().unwrap_or_default().to_owned();
        let Some(own) = place(&module) else {
            writeln!(wrong, "{}: {module} has no place in the order", source.path).unwrap();
            continue;
        };
        // It would reach other modules unseen.
        let hidden =
            ["super::super", "crate::{"].into_iter().filter(|path| source.code().any(|(_, l)| l.contains(path)));
        hidden.for_each(|path| writeln!(wrong, "{}: write `{path}` out from `crate::`", source.path).unwrap());
        for (number, line) in source.code() {
            for path in line.split("crate::").skip(1) {
                let other = path.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
                if other != module && place(other).is_none_or(|other| other > own) {
                    writeln!(wrong, "{}:{number}: {module} may not import {other}", source.path).unwrap();
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn only_the_runtime_has_a_clock_threads_or_io() {
    let sources = sources("stack/src/").filter(|source| !source.is_test() && !source.path.contains("/runtime/"));
    none_has(sources, &OUTSIDE_RUNTIME);
}

#[test]
fn unsafe_is_where_it_is_known() {
    let known = |path: &str| UNSAFE.iter().any(|(place, _)| path.starts_with(place));
    let keyword = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern", "unsafe("];
    none_has(sources("").filter(|source| !known(&source.path) && source.path != file!()), &keyword);
    let forbids = |source: &Source| source.text.contains("#![forbid(unsafe_code)]");
    assert!(sources("stack/src/lib.rs").all(|source| forbids(&source)), "stack/src/lib.rs has to forbid it");
    for (place, _) in UNSAFE {
        assert!(
            sources(place).any(|source| source.text.contains("unsafe")),
            "{place} has none any more: take it from the list"
        );
    }
}

#[test]
fn a_long_file_has_a_reason() {
    let mut wrong = String::new();
    for source in sources("") {
        let (lines, listed) = (source.text.lines().count(), LONG.iter().any(|(path, _)| *path == source.path));
        match (lines > LINES_MAX, listed) {
            (true, false) => {
                writeln!(wrong, "{}: {lines} lines: two jobs? Else list it with its reason", source.path).unwrap()
            }
            (false, true) => writeln!(wrong, "{}: {lines} lines: take it from the list", source.path).unwrap(),
            (true, true) | (false, false) => {}
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn every_reason_to_drop_is_looked_for_by_a_test() {
    let tests: Vec<Source> = sources("stack/").chain(sources("tests/")).filter(Source::is_test).collect();
    let is_looked_for = |reason: &DropReason| {
        let word = format!("DropReason::{reason:?}");
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric());
        tests.iter().flat_map(Source::code).any(|(_, line)| line.split(&word).skip(1).any(ends))
    };
    let forgotten: Vec<_> = DropReason::ALL.iter().filter(|reason| !is_looked_for(reason)).collect();
    assert!(forgotten.is_empty(), "no test looks for {forgotten:?}");
}

#[test]
fn no_file_names_the_directory_it_was_written_in() {
    let root = root();
    let here = format!("{}/", root.display());
    let home = env::var("HOME").ok().filter(|home| home.len() > "/root".len()).map(|home| format!("{home}/"));
    let written = |path: &String| {
        let name = path.rsplit('/').next().unwrap_or_default();
        !name.contains('.')
            || ["rs", "md", "toml", "c", "txt"].iter().any(|ending| name.ends_with(&format!(".{ending}")))
    };
    for path in files(&root).into_iter().filter(written) {
        let Ok(text) = fs::read_to_string(root.join(&path)) else { continue };
        for place in [Some(&here), home.as_ref()].into_iter().flatten() {
            assert!(!text.contains(place.as_str()), "{path} names {place}");
        }
    }
}

#[test]
fn every_module_is_found() {
    let found = |module: &&&str| {
        let paths = [format!("stack/src/{module}.rs"), format!("stack/src/{module}/mod.rs")];
        paths.iter().any(|path| root().join(path).exists())
    };
    assert_eq!(ORDER.iter().copied().flatten().filter(found).count(), ORDER.iter().copied().flatten().count());
}

/// Fails with every line of code that has one of these.
fn none_has(sources: impl Iterator<Item = Source>, unwanted: &[&str]) {
    let mut wrong = String::new();
    for source in sources {
        for (number, line) in source.code().filter(|(_, line)| unwanted.iter().any(|word| line.contains(word))) {
            writeln!(wrong, "{}:{number}: {}", source.path, line.trim()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// A Rust file.
struct Source {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// By the rule that tests have files of their own.
    fn is_test(&self) -> bool {
        ["/tests/", "/tests.rs", "/testing.rs"].iter().any(|name| self.path.contains(name))
            || self.path.starts_with("tests/")
    }

    /// Lines that are no comment, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(n, line)| (n + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// The Rust files whose path begins with `prefix`.
fn sources(prefix: &str) -> impl Iterator<Item = Source> {
    let root = root();
    let paths = files(&root).into_iter().filter(move |path| path.starts_with(prefix) && path.ends_with(".rs"));
    paths.map(move |path| Source { text: fs::read_to_string(root.join(&path)).expect("a source is text"), path })
}

/// All files, but for what is built and what is hidden.
fn files(root: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the project").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let is_built = path.join("CACHEDIR.TAG").exists();
            match path.is_dir() {
                true if is_built || name.to_string_lossy().starts_with('.') => {}
                true => folders.push(path),
                false => {
                    found.push(path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/"))
                }
            }
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the project").to_path_buf()
}
