//! handfast beside smoltcp: the same work, in memory, in one run.
//!
//! ```text
//! cargo bench -p handfast-bench --bench peers                under a minute
//! cargo bench -p handfast-bench --bench peers -- --quick     under ten seconds
//! cargo bench -p handfast-bench --bench peers -- --json      one JSON object
//! ```
//!
//! Both stacks use the same in-memory wire, driven by one thread, with Ethernet, IPv4 and all checksums computed and verified in
//! software. The two take turns; what counts is the best of many short windows, since whatever else the machine does can only
//! make a window slower.
//!
//! - *Handshakes*: so many connections are opened at once, and when all are open all are aborted: SYN, SYN-ACK, ACK, RST.
//! - *Bulk*: one connection; the bytes are copied into the sender and taken from the receiver without a copy.
//!
//! smoltcp is used as its documentation advises: a release build, one socket for each connection, as many listening sockets as
//! there are to be connections, and `Interface::poll`. It has no timestamps here, as by default; handfast has.

use std::hint::black_box;
use std::time::{Duration as Span, Instant as Clock};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if let Some(unknown) = args.iter().find(|arg| !["--quick", "--json", "--bench", "--test"].contains(&arg.as_str())) {
        eprintln!("{unknown}: the options are --quick and --json");
        std::process::exit(2);
    }
    // `cargo test --benches` gives no option: then it is only to be seen that it runs.
    let effort = match (has("--quick"), has("--bench") && !has("--test")) {
        (_, false) => Effort { at_once: &[16, 128], budget: Span::from_millis(1), window: Span::from_millis(1) },
        (true, true) => Effort { at_once: &AT_ONCE, budget: Span::from_millis(400), window: Span::from_millis(10) },
        (false, true) => Effort { at_once: &AT_ONCE, budget: Span::from_millis(3_000), window: Span::from_millis(20) },
    };
    let mut results = Vec::new();
    for &at_once in effort.at_once {
        let name = format!("handshakes, {at_once} at once");
        let key = format!("handshakes_{at_once}_at_once_per_second");
        let mut ours = handfast_side::Handshakes::new(at_once);
        let mut theirs = smoltcp_side::Handshakes::new(at_once);
        let best = effort.compare(&mut || ours.wave(), &mut || theirs.wave());
        for (who, packets) in
            [("handfast", ours.packets_per_connection()), ("smoltcp", theirs.packets_per_connection())]
        {
            assert!((3.99..4.01).contains(&packets), "{who} sent {packets} packets a connection: it is to be four");
        }
        results.push(Comparison { name, key, unit: "connections/s", scale: f64::from(at_once), best });
    }
    let mut ours = handfast_side::Bulk::new();
    let mut theirs = smoltcp_side::Bulk::new();
    let best = effort.compare(&mut || ours.transfer(CHUNK), &mut || theirs.transfer(CHUNK));
    results.push(Comparison {
        name: "bulk, one connection".into(),
        key: "bulk_bits_per_second".into(),
        unit: "Gbit/s",
        scale: CHUNK as f64 * 8e-9,
        best,
    });
    if has("--json") { print_json(&results) } else { print_table(&results) }
}

/// How much is done.
struct Effort {
    at_once: &'static [u32],
    /// For each contestant and work; one window is measured in any case.
    budget: Span,
    /// The shortest time that is worth measuring.
    window: Span,
}

impl Effort {
    /// The best rate of each, in calls a second. They take turns.
    fn compare(&self, ours: &mut dyn FnMut(), theirs: &mut dyn FnMut()) -> [f64; 2] {
        let mut contestants = [Contestant::new(ours, self), Contestant::new(theirs, self)];
        while contestants.iter().any(|contestant| contestant.spent < self.budget) {
            for contestant in contestants.iter_mut().filter(|contestant| contestant.spent < self.budget) {
                contestant.measure();
            }
        }
        contestants.map(|contestant| contestant.best)
    }
}

struct Contestant<'a> {
    work: &'a mut dyn FnMut(),
    calls: u32,
    spent: Span,
    best: f64,
}

