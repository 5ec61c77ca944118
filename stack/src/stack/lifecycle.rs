//! How connections begin and end outside of segments: listen, connect, close, abort, timers, and the calls to the application.

use core::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;
use handfast_drivers::burst::TxBurst;

use super::{Stack, enqueue};
use crate::app::{App, Closed, ConnId, ConnectError, Cx, ListenError};
use crate::demux::flow::FlowKey;
use crate::demux::flows::{Owner, Place};
use crate::demux::listeners::{self, Listener};
use crate::ip::{NeighbourId, NextHop};
use crate::metrics::{Counter, DropReason};
use crate::tcp::output::{self, Path, Progress};
use crate::tcp::state::State;
use crate::tcp::tcb::{Bits, Events, Tcb};
use crate::tcp::timers::{self, Expired};
use crate::tcp::{close, open, recv};
use crate::trace::TraceKind;
use crate::wire::address::Address;
use crate::wire::tcp::Flags;

impl Stack {
    pub(crate) fn listen(&mut self, local: Option<IpAddr>, port: u16) -> Result<(), ListenError> {
        let local = local.map(Address::from);
        if local.is_some_and(|local| !self.ip.is_ours(local)) {
            return Err(ListenError::NotOurAddress);
        }
        if self.shutting_down || port == 0 {
            return Err(ListenError::Refused);
        }
        let half_open_max = self.config.limits.backlog_max;
        let listener = Listener { address: local, port, half_open: 0, half_open_max };
        self.listeners.insert(listener).map(drop).map_err(|error| match error {
            listeners::ListenError::InUse => ListenError::InUse,
            listeners::ListenError::TooMany => ListenError::Refused,
        })
    }

    pub(crate) fn unlisten(&mut self, local: Option<IpAddr>, port: u16) -> bool {
        let local = local.map(Address::from);
        let found = self.listeners.iter().find(|(_, l)| l.address == local && l.port == port).map(|(id, _)| id);
        found.and_then(|id| self.listeners.remove(id)).is_some()
    }

    pub(crate) fn connect(&mut self, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        if let SocketAddr::V4(to) = &remote
            && let Some(conn) = self.connect_at_sight(to.ip().octets(), to.port())
        {
            return Ok(conn);
        }
        self.connect_from(None, remote)
    }

    /// Opens a connection as nearly all are opened: over IPv4, to whom one was opened before, from the next port whose answers come to
    /// this core, if it is free. `None`, and nothing opened, for any other.
    fn connect_at_sight(&mut self, remote: [u8; 4], remote_port: u16) -> Option<ConnId> {
        let Stack { ip, ports, hasher, flows, conns, isn, env, home, owing, link_mss: [_, mss], .. } = self;
        let local = ip.last_source_for_v4(remote)?;
        if self.shutting_down || remote_port == 0 || ip.knows_narrow_paths() {
            return None;
        }
        let walk = ports.towards_v4(local, remote, remote_port);
        let mut local_port = ports.peek(&walk)?;
        let mut key = FlowKey { local: Address::v4(local), remote: Address::v4(remote), local_port, remote_port };
        let mut tried = 1;
        while !home.is_at_v4(self.core, local, remote, key.ports()) {
            // To this port the answers would come to another core.
            if tried == PORTS_AT_SIGHT {
                return None;
            }
            tried += 1;
            ports.step(&walk);
            local_port = ports.peek(&walk)?;
            key.local_port = local_port;
        }
        let iss = isn.generate_v4(&key, env.now);
        let hash = hasher.hash_v4(local, remote, key.ports());
        let vacancy = flows.vacancy(hash)?;
        let (conn, tcb) = conns.take_place()?;
        open::active(tcb, key, iss, *mss, isn.timestamp_offset(hash), env);
        tcb.place = vacancy.fill(Owner::Conn(conn.index()));
        // It owes its SYN, and is in no queue yet.
        tcb.bits.set(Bits::OWING);
        owing.push_back(conn.index());
        env.metrics.count(Counter::ActiveOpens);
        ports.step(&walk);
        // Whoever opens one connection opens more: the place of the next one is on its way meanwhile.
        let next = FlowKey { local_port: ports.after(local_port), ..key };
        flows.prefetch(hasher.hash_v4(local, remote, next.ports()));
        Some(conn)
    }

