//! `bench-veth`: handfast against kernel sockets, and against what AF_XDP can carry at all, over one veth pair in one run.
//!
//! | file | its one job |
//! | --- | --- |
//! | `wire` | the veth pair, namespaces, addresses |
//! | `peer` | the other end: a process that is told what to be |
//! | `forward` | packets without a stack: the ceiling |
//! | `ours` | handfast's side of each case |
//! | `kernel` | the same over kernel sockets |
//! | `windows` | counts of short windows |
//! | `report` | table and JSON |
//!
//! Both processes are in namespaces without a name, which go with them, and the wire with those: nothing is left, however it ends.

mod forward;
mod kernel;
mod ours;
mod peer;
mod report;
mod windows;
mod wire;

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use clap::Parser;

use self::forward::Shape;
use self::ours::Place;
use self::peer::{Peer, Role};
use self::report::{Outcome, Row, Unit};
use self::windows::WARM_UP_TIME;

/// handfast against kernel sockets over one veth pair: a bare AF_XDP forwarder, connections opened and closed, requests to nginx,
/// round trips of a byte, and bulk. Cases take turns; rates are of windows of 10 ms. Needs root; nothing of this machine's network is
/// touched, and nothing is left behind.
#[derive(Parser, Clone, Debug)]
#[command(name = "bench-veth", version)]
pub struct Args {
    /// Print one JSON object on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
    /// A few seconds, to see that everything runs. The figures mean little.
    #[arg(long)]
    short: bool,
    /// How often each case takes its turn.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Milliseconds of each turn.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(200..=5000))]
    turn: u64,
    /// Connections at once.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    at_once: u32,
    /// Frames under way at once between the forwarders.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: u32,
    /// Only cases whose key contains this.
    #[arg(long, value_name = "KEY")]
    only: Option<String>,
    #[arg(long, hide = true)]
    inside: bool,
    #[arg(long, hide = true)]
    peer: bool,
}

