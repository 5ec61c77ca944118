//! Devices and workers: from a plan to an outcome.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use handfast::metrics::{Counter, Metrics};
use handfast::runtime::Report;
use handfast::{App, Config, Idle, RunningRuntime, Runtime};
use handfast_drivers::driver::{Description, Port, Queue};
use handfast_drivers::pcap::{self, Pcap};
use handfast_drivers::tap::{self, TapPort};
use handfast_drivers::wire;
use handfast_drivers::wrap::Wrapped;
use handfast_drivers::xdp::AfXdp;
use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::args::{Closer, DriverKind, Role};
use super::client::Client;
use super::measure::{Counts, Measure, Watch};
use super::plan::{Pace, Plan};
use super::report::grouped;
use super::server::Server;
use super::solo::{Solo, wire_config};

pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// What came of it all.
pub(super) struct Outcome {
    pub(super) client: Option<EndOutcome>,
    pub(super) server: Option<EndOutcome>,
    /// Of the whole process while the load ran.
    pub(super) cpu: Duration,
    pub(super) resident_bytes_max: u64,
    pub(super) interrupted: bool,
}

/// What came of one end.
pub(super) struct EndOutcome {
    pub(super) measure: Measure,
    pub(super) metrics: Metrics,
    pub(super) queues: Vec<QueueOutcome>,
    /// Connections in TIME-WAIT at the end.
    pub(super) time_waits: u64,
    /// Frames that did not come back.
    pub(super) frames_missing: u32,
    /// Packets that the device lost for want of a frame, or because a ring was full.
    pub(super) device_lost: u64,
}

/// What became of one queue.
#[derive(Clone, Debug)]
pub(super) struct QueueOutcome {
    pub(super) queue: Description,
    /// Both ways.
    pub(super) packets: u64,
}

impl QueueOutcome {
    /// A queue of an in-memory wire: the packets are copied into frames of the other end.
    pub(super) fn wire(queue: u32, metrics: &Metrics) -> QueueOutcome {
        let packets = metrics.get(Counter::PacketsReceived) + metrics.get(Counter::PacketsSent);
        QueueOutcome { queue: Description { queue, ..Description::default() }, packets }
    }
}

/// Runs it, with a line each second, until it is over or Ctrl-C ends it.
///
/// # Errors
/// What keeps it from running, or ended it before its time.
pub(super) fn run(plan: &Plan) -> Result<Outcome, Failure> {
    let interrupted = Arc::<AtomicBool>::default();
    for signal in [SIGINT, SIGTERM] {
        // The first one ends with a report. Whoever sends a second does not want to wait for that.
        flag::register_conditional_default(signal, interrupted.clone())?;
        flag::register(signal, interrupted.clone())?;
    }
    if plan.lock_memory {
        handfast::lock_memory()?;
    }
    let mut outcome =
        Outcome { client: None, server: None, cpu: Duration::ZERO, resident_bytes_max: 0, interrupted: false };
    match plan.driver {
        DriverKind::Wire if plan.is_solo() => {
            let (client, server) = (Watch::new(1), Watch::new(1));
            let solo = Solo::spawn(plan, &client, &server)?;
            outcome.cpu = Watching { plan, shown: &client, client: Some(&client), is_running: &|| solo.is_running() }
                .until_over(&interrupted);
            solo.finish(&mut outcome)?;
        }
        DriverKind::Wire => run_wire(plan, &interrupted, &mut outcome)?,
        DriverKind::Tap => {
            let config = tap::Config {
                name: plan.interface.clone(),
                kernel_addresses: plan.kernel_addresses.clone(),
                frames_per_queue: plan.frames,
                ..tap::Config::default()
            };
            run_device(plan, TapPort::new(config), &interrupted, &mut outcome)?;
        }
        DriverKind::AfXdp => {
            let port = AfXdp::interface(&plan.interface).frames_per_queue(plan.frames);
            run_device(plan, port, &interrupted, &mut outcome)?;
        }
    }
    outcome.interrupted = interrupted.load(Ordering::Relaxed);
    outcome.resident_bytes_max = resident_bytes_max();
    Ok(outcome)
}

