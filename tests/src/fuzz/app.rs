//! An application that does what a case says, and looks at what it is given.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use handfast::time::Duration;
use handfast::{App, Closed, ConnId, Cx, Frame};

use super::Seen;

/// What the application does between two turns.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    /// Lets go of the frames that it kept.
    Forget,
    Connect(u16),
    Listen(u16),
    Unlisten(u16),
    /// To one of its connections, or to one that is over.
    OfConn(u8, OfConn),
}

/// What it does to a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum OfConn {
    /// Writes so many bytes.
    Write(usize),
    /// Sends a frame of so many bytes.
    Send(usize),
    Shutdown,
    Close,
    Abort,
    /// Reads everything.
    Read,
    Nodelay(bool),
    Timer(u64),
    ClearTimer,
}

/// What it makes a habit of, as bits.
pub(super) mod habit {
    /// Leaves what comes in its queue.
    pub(crate) const LAZY: u8 = 1;
    /// Reads a frame at a time.
    pub(crate) const ONE: u8 = 2;
    /// Keeps the frames that it reads.
    pub(crate) const KEEPS: u8 = 4;
    /// Aborts when data comes.
    pub(crate) const ABORTS: u8 = 8;
    /// Closes when the peer does.
    pub(crate) const CLOSES: u8 = 16;
    /// Connects anew when a connection ends.
    pub(crate) const CONNECTS: u8 = 32;
    /// Writes when a connection opens, and when there is room again.
    pub(crate) const WRITES: u8 = 64;
}

#[derive(Debug)]
pub(super) struct Fuzzed {
    pub(super) conns: Vec<ConnId>,
    /// Connections that are over: calls about them do nothing.
    ghosts: VecDeque<ConnId>,
    pub(super) held: Vec<Frame>,
    pub(super) habits: u8,
    /// Sends back what it reads, and nothing else.
    pub(super) echoes: bool,
    pub(super) calls: Vec<Call>,
    pub(super) remote: IpAddr,
    pub(super) seen: Seen,
}

/// In a connection's word: the next byte of its stream to write, the next that must come, and whether any came.
const CAME: u64 = 1 << 40;

impl Fuzzed {
    pub(super) fn new(remote: IpAddr, habits: u8, echoes: bool) -> Fuzzed {
        Fuzzed {
            conns: Vec::new(),
            ghosts: VecDeque::new(),
            held: Vec::new(),
            habits,
            echoes,
            calls: Vec::new(),
            remote,
            seen: Seen::default(),
        }
    }

    fn has(&self, habit: u8) -> bool {
        self.habits & habit != 0
    }

    fn opened(&mut self, conn: ConnId) {
        assert!(!self.conns.contains(&conn), "a connection is told of once");
        self.conns.push(conn);
    }

    fn over(&mut self, conn: ConnId) {
        let at = self.conns.iter().position(|known| *known == conn).expect("what ends was told of");
        self.conns.swap_remove(at);
        self.ghosts.push_back(conn);
        self.ghosts.truncate(4);
    }

    fn read(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while !self.echoes || cx.room(conn) > 0 {
            let Some(frame) = cx.recv(conn) else { return };
            assert!(!frame.is_empty(), "an empty frame is no data");
            let user = cx.user(conn);
            let first = if user & CAME == 0 { frame[0] } else { (user >> 32) as u8 };
            for (at, &byte) in frame.iter().enumerate() {
                assert_eq!(byte, first.wrapping_add(at as u8), "byte {at} of what was received is in its place");
            }
            let next = first.wrapping_add(frame.len() as u8);
            cx.set_user(conn, user & 0xffff_ffff | u64::from(next) << 32 | CAME);
            if self.echoes {
                match cx.send(conn, frame) {
                    Ok(()) => {}
                    Err(refused) => return drop(refused),
                }
            } else if self.has(habit::KEEPS) && self.held.len() < HELD_MAX {
                self.held.push(frame);
            }
            if self.has(habit::ONE) {
                return;
            }
        }
    }

