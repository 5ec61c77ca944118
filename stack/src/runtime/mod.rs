//! What makes a stack run: threads, a clock, a device. The rest of the crate has none of these.
//!
//! | file | its one job |
//! | --- | --- |
//! | `mod` | [`Runtime`]: what is asked for; the start, [`RunningRuntime`], and the [`Report`] of the end |
//! | `worker` | one core's loop |
//! | `mailbox` | what reaches a worker from other cores |
//! | `clock` | what time it is |
//! | `cidr` | an address and its network, as people write it |
//! | `error` | why it did not start, or what ended it |
//! | `memory` | locking it |
//!
//! There is one worker for each queue of the device. Each has a stack and an application of its own; they share nothing but
//! the memory that frames are in. The end of a worker is in steps that all take together, because frames of each may be with any
//! other: listeners close, connections drain, nothing more is received, every frame goes home.

mod cidr;
mod clock;
mod error;
mod mailbox;
mod memory;
mod sync;
mod worker;

use core::fmt;
use core::mem;
use core::net::IpAddr;
use core::sync::atomic::AtomicBool;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, Sender, bounded};
use handfast_drivers::driver::{AddressRange, Description, Driver, DriverStats, Port, Queue};
use handfast_drivers::frame::{Census, Region};

pub use self::cidr::{Cidr, CidrError};
pub use self::error::Error;
pub use self::memory::lock_memory;

use self::clock::Clock;
use self::mailbox::{Bell, Mailbox, Note, PostOffice};
use self::sync::Gate;
use self::worker::{Attendance, Shared, Worker};
use crate::app::App;
use crate::config::{Config, ConfigError};
use crate::ip::routes::{OwnAddress, Route};
use crate::metrics::Metrics;
use crate::stack::{Entropy, Stack};
use crate::time::Duration;
use crate::wire::address::Address;

/// A stack to be run: how it is set up, on which device, on which cores.
///
/// See [the crate's page](crate) for an example.
#[derive(Debug)]
#[must_use = "nothing runs before `run` or `spawn`"]
pub struct Runtime<P> {
    config: Config,
    port: P,
    workers: Workers,
    idle: Idle,
    drain: Duration,
    stop: Arc<AtomicBool>,
}

/// No device yet: [`Runtime::port`] gives one.
#[derive(Clone, Copy, Debug)]
pub struct NoPort;

/// What a worker does while there is nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Idle {
    /// Looks again at once, and uses all of its core: the shortest latency.
    #[default]
    Spin,
    /// Sleeps in `poll()` until a packet comes or a timer is due; beside a device that cannot wake it, in steps of up to a
    /// millisecond.
    Sleep,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Workers {
    Unpinned(usize),
    Cores(Vec<usize>),
}

impl Runtime<NoPort> {
    /// A runtime with this configuration, without a device yet.
    pub fn new(config: Config) -> Runtime<NoPort> {
        Runtime {
            config,
            port: NoPort,
            workers: Workers::Unpinned(1),
            idle: Idle::Spin,
            drain: Duration::from_secs(5),
            stop: Arc::default(),
        }
    }
}

impl<P> Runtime<P> {
    /// The device, opened when the workers are started.
    pub fn port<Q: Port>(self, port: Q) -> Runtime<Q> {
        let Runtime { config, port: _, workers, idle, drain, stop } = self;
        Runtime { config, port, workers, idle, drain, stop }
    }

    /// An address of the stack's, with its network. It may be called again for more, of both families. The device is told.
    pub fn address(mut self, address: Cidr) -> Runtime<P> {
        self.config.ip.addresses.push(OwnAddress::from(address));
        self
    }

    /// The router that packets for other networks go to. One for each family.
    pub fn gateway(mut self, gateway: IpAddr) -> Runtime<P> {
        self.config.ip.routes.push(Route::default_via(Address::from(gateway)));
        self
    }