    /// Opens any connection.
    #[inline(never)]
    pub(crate) fn connect_from(&mut self, local: Option<IpAddr>, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        if self.shutting_down {
            return Err(ConnectError::ShuttingDown);
        }
        let to = Address::from(remote.ip());
        if remote.port() == 0 {
            return Err(ConnectError::BadAddress);
        }
        let from = match (local, self.ip.last_source_for(to)) {
            // Whoever was connected to before may be connected to again.
            (None, Some(from)) => from,
            _ => self.ends_of(local.map(Address::from), to)?,
        };
        if self.conns.len() >= self.conns.capacity() {
            return Err(ConnectError::TooManyConnections);
        }
        let mut key = FlowKey { local: from, remote: to, local_port: 0, remote_port: remote.port() };
        let hash = self.take_port(&mut key).ok_or(ConnectError::NoPort)?;
        let (iss, mss) = (self.isn.generate(&key, self.env.now), self.local_mss(&key));
        let ts_offset = self.isn.timestamp_offset(hash);
        let (conn, tcb) = self.conns.take_place().ok_or(ConnectError::TooManyConnections)?;
        open::active(tcb, key, iss, mss, ts_offset, &self.env);
        let Some(place) = self.flows.insert(hash, Owner::Conn(conn.index())) else {
            self.conns.discard(conn.index());
            return Err(ConnectError::TooManyConnections);
        };
        tcb.place = place;
        self.env.metrics.count(Counter::ActiveOpens);
        // It owes its SYN, and is in no queue yet.
        tcb.bits.set(Bits::OWING);
        self.owing.push_back(conn.index());
        Ok(conn)
    }

    /// Our address for a connection to `to`, where both may be what they are.
    #[inline(never)]
    fn ends_of(&mut self, local: Option<Address>, to: Address) -> Result<Address, ConnectError> {
        if !to.is_valid_source() || to.is_unspecified() || self.ip.is_ours(to) {
            return Err(ConnectError::BadAddress);
        }
        match local {
            Some(local) if !self.ip.is_ours(local) => Err(ConnectError::NotOurAddress),
            Some(local) if local.is_v4() != to.is_v4() => Err(ConnectError::NoRoute),
            Some(local) => Ok(local),
            None => self.ip.source_for(to).ok_or(ConnectError::NoRoute),
        }
    }

    /// Gives `key` a port of ours: one whose flow is new and whose answers come to this core. Its hash, or `None` without a port.
    fn take_port(&mut self, key: &mut FlowKey) -> Option<u64> {
        let mut walk = self.ports.towards(key);
        loop {
            key.local_port = self.ports.next(&mut walk)?;
            let hash = self.hasher.hash(key);
            let taken = self.flows.may_have(hash) && self.owner(key, hash).is_some();
            if !taken && (!self.home.is_spread() || self.home.of(key) == self.core) {
                let next = FlowKey { local_port: self.ports.after(key.local_port), ..*key };
                self.flows.prefetch(self.hasher.hash(&next));
                return Some(hash);
            }
        }
    }

    /// The MSS to announce and to send at most: what the path carries (RFC 9293 §3.7.1, RFC 6691).
    #[inline(always)]
    pub(super) fn local_mss(&self, key: &FlowKey) -> u16 {
        match self.ip.knows_narrow_paths() {
            true => output::mss(self.ip.path_mtu(self.env.now, key.remote), key.local.is_v4()),
            false => self.link_mss[usize::from(key.local.is_v4())],
        }
    }

    #[inline]
    pub(crate) fn close(&mut self, conn: ConnId) {
        let Some(tcb) = self.conns.get_mut(conn) else { return };
        if !close::close_at_sight(tcb) {
            return self.close_any(conn);
        }
        enqueue(tcb, conn.index(), &mut self.marked, &mut self.owing);
    }

    #[cold]
    fn close_any(&mut self, conn: ConnId) {
        let Stack { conns, env, marked, owing, .. } = self;
        let Some(tcb) = conns.get_mut(conn).filter(|tcb| !tcb.bits.has(Bits::REPORTED)) else { return };
        if tcb.state() == State::SynSent {
            tcb.bits.set(Bits::APP_CLOSED);
            return self.end(conn.index(), Closed::Aborted);
        }
        // Where both halves are closed already, a reset would tell the peer nothing.
        if tcb.rx_bytes > 0 && !tcb.is_over() {
            tcb.bits.set(Bits::RESET_OWED);
        }
        close::close(tcb, env);
        enqueue(tcb, conn.index(), marked, owing);
    }