/// Both ends of a wire, each with workers of its own.
fn run_wire(plan: &Plan, interrupted: &AtomicBool, outcome: &mut Outcome) -> Result<(), Failure> {
    let (client_cpus, server_cpus) = plan.cpus.split_at(plan.client_workers);
    let [a, b] = [client_cpus, server_cpus].map(|cpus| wire_config(plan, cpus.len() as u16));
    let (client_port, server_port) = wire::ports(a, b);
    let (client_watch, server_watch) = (Watch::new(client_cpus.len()), Watch::new(server_cpus.len()));

    let app = server_app(plan, &server_watch);
    let server = Started::new(plan, plan.server_config(), server_port, server_cpus, app)?;
    let app = client_app(plan, &client_watch);
    let client = Started::new(plan, plan.client_config(), client_port, client_cpus, app)?;
    let is_running = || client.runtime.is_running() && server.runtime.is_running();
    let shown = if plan.role == Some(Role::Server) { &server_watch } else { &client_watch };
    outcome.cpu =
        Watching { plan, shown, client: Some(&client_watch), is_running: &is_running }.until_over(interrupted);
    outcome.client = Some(client.finish()?);
    outcome.server = Some(server.finish()?);
    Ok(())
}

/// One end, on a device.
fn run_device<P>(plan: &Plan, port: P, interrupted: &AtomicBool, outcome: &mut Outcome) -> Result<(), Failure>
where
    P: Port<Queue: Queue<Driver: 'static> + 'static>,
{
    let watch = Watch::new(plan.cpus.len());
    let watching = |client| Watching { plan, shown: &watch, client, is_running: &|| true };
    if plan.role == Some(Role::Client) {
        let app = client_app(plan, &watch);
        let started = Started::new(plan, plan.client_config(), port, &plan.cpus, app)?;
        let is_running = || started.runtime.is_running();
        outcome.cpu = Watching { is_running: &is_running, ..watching(Some(&watch)) }.until_over(interrupted);
        outcome.client = Some(started.finish()?);
    } else {
        let app = server_app(plan, &watch);
        let started = Started::new(plan, plan.server_config(), port, &plan.cpus, app)?;
        let is_running = || started.runtime.is_running();
        outcome.cpu = Watching { is_running: &is_running, ..watching(None) }.until_over(interrupted);
        outcome.server = Some(started.finish()?);
    }
    Ok(())
}

/// An application for each worker, and where the results arrive.
type Apps<F> = (F, Receiver<Measure>);

fn client_app(plan: &Plan, watch: &Watch) -> Apps<impl Fn(u16) -> Client + Send + Sync + 'static> {
    let (result, results) = channel();
    let (client, watch) = (plan.client.clone(), watch.clone());
    (move |core| Client::new(client.clone(), core, watch.clone(), result.clone()), results)
}

fn server_app(plan: &Plan, watch: &Watch) -> Apps<impl Fn(u16) -> Server + Send + Sync + 'static> {
    let (result, results) = channel();
    let (server, watch) = (plan.server.clone(), watch.clone());
    (move |core| Server::new(server.clone(), core, watch.clone(), result.clone()), results)
}

/// An end that runs.
struct Started {
    runtime: RunningRuntime,
    results: Receiver<Measure>,
}