    /// The VLAN that the stack is on, 1 to 4094. Untagged unless told.
    pub fn vlan(mut self, vlan: u16) -> Runtime<P> {
        self.config.ip.vlan = Some(vlan);
        self
    }

    /// Accepts connections to this port, on every address. It may be called again for more ports.
    pub fn listen(mut self, port: u16) -> Runtime<P> {
        self.config.listen.push(port);
        self
    }

    /// One worker on each of these cores, in this order.
    pub fn cores(mut self, cores: impl IntoIterator<Item = usize>) -> Runtime<P> {
        self.workers = Workers::Cores(cores.into_iter().collect());
        self
    }

    /// So many workers, wherever the kernel puts them. One unless told otherwise.
    pub fn workers(mut self, count: usize) -> Runtime<P> {
        self.workers = Workers::Unpinned(count);
        self
    }

    /// What workers do while there is nothing to do. They spin unless told otherwise.
    pub fn idle(mut self, idle: Idle) -> Runtime<P> {
        self.idle = idle;
        self
    }

    /// How long connections may take to close at the end, before they are reset: 5 seconds unless told otherwise.
    pub fn drain(mut self, span: impl Into<Duration>) -> Runtime<P> {
        self.drain = span.into();
        self
    }

    /// Set it, from any thread or a signal's handler, and the workers end as after [`RunningRuntime::stop`], sleeping ones
    /// within a tenth of a second.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }
}

