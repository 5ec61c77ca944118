//! What an application sees: its connections by [`ConnId`], events by [`App`], and the stack by [`Cx`].
//!
//! Events come once per connection and burst, after the whole burst was taken in. Data is pulled: what the application does
//! not [`recv`](Cx::recv) stays queued and closes the peer's window. A callback may use any connection, its own included.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use handfast_drivers::frame::Frame;
use thiserror::Error;

pub use crate::demux::conns::ConnId;
use crate::metrics::Metrics;
use crate::stack::Stack;
pub use crate::tcp::close::Closed;
use crate::tcp::state::State;
use crate::tcp::tcb::{Bits, Events, Tcb};
use crate::tcp::{chain, close, recv, send_queue};
use crate::time::{Duration, Instant};

/// An application: one value per core.
#[expect(unused_variables, reason = "the defaults do nothing")]
pub trait App {
    /// The core starts: open what is to be open.
    fn on_start(&mut self, cx: &mut Cx<'_>) {}

    /// A peer opened `conn` to a port that this stack listens on.
    fn on_accept(&mut self, cx: &mut Cx<'_>, conn: ConnId) {}

    /// A [`connect`](Cx::connect) succeeded.
    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {}

    /// Data came. Not called again for the same data: what is left in the queue is the application's to remember.
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {}

    /// There is room to send again, after [`room`](Cx::room) was 0 or a send was refused.
    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {}

    /// The peer has closed its half, and everything that it sent was taken. We may still send.
    fn on_peer_close(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        cx.close(conn);
    }

    /// The timer that [`set_timer`](Cx::set_timer) set went off.
    fn on_timer(&mut self, cx: &mut Cx<'_>, conn: ConnId) {}

    /// The connection is over. `conn` means nothing after this call. Not called after [`abort`](Cx::abort).
    fn on_close(&mut self, cx: &mut Cx<'_>, conn: ConnId, how: Closed) {}

    /// Called once a turn of the core's loop, and at the latest when [`wake_at`](Cx::wake_at) said.
    fn on_turn(&mut self, cx: &mut Cx<'_>) {}

    /// The process is to end: stop beginning things. Listeners are closed; connections have until the deadline.
    fn on_shutdown(&mut self, cx: &mut Cx<'_>) {}
}

/// Why [`Cx::connect`] did not begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No route, or no address of the same family.
    #[error("no route to the address, or no local address of its family: add an address or a gateway")]
    NoRoute,
    /// The local address is not one of the stack's.
    #[error("the local address is not one of this stack's")]
    NotOurAddress,
    /// Every local port towards that address is in use or in TIME-WAIT.
    #[error("every local port towards this address is in use: add local addresses or widen the ephemeral range")]
    NoPort,
    /// Every connection record is in use.
    #[error("all connection records are in use: raise limits.conns_max")]
    TooManyConnections,
    /// Nobody can be connected to at this address: unspecified, multicast, broadcast, or port 0.
    #[error("not an address that a connection can be opened to")]
    BadAddress,
    /// The process is ending.
    #[error("the stack is shutting down")]
    ShuttingDown,
}

/// Why [`Cx::listen`] did not begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another listener has it.
    #[error("the port is being listened on already")]
    InUse,
    /// Not an address of this stack.
    #[error("the address is not one of this stack's")]
    NotOurAddress,
    /// Too many listeners, or port 0.
    #[error("port 0, or too many listeners")]
    Refused,
}

/// A frame that was not sent, given back.
pub struct SendRefused {
    /// The frame.
    pub frame: Frame,
    /// Why.
    pub reason: SendError,
}

/// Why a send was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SendError {
    /// No such connection any more.
    #[error("no such connection")]
    Stale,
    /// Our half is closed.
    #[error("this half of the connection is closed")]
    Closing,
    /// The send queue is full: wait for `on_writable`.
    #[error("the send queue is full")]
    Full,
    /// There is no room for headers before the payload.
    #[error("less than {HEADERS_MAX} bytes are free before the payload: write the bytes instead")]
    Headroom,
    /// The frame is of another region: its bytes must be written instead.
    #[error("the frame belongs to another device: write its bytes instead")]
    Foreign,
}

impl fmt::Debug for SendRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)
    }
}

impl fmt::Display for SendRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)
    }
}

impl core::error::Error for SendRefused {}

/// The stack, as a callback sees it.
#[derive(Debug)]
pub struct Cx<'a> {
    pub(crate) stack: &'a mut Stack,
}