impl Started {
    fn new<P, A>(
        plan: &Plan,
        config: Config,
        port: P,
        cpus: &[Option<usize>],
        (app, results): Apps<impl Fn(u16) -> A + Send + Sync + 'static>,
    ) -> Result<Started, Failure>
    where
        P: Port<Queue: Queue<Driver: 'static> + 'static>,
        A: App,
    {
        // A client has waited for its connections already.
        let drain = if plan.role == Some(Role::Server) { plan.drain } else { plan.drain.min(CLIENT_DRAIN) };
        let mut runtime = Runtime::new(config).drain(drain);
        runtime = match cpus.iter().copied().collect::<Option<Vec<usize>>>() {
            Some(cores) => runtime.cores(cores),
            None => runtime.workers(cpus.len()),
        };
        if plan.sleep {
            runtime = runtime.idle(Idle::Sleep);
        }
        let runtime = match plan.pcap.clone() {
            None => runtime.port(port).spawn(app)?,
            Some(path) => {
                let port = Wrapped::new(port, move |queue, driver| {
                    let file = File::create(numbered(&path, queue)).map_err(|e| format!("{}: {e}", path.display()))?;
                    Ok(Pcap::new(driver, io::BufWriter::new(file), pcap::Options::default())?)
                });
                runtime.port(port).spawn(app)?
            }
        };
        if plan.driver != DriverKind::Wire {
            runtime.queues().iter().for_each(|queue| eprintln!("{}", queue.text));
        }
        Ok(Started { runtime, results })
    }

    fn finish(self) -> Result<EndOutcome, Failure> {
        self.runtime.stop();
        let described = self.runtime.queues().to_vec();
        let report: Report = self.runtime.join()?;
        let mut measure = Measure::new();
        self.results.try_iter().for_each(|one| measure.merge(&one));
        let queues = report.workers.iter().zip(described).map(|(worker, queue)| {
            let device = worker.last.device;
            QueueOutcome { packets: device.rx_packets + device.tx_packets, queue }
        });
        Ok(EndOutcome {
            measure,
            queues: queues.collect(),
            metrics: report.metrics(),
            time_waits: report.workers.iter().map(|worker| u64::from(worker.last.time_waits)).sum(),
            frames_missing: report.workers.iter().map(|worker| worker.frames.owned + worker.frames.moving).sum(),
            device_lost: report.workers.iter().map(|worker| worker.last.device.rx_lost).sum(),
        })
    }
}

/// Looks on while workers run.
struct Watching<'a> {
    plan: &'a Plan,
    /// Whose counts are shown.
    shown: &'a Watch,
    /// The client's, if it is ours.
    client: Option<&'a Watch>,
    is_running: &'a dyn Fn() -> bool,
}

impl Watching<'_> {
    /// Returns when the load is over; how much CPU time it took.
    fn until_over(&self, interrupted: &AtomicBool) -> Duration {
        let (begun, cpu_before) = (Instant::now(), cpu_time());
        if !self.plan.json {
            say(false, &describe(self.plan));
        }
        let mut last = (begun, Counts::default());
        let mut deadline = self.plan.duration.map(|duration| begun + duration.into());
        if self.client.is_some() {
            // It ends by itself, when what it has opened is over.
            deadline = deadline.map(|at| at + self.grace());
        }
        let mut all_opened = false;
        while (self.is_running)() && !self.client.is_some_and(Watch::finished) {
            let now = Instant::now();
            if deadline.is_some_and(|at| now >= at) {
                break;
            }
            if interrupted.load(Ordering::Relaxed) {
                let Some(client) = self.client.filter(|client| !client.hurry.load(Ordering::Relaxed)) else {
                    if self.client.is_none() {
                        break;
                    }
                    thread::sleep(TICK);
                    continue;
                };
                client.hurry.store(true, Ordering::Relaxed);
                let soon = now + Duration::from(self.plan.drain);
                deadline = Some(deadline.map_or(soon, |at| at.min(soon)));
            }
            if let Some(client) = self.client.filter(|_| !all_opened)
                && client.counts().opened >= self.plan.client.connections
            {
                all_opened = true;
                let soon = now + self.grace();
                deadline = Some(deadline.map_or(soon, |at| at.min(soon)));
            }
            if now - last.0 >= LINE_EVERY {
                let counts = self.shown.counts();
                say(self.plan.json, &line(begun.elapsed(), now - last.0, &last.1, &counts));
                last = (last.0 + LINE_EVERY, counts);
            }
            thread::sleep(TICK);
        }
        cpu_time() - cpu_before
    }

    /// How long connections may stay when none is opened any more.
    fn grace(&self) -> Duration {
        let late = if matches!(self.plan.client.pace, Pace::Open(_)) { LATE } else { Duration::ZERO };
        late + Duration::from(self.plan.client.hold) + Duration::from(self.plan.drain)
    }
}