impl<P: Port> Runtime<P> {
    /// Runs an application on each core, until the [stop flag](Self::stop_flag) is set, a worker panics, or a device ends.
    /// `app` makes each worker's, on its thread, from the worker's number.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn) and [`RunningRuntime::join`].
    pub fn run<A: App>(self, app: impl Fn(u16) -> A + Send + Sync + 'static) -> Result<(), Error>
    where
        P::Queue: 'static,
    {
        self.spawn(app)?.join().map(drop)
    }

    /// Starts the workers and returns when all of them run.
    ///
    /// # Errors
    /// Whatever keeps one of them from running; then none does.
    pub fn spawn<A: App>(self, app: impl Fn(u16) -> A + Send + Sync + 'static) -> Result<RunningRuntime, Error>
    where
        P::Queue: 'static,
    {
        let cpus = self.check()?;
        let Runtime { config, mut port, workers: _, idle, drain, stop } = self;
        let mut entropy = Entropy([0; 64]);
        let random = rustix::rand::getrandom(&mut entropy.0, rustix::rand::GetRandomFlags::empty());
        random.map_err(|error| Error::System { doing: "get random bytes", source: error.into() })?;
        let single = config.ip.addresses.iter().map(|own| AddressRange::from(IpAddr::from(own.address)));
        let ranges =
            config.ip.ranges.iter().map(|range| AddressRange { first: range.first.into(), count: range.count });
        port.announce(&single.chain(ranges).collect::<Vec<_>>());
        let queues = port.open(cpus.len()).map_err(|error| Error::Device(error.into()))?;
        if queues.len() != cpus.len() {
            return Err(Error::Port("it opened another number of queues than it was asked for"));
        }
        let mut starting = Vec::with_capacity(cpus.len());
        let app = Arc::new(app);
        let mut start = |(core, (queue, &cpu)): (usize, (P::Queue, &Option<usize>))| {
            let (config, entropy, app) = (config.clone(), entropy.clone(), app.clone());
            starting.push(Starting::spawn(core, move |ready| {
                let (driver, stack) = match prepare(queue, cpu, config, &entropy) {
                    Ok(prepared) => prepared,
                    Err(error) => {
                        ready.fail(error);
                        return None;
                    }
                };
                let attendance = ready.wait(Ready::new(&driver, &stack))?;
                let app = app(core as u16);
                Some(Worker::new(driver, stack, app, attendance).run())
            })?);
            Ok(())
        };
        let started = queues.into_iter().zip(&cpus).enumerate().try_for_each(&mut start);
        match started.and_then(|()| introduce(&starting, stop, idle, drain)) {
            Ok((shared, queues)) => {
                let threads = starting.into_iter().map(|worker| worker.go(&shared)).collect();
                Ok(RunningRuntime { shared, threads, queues })
            }
            Err(error) => Err(starting.into_iter().fold(error, |error, worker| worker.give_up(error))),
        }
    }

    /// Checks what can be checked before anything is opened; the cores to pin the workers to.
    fn check(&self) -> Result<Vec<Option<usize>>, Error> {
        let ip = &self.config.ip;
        if ip.addresses.is_empty() {
            return Err(ConfigError::NoAddress.into());
        }
        if let Some(vlan) = ip.vlan.filter(|vlan| !(1..=4094).contains(vlan)) {
            return Err(Error::Vlan(vlan));
        }
        if self.config.listen.contains(&0) {
            return Err(Error::ListenPort);
        }
        for gateway in ip.routes.iter().filter_map(|route| route.gateway) {
            let is_near = |own: &OwnAddress| gateway.in_prefix(own.address, own.prefix_len) && gateway != own.address;
            if !ip.addresses.iter().any(is_near) && !gateway.is_link_local() {
                return Err(Error::Gateway(gateway.into()));
            }
        }
        let cpus = match &self.workers {
            Workers::Unpinned(count) => vec![None; *count],
            Workers::Cores(cores) => {
                let usable: Vec<usize> =
                    core_affinity::get_core_ids().unwrap_or_default().iter().map(|c| c.id).collect();
                let mut seen = BTreeSet::new();
                for &core in cores {
                    if !usable.contains(&core) {
                        return Err(Error::Core { core, usable });
                    }
                    if !seen.insert(core) {
                        return Err(Error::SameCore(core));
                    }
                }
                cores.iter().copied().map(Some).collect()
            }
        };
        match cpus.len() {
            1..=0xffff => Ok(cpus),
            count => Err(Error::Workers(count)),
        }
    }
}

/// On the worker's own thread, so that its memory is near its core.
fn prepare<Q: Queue>(
    queue: Q,
    cpu: Option<usize>,
    config: Config,
    entropy: &Entropy,
) -> Result<(Q::Driver, Stack), Error> {
    if let Some(id) = cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        return Err(Error::Pin(id));
    }
    let driver = queue.start().map_err(|error| Error::Device(error.into()))?;
    let stack = Stack::new(config, driver.pool().clone(), driver.caps(), entropy)?;
    Ok((driver, stack))
}

/// Waits for all workers to be ready, and makes what they have in common. Gives their queues too.
fn introduce(
    starting: &[Starting],
    stop: Arc<AtomicBool>,
    idle: Idle,
    drain: Duration,
) -> Result<(Arc<Shared>, Vec<Description>), Error> {
    let mut ready: Vec<Ready> = Vec::with_capacity(starting.len());
    for (core, worker) in starting.iter().enumerate() {
        // If it has dropped its end without a word, it panicked.
        let gone = |_| Error::Panicked { core: core as u16, message: String::new() };
        ready.push(worker.readiness.recv().map_err(gone)??);
    }
    let count = ready.len();
    for (core, worker) in ready.iter().enumerate() {
        if usize::from(worker.queue) != core || usize::from(worker.queues) != count {
            return Err(Error::Port("its queues are not numbered as they were opened"));
        }
        if !Arc::ptr_eq(&worker.region, &ready[0].region) {
            return Err(Error::Port("its queues do not share one region, so that frames cannot move between workers"));
        }
    }
    let bell = || match idle {
        Idle::Spin => Ok(None),
        Idle::Sleep => Bell::new().map(Some),
    };
    let queues = ready.iter_mut().map(|worker| mem::take(&mut worker.description)).collect();
    let with_box = |worker: Ready| Ok((Mailbox::new(worker.share.len(), bell()?), worker.share));
    let boxes: io::Result<Vec<_>> = ready.into_iter().map(with_box).collect();
    let boxes = boxes.map_err(|source| Error::System { doing: "make an eventfd", source })?;
    let shared = Shared {
        office: PostOffice::new(boxes),
        stop,
        gates: core::array::from_fn(|_| Gate::new(count)),
        clock: Clock::start(),
        idle,
        drain,
    };
    Ok((Arc::new(shared), queues))
}

/// A worker's thread. `None`: it was not to run after all.
type Thread = JoinHandle<Option<Result<WorkerReport, Error>>>;

/// A worker that is being started, seen from outside.
struct Starting {
    thread: Thread,
    readiness: Receiver<Result<Ready, Error>>,
    go: Sender<Arc<Shared>>,
}

/// A worker that is being started, seen from its thread.
struct Readiness {
    core: usize,
    tell: Sender<Result<Ready, Error>>,
    start: Receiver<Arc<Shared>>,
}

impl Starting {
    fn spawn(
        core: usize,
        work: impl FnOnce(Readiness) -> Option<Result<WorkerReport, Error>> + Send + 'static,
    ) -> Result<Starting, Error> {
        let (tell, readiness) = bounded(1);
        let (go, start) = bounded(1);
        let thread = thread::Builder::new().name(format!("handfast-{core}"));
        let thread = thread.spawn(move || work(Readiness { core, tell, start })).map_err(Error::Thread)?;
        Ok(Starting { thread, readiness, go })
    }