impl<'a> Contestant<'a> {
    /// Warms up, and finds out how often to call in a window.
    fn new(work: &'a mut dyn FnMut(), effort: &Effort) -> Contestant<'a> {
        let mut contestant = Contestant { work, calls: 1, spent: Span::ZERO, best: 0.0 };
        loop {
            let took = contestant.measure();
            if took >= effort.window || contestant.spent >= effort.budget {
                return contestant;
            }
            let wanted = effort.window.as_secs_f64() / took.as_secs_f64().max(1e-6);
            contestant.calls = (f64::from(contestant.calls) * wanted.clamp(1.2, 10.0)).ceil() as u32;
        }
    }

    fn measure(&mut self) -> Span {
        let begun = Clock::now();
        for _ in 0..self.calls {
            (self.work)();
        }
        let took = begun.elapsed();
        self.spent += took;
        self.best = self.best.max(f64::from(self.calls) / took.as_secs_f64());
        took
    }
}

struct Comparison {
    name: String,
    key: String,
    unit: &'static str,
    /// How much one call is.
    scale: f64,
    best: [f64; 2],
}

impl Comparison {
    fn rates(&self) -> [f64; 2] {
        self.best.map(|calls| calls * self.scale)
    }

    fn ratio(&self) -> f64 {
        self.best[0] / self.best[1]
    }
}

fn print_table(results: &[Comparison]) {
    println!("{:<28} {:>14} {:>14} {:>9}", "", "handfast", "smoltcp", "ratio");
    for result in results {
        let digits = if result.unit == "Gbit/s" { 2 } else { 0 };
        let [ours, theirs] = result.rates();
        let ratio = result.ratio();
        println!("{:<28} {ours:>14.digits$} {theirs:>14.digits$} {ratio:>8.1}× {}", result.name, result.unit);
    }
    let handshakes = || results.iter().filter(|result| result.unit == "connections/s").map(|result| result.rates()[0]);
    let (least, most) = (handshakes().fold(f64::MAX, f64::min), handshakes().fold(0.0, f64::max));
    println!("handfast's slowest handshakes run at {:.0} % of its fastest.", 100.0 * least / most);
}

fn print_json(results: &[Comparison]) {
    let entries: Vec<String> = results
        .iter()
        .map(|result| {
            let unit = if result.unit == "Gbit/s" { 1e9 } else { 1.0 };
            let [ours, theirs] = result.rates().map(|rate| rate * unit);
            let (key, ratio) = (&result.key, result.ratio());
            format!("\"{key}\":{{\"handfast\":{ours:.0},\"smoltcp\":{theirs:.0},\"ratio\":{ratio:.3}}}")
        })
        .collect();
    println!("{{{}}}", entries.join(","));
}

/// Connections at once.
const AT_ONCE: [u32; 4] = [16, 128, 1_024, 16_384];
/// Bytes of one transfer.
const CHUNK: u64 = 4 << 20;
/// Both copy from this.
static BYTES: [u8; 64 << 10] = [0x5a; 64 << 10];

mod handfast_side {
    use handfast::app::{App, ConnId, Cx};
    use handfast::config::Config;
    use handfast::metrics::Counter;
    use handfast::time::Duration;
    use handfast_bench::duo::{CloseBack, Duo, OpenAbort, Sink};
    use handfast_drivers::wire;

    use super::BYTES;

    const STEP: Duration = Duration::from_micros(20);

    pub(crate) struct Handshakes {
        duo: Duo<OpenAbort, CloseBack>,
        opened: u64,
    }

    impl Handshakes {
        pub(crate) fn new(at_once: u32) -> Handshakes {
            let mut config = Config::default();
            config.limits.backlog_max = at_once;
            config.limits.time_wait_max = 1_024;
            let client = OpenAbort { open: Vec::with_capacity(at_once as usize), ..OpenAbort::default() };
            let mut duo = Duo::new(wire::Config::default(), &config, &[80], client, CloseBack);
            duo.client.app.at_once = at_once;
            Handshakes { duo, opened: 0 }
        }

        pub(crate) fn wave(&mut self) {
            self.duo.open_and_abort(STEP);
            self.opened += u64::from(self.duo.client.app.at_once);
            assert_eq!(self.duo.server.stack.metrics().get(Counter::ResetsReceived), self.opened);
        }

        pub(crate) fn packets_per_connection(&self) -> f64 {
            let packets =
                [&self.duo.client.stack, &self.duo.server.stack].map(|s| s.metrics().get(Counter::PacketsSent));
            packets.iter().sum::<u64>().saturating_sub(ARP) as f64 / self.opened as f64
        }
    }

    /// Packets that ask for the neighbour, once.
    const ARP: u64 = 2;

    pub(crate) struct Bulk {
        duo: Duo<Source, Sink>,
    }

    #[derive(Default)]
    struct Source {
        conn: Option<ConnId>,
        left: u64,
    }

    impl App for Source {
        fn on_start(&mut self, cx: &mut Cx<'_>) {
            cx.connect(([10, 0, 0, 2], 80).into()).expect("there is room");
        }

        fn on_connect(&mut self, _: &mut Cx<'_>, conn: ConnId) {
            self.conn = Some(conn);
        }

