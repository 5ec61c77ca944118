//! What the hosts' applications do, and the ledger in which both ends of each connection write what they did: who wrote which
//! bytes, who read them, and how it ended.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use handfast::time::{Duration, Instant};
use handfast::{App, Closed, ConnId, Cx};

use super::packet::{ACK, SYN, Segment};

/// What one side of a connection does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Bytes that it sends.
    pub bytes: u64,
    /// Bytes a call.
    pub chunk: u64,
    /// Pause after each call, in milliseconds; 0: none.
    pub pause_ms: u64,
    /// In frames of its own instead of by `write`.
    pub by_frame: bool,
    /// Small segments go at once.
    pub nodelay: bool,
    /// When it begins to send.
    pub starts: Starts,
    /// How it reads.
    pub reads: Reads,
    /// Milliseconds of silence before it ends.
    pub idle_ms: u64,
    /// How it ends.
    pub ends: Ends,
    /// Instead of all that: sends back what comes, and closes when the peer has.
    pub echo: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            bytes: 0,
            chunk: 64 << 10,
            pause_ms: 0,
            by_frame: false,
            nodelay: false,
            starts: Starts::AtOnce,
            reads: Reads::AtOnce,
            idle_ms: 0,
            ends: Ends::Shutdown,
            echo: false,
        }
    }
}

/// When a side begins to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Starts {
    /// When the connection is open.
    AtOnce,
    /// When the peer has closed its half.
    AfterPeerClose,
    /// When so many bytes have come.
    AfterBytes(u64),
}

/// How a side reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reads {
    /// What is there.
    AtOnce,
    /// Nothing for so many milliseconds.
    AfterMs(u64),
    /// So many frames, then a pause of so many milliseconds.
    Slowly(u32, u64),
}

/// How a side ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// Closes its half when it has sent all.
    Shutdown,
    /// Closes its half when it has sent all and the peer has closed.
    AfterPeer,
    /// Closes its half when it has sent all and so many bytes have come.
    AfterBytes(u64),
    /// Closes both halves when it has sent all, whatever has not been read. Unruly.
    Close,
    /// Resets when it has sent or received so many bytes. Unruly.
    AbortAt(u64),
}

impl Ends {
    /// It may end in a reset.
    pub fn is_unruly(self) -> bool {
        matches!(self, Ends::Close | Ends::AbortAt(_))
    }
}

/// What one side did.
#[derive(Clone, Debug)]
pub struct Side {
    /// What it was to do.
    pub plan: Plan,
    /// Which bytes it sends.
    pub stream: u64,
    /// The connection was open here.
    pub opened: bool,
    /// Bytes given to its stack.
    pub sent: u64,
    /// Bytes read.
    pub received: u64,
    /// It closed its half.
    pub finished: bool,
    /// It read the end of the peer's stream.
    pub peer_closed: bool,
    /// How it ended here.
    pub closed: Option<Closed>,
    /// It reset the connection.
    pub aborted: bool,
    /// Its host crashed while it was open.
    pub crashed: bool,
}

/// A connection between two hosts, begun or to be begun.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The side that connects, and the other.
    pub sides: [Side; 2],
    /// Their addresses, once known.
    pub ends: Option<[SocketAddr; 2]>,
    /// When it was begun.
    pub begun: Option<Instant>,
    /// It cannot be held against anybody how this one ended: a host crashed, or the network was dark for too long.
    pub excused: bool,
}

/// All connections of a world.
#[derive(Debug, Default)]
pub struct Ledger {
    /// In the order of their plans.
    pub pairs: Vec<Pair>,
    by_ends: HashMap<[SocketAddr; 2], usize>,
    /// Whose SYN it was, by its sequence number: ports come again.
    syns: HashMap<([SocketAddr; 2], u32), usize>,
    /// The sequence number of the SYN that was answered last, by who answered whom.
    answered: HashMap<[SocketAddr; 2], u32>,
}