/// Runs it; the exit status for scripts.
pub fn run(args: Args) -> ExitCode {
    let result = match (args.peer, args.inside) {
        (true, _) => peer::run().map_err(Into::into),
        (false, true) => measure(&args),
        (false, false) => Err(enter()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-veth: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Begins anew in a namespace of its own. Returns only if that fails.
fn enter() -> Failure {
    if !rustix::process::geteuid().is_root() {
        return "namespaces and AF_XDP need root: sudo scripts/bench-veth".into();
    }
    match std::env::current_exe() {
        Ok(this) => {
            let mut command = Command::new("unshare");
            command.arg("--net").arg(this).arg("--inside").args(std::env::args_os().skip(1));
            format!("unshare: {}: install util-linux", command.exec()).into()
        }
        Err(error) => error.into(),
    }
}

fn measure(args: &Args) -> Result<(), Failure> {
    let mut peer = Peer::start()?;
    wire::set_up(peer.pid())?;
    peer.set_up()?;
    let (rounds, turn) = if args.short { (1, 200) } else { (args.rounds, args.turn) };
    let chosen = |case: &&Case| args.only.as_ref().is_none_or(|only| case.key.contains(only.as_str()));
    let mut rows = Vec::new();
    let cases: Vec<&Case> = CASES.iter().filter(chosen).collect();
    for case in &cases {
        rows.push(Row { key: case.key, title: case.title, unit: case.unit, outcome: Outcome::default() });
    }
    if !wire::has("nginx") {
        eprintln!("bench-veth: no nginx here: its cases are left out");
    }
    let turn = Turn { span: Duration::from_millis(turn), at_once: args.at_once, in_flight: args.in_flight };
    for round in 0..rounds {
        for (case, row) in cases.iter().zip(&mut rows) {
            if case.peer == Role::Nginx && !wire::has("nginx") {
                continue;
            }
            if args.json {
                eprintln!("round {} of {rounds}: {}", round + 1, case.title);
            }
            peer.be(case.peer)?;
            (case.run)(&turn, &mut row.outcome).map_err(|error| format!("{}: {error}", case.title))?;
            let counts = peer.stop()?;
            if case.peer_counts {
                row.outcome.counts.extend(counts);
            }
        }
    }
    match args.json {
        true => println!("{}", report::to_json(&rows)),
        false => report::print_table(&rows),
    }
    Ok(())
}

type Failure = Box<dyn Error + Send + Sync>;

/// How much is done in one turn.
struct Turn {
    span: Duration,
    at_once: u32,
    in_flight: u32,
}

struct Case {
    key: &'static str,
    title: &'static str,
    unit: Unit,
    peer: Role,
    /// What the other end counts is what counts.
    peer_counts: bool,
    run: fn(&Turn, &mut Outcome) -> Result<(), Failure>,
}

const CASES: [Case; 12] = [
    Case {
        key: "forwarder",
        title: "bare AF_XDP, each frame sent back",
        unit: Unit::Packets,
        peer: Role::Forward,
        peer_counts: false,
        run: |turn, outcome| forward(turn, outcome, Shape::Even),
    },
    Case {
        key: "forwarder_3_to_2",
        title: "bare AF_XDP, two back for three, as with connections",
        unit: Unit::Packets,
        peer: Role::ForwardTwoOfThree,
        peer_counts: false,
        run: |turn, outcome| forward(turn, outcome, Shape::ThreeForTwo),
    },
    Case {
        key: "open_close",
        title: "handfast to handfast, each connection opened and closed",
        unit: Unit::Connections,
        peer: Role::OursSink,
        peer_counts: false,
        run: |turn, outcome| {
            let opened = ours(wire::ours_here()).open_close(wire::OURS_SERVICE, turn.at_once, None, turn.span)?;
            outcome.counts.extend(opened.connections.steady());
            outcome.packets.extend(opened.packets.steady());
            outcome.failed += opened.failed;
            Ok(())
        },
    },
    Case {
        key: "open_close_kernel",
        title: "kernel sockets at both ends, the same",
        unit: Unit::Connections,
        peer: Role::KernelServe,
        peer_counts: true,
        run: |turn, outcome| {
            let services = wire::kernel_services();
            let opened = on_our_core(|| kernel::open_close(&services, turn.at_once as usize, None, turn.span))?;
            outcome.failed += opened.failed;
            Ok(())
        },
    },
    Case {
        key: "nginx",
        title: "handfast to nginx, a request on each connection",
        unit: Unit::Connections,
        peer: Role::Nginx,
        peer_counts: false,
        run: |turn, outcome| {
            let place = ours(wire::ours_beside_the_kernel());
            let opened = place.open_close(wire::KERNEL_WEB, turn.at_once, Some(REQUEST), turn.span)?;
            outcome.counts.extend(opened.connections.steady());
            outcome.failed += opened.failed;
            Ok(())
        },
    },
    Case {
        key: "nginx_kernel",
        title: "kernel sockets to nginx, the same",
        unit: Unit::Connections,
        peer: Role::Nginx,
        peer_counts: false,
        run: |turn, outcome| {
            let target = [wire::KERNEL_WEB];
            let opened = on_our_core(|| kernel::open_close(&target, turn.at_once as usize, Some(REQUEST), turn.span))?;
            outcome.counts.extend(opened.windows.steady());
            outcome.failed += opened.failed;
            Ok(())
        },
    },
    Case {
        key: "round_trip",
        title: "handfast at both ends, spinning",
        unit: Unit::RoundTrips,
        peer: Role::OursEcho,
        peer_counts: false,
        run: |turn, outcome| {
            outcome.latencies.push(ours(wire::ours_here()).ping(wire::OURS_SERVICE, WARM_UP_TIME, turn.span)?);
            Ok(())
        },
    },
    Case {
        key: "round_trip_kernel_spinning",
        title: "kernel sockets at both ends, spinning",
        unit: Unit::RoundTrips,
        peer: Role::KernelEchoSpinning,
        peer_counts: false,
        run: |turn, outcome| kernel_ping(turn, outcome, true),
    },
    Case {
        key: "round_trip_kernel_sleeping",
        title: "kernel sockets at both ends, sleeping in read()",
        unit: Unit::RoundTrips,
        peer: Role::KernelEchoSleeping,
        peer_counts: false,
        run: |turn, outcome| kernel_ping(turn, outcome, false),
    },
    Case {
        key: "bulk_forwarder",
        title: "bare AF_XDP, full frames one way",
        unit: Unit::Bytes,
        peer: Role::ForwardSink,
        peer_counts: true,
        run: |turn, _| forward(turn, &mut Outcome::default(), Shape::Flood),
    },
    Case {
        key: "bulk",
        title: "handfast to handfast, one connection, one way",
        unit: Unit::Bytes,
        peer: Role::OursSink,
        peer_counts: true,
        run: |turn, _| ours(wire::ours_here()).source(wire::OURS_SERVICE, turn.span),
    },
    Case {
        key: "bulk_kernel",
        title: "kernel sockets at both ends, the same",
        unit: Unit::Bytes,
        peer: Role::KernelSink,
        peer_counts: true,
        run: |turn, _| Ok(on_our_core(|| kernel::source(wire::KERNEL_SERVICE, turn.span))?),
    },
];

fn forward(turn: &Turn, outcome: &mut Outcome, shape: Shape) -> Result<(), Failure> {
    let go_on = |since| since < turn.span;
    let windows = on_our_core(|| forward::run(wire::HERE, shape, Some(turn.in_flight), || {}, go_on))?;
    outcome.counts.extend(windows.steady());
    Ok(())
}

fn kernel_ping(turn: &Turn, outcome: &mut Outcome, spin: bool) -> Result<(), Failure> {
    let ping = || kernel::ping(wire::KERNEL_SERVICE, spin, WARM_UP_TIME, turn.span);
    outcome.latencies.push(on_our_core(ping)?);
    Ok(())
}

fn ours(address: handfast::Cidr) -> Place {
    Place { interface: wire::HERE, core: wire::cores().0, address, addresses: wire::OURS_COUNT }
}

/// Calls it on a thread that stays on the core of this end.
fn on_our_core<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            core_affinity::set_for_current(core_affinity::CoreId { id: wire::cores().0 });
            body()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: handfast\r\nConnection: close\r\n\r\n";