    pub(crate) fn abort(&mut self, conn: ConnId) {
        let Stack { conns, marked, owing, .. } = self;
        let Some(tcb) = conns.get_mut(conn).filter(|tcb| !tcb.bits.has(Bits::REPORTED)) else { return };
        // The application knows: there is nothing to tell it any more.
        tcb.bits.set(if tcb.is_over() { Bits::REPORTED } else { Bits::REPORTED.and(Bits::RESET_OWED) });
        enqueue(tcb, conn.index(), marked, owing);
    }

    /// The connection is over, and what it received is gone. Record and flow stay until the application has heard of it.
    pub(super) fn end(&mut self, at: u32, how: Closed) {
        let Some(tcb) = self.conns.at_mut(at) else { return };
        if tcb.state() != State::Closed {
            tcb.enter(State::Closed);
        }
        if how == Closed::TimedOut {
            self.env.metrics.count(Counter::TimedOut);
        }
        tcb.closed = Some(how);
        tcb.events.take(Events(u8::MAX));
        tcb.bits.clear(Bits::RTX_ARMED.and(timers::OTHER_DEADLINES));
        recv::discard(tcb, &mut self.env);
        match tcb.bits.has(Bits::REPORTED) {
            true => self.owe(at), // there is nobody to hear of it
            false => self.mark(at),
        }
    }

    /// Sends the reset of a connection that we give up, if the peer knows of it.
    pub(super) fn reset(&mut self, at: u32, tx: &mut TxBurst) {
        let now = self.env.now;
        let Some(tcb) = self.conns.at_mut(at) else { return };
        if !output::knows_us(tcb) {
            return;
        }
        if let NextHop::Ready(mac) = self.ip.next_hop(now, tcb.key.remote, &mut tcb.neighbour, None) {
            let path = Path::new(self.ip.ethernet(mac), &tcb.key.remote, self.tx_checksum);
            output::reset(tcb, &mut self.env, &path, tx);
        }
    }

    /// Lets time pass: deadlines of connections, half-open ones, TIME-WAIT, neighbours.
    pub(super) fn expire(&mut self, tx: &mut TxBurst) {
        let now_ms = self.env.now_ms;
        let mut looked_at = 0;
        for _ in 0..ENTRIES_PER_TURN {
            if looked_at == DEADLINES_PER_TURN {
                break;
            }
            let Some(at) = self.wheel.pop_expired(now_ms) else { break };
            // Many an entry is of a connection that has ended.
            let Some(tcb) = self.conns.at_mut(at) else { continue };
            looked_at += 1;
            tcb.bits.clear(Bits::WHEEL_ARMED);
            let expired = timers::expired(tcb, &mut self.env);
            if self.trace.wants(tcb.bits.has(Bits::TRACED)) {
                let (seq, ack) = (tcb.snd_una, tcb.rcv_nxt);
                self.note(at, TraceKind::Expired, Flags::default(), seq, ack, 0);
            }
            match expired {
                Expired::Alive => self.mark(at),
                Expired::TimedOut => {
                    self.reset(at, tx);
                    self.end(at, Closed::TimedOut);
                }
                Expired::Abandoned => self.end(at, Closed::Orderly),
            }
        }
        self.retry_half_open(tx);
        self.expire_time_waits();
        self.ip.poll(self.env.now, &self.env.pool, tx, &mut self.env.metrics);
        self.wake_waiters();
    }

    /// Ends TIME-WAITs. Their flows were last looked up long ago, so a few are fetched together.
    fn expire_time_waits(&mut self) {
        let Stack { waiting, flows, hasher, env, .. } = self;
        for _ in 0..TIME_WAITS_PER_TURN / TIME_WAITS_AT_ONCE {
            let mut over = ArrayVec::<(Place, u32), TIME_WAITS_AT_ONCE>::new();
            waiting.discard_over(env.now_ms, |at, record| {
                let place = record.place.place();
                if place == Place::BEYOND {
                    let is_removed = flows.remove(hasher.hash(&record.key), Owner::TimeWait(at));
                    debug_assert!(is_removed, "what waits has a flow");
                    return true;
                }
                flows.prefetch_at(place);
                over.try_push((place, at)).is_ok()
            });
            for (place, at) in &over {
                let is_removed = flows.remove_at(*place, Owner::TimeWait(*at));
                debug_assert!(is_removed, "what waits has a flow");
            }
            if !over.is_full() {
                break;
            }
        }
    }

