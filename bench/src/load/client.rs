//! The application that opens connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use handfast::time::Instant;
use handfast::{App, Closed, ConnId, ConnectError, Cx, Frame};

use super::args::{CloseBy, Closer};
use super::http::{Kind, Reader};
use super::measure::{Cause, Measure, Watch};
use super::plan::{Answer, ClientPlan, Pace};

/// One worker of a client.
///
/// Latencies are by the worker's clock, which is read once a turn, in microseconds: from the turn in which a segment was sent
/// to the one in which the answer was taken in.
pub(super) struct Client {
    plan: Arc<ClientPlan>,
    core: u16,
    measure: Measure,
    watch: Watch,
    result: Sender<Measure>,
    /// By the index of the connection; empty if there are neither requests nor a time to hold.
    flows: Vec<Flow>,
    connections_max: u64,
    concurrency: u64,
    /// In SYN-SENT.
    opening: u64,
    start_us: u64,
    until_us: u64,
    /// After a refusal for want of ports or records.
    blocked_until_us: u64,
    /// How often a source address was found used up.
    source_shift: u64,
    /// Finished in the turn before, and in this one.
    to_reset: Vec<ConnId>,
    to_reset_next: Vec<ConnId>,
    opens_no_more: bool,
    hurried: bool,
}

/// Where a connection is, beyond what fits into its word.
#[derive(Clone, Default, Debug)]
struct Flow {
    conn: Option<ConnId>,
    /// Responses, or requests where none is answered, that are still to be done.
    requests_left: u32,
    /// Of the current request.
    unsent: u32,
    /// Of the current response.
    awaited: u32,
    /// Something of it came.
    answered: bool,
    request_us: u64,
    /// Of HTTP.
    reader: Option<Box<Reader>>,
}

/// What a connection does. It is kept with the time at which that began in the word that the stack keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// SYN-SENT.
    Opening,
    /// Requests are made, or the server is to close.
    Working,
    /// Nothing is done before the time is over.
    Holding,
    /// To end well.
    Closing,
    /// To end, and to count as failed for this cause.
    Failing(Cause),
}

impl Phase {
    /// A word for a phase and when it began.
    pub(super) fn since(self, now_us: u64) -> u64 {
        let code = match self {
            Phase::Opening => 0,
            Phase::Working => 1,
            Phase::Holding => 2,
            Phase::Closing => 3,
            Phase::Failing(cause) => 4 + cause as u64,
        };
        now_us << CODE_BITS | code
    }

    /// The phase, and when it began.
    pub(super) fn of(word: u64) -> (Phase, u64) {
        let phase = match word & ((1 << CODE_BITS) - 1) {
            0 => Phase::Opening,
            1 => Phase::Working,
            2 => Phase::Holding,
            3 => Phase::Closing,
            code => Phase::Failing(Cause::ALL[(code - 4) as usize % Cause::ALL.len()]),
        };
        (phase, word >> CODE_BITS)
    }
}

impl Client {
    pub(super) fn new(plan: Arc<ClientPlan>, core: u16, watch: Watch, result: Sender<Measure>) -> Client {
        let share = |total: u64| {
            let workers = plan.workers as u64;
            total / workers + u64::from(u64::from(core) < total % workers)
        };
        let connections_max = if plan.connections == u64::MAX { u64::MAX } else { share(plan.connections) };
        let concurrency = match plan.pace {
            Pace::Closed(count) => share(count.into()),
            Pace::Open(_) => 0,
        };
        Client {
            core,
            measure: Measure::new(),
            watch,
            result,
            flows: Vec::new(),
            connections_max,
            concurrency,
            opening: 0,
            start_us: 0,
            until_us: 0,
            blocked_until_us: 0,
            source_shift: u64::from(core) * 7,
            to_reset: Vec::new(),
            to_reset_next: Vec::new(),
            opens_no_more: false,
            hurried: false,
            plan,
        }
    }

