use std::net::SocketAddr;

use handfast::app::{App, Closed, ConnId, Cx};
use handfast::metrics::Counter;
use handfast::time::Duration;

use crate::client::{Client, Talk};
use crate::tcp_proxy::Proxy;
use crate::world::{CLIENT, World};

/// The proxy has one wire, so the server behind it is at the client's end.
struct Behind {
    client: Client,
    origin: Origin,
}

/// Which of the two a connection is of: the client's are those that it opened.
fn is_clients(cx: &Cx<'_>, conn: ConnId) -> bool {
    cx.local(conn).is_none_or(|local| local.port() != ORIGIN_PORT)
}

macro_rules! to_each {
    ($($name:ident($($arg:ident: $type:ty),*)),*) => {
        $(fn $name(&mut self, cx: &mut Cx<'_>, conn: ConnId, $($arg: $type),*) {
            match is_clients(cx, conn) {
                true => self.client.$name(cx, conn, $($arg),*),
                false => self.origin.$name(cx, conn, $($arg),*),
            }
        })*
    };
}

impl App for Behind {
    to_each!(on_accept(), on_data(), on_writable(), on_peer_close(), on_close(how: Closed));

    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        self.client.on_turn(cx);
    }
}

/// What the server behind the proxy does.
#[derive(Default)]
struct Origin {
    /// Send everything back. Otherwise it is only counted.
    echo: bool,
    /// Send this first and close our half; then hear the rest.
    greeting: Vec<u8>,
    greeted: Vec<(ConnId, usize)>,
    /// Reset each connection that says anything.
    reset: bool,
    accepted: u32,
    heard: u64,
    closed: Vec<Closed>,
}

impl Origin {
    fn greet(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let Some((_, at)) = self.greeted.iter_mut().find(|(greeted, _)| *greeted == conn) else { return };
        while *at < self.greeting.len() && cx.room(conn) > 0 {
            let Some(mut frame) = cx.alloc() else { panic!("there are frames") };
            let len = (self.greeting.len() - *at).min(cx.segment_max(conn) as usize);
            frame.extend_from_slice(&self.greeting[*at..*at + len]);
            *at += len;
            cx.send(conn, frame).expect("there is room");
        }
        if *at == self.greeting.len() {
            cx.shutdown(conn);
        }
    }
}

impl App for Origin {
    fn on_accept(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.accepted += 1;
        if !self.greeting.is_empty() {
            self.greeted.push((conn, 0));
            self.greet(cx, conn);
        }
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if self.reset {
            return cx.abort(conn);
        }
        while (!self.echo || cx.room(conn) > 0)
            && let Some(frame) = cx.recv(conn)
        {
            self.heard += frame.len() as u64;
            if self.echo {
                cx.send(conn, frame).expect("there is room");
            }
        }
    }

    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.greet(cx, conn);
        self.on_data(cx, conn);
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, _conn: ConnId, how: Closed) {
        self.closed.push(how);
    }
}

const PORT: u16 = 80;
const ORIGIN_PORT: u16 = 8080;

fn world(origin: Origin, talks: impl IntoIterator<Item = Talk>) -> World<Proxy, Behind> {
    let proxy = Proxy { to: SocketAddr::from((CLIENT, ORIGIN_PORT)) };
    World::new(proxy, Behind { client: Client::new(PORT, talks), origin }, |config| {
        config.listen = vec![PORT, ORIGIN_PORT]
    })
}

fn pattern(n: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + n * 7) as u8).collect()
}

