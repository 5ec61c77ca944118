//! `handfast-load`: loads a TCP, and says what happened.
//!
//! | file | its one job |
//! | --- | --- |
//! | `args` | the command line |
//! | `plan` | what it comes to: every number that was left open is chosen here |
//! | `client` | the [`App`](handfast::App) that opens connections |
//! | `server` | the one that serves them |
//! | `http` | as much of HTTP/1.1 as both need |
//! | `measure` | what one core counts, and the sum of all |
//! | `run` | devices and workers: from a plan to an outcome |
//! | `solo` | both ends of an in-memory wire on one core |
//! | `report` | the outcome as text and as JSON |

pub mod args;
mod client;
mod http;
mod measure;
mod plan;
mod report;
mod run;
mod server;
mod solo;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, error::ErrorKind};

use self::args::Args;
use self::plan::Plan;
pub(crate) use self::report::grouped;

/// Runs what `args` ask for; the exit status for scripts: 0 if no more failed than was allowed, 1 otherwise, 2 for flags that
/// do not go together.
pub fn run(args: Args) -> ExitCode {
    let plan = match Plan::new(&args) {
        Ok(plan) => plan,
        Err(message) => Args::command().error(ErrorKind::ArgumentConflict, message).exit(),
    };
    let outcome = match run::run(&plan) {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let report = report::Report::new(&plan, &outcome);
    let text = if plan.json { report.to_json() } else { report.to_text() };
    // Whoever closed the pipe does not want to read it.
    let _ = io::stdout().write_all(text.as_bytes());
    match report.failed <= plan.max_failures {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