        fn on_turn(&mut self, cx: &mut Cx<'_>) {
            let Some(conn) = self.conn else { return };
            while self.left > 0 {
                let len = self.left.min(BYTES.len() as u64) as usize;
                let written = cx.write(conn, &BYTES[..len]);
                self.left -= written as u64;
                if written < len {
                    break;
                }
            }
        }
    }

    impl Bulk {
        pub(crate) fn new() -> Bulk {
            let config = Config::default();
            Bulk { duo: Duo::new(wire::Config::default(), &config, &[80], Source::default(), Sink::default()) }
        }

        pub(crate) fn transfer(&mut self, bytes: u64) {
            let end = self.duo.server.app.received + bytes;
            self.duo.client.app.left = bytes;
            while self.duo.server.app.received < end {
                self.duo.turn(STEP);
            }
        }
    }
}

mod smoltcp_side {
    use handfast_drivers::burst::{RxBurst, TxBurst};
    use handfast_drivers::driver::Driver;
    use handfast_drivers::frame::Frame;
    use handfast_drivers::wire::{self, WireDriver};
    use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
    use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
    use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
    use smoltcp::time::{Duration, Instant};
    use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

    use super::{BYTES, black_box};

    const STEP: Duration = Duration::from_micros(20);
    /// What a turn takes when nothing moves: until a timer does something.
    const IDLE_STEP: Duration = Duration::from_millis(50);

    /// smoltcp's device over the wire.
    struct Port {
        driver: WireDriver,
        rx: RxBurst,
        tx: TxBurst,
        packets: u64,
    }

    impl Port {
        fn push(&mut self, frame: Frame) {
            self.tx.push(frame);
            self.packets += 1;
            if self.tx.room() == 0 {
                self.driver.tx_burst(&mut self.tx);
            }
        }
    }

    struct Received(Frame);
    struct ToSend<'a>(&'a mut Port);