#[test]
fn a_thousand_connections_come_back_whole_and_nothing_is_copied() {
    // The clients close their half first; the echo of what they said, and then the other half, follow.
    let talk = |n| Talk::saying(pattern(n, 1 + n * 37).chunks(1000));
    let mut world = world(Origin { echo: true, ..Origin::default() }, (0..1000).map(talk));
    world.run_until(Duration::from_secs(300), |world| world.client.app.client.is_done());
    assert_eq!(world.server.count(Counter::PayloadBytesCopied), 0);
    assert_eq!(world.server.count(Counter::ResetsSent), 0);
    let (_, Behind { client, origin }) = world.finish();
    for (n, talk) in client.talks.iter().enumerate() {
        assert!(talk.heard == pattern(n, 1 + n * 37), "talk {n} heard {} bytes", talk.heard.len());
        assert_eq!((talk.ended, talk.closed), (true, Some(Closed::Orderly)), "talk {n}");
    }
    assert_eq!(origin.closed, [Closed::Orderly; 1000]);
}

#[test]
fn a_server_that_closes_its_half_first_still_hears_the_rest() {
    let greeting = pattern(1, 100_000);
    let mut talk = Talk::saying(pattern(2, 200_000).chunks(1448));
    talk.shutdown = true;
    let mut world = world(Origin { greeting: greeting.clone(), ..Origin::default() }, [talk]);
    world.run_until(Duration::from_secs(60), |world| world.client.app.client.is_done());
    assert_eq!(world.server.count(Counter::PayloadBytesCopied), 0);
    let (_, Behind { client, origin }) = world.finish();
    assert!(client.talks[0].heard == greeting);
    assert_eq!((client.talks[0].closed, origin.heard), (Some(Closed::Orderly), 200_000));
}

#[test]
fn a_client_that_does_not_read_stops_the_server() {
    let talk = Talk { say: [b"x".to_vec()].into(), ..Talk::default() };
    let greeting = pattern(3, 8 << 20);
    let mut world = world(Origin { greeting: greeting.clone(), ..Origin::default() }, [talk]);
    world.run_until(Duration::from_secs(10), |world| world.client.app.client.begun() == 1);
    world.client.app.client.pause = true;
    let paused = world.now;
    world.run_until(Duration::from_secs(30), |world| world.now.since(paused) > Duration::from_secs(20));
    let sent = world.client.app.origin.greeted[0].1;
    assert!(sent < 2 << 20, "{sent} bytes are in buffers: they have limits");
    world.client.app.client.pause = false;
    world.run_until(Duration::from_secs(300), |world| world.client.app.client.is_done());
    let (_, Behind { client, .. }) = world.finish();
    assert!(client.talks[0].heard == greeting);
}

#[test]
fn a_reset_on_one_side_is_a_reset_on_the_other() {
    let waiting = || Talk { say: [b"hello".to_vec()].into(), ..Talk::default() };
    let mut by_server = world(Origin { reset: true, ..Origin::default() }, [waiting()]);
    by_server.run_until(Duration::from_secs(10), |world| world.client.app.client.is_done());
    let (_, Behind { client, .. }) = by_server.finish();
    assert_eq!(client.talks[0].closed, Some(Closed::Reset));

    let quitter = Talk { say: [b"hello".to_vec(), b"again".to_vec()].into(), abort: true, ..Talk::default() };
    let mut by_client = world(Origin { echo: true, ..Origin::default() }, [quitter]);
    by_client.run_until(Duration::from_secs(10), |world| !world.client.app.origin.closed.is_empty());
    let (_, Behind { origin, .. }) = by_client.finish();
    assert_eq!(origin.closed, [Closed::Reset]);
}

#[test]
fn a_server_that_refuses_is_a_reset_to_the_client() {
    let proxy = Proxy { to: SocketAddr::from((CLIENT, 1)) };
    let talk = Talk { say: [b"hello".to_vec()].into(), ..Talk::default() };
    let behind = Behind { client: Client::new(PORT, [talk]), origin: Origin::default() };
    let mut world = World::new(proxy, behind, |config| config.listen = vec![PORT]);
    world.run_until(Duration::from_secs(10), |world| world.client.app.client.is_done());
    let (_, Behind { client, .. }) = world.finish();
    assert_eq!(client.talks[0].closed, Some(Closed::Reset));
}