impl Cx<'_> {
    /// Opens a connection. The outcome comes as `on_connect` or `on_close`.
    pub fn connect(&mut self, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        self.stack.connect(remote)
    }

    /// Opens a connection from one of the stack's addresses.
    pub fn connect_from(&mut self, local: IpAddr, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        self.stack.connect_from(Some(local), remote)
    }

    /// Accepts connections to `port` of every address. Each core listens for its own.
    pub fn listen(&mut self, port: u16) -> Result<(), ListenError> {
        self.stack.listen(None, port)
    }

    /// Accepts connections to `port` of one address.
    pub fn listen_on(&mut self, local: IpAddr, port: u16) -> Result<(), ListenError> {
        self.stack.listen(Some(local), port)
    }

    /// Accepts no more connections to `port` of every address; those that are open stay. Whether it was listened on.
    pub fn unlisten(&mut self, port: u16) -> bool {
        self.stack.unlisten(None, port)
    }

    /// Accepts no more connections to `port` of one address; those that are open stay. Whether it was listened on.
    pub fn unlisten_on(&mut self, local: IpAddr, port: u16) -> bool {
        self.stack.unlisten(Some(local), port)
    }

    /// The oldest frame of received data; `None` if there is none now.
    pub fn recv(&mut self, conn: ConnId) -> Option<Frame> {
        let (tcb, env) = self.stack.conn_mut(conn)?;
        let frame = recv::take(tcb, env)?;
        // An event waits for the queue to be empty: the end of the stream comes after the data.
        self.stack.mark(conn.index());
        Some(frame)
    }

    /// Bytes that were received and not taken.
    pub fn readable(&self, conn: ConnId) -> u32 {
        self.stack.conn(conn).map_or(0, |tcb| tcb.rx_bytes)
    }

    /// The peer has closed its half and everything that it sent was taken.
    pub fn peer_closed(&self, conn: ConnId) -> bool {
        self.stack.conn(conn).is_none_or(|tcb| tcb.bits.has(Bits::PEER_FIN) && tcb.rx.is_empty())
    }

    /// An empty frame to fill and [`send`](Self::send); `None` when frames are short.
    pub fn alloc(&mut self) -> Option<Frame> {
        let env = self.stack.env();
        if env.pool.free() <= env.frames_reserved { None } else { env.pool.alloc() }
    }

    /// Bytes that may be queued now. When this is 0, `on_writable` tells when it no longer is.
    pub fn room(&mut self, conn: ConnId) -> u32 {
        let Some((tcb, env)) = self.stack.conn_mut(conn) else { return 0 };
        if !tcb.state().can_queue() || tcb.bits.has(Bits::FIN_QUEUED) {
            return 0;
        }
        let room = send_queue::room(tcb, env);
        if room == 0 {
            tcb.bits.set(Bits::WANTS_ROOM);
        }
        room
    }

    /// The most payload that one segment to this peer carries: frames up to this size are sent without a copy.
    pub fn segment_max(&self, conn: ConnId) -> u32 {
        self.stack.conn(conn).map_or(0, Tcb::segment_max)
    }

    /// Queues a frame's payload, without a copy. It is sent after the callbacks of this burst. Accepted whole while there is
    /// any [`room`](Self::room).
    pub fn send(&mut self, conn: ConnId, frame: Frame) -> Result<(), SendRefused> {
        match self.try_send(conn, &frame) {
            Err(reason) => Err(SendRefused { frame, reason }),
            Ok(()) => {
                // An empty frame says nothing; it goes back to its pool.
                if let Some((tcb, env)) = self.stack.conn_mut(conn).filter(|_| !frame.is_empty()) {
                    send_queue::push(tcb, frame, env);
                    self.stack.mark(conn.index());
                }
                Ok(())
            }
        }
    }

    fn try_send(&mut self, conn: ConnId, frame: &Frame) -> Result<(), SendError> {
        let Some((tcb, env)) = self.stack.conn_mut(conn) else { return Err(SendError::Stale) };
        if !tcb.state().can_queue() || tcb.bits.has(Bits::FIN_QUEUED) {
            return Err(SendError::Closing);
        }
        if !frame.is_in(env.pool.region()) {
            return Err(SendError::Foreign);
        }
        if frame.headroom() < HEADERS_MAX {
            return Err(SendError::Headroom);
        }
        if send_queue::room(tcb, env) == 0 {
            tcb.bits.set(Bits::WANTS_ROOM);
            return Err(SendError::Full);
        }
        Ok(())
    }

    /// Queues a copy of `bytes`, as many as there is room for; says how many.
    pub fn write(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        let Some((tcb, env)) = self.stack.conn_mut(conn) else { return 0 };
        if !tcb.state().can_queue() || tcb.bits.has(Bits::FIN_QUEUED) {
            return 0;
        }
        let written = send_queue::write(tcb, bytes, env);
        if written < bytes.len() {
            tcb.bits.set(Bits::WANTS_ROOM);
        }
        self.stack.mark(conn.index());
        written
    }

    /// Closes our half: the peer reads the end of the stream after what was queued; it may still send.
    pub fn shutdown(&mut self, conn: ConnId) {
        if let Some((tcb, _)) = self.stack.conn_mut(conn) {
            close::shutdown(tcb);
            self.stack.mark(conn.index());
        }
    }

    /// Closes the connection: what was queued is sent, what still comes is refused. With data unread it is a reset
    /// (RFC 9293 §3.6.1, RFC 2525 §2.17), so that the peer does not believe it arrived.
    pub fn close(&mut self, conn: ConnId) {
        self.stack.close(conn);
    }

    /// Ends the connection at once by a reset. There is no `on_close`.
    pub fn abort(&mut self, conn: ConnId) {
        self.stack.abort(conn);
    }

    /// Sends small segments at once (no Nagle).
    pub fn set_nodelay(&mut self, conn: ConnId, nodelay: bool) {
        if let Some((tcb, _)) = self.stack.conn_mut(conn) {
            match nodelay {
                true => tcb.bits.set(Bits::NODELAY),
                false => tcb.bits.clear(Bits::NODELAY),
            }
            self.stack.mark(conn.index());
        }
    }

    /// Calls `on_timer` for this connection after `span`, to the millisecond; replaces the timer that was set before.
    pub fn set_timer(&mut self, conn: ConnId, span: Duration) {
        if let Some((tcb, env)) = self.stack.conn_mut(conn) {
            tcb.bits.set(Bits::APP_ARMED);
            tcb.app_at_ms = env.now_ms.wrapping_add(span.as_millis().min(u64::from(u32::MAX >> 1)) as u32);
            self.stack.mark(conn.index());
        }
    }

    /// Takes the connection's timer back.
    pub fn clear_timer(&mut self, conn: ConnId) {
        if let Some((tcb, _)) = self.stack.conn_mut(conn) {
            tcb.bits.clear(Bits::APP_ARMED);
            tcb.events.take(Events::TIMER);
        }
    }

    /// Calls `on_turn` at this time or soon after, even if nothing else happens.
    pub fn wake_at(&mut self, at: Instant) {
        self.stack.wake_at(at);
    }

    /// The application's word about a connection: 0 until it is set.
    pub fn user(&self, conn: ConnId) -> u64 {
        self.stack.conn(conn).map_or(0, |tcb| tcb.user)
    }

    /// Keeps a word about a connection: an index, a pointer's place in a table, a time.
    pub fn set_user(&mut self, conn: ConnId, user: u64) {
        if let Some((tcb, _)) = self.stack.conn_mut(conn) {
            tcb.user = user;
        }
    }

    /// Our end of the connection.
    pub fn local(&self, conn: ConnId) -> Option<SocketAddr> {
        self.stack.conn(conn).map(|tcb| SocketAddr::new(tcb.key.local.into(), tcb.key.local_port))
    }

    /// The peer's end of the connection.
    pub fn remote(&self, conn: ConnId) -> Option<SocketAddr> {
        self.stack.conn(conn).map(|tcb| SocketAddr::new(tcb.key.remote.into(), tcb.key.remote_port))
    }

    /// The connection's state; `None` if there is no such connection any more.
    pub fn state(&self, conn: ConnId) -> Option<State> {
        self.stack.conn(conn).map(Tcb::state)
    }

    /// Smoothed round-trip time in microseconds; 0 before the first measurement.
    pub fn srtt_us(&self, conn: ConnId) -> u32 {
        self.stack.conn(conn).map_or(0, |tcb| tcb.rtt.srtt_us)
    }

    /// Bytes queued and not yet acknowledged by the peer.
    pub fn unacknowledged(&self, conn: ConnId) -> u32 {
        self.stack.conn(conn).map_or(0, Tcb::tx_bytes)
    }

    /// Bytes of them that were never sent.
    pub fn unsent(&self, conn: ConnId) -> u32 {
        self.stack.conn(conn).map_or(0, |tcb| match tcb.tx_unsent {
            chain::NIL => 0,
            _ => tcb.snd_end.since(tcb.snd_nxt.min(tcb.snd_end)),
        })
    }

    /// Something waits for its turn to be sent: an acknowledgment, data, a FIN. An [`abort`](Self::abort) would overtake it.
    pub fn is_owing(&self, conn: ConnId) -> bool {
        self.stack.conn(conn).is_some_and(|tcb| tcb.bits.has(Bits::OWING))
    }

    /// Records what happens to this connection in the core's trace ring.
    pub fn trace(&mut self, conn: ConnId, on: bool) {
        if let Some((tcb, _)) = self.stack.conn_mut(conn) {
            match on {
                true => tcb.bits.set(Bits::TRACED),
                false => tcb.bits.clear(Bits::TRACED),
            }
        }
    }

    /// Records what happens to every connection of this core, or only to those that were chosen. Read it through
    /// [`stack`](Self::stack)`().trace()`.
    pub fn trace_all(&mut self, all: bool) {
        self.stack.trace_all(all);
    }

    /// Time of this turn.
    pub fn now(&self) -> Instant {
        self.stack.env().now
    }

    /// Which of the stack's cores this is, from 0.
    pub fn core(&self) -> u16 {
        self.stack.core()
    }

    /// This core's counters.
    pub fn metrics(&self) -> &Metrics {
        &self.stack.env().metrics
    }

    /// How many connections this core has, from SYN-SENT to LAST-ACK.
    pub fn connections(&self) -> u32 {
        self.stack.connections()
    }

    /// The stack itself.
    pub fn stack(&self) -> &Stack {
        self.stack
    }
}

/// Ethernet with a VLAN tag, IPv6, the longest TCP header.
const HEADERS_MAX: usize = 18 + 40 + 60;