    /// Opens what is due.
    fn open_more(&mut self, cx: &mut Cx<'_>, now_us: u64) {
        for _ in 0..OPENS_PER_TURN {
            if self.measure.opened >= self.connections_max {
                self.opens_no_more = true;
                return;
            }
            let due_us = match self.plan.pace {
                Pace::Closed(_) => {
                    if now_us >= self.until_us {
                        self.opens_no_more = true;
                        return;
                    }
                    let room = self.measure.open() < self.concurrency_at(now_us) && self.opening < OPENING_MAX;
                    if !room || now_us < self.blocked_until_us {
                        return;
                    }
                    now_us
                }
                Pace::Open(rate) => {
                    let due_us = self.start_us + self.plan.due_us(rate, self.measure.opened);
                    if due_us >= self.until_us {
                        self.opens_no_more = true;
                        return;
                    }
                    if now_us >= self.until_us + LATE_US {
                        // What cannot be begun in time is a failure, and not a load that was never asked for.
                        let due = self.plan.due_count(rate, self.plan.duration_us).min(self.connections_max);
                        let late = due.saturating_sub(self.measure.opened);
                        self.measure.opened += late;
                        self.measure.fail_many(Cause::NotBegun, late);
                        self.opens_no_more = true;
                        return;
                    }
                    if due_us > now_us {
                        cx.wake_at(Instant::from_micros(due_us));
                        return;
                    }
                    due_us
                }
            };
            self.open(cx, now_us, due_us);
        }
    }

    /// How many may be open at once by now.
    fn concurrency_at(&self, now_us: u64) -> u64 {
        let (since_us, ramp_us) = (now_us - self.start_us, self.plan.ramp_us);
        match since_us < ramp_us {
            true => 1 + (self.concurrency as f64 * since_us as f64 / ramp_us as f64) as u64,
            false => self.concurrency,
        }
        .min(self.concurrency)
    }

    fn open(&mut self, cx: &mut Cx<'_>, now_us: u64, due_us: u64) {
        let plan = self.plan.clone();
        let target = plan.targets[(self.measure.opened % plan.targets.len() as u64) as usize];
        let sources = plan.sources(&target);
        self.measure.opened += 1;
        let mut tries = sources.len().min(SOURCES_TRIED);
        let begun = loop {
            // One after the other, but not one each: so do their neighbour entries stay at hand.
            let turn = self.measure.opened / OPENS_PER_SOURCE + self.source_shift;
            match cx.connect_from(sources[(turn % sources.len() as u64) as usize], target) {
                Err(ConnectError::NoPort) if tries > 1 => {
                    self.source_shift += 1;
                    tries -= 1;
                }
                begun => break begun,
            }
        };
        match begun {
            Ok(conn) => {
                self.opening += 1;
                cx.set_user(conn, Phase::Opening.since(due_us));
                if plan.requests > 0 || plan.hold.as_micros() > 0 {
                    let index = conn.index() as usize;
                    if index >= self.flows.len() {
                        self.flows.resize(index + 1, Flow::default());
                    }
                    self.flows[index] = Flow { conn: Some(conn), requests_left: plan.requests, ..Flow::default() };
                }
            }
            Err(error) => {
                self.measure.fail(error.into(), now_us);
                self.blocked_until_us = now_us + BLOCKED_US;
                cx.wake_at(Instant::from_micros(self.blocked_until_us));
            }
        }
    }

    /// Begins a request.
    fn ask(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let flow = &mut self.flows[conn.index() as usize];
        flow.unsent = self.plan.request.len() as u32;
        flow.awaited = match self.plan.answer {
            Answer::Bytes(count) => count,
            Answer::Http => 0,
        };
        flow.answered = false;
        self.send(cx, conn);
    }

    /// Sends as much of the request as there is room for.
    fn send(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let now_us = cx.now().as_micros();
        let silent = self.plan.answer == Answer::Bytes(0);
        loop {
            let flow = &mut self.flows[conn.index() as usize];
            let request = &self.plan.request;
            flow.unsent -= cx.write(conn, &request[request.len() - flow.unsent as usize..]) as u32;
            if flow.unsent > 0 {
                return;
            }
            flow.request_us = now_us;
            if !silent {
                return;
            }
            flow.requests_left -= 1;
            if flow.requests_left == 0 {
                return self.rest(cx, conn);
            }
            flow.unsent = request.len() as u32;
        }
    }

    /// So many responses were complete.
    fn answered(&mut self, cx: &mut Cx<'_>, conn: ConnId, count: u32) {
        let flow = &mut self.flows[conn.index() as usize];
        match flow.requests_left.checked_sub(count) {
            _ if count == 0 => {}
            // A response that nobody asked for.
            None => self.give_up(cx, conn, Cause::BadMessage),
            Some(0) => {
                flow.requests_left = 0;
                self.rest(cx, conn);
            }
            Some(left) => {
                flow.requests_left = left;
                self.ask(cx, conn);
            }
        }
    }

