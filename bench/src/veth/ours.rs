//! handfast's side of each case: applications, and the runtime below them. Workers spin.

use std::error::Error;
use std::mem;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use handfast::drivers::xdp::AfXdp;
use handfast::ip::routes::OwnRange;
use handfast::metrics::Counter;
use handfast::{App, Cidr, Closed, Config, ConnId, Cx, RunningRuntime, Runtime};

use super::report::Latency;
use super::windows::Windows;

type Failure = Box<dyn Error + Send + Sync>;

/// Where a worker runs and what it is called there.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) interface: &'static str,
    pub(super) core: usize,
    /// With the network.
    pub(super) address: Cidr,
    /// How many addresses there are from that one on.
    pub(super) addresses: u32,
}

impl Place {
    fn spawn<A: App>(
        self,
        mut config: Config,
        app: impl Fn(u16) -> A + Send + Sync + 'static,
    ) -> Result<RunningRuntime, handfast::Error> {
        let more = OwnRange { first: self.address.address().into(), count: self.addresses };
        if self.addresses > 1 {
            config.ip.ranges.push(OwnRange { first: more.nth(1), count: self.addresses - 1 });
        }
        config.tcp.ephemeral_port_min = 1024;
        let runtime =
            Runtime::new(config).port(AfXdp::interface(self.interface)).address(self.address).cores([self.core]);
        runtime.drain(DRAIN).spawn(app)
    }

    /// Serves one application until `until_over` returns.
    ///
    /// # Errors
    /// What keeps it from running, or ended it.
    pub(super) fn serve(self, service: Service, until_over: impl FnOnce()) -> Result<Windows, Failure> {
        let mut config = bulk_config();
        config.listen = vec![PORT];
        let (to, results) = channel();
        let running = self.spawn(config, move |_| Server {
            service,
            begun: Instant::now(),
            windows: Windows::default(),
            to: to.clone(),
        })?;
        until_over();
        running.stop();
        running.join()?;
        Ok(results.recv()?)
    }

    /// Keeps so many connections going for `duration`: each is opened, asked `request` if there is one, and closed.
    ///
    /// # Errors
    /// What keeps it from running, or ended it.
    pub(super) fn open_close(
        self,
        target: SocketAddrV4,
        at_once: u32,
        request: Option<&'static [u8]>,
        duration: Duration,
    ) -> Result<Opened, Failure> {
        let sources = OwnRange { first: self.address.address().into(), count: self.addresses };
        let sources: Vec<IpAddr> = (0..self.addresses).map(|index| sources.nth(index).into()).collect();
        self.client(Config::default(), duration, move |to| Opener {
            target: target.into(),
            sources: sources.clone(),
            at_once,
            request,
            open: 0,
            begun: 0,
            packets: 0,
            over: false,
            opened: Opened::default(),
            to,
        })
    }

    /// Round trips of one byte for `duration`.
    ///
    /// # Errors
    /// What keeps it from running, or ended it.
    pub(super) fn ping(self, target: SocketAddrV4, warm_up: Duration, duration: Duration) -> Result<Latency, Failure> {
        self.client(Config::default(), duration, move |to| Pinger {
            target: target.into(),
            counted_from: Instant::now() + warm_up,
            sent: Instant::now(),
            latency: Latency::default(),
            to,
        })
    }

    /// Sends as much as it can for `duration`.
    ///
    /// # Errors
    /// What keeps it from running, or ended it.
    pub(super) fn source(self, target: SocketAddrV4, duration: Duration) -> Result<(), Failure> {
        self.client(bulk_config(), duration, move |to| Source { target: target.into(), over: false, to })
    }

    fn client<A: App, T: Send + 'static>(
        self,
        config: Config,
        duration: Duration,
        app: impl Fn(Sender<T>) -> A + Send + Sync + 'static,
    ) -> Result<T, Failure> {
        let (to, results): (Sender<T>, Receiver<T>) = channel();
        let running = self.spawn(config, move |_| app(to.clone()))?;
        thread::sleep(duration);
        running.stop();
        running.join()?;
        Ok(results.recv()?)
    }
}

/// What [`Place::open_close`] did, by window.
#[derive(Default)]
pub(super) struct Opened {
    pub(super) connections: Windows,
    pub(super) packets: Windows,
    pub(super) failed: u64,
}