impl Ledger {
    /// Notes a connection to be begun.
    pub fn plan(&mut self, client: Plan, server: Plan) -> usize {
        let number = self.pairs.len() as u64;
        let side = |plan, side: u64| Side {
            plan,
            stream: (2 * number + side + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            opened: false,
            sent: 0,
            received: 0,
            finished: false,
            peer_closed: false,
            closed: None,
            aborted: false,
            crashed: false,
        };
        self.pairs.push(Pair { sides: [side(client, 0), side(server, 1)], ends: None, begun: None, excused: false });
        self.pairs.len() - 1
    }

    /// A SYN or a SYN-ACK leaves its host.
    pub fn saw(&mut self, segment: &Segment) {
        let ends = [segment.from, segment.to];
        if segment.has(SYN) && segment.has(ACK) {
            self.answered.insert(ends, segment.ack.wrapping_sub(1));
        } else if let Some(&pair) = self.by_ends.get(&ends).filter(|_| segment.has(SYN)) {
            self.syns.entry((ends, segment.seq)).or_insert(pair);
        }
    }

    /// The connection that is open now at `local`, if somebody began it and it was not open there before.
    fn accepted(&mut self, local: SocketAddr, remote: SocketAddr) -> Option<usize> {
        let irs = *self.answered.get(&[local, remote])?;
        let pair = *self.syns.get(&([remote, local], irs))?;
        let side = &mut self.pairs[pair].sides[1];
        (!std::mem::replace(&mut side.opened, true)).then_some(pair)
    }
}

/// The ledger, as the applications of all hosts share it.
pub type Book = Rc<RefCell<Ledger>>;

/// Byte `at` of a stream.
#[inline]
pub fn byte(stream: u64, at: u64) -> u8 {
    let x = (at ^ stream).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (x >> 56) as u8
}

/// Something that a test has an application do.
pub type Act = Box<dyn FnOnce(&mut Cx<'_>, &mut Peer)>;

/// The application of a host: both ends of every kind of connection.
pub struct Peer {
    /// What it does in its next turn.
    pub acts: Vec<Act>,
    book: Book,
    mine: Vec<Mine>,
    /// Connections that came and were refused by the application, for plans without a partner.
    pub strangers: Vec<SocketAddr>,
    /// It accepts what nobody planned, and echoes: for tests that play the other side themselves.
    pub hospitable: bool,
    /// Everything that it was told, in order.
    pub told: Vec<(Instant, ConnId, Told)>,
}

/// What an application was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// on_accept
    Accepted,
    /// on_connect
    Connected,
    /// on_peer_close
    PeerClosed,
    /// on_close
    Closed(Closed),
}

#[derive(Debug)]
struct Mine {
    pair: usize,
    side: usize,
    may_read_at: Instant,
    may_send_at: Instant,
    idle_since: Option<Instant>,
}

impl Peer {
    /// Of a host that has just come up.
    pub fn new(book: Book) -> Peer {
        Peer { acts: Vec::new(), book, mine: Vec::new(), strangers: Vec::new(), hospitable: false, told: Vec::new() }
    }

    /// Begins a planned connection.
    pub fn connect(&mut self, cx: &mut Cx<'_>, pair: usize, to: SocketAddr) -> Option<ConnId> {
        let conn = cx.connect(to).ok()?;
        let mut book = self.book.borrow_mut();
        let ends = [cx.local(conn)?, cx.remote(conn)?];
        book.by_ends.insert(ends, pair);
        book.pairs[pair].ends = Some(ends);
        book.pairs[pair].begun = Some(cx.now());
        drop(book);
        self.take(cx, conn, pair, 0);
        Some(conn)
    }

    /// Begins the other side of a planned connection, which is to be opened from both at once.
    pub fn connect_too(&mut self, cx: &mut Cx<'_>, pair: usize, to: SocketAddr) -> Option<ConnId> {
        let conn = cx.connect(to).ok()?;
        self.take(cx, conn, pair, 1);
        Some(conn)
    }

    /// Its plans have changed: it looks at all its connections again.
    pub fn go_on(&mut self, cx: &mut Cx<'_>) {
        for conn in self.told.iter().map(|(_, conn, _)| *conn).collect::<Vec<_>>() {
            if cx.state(conn).is_some() {
                self.advance(cx, conn);
            }
        }
    }