    /// All requests are done: hold the connection, or close it.
    fn rest(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let now_us = cx.now().as_micros();
        let holds = self.plan.closer == Closer::Client && self.plan.hold.as_micros() > 0;
        if holds && !self.hurried {
            cx.set_user(conn, Phase::Holding.since(now_us));
            cx.set_timer(conn, self.plan.hold);
        } else {
            self.finish(cx, conn, now_us);
        }
    }

    /// Closes, or leaves that to the server.
    fn finish(&mut self, cx: &mut Cx<'_>, conn: ConnId, now_us: u64) {
        match (self.plan.closer, self.plan.close) {
            (Closer::Server, _) => cx.set_user(conn, Phase::Working.since(now_us)),
            (Closer::Client, CloseBy::Fin) => {
                cx.set_user(conn, Phase::Closing.since(now_us));
                cx.close(conn);
            }
            (Closer::Client, CloseBy::Rst) => {
                cx.set_user(conn, Phase::Closing.since(now_us));
                self.to_reset_next.push(conn);
            }
        }
    }

    /// Resets what was finished in the turn before, when all that was sent has arrived: the ACK that made it ESTABLISHED has gone out
    /// too.
    fn reset(&mut self, cx: &mut Cx<'_>, now_us: u64) {
        let mut to_reset = std::mem::take(&mut self.to_reset);
        for conn in to_reset.drain(..) {
            if cx.unacknowledged(conn) > 0 || cx.is_owing(conn) {
                self.to_reset_next.push(conn);
            } else if cx.state(conn).is_some() {
                cx.abort(conn);
                self.measure.close(now_us);
            }
        }
        self.to_reset = std::mem::replace(&mut self.to_reset_next, to_reset);
    }

    /// Ends a connection that went wrong.
    fn give_up(&mut self, cx: &mut Cx<'_>, conn: ConnId, cause: Cause) {
        cx.abort(conn);
        self.measure.fail(cause, cx.now().as_micros());
    }

    fn requests_left(&self, conn: ConnId) -> u32 {
        self.flows.get(conn.index() as usize).map_or(0, |flow| flow.requests_left)
    }

    fn take_bytes(&mut self, cx: &mut Cx<'_>, conn: ConnId, frame: &Frame) {
        let flow = &mut self.flows[conn.index() as usize];
        match flow.awaited.checked_sub(frame.len() as u32) {
            Some(0) => self.answered(cx, conn, 1),
            Some(left) => flow.awaited = left,
            None => self.give_up(cx, conn, Cause::BadMessage),
        }
    }

    fn take_http(&mut self, cx: &mut Cx<'_>, conn: ConnId, frame: &Frame) {
        let (mut count, mut refused) = (0, false);
        let flow = &mut self.flows[conn.index() as usize];
        let read = flow.reader.get_or_insert_default().read(Kind::Response, frame, |message| {
            count += u32::from(!(100..200).contains(&message.status));
            refused |= message.status >= 400;
        });
        match (read, refused) {
            (Err(_), _) => self.give_up(cx, conn, Cause::BadMessage),
            (_, true) => self.give_up(cx, conn, Cause::HttpStatus),
            _ => self.answered(cx, conn, count),
        }
    }

    /// The load is to end now: what is held is not held any longer.
    fn hurry(&mut self, cx: &mut Cx<'_>, now_us: u64) {
        self.hurried = true;
        self.opens_no_more = true;
        for at in 0..self.flows.len() {
            if let Some(conn) = self.flows[at].conn
                && Phase::of(cx.user(conn)).0 == Phase::Holding
            {
                cx.clear_timer(conn);
                self.finish(cx, conn, now_us);
            }
        }
    }
}