    /// Sends SYN-ACKs again that were not answered, and forgets those that never were.
    fn retry_half_open(&mut self, tx: &mut TxBurst) {
        let now = self.env.now;
        while tx.room() > 0
            && let Some(at) = self.half_open.due(self.env.now_ms)
        {
            let Some(&record) = self.half_open.get(at) else { return };
            if record.retries >= self.env.config.syn_ack_retries || self.shutting_down {
                self.env.metrics.count(Counter::SynRcvdExpired);
                self.forget_half_open(at, self.hasher.hash(&record.key));
                continue;
            }
            let mut neighbour = NeighbourId::default();
            if let NextHop::Ready(mac) = self.ip.next_hop(now, record.key.remote, &mut neighbour, None) {
                let path = Path::new(self.ip.ethernet(mac), &record.key.remote, self.tx_checksum);
                let ts_value = self.ts_value(self.hasher.hash(&record.key));
                let header = open::syn_ack(&record, &self.env.config, self.local_mss(&record.key), ts_value);
                let ip = crate::wire::packet::Ip::new(record.key.local, record.key.remote);
                if output::send_bare(&ip, &header, &self.env.pool, &path, tx) == Progress::Done {
                    self.env.metrics.count(Counter::Retransmissions);
                }
            }
            self.half_open.retried(at, self.env.now_ms);
        }
    }

    /// Connections whose neighbour has answered, or has not, try to send again.
    fn wake_waiters(&mut self) {
        let Stack { ip, conns, marked, owing, .. } = self;
        for at in ip.take_woken() {
            if let Some(tcb) = conns.at_mut(at) {
                tcb.bits.clear(Bits::AWAITS_NEIGHBOUR);
                enqueue(tcb, at, marked, owing);
            }
        }
    }

    /// Stage 4: each marked connection once, its events in the order in which they come about.
    pub(super) fn call<A: App>(&mut self, app: &mut A) {
        // Callbacks mark more.
        while !self.marked.is_empty() {
            let walk = self.marked.walk();
            for &at in walk.indices() {
                self.call_for(at, app);
            }
            self.marked.ended(walk);
        }
        if self.wake_at.is_some_and(|at| at <= self.env.now) {
            self.wake_at = None;
        }
        app.on_turn(&mut Cx { stack: self });
        // What on_turn marked needs output, and its events wait for the next turn.
        for at in 0..self.marked.len() {
            if let Some(index) = self.marked.get(at) {
                self.owe(index);
            }
        }
    }

    /// Calls the application about the events of a connection; what one call changes decides about the next. No call releases the
    /// connection, which stays marked until they are over: so what they do to it needs no second look.
    #[inline]
    fn call_for<A: App>(&mut self, at: u32, app: &mut A) {
        let Some((conn, mut tcb)) = self.conns.entry_mut(at) else { return };
        let passive = tcb.events.has(Events::ACCEPTED);
        if takes(tcb, Events::ACCEPTED.and(Events::CONNECTED)) {
            tcb.bits.set(Bits::APP_KNOWS);
            match passive {
                true => app.on_accept(&mut Cx { stack: self }, conn),
                false => app.on_connect(&mut Cx { stack: self }, conn),
            }
            let Some(again) = self.conns.at_mut(at) else { return };
            tcb = again;
        }
        if tcb.events.has(Events::DATA.and(Events::WRITABLE).and(Events::TIMER)) {
            self.report_progress(at, conn, app);
            let Some(again) = self.conns.at_mut(at) else { return };
            tcb = again;
        }
        // The end of the stream comes after the data.
        if tcb.events.has(Events::PEER_CLOSED) && tcb.rx.is_empty() && takes(tcb, Events::PEER_CLOSED) {
            app.on_peer_close(&mut Cx { stack: self }, conn);
            let Some(again) = self.conns.at_mut(at) else { return };
            tcb = again;
        }
        if tcb.is_over() {
            let is_news = !tcb.bits.has(Bits::REPORTED) && (tcb.rx.is_empty() || tcb.bits.has(Bits::APP_CLOSED));
            let end = is_news.then(|| (tcb.closed.unwrap_or(Closed::Orderly), tcb.bits));
            return self.report_end(conn, end, app);
        }
        let mut bits = tcb.bits;
        bits.clear(Bits::MARKED);
        if bits.has(Bits::OWING) {
            tcb.bits = bits;
        } else if bits.has(output::OWED.and(Bits::RESET_OWED)) || output::is_owing(tcb) {
            bits.set(Bits::OWING);
            tcb.bits = bits;
            self.owing.push_back(at);
        } else {
            tcb.bits.clear(Bits::MARKED);
            self.settle(at);
        }
    }

