//! Applications of handfast for the tests, which count what happens to their connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use handfast::app::{App, Closed, ConnId, ConnectError, Cx};

use crate::kernel::{FirstToClose, REQUEST};

/// What the applications of all cores have seen.
#[derive(Debug, Default)]
pub struct Tally {
    accepted: AtomicU64,
    ended: AtomicU64,
    bytes: AtomicU64,
    how: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    /// Connections that peers opened.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Connections that are over, in whatever way.
    pub fn ended(&self) -> u64 {
        self.ended.load(Relaxed)
    }

    /// Bytes received.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// How many connections ended in each way.
    pub fn how(&self) -> BTreeMap<String, u64> {
        self.how.lock().expect("no application panics").clone()
    }

    /// Every one that is over ended in an orderly way, and there were so many.
    #[track_caller]
    pub fn assert_all_orderly(&self, count: u64) {
        assert_eq!(self.how(), BTreeMap::from([("Orderly".to_string(), count)]));
    }

    /// Waits until so many connections are over; says whether they are.
    pub fn wait_for(&self, ended: u64, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.ended() < ended && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.ended() >= ended
    }

    fn end(&self, how: Closed) {
        *self.how.lock().expect("no application panics").entry(format!("{how:?}")).or_default() += 1;
        self.ended.fetch_add(1, Relaxed);
    }
}

/// Sends back what comes. Closes when the peer has, or after one [`REQUEST`] if it is to close first.
#[derive(Debug)]
pub struct Echo {
    tally: Arc<Tally>,
    first: FirstToClose,
}

impl Echo {
    /// One for each core.
    pub fn new(tally: &Arc<Tally>, first: FirstToClose) -> Echo {
        Echo { tally: tally.clone(), first }
    }
}

impl App for Echo {
    fn on_accept(&mut self, _: &mut Cx<'_>, _: ConnId) {
        self.tally.accepted.fetch_add(1, Relaxed);
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while cx.room(conn) > 0
            && let Some(frame) = cx.recv(conn)
        {
            self.tally.bytes.fetch_add(frame.len() as u64, Relaxed);
            cx.set_user(conn, cx.user(conn) + frame.len() as u64);
            cx.send(conn, frame).expect("room was checked");
        }
        if self.first == FirstToClose::Server && cx.user(conn) >= REQUEST.len() as u64 {
            cx.close(conn);
        }
    }

    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.on_data(cx, conn);
    }

    fn on_close(&mut self, _: &mut Cx<'_>, _: ConnId, how: Closed) {
        self.tally.end(how);
    }
}

/// Opens connections; each sends a [`REQUEST`], reads an answer as long as that, and is closed.
#[derive(Debug)]
pub struct Opener {
    tally: Arc<Tally>,
    plan: Plan,
    begun: u64,
    open: u64,
}

/// What an [`Opener`] does on its core.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to; the connections are spread over all.
    pub to: Vec<SocketAddr>,
    /// How many in all.
    pub connections: u64,
    /// How many at a time.
    pub at_a_time: u64,
    /// What each says.
    pub request: &'static [u8],
    /// Who closes first: we, when so many bytes have been read, or the server.
    pub close_after: Option<u64>,
}

impl Opener {
    /// One for each core.
    pub fn new(tally: &Arc<Tally>, plan: Plan) -> Opener {
        Opener { tally: tally.clone(), plan, begun: 0, open: 0 }
    }

    fn open_more(&mut self, cx: &mut Cx<'_>) {
        while self.begun < self.plan.connections && self.open < self.plan.at_a_time {
            let to = self.plan.to[self.begun as usize % self.plan.to.len()];
            match cx.connect(to) {
                Ok(_) => {
                    self.begun += 1;
                    self.open += 1;
                }
                Err(ConnectError::NoPort) => return cx.wake_at(cx.now() + handfast::time::Duration::from_millis(1)),
                Err(error) => panic!("connecting to {to}: {error}"),
            }
        }
    }
}

impl App for Opener {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        self.open_more(cx);
    }

    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        assert_eq!(cx.write(conn, self.plan.request), self.plan.request.len(), "a new connection has room");
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while let Some(frame) = cx.recv(conn) {
            self.tally.bytes.fetch_add(frame.len() as u64, Relaxed);
            cx.set_user(conn, cx.user(conn) + frame.len() as u64);
        }
        if self.plan.close_after.is_some_and(|bytes| cx.user(conn) >= bytes) {
            cx.close(conn);
        }
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, _: ConnId, how: Closed) {
        self.open -= 1;
        self.tally.end(how);
        self.open_more(cx);
    }

    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        self.open_more(cx);
    }
}
