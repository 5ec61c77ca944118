//! The applications that serve connections.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use handfast::time::Duration;
use handfast::{App, Closed, ConnId, Cx};

use super::args::{AppKind, CloseBy, Closer};
use super::client::Phase;
use super::http::{Kind, Reader};
use super::measure::{Cause, Measure, Watch};
use super::plan::ServerPlan;

/// One worker of a server.
pub(super) struct Server {
    plan: Arc<ServerPlan>,
    core: u16,
    measure: Measure,
    watch: Watch,
    result: Sender<Measure>,
    /// By the index of the connection; empty for applications that remember nothing.
    flows: Vec<Flow>,
}

/// What is to be remembered of a connection.
#[derive(Clone, Default, Debug)]
struct Flow {
    conn: Option<ConnId>,
    /// Bytes of the current request that came.
    got: u32,
    /// Responses that are to be sent, the one that is being sent included.
    owed: u32,
    /// Bytes of the current response that were sent.
    sent: usize,
    /// Requests that were answered.
    answered: u32,
    /// To be closed when nothing is owed any more.
    last: bool,
    /// By the last request.
    asked_to_close: bool,
    reader: Reader,
}

impl Server {
    pub(super) fn new(plan: Arc<ServerPlan>, core: u16, watch: Watch, result: Sender<Measure>) -> Server {
        Server { plan, core, measure: Measure::new(), watch, result, flows: Vec::new() }
    }

    fn flow(&mut self, conn: ConnId) -> &mut Flow {
        let index = conn.index() as usize;
        if index >= self.flows.len() {
            self.flows.resize(index + 1, Flow::default());
        }
        let flow = &mut self.flows[index];
        if flow.conn != Some(conn) {
            *flow = Flow { conn: Some(conn), ..Flow::default() };
        }
        flow
    }

    fn closes_first(&self) -> bool {
        self.plan.closer == Closer::Server
    }

    /// Sends what is owed, as far as there is room; closes if that was all.
    fn answer(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let (plan, closes_first) = (self.plan.clone(), self.closes_first());
        let flow = self.flow(conn);
        while flow.owed > 0 {
            let asked_to_close = flow.asked_to_close && flow.owed == 1;
            let last = asked_to_close || closes_first && flow.answered + 1 == plan.requests;
            let response = if last { &plan.last_response } else { &plan.response };
            flow.sent += cx.write(conn, &response[flow.sent..]);
            if flow.sent < response.len() {
                return;
            }
            flow.sent = 0;
            flow.owed -= 1;
            flow.answered += 1;
        }
        self.close_after_requests(cx, conn);
    }

    fn close_after_requests(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let done = self.closes_first() && self.plan.requests > 0;
        let requests = self.plan.requests;
        let flow = self.flow(conn);
        if flow.last {
            self.close(cx, conn);
        } else if done && flow.answered >= requests {
            self.hold(cx, conn);
        }
    }

    /// Closes when the time to hold is over.
    fn hold(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        match self.plan.hold.as_micros() {
            0 => self.close(cx, conn),
            _ => cx.set_timer(conn, self.plan.hold),
        }
    }

    fn close(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let now_us = cx.now().as_micros();
        if self.closes_first() && self.plan.close == CloseBy::Rst {
            if cx.unacknowledged(conn) > 0 {
                // A reset would overtake the response.
                return cx.set_timer(conn, RESET_AFTER);
            }
            cx.abort(conn);
            self.measure.close(now_us);
        } else {
            cx.set_user(conn, Phase::Closing.since(now_us));
            cx.close(conn);
        }
    }

    fn echo(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let counts = self.closes_first();
        while cx.room(conn) > 0
            && let Some(frame) = cx.recv(conn)
        {
            let len = frame.len() as u32;
            // Of another device's memory, or without room for headers, it could only be if this stack had not received it.
            cx.send(conn, frame).expect("room was checked");
            if counts {
                self.count(conn, len);
            }
        }
        if counts {
            self.close_after_requests(cx, conn);
        }
    }