    /// The calls between a connection's beginning and its end.
    #[inline]
    fn report_progress<A: App>(&mut self, at: u32, conn: ConnId, app: &mut A) {
        if self.conns.at_mut(at).is_some_and(|tcb| takes(tcb, Events::DATA)) {
            app.on_data(&mut Cx { stack: self }, conn);
        }
        if self.conns.at_mut(at).is_some_and(|tcb| takes(tcb, Events::WRITABLE)) {
            app.on_writable(&mut Cx { stack: self }, conn);
        }
        if self.conns.at_mut(at).is_some_and(|tcb| takes(tcb, Events::TIMER)) {
            app.on_timer(&mut Cx { stack: self }, conn);
        }
    }

    /// Tells the application, once, how a connection ended, when all its data was taken.
    #[inline(always)]
    fn report_end<A: App>(&mut self, conn: ConnId, end: Option<(Closed, Bits)>, app: &mut A) {
        let at = conn.index();
        if let Some((how, bits)) = end {
            if self.trace.wants(bits.has(Bits::TRACED)) {
                self.note_ended(at);
            }
            if bits.has(Bits::APP_KNOWS) {
                app.on_close(&mut Cx { stack: self }, conn, how);
            }
        }
        let Some(tcb) = self.conns.at_mut(at) else { return };
        let mut bits = tcb.bits;
        if let Some((how, _)) = end {
            // Unless the call has aborted it.
            if how == Closed::Orderly && !bits.has(Bits::REPORTED) {
                self.env.metrics.count(Counter::ClosedOrderly);
            }
            bits.set(Bits::REPORTED);
        }
        bits.clear(Bits::MARKED);
        if bits.has(Bits::OWING) {
            tcb.bits = bits;
        } else if bits.only(Bits::REPORTED.and(Bits::RESET_OWED)) == Bits::REPORTED && !output::is_owing(tcb) {
            // What owes nothing need not wait for its output.
            tcb.bits = bits;
            let ending = Ending::of(tcb);
            self.release(at, ending);
        } else {
            bits.set(Bits::OWING);
            tcb.bits = bits;
            self.owing.push_back(at);
        }
    }

    #[cold]
    fn note_ended(&mut self, at: u32) {
        if let Some((seq, ack)) = self.conns.at(at).map(|tcb| (tcb.snd_nxt, tcb.rcv_nxt)) {
            self.note(at, TraceKind::Ended, Flags::default(), seq, ack, 0);
        }
    }

    /// Has a connection looked at in stage 5.
    #[inline]
    pub(super) fn owe(&mut self, at: u32) {
        if let Some(tcb) = self.conns.at_mut(at)
            && !tcb.bits.has(Bits::OWING)
        {
            tcb.bits.set(Bits::OWING);
            self.owing.push_back(at);
        }
    }

    /// The record's end: everything of it goes back to where it came from. TIME-WAIT goes on in a record of its own.
    #[inline(always)]
    pub(super) fn release(&mut self, at: u32, ending: Ending) -> Progress {
        match ending {
            Ending::WithFrames => self.release_with_frames(at),
            Ending::Waiting => self.release_and_wait(at),
            Ending::AtOnce(place) => self.release_at_once(at, place),
        }
    }