struct Opener {
    target: SocketAddr,
    sources: Vec<IpAddr>,
    at_once: u32,
    request: Option<&'static [u8]>,
    open: u32,
    begun: usize,
    packets: u64,
    over: bool,
    opened: Opened,
    to: Sender<Opened>,
}

impl App for Opener {
    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        while self.open < self.at_once && !self.over {
            // Some from each, so that their neighbour entries stay at hand.
            let source = self.sources[self.begun / OPENS_PER_SOURCE % self.sources.len()];
            self.begun += 1;
            match cx.connect_from(source, self.target) {
                Ok(_) => self.open += 1,
                Err(_) => {
                    self.opened.failed += 1;
                    break;
                }
            }
        }
        let packets = cx.metrics().get(Counter::PacketsSent) + cx.metrics().get(Counter::PacketsReceived);
        if packets > self.packets {
            self.opened.packets.add(cx.now().as_micros(), packets - mem::replace(&mut self.packets, packets));
        }
    }

    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        match self.request {
            None => cx.close(conn),
            Some(request) => drop(cx.write(conn, request)),
        }
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while cx.recv(conn).is_some() {}
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, _conn: ConnId, how: Closed) {
        self.open -= 1;
        match how {
            Closed::Orderly => self.opened.connections.add(cx.now().as_micros(), 1),
            _ => self.opened.failed += 1,
        }
    }

    fn on_shutdown(&mut self, _cx: &mut Cx<'_>) {
        self.over = true;
        let _ = self.to.send(mem::take(&mut self.opened));
    }
}

struct Pinger {
    target: SocketAddr,
    counted_from: Instant,
    sent: Instant,
    latency: Latency,
    to: Sender<Latency>,
}

impl Pinger {
    fn send(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.sent = Instant::now();
        cx.write(conn, &[0]);
    }
}

impl App for Pinger {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        cx.connect(self.target).expect("a stack without connections has room for one");
    }

    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        cx.set_nodelay(conn, true);
        self.send(cx, conn);
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while cx.recv(conn).is_some() {}
        if self.sent >= self.counted_from {
            self.latency.add(self.sent.elapsed());
        }
        self.send(cx, conn);
    }

    fn on_shutdown(&mut self, _cx: &mut Cx<'_>) {
        let _ = self.to.send(mem::take(&mut self.latency));
    }
}

struct Source {
    target: SocketAddr,
    over: bool,
    to: Sender<()>,
}

impl App for Source {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        cx.connect(self.target).expect("a stack without connections has room for one");
    }

    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.on_writable(cx, conn);
    }

    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while !self.over && cx.write(conn, &CHUNK) == CHUNK.len() {}
    }

    fn on_shutdown(&mut self, _cx: &mut Cx<'_>) {
        self.over = true;
        let _ = self.to.send(());
    }
}

/// What is served.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// Takes everything, and closes when the other end has.
    Sink,
    /// Sends back what comes.
    Echo,
}

struct Server {
    service: Service,
    begun: Instant,
    /// Bytes that came.
    windows: Windows,
    to: Sender<Windows>,
}

impl App for Server {
    fn on_accept(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if self.service == Service::Echo {
            cx.set_nodelay(conn, true);
        }
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let mut bytes = 0;
        while let Some(frame) = cx.recv(conn) {
            bytes += frame.len() as u64;
            if self.service == Service::Echo {
                // A byte at a time: there is room.
                let _ = cx.send(conn, frame);
            }
        }
        self.windows.add(self.begun.elapsed().as_micros() as u64, bytes);
    }

    fn on_shutdown(&mut self, _cx: &mut Cx<'_>) {
        let _ = self.to.send(mem::take(&mut self.windows));
    }
}

/// Buffers as large as the kernel's grow to be, within what the receive ring holds.
fn bulk_config() -> Config {
    let mut config = Config::default();
    config.tcp.recv_buffer_bytes = 1 << 20;
    config.tcp.recv_frames_max = 1024;
    config.tcp.send_buffer_bytes = 2 << 20;
    config.tcp.send_frames_max = 1536;
    config
}

/// The port that is served.
pub(super) const PORT: u16 = 7;

static CHUNK: [u8; 64 << 10] = [b'x'; 64 << 10];
const OPENS_PER_SOURCE: usize = 256;
/// For what is open still at the end of a window.
const DRAIN: handfast::time::Duration = handfast::time::Duration::from_millis(50);