/// A line while it runs: to standard error where standard output is for JSON.
fn say(json: bool, line: &str) {
    // Nobody reads it: that is no reason to end.
    let _ = match json {
        true => writeln!(io::stderr(), "{line}"),
        false => writeln!(io::stdout(), "{line}"),
    };
}

fn line(since: Duration, span: Duration, before: &Counts, now: &Counts) -> String {
    let per_second = |before: u64, now: u64| grouped(((now - before) as f64 / span.as_secs_f64()) as u64);
    let mut line = format!(
        "{:>4.0} s  opened {:>11}/s  closed {:>11}/s  open {:>9}",
        since.as_secs_f64(),
        per_second(before.opened, now.opened),
        per_second(before.closed, now.closed),
        grouped(now.opened.saturating_sub(now.closed + now.failed)),
    );
    if now.failed > 0 {
        line += &format!("  FAILED {}", grouped(now.failed));
    }
    line
}

/// What is going to be done, in a line or two.
fn describe(plan: &Plan) -> String {
    let cores = |cpus: &[Option<usize>]| match cpus.iter().copied().collect::<Option<Vec<usize>>>() {
        Some(cores) if cores.len() == 1 => format!("core {}", cores[0]),
        Some(cores) => format!("cores {cores:?}"),
        None if cpus.len() == 1 => "one worker".into(),
        None => format!("{} workers", cpus.len()),
    };
    let (client_cpus, server_cpus) = plan.cpus.split_at(plan.client_workers);
    let place = match (plan.driver, plan.role) {
        (DriverKind::Wire, _) if plan.is_solo() => {
            format!("in-memory wire, client and server both on {}", cores(&plan.cpus))
        }
        (DriverKind::Wire, _) => {
            format!("in-memory wire, client on {}, server on {}", cores(client_cpus), cores(server_cpus))
        }
        (_, Some(Role::Client)) => {
            let targets: Vec<String> = plan.client.targets.iter().map(ToString::to_string).collect();
            format!("client on {}, {}, loads {}", plan.interface, cores(&plan.cpus), targets.join(", "))
        }
        _ => {
            let app = format!("{:?}", plan.server.app).to_lowercase();
            format!("server on {}, {}: {app} on ports {:?}", plan.interface, cores(&plan.cpus), plan.server.ports)
        }
    };
    if plan.role == Some(Role::Server) && plan.driver != DriverKind::Wire {
        return format!("handfast-load: {place}");
    }
    let pace = match plan.client.pace {
        Pace::Open(rate) => format!("{} connections a second", grouped(rate as u64)),
        Pace::Closed(count) => format!("{} connections at once", grouped(count.into())),
    };
    let work = match plan.client.requests {
        0 => "each opened and closed".into(),
        1 => "one request each".into(),
        count => format!("{count} requests each"),
    };
    let closer = if plan.client.closer == Closer::Client { "client" } else { "server" };
    let time = plan.duration.map_or(String::new(), |duration| format!(", {} s", duration.as_secs_f64()));
    format!("handfast-load: {place}\n  {pace}, {work}, the {closer} closes first{time}")
}

/// `out.pcapng`, `out.1.pcapng`, `out.2.pcapng`, …
fn numbered(path: &Path, queue: u16) -> PathBuf {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    match queue {
        0 => path.into(),
        _ => path.with_extension(format!("{queue}.{extension}").trim_end_matches('.')),
    }
}

/// What this process has used, in user and kernel mode.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The most memory that this process ever had resident.
fn resident_bytes_max() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.unwrap_or(0) << 10
}

const TICK: Duration = Duration::from_millis(10);
const LINE_EVERY: Duration = Duration::from_secs(1);
/// How long an open loop may catch up after its end.
const LATE: Duration = Duration::from_secs(1);
const CLIENT_DRAIN: handfast::time::Duration = handfast::time::Duration::from_millis(500);