    fn go(self, shared: &Arc<Shared>) -> Thread {
        // It waits for this.
        let _ = self.go.send(shared.clone());
        self.thread
    }

    /// Ends it, so that its device is closed; if it has panicked, the error says how.
    fn give_up(self, mut error: Error) -> Error {
        drop(self.go);
        if let Err(panic) = self.thread.join()
            && let Error::Panicked { message, .. } = &mut error
        {
            *message = text_of(&*panic);
        }
        error
    }
}

impl Readiness {
    fn fail(self, error: Error) {
        // Nobody listens if another worker has failed before.
        let _ = self.tell.send(Err(error));
    }

    /// Tells that this worker is ready; waits for the others. `None` if one of them cannot start: then none does.
    fn wait(self, ready: Ready) -> Option<Attendance> {
        let _ = self.tell.send(Ok(ready));
        Some(Attendance::new(self.start.recv().ok()?, self.core))
    }
}

/// What the others have to know of a worker.
struct Ready {
    region: Arc<Region>,
    share: Range<u32>,
    queue: u16,
    queues: u16,
    description: Description,
}

impl Ready {
    fn new(driver: &impl Driver, stack: &Stack) -> Ready {
        let (pool, caps) = (stack.pool(), driver.caps());
        Ready {
            region: pool.region().clone(),
            share: pool.share(),
            queue: caps.queue,
            queues: caps.queues,
            description: driver.describe(),
        }
    }
}

/// Workers that run. When it is dropped they are stopped, and waited for.
#[derive(Debug)]
pub struct RunningRuntime {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    queues: Vec<Description>,
}

impl RunningRuntime {
    /// Begins to end: listeners close, connections have the [drain](Runtime::drain) time. Does not wait; [`join`](Self::join)
    /// does.
    pub fn stop(&self) {
        self.shared.stop_all();
    }

    /// How the queue of each worker was opened, in order.
    pub fn queues(&self) -> &[Description] {
        &self.queues
    }

    /// Whether a worker still runs.
    pub fn is_running(&self) -> bool {
        self.threads.iter().any(|thread| !thread.is_finished())
    }

    /// Waits for the end, and says how it went. Does not begin it: [`stop`](Self::stop) does.
    ///
    /// # Errors
    /// A worker panicked or lost its device. All are over then too.
    pub fn join(mut self) -> Result<Report, Error> {
        let mut workers = Vec::with_capacity(self.threads.len());
        let (mut panicked, mut faulty) = (None, None);
        for (core, thread) in self.threads.drain(..).enumerate() {
            match thread.join() {
                Ok(Some(Ok(report))) => workers.push(report),
                Ok(Some(Err(fault))) => faulty = faulty.or(Some(fault)),
                Ok(None) => {}
                Err(panic) => {
                    panicked = panicked.or(Some(Error::Panicked { core: core as u16, message: text_of(&*panic) }));
                }
            }
        }
        match panicked.or(faulty) {
            None => Ok(Report { workers }),
            Some(error) => Err(error),
        }
    }