    /// How often it was told this.
    pub fn times(&self, what: Told) -> usize {
        self.told.iter().filter(|(_, _, told)| *told == what).count()
    }

    fn take(&mut self, cx: &mut Cx<'_>, conn: ConnId, pair: usize, side: usize) {
        self.mine.push(Mine { pair, side, may_read_at: Instant::ZERO, may_send_at: Instant::ZERO, idle_since: None });
        cx.set_user(conn, self.mine.len() as u64);
    }

    /// Everything of this host is gone.
    pub fn crashed(&self) {
        let mut book = self.book.borrow_mut();
        for mine in &self.mine {
            let side = &mut book.pairs[mine.pair].sides[mine.side];
            if side.closed.is_none() && !side.aborted {
                side.crashed = true;
                book.pairs[mine.pair].excused = true;
            }
        }
    }

    fn note(&mut self, cx: &Cx<'_>, conn: ConnId, told: Told) {
        if self.told.len() < 10_000 {
            self.told.push((cx.now(), conn, told));
        }
    }

    /// The connection is open: from now on its plan counts.
    fn opened(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if let Some(at) = (cx.user(conn) as usize).checked_sub(1) {
            let mine = &mut self.mine[at];
            let side = &mut self.book.borrow_mut().pairs[mine.pair].sides[mine.side];
            side.opened = true;
            cx.set_nodelay(conn, side.plan.nodelay);
            if let Reads::AfterMs(ms) = side.plan.reads {
                mine.may_read_at = cx.now() + Duration::from_millis(ms);
            }
        }
        self.advance(cx, conn);
    }

    /// Reads, sends and ends as planned, as far as it goes now.
    fn advance(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let Some(at) = (cx.user(conn) as usize).checked_sub(1) else { return self.entertain(cx, conn) };
        let book = self.book.clone();
        let book = &mut *book.borrow_mut();
        let mine = &mut self.mine[at];
        let [first, second] = &mut book.pairs[mine.pair].sides;
        let (me, peer) = if mine.side == 0 { (first, second) } else { (second, first) };
        // The peer of an echo hears its own bytes.
        let stream = if peer.plan.echo { me.stream } else { peer.stream };
        if me.aborted {
            return;
        }
        read(cx, conn, mine, me, stream);
        if matches!(me.plan.ends, Ends::AbortAt(bytes) if me.sent >= bytes || me.received >= bytes) {
            me.aborted = true;
            return cx.abort(conn);
        }
        if !me.plan.echo {
            send(cx, conn, mine, me);
        }
        end(cx, conn, mine, me);
        let waits = [mine.may_read_at, mine.may_send_at];
        let idle = mine.idle_since.map(|since| since + Duration::from_millis(me.plan.idle_ms));
        let next = waits.into_iter().chain(idle).filter(|at| *at > cx.now()).min();
        if let Some(next) = next {
            cx.set_timer(conn, Duration::from_micros(next.since(cx.now()).as_micros() + 1000));
        }
    }