    /// The end of a record that frames are queued on.
    #[cold]
    fn release_with_frames(&mut self, at: u32) -> Progress {
        let Stack { conns, env, .. } = self;
        let Some(tcb) = conns.at_mut(at) else { return Progress::Done };
        recv::discard(tcb, env);
        env.tx.clear(&mut tcb.tx);
        let place = tcb.place;
        match tcb.state() == State::TimeWait {
            true => self.release_and_wait(at),
            false => self.release_at_once(at, place),
        }
    }

    /// The end of a record that leaves nothing behind.
    #[inline(never)]
    fn release_at_once(&mut self, at: u32, place: Place) -> Progress {
        if !self.flows.remove_at(place, Owner::Conn(at)) {
            self.forget_beyond(at);
        }
        // The wheel keeps its entry, for the next connection in this place, or finds nobody there.
        self.conns.discard(at);
        Progress::Done
    }

    /// The end of a record that goes on in TIME-WAIT.
    #[inline(never)]
    fn release_and_wait(&mut self, at: u32) -> Progress {
        let Stack { conns, env, waiting, flows, .. } = self;
        let Some(tcb) = conns.at(at) else { return Progress::Done };
        let Some(waits) = waiting.insert(env.now_ms, || close::time_wait(tcb)) else {
            return self.make_room_to_wait(at);
        };
        env.metrics.count(Counter::TimeWaits);
        if !flows.replace_at(tcb.place, Owner::Conn(at), Owner::TimeWait(waits)) {
            self.wait_beyond(at, waits);
        }
        self.conns.discard(at);
        Progress::Done
    }

    /// The flow of this connection is not in the first bucket: it is looked for.
    #[cold]
    fn forget_beyond(&mut self, at: u32) {
        if let Some(tcb) = self.conns.at(at) {
            self.flows.remove(self.hasher.hash(&tcb.key), Owner::Conn(at));
        }
    }

    #[cold]
    fn wait_beyond(&mut self, at: u32, waits: u32) {
        if let Some(tcb) = self.conns.at(at) {
            self.flows.replace(self.hasher.hash(&tcb.key), Owner::Conn(at), Owner::TimeWait(waits));
        }
    }

    /// The connection in TIME-WAIT that has waited longest makes room for this one.
    #[cold]
    fn make_room_to_wait(&mut self, at: u32) -> Progress {
        let Some((oldest, key)) = self.waiting.oldest().map(|(oldest, record)| (oldest, record.key)) else {
            return self.release_at_once(at, Place::BEYOND);
        };
        self.waiting.remove(oldest);
        self.flows.remove(self.hasher.hash(&key), Owner::TimeWait(oldest));
        self.env.metrics.dropped(DropReason::TimeWaitFull);
        self.release_and_wait(at)
    }

    /// Resets every connection that is left.
    pub fn abort_all(&mut self) {
        let all: alloc::vec::Vec<ConnId> = self.conns.iter().map(|(conn, _)| conn).collect();
        for conn in all {
            self.abort(conn);
        }
    }
}

/// How a record ends.
#[derive(Clone, Copy)]
pub(super) enum Ending {
    /// First the frames that are queued on it are freed.
    WithFrames,
    /// It goes on in TIME-WAIT.
    Waiting,
    /// Nothing is left of it, and its flow is here.
    AtOnce(Place),
}

impl Ending {
    /// How this one does.
    #[inline(always)]
    pub(super) fn of(tcb: &Tcb) -> Ending {
        if tcb.has_frames() {
            return Ending::WithFrames;
        }
        if tcb.state() == State::TimeWait { Ending::Waiting } else { Ending::AtOnce(tcb.place) }
    }
}

/// Takes events away: whether there was one, and the application still wants to hear of it.
#[inline(always)]
fn takes(tcb: &mut Tcb, events: Events) -> bool {
    tcb.events.has(events) && {
        tcb.events.take(events);
        !tcb.bits.has(Bits::APP_CLOSED.and(Bits::REPORTED))
    }
}

/// Deadlines that fall together are spread over turns, lest what arrives meanwhile find its queue full.
const DEADLINES_PER_TURN: usize = 1_024;
const ENTRIES_PER_TURN: usize = 8 * DEADLINES_PER_TURN;
/// As many as find one of this core's, nearly always, with 16 queues.
const PORTS_AT_SIGHT: usize = 64;
const TIME_WAITS_PER_TURN: usize = 512;
const TIME_WAITS_AT_ONCE: usize = 16;