    /// What each worker has counted so far. Workers answer between two turns; one that does not within a second, because its
    /// application does not return or it is over, is left out.
    pub fn snapshot(&self) -> Vec<Snapshot> {
        let boxes = self.shared.office.boxes();
        let (to, answers) = bounded(boxes.len());
        boxes.iter().for_each(|mailbox| mailbox.note(Note::Snapshot(to.clone())));
        // With the last question answered, or refused, the channel is closed.
        drop(to);
        let deadline = std::time::Instant::now() + ANSWER_WITHIN;
        let mut snapshots: Vec<Snapshot> = core::iter::from_fn(|| answers.recv_deadline(deadline).ok()).collect();
        snapshots.sort_by_key(|snapshot| snapshot.core);
        snapshots
    }

    /// The sum of what all workers have counted so far, as by [`snapshot`](Self::snapshot).
    pub fn metrics(&self) -> Metrics {
        sum(self.snapshot().iter())
    }
}

impl Drop for RunningRuntime {
    fn drop(&mut self) {
        self.stop();
        for thread in self.threads.drain(..) {
            // Who wants to know of a panic joins.
            let _ = thread.join();
        }
    }
}

/// What one worker has counted.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The worker, from 0.
    pub core: u16,
    /// The stack's counters.
    pub metrics: Metrics,
    /// The device's.
    pub device: DriverStats,
    /// Connections from SYN-SENT to LAST-ACK.
    pub connections: u32,
    /// Half-open passive connections.
    pub half_open: u32,
    /// Connections in TIME-WAIT.
    pub time_waits: u32,
    /// Frames that are free.
    pub frames_free: u32,
}

/// How a runtime ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// Each worker, in order.
    pub workers: Vec<WorkerReport>,
}

impl Report {
    /// The sum of all workers' counters.
    pub fn metrics(&self) -> Metrics {
        sum(self.workers.iter().map(|worker| &worker.last))
    }

    /// How many connections were reset because they were not closed in time.
    pub fn aborted(&self) -> u32 {
        self.workers.iter().map(|worker| worker.aborted).sum()
    }
}

/// How a worker ended.
#[derive(Clone, Debug)]
pub struct WorkerReport {
    /// The last counters. Connections in TIME-WAIT are forgotten with the worker: a FIN that comes again is not answered.
    pub last: Snapshot,
    /// Connections that were reset because they were not closed in time.
    pub aborted: u32,
    /// The frames of the worker's share, after its stack and its queue were closed. All are free, but for those that the other end
    /// of an in-memory wire still has, or a device in zero-copy mode.
    pub frames: Census,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for worker in &self.workers {
            let WorkerReport { last, aborted, frames } = worker;
            writeln!(
                f,
                "worker {}: {aborted} connections reset, {} in TIME-WAIT; {frames:?}",
                last.core, last.time_waits
            )?;
            writeln!(f, "  {:?}", last.device)?;
            last.metrics.iter().try_for_each(|(name, n)| writeln!(f, "  {name} {n}"))?;
        }
        Ok(())
    }
}

fn sum<'a>(snapshots: impl Iterator<Item = &'a Snapshot>) -> Metrics {
    snapshots.fold(Metrics::new(), |mut sum, snapshot| {
        sum.merge(&snapshot.metrics);
        sum
    })
}

fn text_of(panic: &(dyn core::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("something that is no text").into()
}

const ANSWER_WITHIN: core::time::Duration = core::time::Duration::from_secs(1);

#[cfg(test)]
mod tests;