    /// A stranger's bytes go back to him.
    fn entertain(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while cx.room(conn) > 0
            && let Some(frame) = cx.recv(conn)
        {
            let _ = cx.send(conn, frame);
        }
    }
}

fn read(cx: &mut Cx<'_>, conn: ConnId, mine: &mut Mine, me: &mut Side, stream: u64) {
    if cx.now() < mine.may_read_at {
        return;
    }
    let mut frames = match me.plan.reads {
        Reads::Slowly(frames, _) => frames,
        _ => u32::MAX,
    };
    while frames > 0 && (!me.plan.echo || cx.room(conn) > 0) {
        let Some(frame) = cx.recv(conn) else { break };
        for &found in frame.iter() {
            let expected = byte(stream, me.received);
            assert!(found == expected, "byte {} is {found} and not {expected}: {me:?}", me.received);
            me.received += 1;
        }
        if me.plan.echo {
            me.sent += frame.len() as u64;
            cx.send(conn, frame).expect("room was asked for");
        }
        frames -= 1;
        if frames == 0
            && let Reads::Slowly(_, pause_ms) = me.plan.reads
        {
            mine.may_read_at = cx.now() + Duration::from_millis(pause_ms);
        }
    }
}

fn send(cx: &mut Cx<'_>, conn: ConnId, mine: &mut Mine, me: &mut Side) {
    let started = match me.plan.starts {
        Starts::AtOnce => true,
        Starts::AfterPeerClose => me.peer_closed,
        Starts::AfterBytes(bytes) => me.received >= bytes || me.peer_closed,
    };
    while started && me.sent < me.plan.bytes && cx.now() >= mine.may_send_at {
        let len = me.plan.chunk.min(me.plan.bytes - me.sent).min(u64::from(cx.room(conn).max(1)));
        let bytes: Vec<u8> = (me.sent..me.sent + len).map(|at| byte(me.stream, at)).collect();
        let taken = match me.plan.by_frame {
            true => {
                let Some(mut frame) = cx.alloc() else {
                    mine.may_send_at = cx.now() + Duration::from_millis(2);
                    break;
                };
                let taken = frame.extend_from_slice(&bytes);
                if cx.send(conn, frame).is_ok() { taken } else { 0 }
            }
            false => cx.write(conn, &bytes),
        };
        me.sent += taken as u64;
        if taken == 0 {
            break;
        }
        if me.plan.pause_ms > 0 {
            mine.may_send_at = cx.now() + Duration::from_millis(me.plan.pause_ms);
        }
    }
}

fn end(cx: &mut Cx<'_>, conn: ConnId, mine: &mut Mine, me: &mut Side) {
    let sent_all = match me.plan.echo {
        true => me.peer_closed && cx.readable(conn) == 0,
        false => me.sent == me.plan.bytes,
    };
    let waits_for_peer = match me.plan.ends {
        Ends::AfterPeer => !me.peer_closed,
        Ends::AfterBytes(bytes) => me.received < bytes && !me.peer_closed,
        Ends::Shutdown | Ends::Close | Ends::AbortAt(_) => false,
    };
    if me.finished || !sent_all || waits_for_peer {
        return;
    }
    let since = *mine.idle_since.get_or_insert(cx.now());
    if cx.now() < since + Duration::from_millis(me.plan.idle_ms) {
        return;
    }
    me.finished = true;
    match me.plan.ends {
        Ends::Close => cx.close(conn),
        Ends::Shutdown | Ends::AfterPeer | Ends::AfterBytes(_) | Ends::AbortAt(_) => cx.shutdown(conn),
    }
}

impl App for Peer {
    fn on_accept(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.note(cx, conn, Told::Accepted);
        let (Some(local), Some(remote)) = (cx.local(conn), cx.remote(conn)) else { return };
        let book = self.book.clone();
        let mut book = book.borrow_mut();
        let pair = book.accepted(local, remote);
        let Some(pair) = pair else {
            assert!(self.hospitable, "a connection is open here that nobody has begun: {remote} → {local}");
            return self.strangers.push(remote);
        };
        drop(book);
        self.take(cx, conn, pair, 1);
        self.opened(cx, conn);
    }

    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.note(cx, conn, Told::Connected);
        self.opened(cx, conn);
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.advance(cx, conn);
    }

    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.advance(cx, conn);
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.advance(cx, conn);
    }

    fn on_peer_close(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.note(cx, conn, Told::PeerClosed);
        match (cx.user(conn) as usize).checked_sub(1) {
            Some(at) => {
                let Mine { pair, side, .. } = self.mine[at];
                self.book.borrow_mut().pairs[pair].sides[side].peer_closed = true;
                self.advance(cx, conn);
            }
            None => cx.close(conn),
        }
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, conn: ConnId, how: Closed) {
        self.note(cx, conn, Told::Closed(how));
        if let Some(at) = (cx.user(conn) as usize).checked_sub(1) {
            let Mine { pair, side, .. } = self.mine[at];
            let side = &mut self.book.borrow_mut().pairs[pair].sides[side];
            assert!(side.closed.is_none() && !side.aborted, "told twice that it is over: {side:?}");
            side.closed = Some(how);
        }
    }

    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        for act in std::mem::take(&mut self.acts) {
            act(cx, self);
        }
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peer of {} connections", self.mine.len())
    }
}
