//! A client that opens many connections, says something on each and keeps what it hears.

use std::collections::VecDeque;
use std::net::SocketAddr;

use handfast::app::{App, Closed, ConnId, Cx};

use crate::world::SERVER;

/// What a connection does, and what became of it.
#[derive(Default)]
pub(crate) struct Talk {
    /// What to say. Each piece is a segment of its own, and each turn says one.
    pub(crate) say: VecDeque<Vec<u8>>,
    /// Close our half once all is said.
    pub(crate) shutdown: bool,
    /// Reset the connection once all is said and something was heard.
    pub(crate) abort: bool,
    /// Bytes to read in a turn; 0: all there are.
    pub(crate) read_max: usize,
    pub(crate) heard: Vec<u8>,
    /// The peer has closed its half.
    pub(crate) ended: bool,
    pub(crate) closed: Option<Closed>,
    pub(crate) done: bool,
}

impl Talk {
    /// Says `pieces`, then closes our half.
    pub(crate) fn saying(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Talk {
        let say = pieces.into_iter().map(|piece| piece.as_ref().to_vec()).collect();
        Talk { say, shutdown: true, ..Talk::default() }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.heard).into_owned()
    }
}

/// The application of the client's end.
#[derive(Default)]
pub(crate) struct Client {
    pub(crate) port: u16,
    pub(crate) talks: Vec<Talk>,
    /// The talks that are going on.
    live: Vec<(ConnId, usize)>,
    begun: usize,
    /// Stands still: neither says nor reads anything.
    pub(crate) pause: bool,
}

impl Client {
    pub(crate) fn new(port: u16, talks: impl IntoIterator<Item = Talk>) -> Client {
        Client { port, talks: talks.into_iter().collect(), ..Client::default() }
    }

    /// How many were opened.
    pub(crate) fn begun(&self) -> usize {
        self.begun
    }

    /// Every talk is over: both ends have closed.
    pub(crate) fn is_done(&self) -> bool {
        self.talks.iter().all(|talk| talk.closed.is_some() || talk.abort && talk.done)
    }
}

impl App for Client {
    fn on_peer_close(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let talk = &mut self.talks[cx.user(conn) as usize];
        talk.ended = true;
        if talk.say.is_empty() {
            cx.close(conn);
        }
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, conn: ConnId, how: Closed) {
        self.talks[cx.user(conn) as usize].closed = Some(how);
    }

    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        if self.pause {
            return;
        }
        // Not all at once: a listener's backlog has an end.
        for _ in 0..CONNECTS_PER_TURN {
            if self.begun < self.talks.len() {
                let conn = cx.connect(SocketAddr::from((SERVER, self.port))).expect("there are ports and records");
                cx.set_user(conn, self.begun as u64);
                cx.set_nodelay(conn, true);
                self.live.push((conn, self.begun));
                self.begun += 1;
            }
        }
        self.live.retain(|&(conn, at)| {
            let talk = &mut self.talks[at];
            go_on(talk, cx, conn);
            cx.state(conn).is_some() && talk.closed.is_none()
        });
        let busy = self.begun < self.talks.len() || self.talks.iter().any(|talk| !talk.done && talk.closed.is_none());
        if busy {
            cx.wake_at(cx.now());
        }
    }
}

fn go_on(talk: &mut Talk, cx: &mut Cx<'_>, conn: ConnId) {
    let mut left = if talk.read_max == 0 { usize::MAX } else { talk.read_max };
    while left > 0
        && let Some(frame) = cx.recv(conn)
    {
        talk.heard.extend_from_slice(&frame);
        left = left.saturating_sub(frame.len());
    }
    let segment_max = cx.segment_max(conn) as usize;
    // A piece longer than a segment goes as several.
    while cx.room(conn) > 0
        && let Some(piece) = talk.say.front_mut()
        && let Some(mut frame) = cx.alloc()
    {
        let len = piece.len().min(segment_max);
        frame.extend_from_slice(&piece[..len]);
        piece.drain(..len);
        cx.send(conn, frame).expect("there is room");
        if piece.is_empty() {
            talk.say.pop_front();
            break;
        }
    }
    if talk.say.is_empty() && !talk.done && !(talk.abort && talk.heard.is_empty()) {
        talk.done = true;
        if talk.abort {
            cx.abort(conn);
        } else if talk.shutdown {
            cx.shutdown(conn);
        }
    }
    if talk.ended && talk.say.is_empty() {
        cx.close(conn);
    }
}

const CONNECTS_PER_TURN: usize = 8;