    impl RxToken for Received {
        fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
            f(&self.0)
        }
    }

    impl TxToken for ToSend<'_> {
        fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
            let mut frame = self.0.driver.pool().alloc().expect("a token is given when there is a frame");
            let result = f(frame.append(len));
            self.0.push(frame);
            result
        }
    }

    impl Device for Port {
        type RxToken<'a> = Received;
        type TxToken<'a> = ToSend<'a>;

        fn capabilities(&self) -> DeviceCapabilities {
            let mut caps = DeviceCapabilities::default();
            caps.medium = Medium::Ethernet;
            caps.max_transmission_unit = 1_514;
            caps
        }

        fn receive(&mut self, _: Instant) -> Option<(Received, ToSend<'_>)> {
            if self.rx.is_empty() {
                self.driver.rx_burst(&mut self.rx);
                self.rx.reverse();
            }
            if self.tx.room() == 0 || self.driver.pool().free() == 0 {
                return None;
            }
            let frame = self.rx.pop()?;
            Some((Received(frame), ToSend(self)))
        }

        fn transmit(&mut self, _: Instant) -> Option<ToSend<'_>> {
            (self.tx.room() > 0 && self.driver.pool().free() > 0).then_some(ToSend(self))
        }
    }

    struct End {
        port: Port,
        interface: Interface,
        sockets: SocketSet<'static>,
        handles: Vec<SocketHandle>,
    }

    impl End {
        fn new(driver: WireDriver, last: u8, sockets: u32, buffer_len: usize) -> End {
            let mac = EthernetAddress(driver.caps().mac);
            let mut port = Port { driver, rx: RxBurst::new(), tx: TxBurst::new(), packets: 0 };
            let mut config = Config::new(mac.into());
            config.random_seed = 42 + u64::from(last);
            let mut interface = Interface::new(config, &mut port, Instant::ZERO);
            interface
                .update_ip_addrs(|addrs| addrs.push(IpCidr::new(IpAddress::v4(10, 0, 0, last), 24)).expect("one fits"));
            let mut set = SocketSet::new(Vec::with_capacity(sockets as usize));
            let buffer = || SocketBuffer::new(vec![0; buffer_len]);
            let handles = (0..sockets).map(|_| set.add(Socket::new(buffer(), buffer()))).collect();
            End { port, interface, sockets: set, handles }
        }

        fn poll(&mut self, now: Instant) {
            self.interface.poll(now, &mut self.port, &mut self.sockets);
            self.port.driver.tx_burst(&mut self.port.tx);
            self.port.driver.flush();
        }

        fn listen(&mut self) {
            for &handle in &self.handles {
                let socket = self.sockets.get_mut::<Socket>(handle);
                if !socket.is_open() {
                    socket.listen(80).expect("the port is no 0");
                }
            }
        }
    }

    struct Pair {
        client: End,
        server: End,
        now: Instant,
    }

    impl Pair {
        fn new(sockets: u32, buffer_len: usize) -> Pair {
            let (a, b) = wire::pair(wire_config(sockets));
            let (client, server) = (End::new(a, 1, sockets, buffer_len), End::new(b, 2, sockets, buffer_len));
            Pair { client, server, now: Instant::from_secs(1) }
        }

        fn turn(&mut self) {
            let before = self.client.port.packets + self.server.port.packets;
            self.client.poll(self.now);
            self.server.poll(self.now);
            let moved = self.client.port.packets + self.server.port.packets != before;
            self.now += if moved { STEP } else { IDLE_STEP };
        }
    }

    /// As many packets as there are connections may be on their way: a poll looks at every socket, and so is better for many.
    fn wire_config(at_once: u32) -> wire::Config {
        let ring_len = at_once.next_power_of_two().max(256);
        wire::Config { ring_len, frames_per_queue: 4_096.max(3 * ring_len), ..wire::Config::default() }
    }

    pub(crate) struct Handshakes {
        pair: Pair,
        next_port: u16,
        opened: u64,
    }

    impl Handshakes {
        pub(crate) fn new(at_once: u32) -> Handshakes {
            let mut pair = Pair::new(at_once, 1_024);
            // One connection first, so that the neighbours know each other and no SYN waits for an answer to ARP.
            pair.server.listen();
            let mut handshakes = Handshakes { pair, next_port: FIRST_PORT, opened: 0 };
            handshakes.open(1);
            handshakes.abort(1);
            (handshakes.pair.client.port.packets, handshakes.pair.server.port.packets) = (0, 0);
            handshakes
        }

        pub(crate) fn wave(&mut self) {
            let at_once = self.pair.client.handles.len();
            self.open(at_once);
            self.abort(at_once);
            self.opened += at_once as u64;
        }

        fn open(&mut self, count: usize) {
            let client = &mut self.pair.client;
            for &handle in &client.handles[..count] {
                let socket = client.sockets.get_mut::<Socket>(handle);
                let local = self.next_port;
                self.next_port = if local == u16::MAX { FIRST_PORT } else { local + 1 };
                let remote = (IpAddress::v4(10, 0, 0, 2), 80);
                socket.connect(client.interface.context(), remote, local).expect("the socket is closed");
            }
            while self.established() < count {
                self.pair.turn();
            }
        }

        fn abort(&mut self, count: usize) {
            let Pair { client, .. } = &mut self.pair;
            for &handle in &client.handles[..count] {
                client.sockets.get_mut::<Socket>(handle).abort();
            }
            while self.established() > 0 {
                self.pair.turn();
            }
            self.pair.server.listen();
        }

        /// At the server: when it has the last acknowledgment.
        fn established(&self) -> usize {
            let server = &self.pair.server;
            let is_open = |&&handle: &&SocketHandle| server.sockets.get::<Socket>(handle).state() == State::Established;
            server.handles.iter().filter(is_open).count()
        }

        pub(crate) fn packets_per_connection(&self) -> f64 {
            (self.pair.client.port.packets + self.pair.server.port.packets) as f64 / self.opened as f64
        }
    }

    const FIRST_PORT: u16 = 1_024;

    pub(crate) struct Bulk {
        pair: Pair,
    }

    impl Bulk {
        pub(crate) fn new() -> Bulk {
            let mut handshakes = Handshakes { pair: Pair::new(1, 256 << 10), next_port: FIRST_PORT, opened: 0 };
            handshakes.pair.server.listen();
            handshakes.open(1);
            Bulk { pair: handshakes.pair }
        }

        pub(crate) fn transfer(&mut self, bytes: u64) {
            let (mut to_send, mut to_receive) = (bytes, bytes);
            let (source, sink) = (self.pair.client.handles[0], self.pair.server.handles[0]);
            while to_receive > 0 {
                let socket = self.pair.client.sockets.get_mut::<Socket>(source);
                while to_send > 0 && socket.can_send() {
                    let len = to_send.min(BYTES.len() as u64) as usize;
                    to_send -= socket.send_slice(&BYTES[..len]).expect("it is open") as u64;
                }
                self.pair.turn();
                let socket = self.pair.server.sockets.get_mut::<Socket>(sink);
                while socket.can_recv() {
                    let received = socket.recv(|buffer| (buffer.len(), black_box(buffer).len())).expect("it is open");
                    to_receive -= received as u64;
                }
            }
        }
    }
}