    fn discard(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let counts = self.closes_first();
        while let Some(frame) = cx.recv(conn) {
            if counts {
                self.count(conn, frame.len() as u32);
            }
        }
        if counts {
            self.close_after_requests(cx, conn);
        }
    }

    /// Counts requests that need no response, or that have it already.
    fn count(&mut self, conn: ConnId, len: u32) {
        let request_bytes = self.plan.request_bytes.max(1);
        let flow = self.flow(conn);
        let got = u64::from(flow.got) + u64::from(len);
        flow.got = (got % u64::from(request_bytes)) as u32;
        flow.answered += (got / u64::from(request_bytes)) as u32;
    }

    fn take_requests(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        // Responses that the client does not read are not made: its requests wait in the receive queue.
        while self.flow(conn).owed < OWED_MAX
            && let Some(frame) = cx.recv(conn)
        {
            if self.plan.app == AppKind::Http {
                let flow = self.flow(conn);
                let (mut owed, mut last) = (0, flow.asked_to_close);
                let read = flow.reader.read(Kind::Request, &frame, |message| {
                    owed += u32::from(!last);
                    last |= message.last;
                });
                flow.owed += owed;
                flow.last |= last;
                flow.asked_to_close |= last;
                if read.is_err() {
                    cx.abort(conn);
                    self.measure.fail(Cause::BadMessage, cx.now().as_micros());
                    return;
                }
            } else {
                let answered = self.flow(conn).answered;
                self.count(conn, frame.len() as u32);
                let flow = self.flow(conn);
                flow.owed += flow.answered - answered;
                flow.answered = answered;
            }
        }
        if self.flow(conn).owed > 0 {
            self.answer(cx, conn);
        }
    }
}

impl App for Server {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        self.measure.start(cx.now().as_micros());
    }

    fn on_accept(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let now_us = cx.now().as_micros();
        self.measure.opened += 1;
        self.measure.established += 1;
        cx.set_user(conn, Phase::Opening.since(now_us));
        if self.closes_first() && self.plan.requests == 0 {
            self.hold(cx, conn);
        }
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if let (Phase::Opening, since_us) = Phase::of(cx.user(conn)) {
            let now_us = cx.now().as_micros();
            self.measure.first_byte_us.saturating_record(now_us - since_us);
            cx.set_user(conn, Phase::Working.since(now_us));
        }
        match self.plan.app {
            AppKind::Discard => self.discard(cx, conn),
            AppKind::Echo => self.echo(cx, conn),
            AppKind::Answer | AppKind::Http => self.take_requests(cx, conn),
        }
    }

    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        match self.plan.app {
            AppKind::Discard => {}
            AppKind::Echo => self.echo(cx, conn),
            AppKind::Answer | AppKind::Http => {
                self.answer(cx, conn);
                self.take_requests(cx, conn);
            }
        }
    }

    fn on_peer_close(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let remembers = matches!(self.plan.app, AppKind::Answer | AppKind::Http);
        if remembers && self.flow(conn).owed > 0 {
            // It may read still.
            self.flow(conn).last = true;
        } else {
            self.close(cx, conn);
        }
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.close(cx, conn);
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, conn: ConnId, how: Closed) {
        let now_us = cx.now().as_micros();
        let reset_is_right = self.plan.closer == Closer::Client && self.plan.close == CloseBy::Rst;
        match Phase::of(cx.user(conn)) {
            (Phase::Closing, since_us) if how == Closed::Orderly => {
                self.measure.close_us.saturating_record(now_us - since_us);
                self.measure.close(now_us);
            }
            _ if how == Closed::Reset && reset_is_right => self.measure.close(now_us),
            _ => self.measure.fail(how.into(), now_us),
        }
    }

    fn on_turn(&mut self, _: &mut Cx<'_>) {
        self.watch.publish(self.core, &self.measure, false);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.measure.fail_many(Cause::Unfinished, self.measure.open());
        self.watch.publish(self.core, &self.measure, true);
        // Whoever does not wait for it does not want it.
        let _ = self.result.send(self.measure.clone());
    }
}

const RESET_AFTER: Duration = Duration::from_millis(1);
/// Responses to pipelined requests.
const OWED_MAX: u32 = 1024;
