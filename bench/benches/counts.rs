//! One body under a program that counts instructions; `scripts/bench-counts` runs it.
//!
//! ```text
//! counts --list            name, and the two numbers of operations whose difference is counted
//! counts --run NAME N      sets up and does N operations
//! ```
//! As a test it does each body a few times.

use std::process::ExitCode;

use handfast_bench::bodies;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--list"] => {
            for body in bodies::ALL {
                if let Some((few, many)) = body.counted {
                    println!("{} {few} {many}", body.name);
                }
            }
        }
        ["--run", name, n] => {
            let body = bodies::ALL.iter().find(|body| body.name == name);
            let (Some(body), Ok(n)) = (body, n.parse()) else {
                eprintln!("no body {name}, or {n} is no number: see --list");
                return ExitCode::FAILURE;
            };
            (body.make)()(n);
        }
        _ => {
            for body in bodies::ALL.iter().filter(|body| body.counted.is_some()) {
                let mut work = (body.make)();
                work(100);
                work(3);
            }
            println!("each counted body ran; scripts/bench-counts counts their instructions");
        }
    }
    ExitCode::SUCCESS
}
