//! Both ends of an in-memory wire on one core: a turn of the one, a turn of the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time;

use handfast::Stack;
use handfast::time::Instant;
use handfast_drivers::wire;

use super::client::Client;
use super::measure::{Measure, Watch};
use super::plan::Plan;
use super::run::{EndOutcome, Failure, Outcome, QueueOutcome};
use super::server::Server;
use crate::duo::End;

/// The thread that runs both ends.
pub(super) struct Solo {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(EndOutcome, EndOutcome), String>>,
}

impl Solo {
    /// Starts it.
    pub(super) fn spawn(plan: &Plan, client: &Watch, server: &Watch) -> Result<Solo, Failure> {
        let stop = Arc::<AtomicBool>::default();
        let (plan, client, server, stopped) = (plan.clone(), client.clone(), server.clone(), stop.clone());
        let thread = thread::Builder::new().name("handfast-0".into());
        let thread = thread.spawn(move || run(&plan, client, server, &stopped))?;
        Ok(Solo { stop, thread })
    }

    pub(super) fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Ends it, after the time that connections have to close.
    pub(super) fn finish(self, outcome: &mut Outcome) -> Result<(), Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let ends = self.thread.join().map_err(|_| "the worker panicked: what it said is above")??;
        (outcome.client, outcome.server) = (Some(ends.0), Some(ends.1));
        Ok(())
    }
}

fn run(plan: &Plan, watch: Watch, server_watch: Watch, stop: &AtomicBool) -> Result<(EndOutcome, EndOutcome), String> {
    if let Some(id) = plan.cpus[0] {
        let usable = core_affinity::get_core_ids().unwrap_or_default();
        if !usable.iter().any(|core| core.id == id) || !core_affinity::set_for_current(core_affinity::CoreId { id }) {
            let usable: Vec<usize> = usable.iter().map(|core| core.id).collect();
            return Err(format!("core {id} is not there, or this process may not use it: choose from {usable:?}"));
        }
    }
    let (client_config, server_config) = (plan.client_config(), plan.server_config());
    client_config.check().and(server_config.check()).map_err(|error| error.to_string())?;
    let (client_driver, server_driver) = wire::pair(wire_config(plan, 1));
    let (to_client, client_result) = channel();
    let (to_server, server_result) = channel();
    let mut client = End::new(client_driver, client_config, Client::new(plan.client.clone(), 0, watch, to_client));
    let mut server =
        End::new(server_driver, server_config, Server::new(plan.server.clone(), 0, server_watch, to_server));

    let origin = time::Instant::now();
    let now = || Instant::from_micros(origin.elapsed().as_micros() as u64);
    server.stack.start(now(), &mut server.app);
    client.stack.start(now(), &mut client.app);
    while !stop.load(Ordering::Relaxed) {
        let now = now();
        client.turn(now);
        server.turn(now);
    }
    client.stack.shut_down(now(), &mut client.app);
    let deadline = now() + plan.drain;
    while client.stack.connections() + server.stack.connections() + server.stack.half_open() > 0 && now() < deadline {
        let now = now();
        client.turn(now);
        server.turn(now);
    }
    client.stack.abort_all();
    for _ in 0..LAST_TURNS {
        let now = now();
        client.turn(now);
        server.turn(now);
    }
    server.stack.abort_all();
    let (client_counts, server_counts) = (counts(&client.stack), counts(&server.stack));
    drop((client, server));
    let end = |counts: EndOutcome, measure: Result<Measure, _>| EndOutcome {
        measure: measure.unwrap_or_else(|_| Measure::new()),
        ..counts
    };
    Ok((end(client_counts, client_result.recv()), end(server_counts, server_result.recv())))
}

/// How each end receives.
pub(super) fn wire_config(plan: &Plan, queues: u16) -> wire::Config {
    wire::Config { queues, frames_per_queue: plan.frames, ..wire::Config::default() }
}

fn counts(stack: &Stack) -> EndOutcome {
    let metrics = stack.metrics().clone();
    let queue = QueueOutcome::wire(0, &metrics);
    let census = stack.pool().census();
    EndOutcome {
        measure: Measure::new(),
        queues: vec![queue],
        time_waits: stack.time_waits().into(),
        frames_missing: census.owned + census.moving,
        device_lost: 0,
        metrics,
    }
}

const LAST_TURNS: usize = 100;