impl App for Client {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        self.start_us = cx.now().as_micros();
        self.until_us = self.start_us.saturating_add(self.plan.duration_us);
        self.measure.start(self.start_us);
    }

    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let now_us = cx.now().as_micros();
        let (_, due_us) = Phase::of(cx.user(conn));
        self.opening -= 1;
        self.measure.established += 1;
        self.measure.handshake_us.saturating_record(now_us - due_us);
        match self.plan.requests {
            0 => self.rest(cx, conn),
            _ => {
                cx.set_user(conn, Phase::Working.since(now_us));
                self.ask(cx, conn);
            }
        }
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let now_us = cx.now().as_micros();
        while let Some(frame) = cx.recv(conn) {
            if self.requests_left(conn) == 0 {
                return self.give_up(cx, conn, Cause::BadMessage);
            }
            let flow = &mut self.flows[conn.index() as usize];
            if !flow.answered {
                flow.answered = true;
                self.measure.first_byte_us.saturating_record(now_us.saturating_sub(flow.request_us));
            }
            match self.plan.answer {
                Answer::Bytes(_) => self.take_bytes(cx, conn, &frame),
                Answer::Http => self.take_http(cx, conn, &frame),
            }
        }
    }

    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if self.requests_left(conn) > 0 && self.flows[conn.index() as usize].unsent > 0 {
            self.send(cx, conn);
        }
    }

    fn on_peer_close(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let now_us = cx.now().as_micros();
        if let Some(flow) = self.flows.get_mut(conn.index() as usize)
            && flow.reader.as_ref().is_some_and(|reader| reader.at_close().is_some())
        {
            flow.requests_left = flow.requests_left.saturating_sub(1);
        }
        // A server may close after the last response: who is first is then a race.
        let done = self.requests_left(conn) == 0 && self.plan.requests > 0;
        let phase = match Phase::of(cx.user(conn)).0 {
            Phase::Working if done || self.plan.closer == Closer::Server && self.requests_left(conn) == 0 => {
                Phase::Closing
            }
            _ => Phase::Failing(Cause::ClosedEarly),
        };
        cx.set_user(conn, phase.since(now_us));
        cx.close(conn);
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.finish(cx, conn, cx.now().as_micros());
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, conn: ConnId, how: Closed) {
        let now_us = cx.now().as_micros();
        let reset_is_right = self.plan.closer == Closer::Server && self.plan.close == CloseBy::Rst;
        match Phase::of(cx.user(conn)) {
            (Phase::Closing, since_us) if how == Closed::Orderly => {
                self.measure.close_us.saturating_record(now_us - since_us);
                self.measure.close(now_us);
            }
            (Phase::Working, _) if how == Closed::Reset && reset_is_right && self.requests_left(conn) == 0 => {
                self.measure.close(now_us);
            }
            (Phase::Failing(cause), _) => self.measure.fail(cause, now_us),
            (phase, _) => {
                self.opening -= u64::from(phase == Phase::Opening);
                self.measure.fail(how.into(), now_us);
            }
        }
        if let Some(flow) = self.flows.get_mut(conn.index() as usize) {
            flow.conn = None;
        }
    }

    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        let now_us = cx.now().as_micros();
        if !self.hurried && self.watch.hurry.load(Ordering::Relaxed) {
            self.hurry(cx, now_us);
        }
        self.reset(cx, now_us);
        if !self.opens_no_more {
            self.open_more(cx, now_us);
        }
        // For a worker that sleeps: the reset is due in the next turn.
        if !self.to_reset.is_empty() {
            cx.wake_at(cx.now());
        }
        let finished = self.opens_no_more && self.measure.open() == 0;
        self.watch.publish(self.core, &self.measure, finished);
    }

    fn on_shutdown(&mut self, cx: &mut Cx<'_>) {
        let now_us = cx.now().as_micros();
        self.hurry(cx, now_us);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.measure.fail_many(Cause::Unfinished, self.measure.open());
        self.watch.publish(self.core, &self.measure, true);
        // Whoever does not wait for it does not want it.
        let _ = self.result.send(self.measure.clone());
    }
}

const CODE_BITS: u32 = 5;
/// Half a burst: each is answered, and the answers are to be taken in too.
const OPENS_PER_TURN: usize = 32;
/// Handshakes at once in closed loop, which is not to overrun a listener's backlog.
const OPENING_MAX: u64 = 4096;
const OPENS_PER_SOURCE: u64 = 256;
const SOURCES_TRIED: usize = 4;
const BLOCKED_US: u64 = 10_000;
/// How long after the end what was due before may be begun.
const LATE_US: u64 = 1_000_000;

#[cfg(test)]
mod tests;