    /// Bytes of our stream count up from 0.
    fn write(&mut self, cx: &mut Cx<'_>, conn: ConnId, len: usize) {
        if self.echoes {
            return;
        }
        let user = cx.user(conn);
        let at = user as u32;
        let bytes: Vec<u8> = (0..len as u32).map(|i| at.wrapping_add(i) as u8).collect();
        let room = cx.room(conn);
        let written = cx.write(conn, &bytes);
        assert!(
            written <= bytes.len() && (written == 0 || room > 0),
            "{written} bytes where there was room for {room}"
        );
        cx.set_user(conn, user & !0xffff_ffff | u64::from(at.wrapping_add(written as u32)));
    }

    fn send(&mut self, cx: &mut Cx<'_>, conn: ConnId, len: usize) {
        if self.echoes {
            return;
        }
        let Some(mut frame) = cx.alloc() else { return };
        let user = cx.user(conn);
        let (at, len) = (user as u32, len.min(frame.tailroom()));
        let bytes: Vec<u8> = (0..len as u32).map(|i| at.wrapping_add(i) as u8).collect();
        frame.extend_from_slice(&bytes);
        if cx.send(conn, frame).is_ok() {
            cx.set_user(conn, user & !0xffff_ffff | u64::from(at.wrapping_add(len as u32)));
        }
    }

    fn call(&mut self, cx: &mut Cx<'_>, call: Call) {
        match call {
            Call::Forget => self.held.clear(),
            Call::Connect(port) => self.connect(cx, port),
            // It may be so already.
            Call::Listen(port) => cx.listen(port).unwrap_or_default(),
            Call::Unlisten(port) => _ = cx.unlisten(port),
            Call::OfConn(which, call) => self.call_of(cx, which, call),
        }
    }

    fn call_of(&mut self, cx: &mut Cx<'_>, which: u8, call: OfConn) {
        let conn = self.conns.get(usize::from(which) % self.conns.len().max(1));
        let Some(&conn) = conn.or_else(|| self.ghosts.get(usize::from(which) % 4)) else { return };
        match call {
            OfConn::Write(len) => self.write(cx, conn, len),
            OfConn::Send(len) => self.send(cx, conn, len),
            OfConn::Shutdown => cx.shutdown(conn),
            OfConn::Close => cx.close(conn),
            OfConn::Abort => {
                cx.abort(conn);
                if self.conns.contains(&conn) {
                    self.over(conn);
                }
            }
            OfConn::Read => self.read(cx, conn),
            OfConn::Nodelay(nodelay) => cx.set_nodelay(conn, nodelay),
            OfConn::Timer(ms) => cx.set_timer(conn, Duration::from_millis(ms)),
            OfConn::ClearTimer => cx.clear_timer(conn),
        }
    }

    fn connect(&mut self, cx: &mut Cx<'_>, port: u16) {
        if let Ok(conn) = cx.connect(SocketAddr::new(self.remote, port)) {
            self.opened(conn);
        }
    }
}

impl App for Fuzzed {
    fn on_accept(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.opened(conn);
        if self.has(habit::WRITES) {
            self.write(cx, conn, 3_000);
        }
    }

    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        assert!(self.conns.contains(&conn), "a connection that was begun");
        if self.has(habit::WRITES) {
            self.write(cx, conn, 100);
        }
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if self.has(habit::ABORTS) {
            cx.abort(conn);
            self.over(conn);
        } else if !self.has(habit::LAZY) {
            self.read(cx, conn);
        }
    }

    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if self.echoes {
            self.read(cx, conn);
        } else if self.has(habit::WRITES) {
            self.write(cx, conn, 1_000);
        }
    }

    fn on_peer_close(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        assert!(cx.peer_closed(conn) && cx.readable(conn) == 0, "the end comes after the data");
        if self.has(habit::CLOSES) {
            cx.close(conn);
        }
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, conn: ConnId, _how: Closed) {
        self.over(conn);
        if self.has(habit::CONNECTS) {
            self.connect(cx, 2_000);
        }
    }

    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        for call in std::mem::take(&mut self.calls) {
            self.call(cx, call);
        }
        for conn in &self.conns {
            if let Some(state) = cx.state(*conn) {
                self.seen.states[state as usize] += 1;
            }
        }
    }
}

const HELD_MAX: usize = 24;
