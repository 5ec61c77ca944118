//! What a command line comes to. Every number that was left open is chosen here, and whatever does not go together is refused.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use handfast::Config;
use handfast::ip::routes::{OwnRange, Route};
use handfast::time::Duration;

use super::args::{AddressRange, AppKind, Args, CloseBy, Closer, DriverKind, Role};
use super::http;

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) driver: DriverKind,
    /// `None`: both.
    pub(super) role: Option<Role>,
    /// One for each worker; `None`: wherever the kernel puts it. Of a wire, the client's workers first.
    pub(super) cpus: Vec<Option<usize>>,
    /// How many of them are the client's: all or none but over the wire.
    pub(super) client_workers: usize,
    pub(super) interface: String,
    pub(super) addresses: Vec<AddressRange>,
    pub(super) gateways: Vec<IpAddr>,
    pub(super) kernel_addresses: Vec<(IpAddr, u8)>,
    pub(super) frames: u32,
    pub(super) sleep: bool,
    pub(super) lock_memory: bool,
    pub(super) pcap: Option<PathBuf>,
    pub(super) client: Arc<ClientPlan>,
    pub(super) server: Arc<ServerPlan>,
    pub(super) client_limits: Limits,
    pub(super) server_limits: Limits,
    pub(super) duration: Option<Duration>,
    pub(super) drain: Duration,
    pub(super) max_failures: u64,
    pub(super) json: bool,
}

/// What each of a client's workers does.
#[derive(Clone, Debug)]
pub(super) struct ClientPlan {
    pub(super) workers: usize,
    pub(super) targets: Vec<SocketAddr>,
    pub(super) sources_v4: Vec<IpAddr>,
    pub(super) sources_v6: Vec<IpAddr>,
    pub(super) pace: Pace,
    /// All workers together.
    pub(super) connections: u64,
    pub(super) duration_us: u64,
    pub(super) ramp_us: u64,
    pub(super) hold: Duration,
    /// For each connection.
    pub(super) requests: u32,
    pub(super) request: Arc<[u8]>,
    pub(super) answer: Answer,
    pub(super) close: CloseBy,
    pub(super) closer: Closer,
}

/// How connections are begun, by all workers together.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Pace {
    /// So many a second.
    Open(f64),
    /// So many at once.
    Closed(u32),
}

/// What a client waits for after each request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// So many bytes.
    Bytes(u32),
    /// An HTTP response.
    Http,
}

/// What each of a server's workers does.
#[derive(Clone, Debug)]
pub(super) struct ServerPlan {
    pub(super) app: AppKind,
    pub(super) ports: Vec<u16>,
    /// After so many on one connection it closes, if it is the one that closes first.
    pub(super) requests: u32,
    pub(super) request_bytes: u32,
    /// What each request is answered with.
    pub(super) response: Arc<[u8]>,
    /// The same, when the connection closes after it.
    pub(super) last_response: Arc<[u8]>,
    /// Before it closes.
    pub(super) hold: Duration,
    pub(super) close: CloseBy,
    pub(super) closer: Closer,
}

/// How much room each worker has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Limits {
    pub(super) conns_max: u32,
    pub(super) time_wait_max: u32,
}

impl Plan {
    /// What `args` come to.
    ///
    /// # Errors
    /// What does not go together, and what to do about it.
    pub(super) fn new(args: &Args) -> Result<Plan, String> {
        let wire = args.driver == DriverKind::Wire;
        check_device(args)?;
        let cpus = cpus(args)?;
        let client_workers = match (wire, args.role) {
            // Alone, it runs both.
            (true, _) if cpus.len() == 1 => 1,
            (true, _) => cpus.len() / 2,
            (false, Some(Role::Client)) => cpus.len(),
            (false, _) => 0,
        };
        let talk = Talk::new(args)?;
        let duration = match (args.duration, args.connections, args.role) {
            (Some(duration), ..) => Some(Duration::from(duration)),
            (None, Some(_), _) => None,
            (None, None, Some(Role::Server)) if !wire => None,
            (None, None, _) => Some(Duration::from_secs(5)),
        };
        let pace = match (args.rate, args.concurrency) {
            (Some(rate), _) => Pace::Open(rate),
            (None, Some(count)) => Pace::Closed(count),
            (None, None) => Pace::Closed(CONCURRENCY * client_workers.max(1) as u32),
        };
        let workers = client_workers.max(1) as u32;
        if let Pace::Closed(count) = pace
            && count < workers
        {
            return Err(format!(
                "--concurrency {count} is less than one connection for each of {workers} client cores"
            ));
        }
        let port = |default| if args.port.is_empty() { vec![default] } else { args.port.clone() };
        let ports = port(if talk.app == AppKind::Http { 80 } else { 7 });
        let expected = expected(pace, args, duration, workers);
        let (addresses, targets) = match wire {
            true => wire_addresses(args, expected, &ports)?,
            false => (args.address.clone(), args.target.clone()),
        };
        let sources = |is_v4: bool| {
            let same = addresses.iter().filter(|range| range.first.address().is_ipv4() == is_v4);
            same.flat_map(|range| (0..range.count).map(|index| range.nth(index))).collect::<Vec<_>>()
        };
        let client = ClientPlan {
            workers: workers as usize,
            sources_v4: sources(true),
            sources_v6: sources(false),
            targets,
            pace,
            connections: args.connections.unwrap_or(u64::MAX),
            duration_us: duration.map_or(u64::MAX / 2, |duration| duration.as_micros()),
            ramp_us: args.ramp.as_micros() as u64,
            hold: args.hold.into(),
            requests: talk.requests,
            request: talk.request.clone(),
            answer: talk.answer,
            close: args.close,
            closer: args.closer,
        };
        let missing = client.targets.iter().find(|target| client.sources(target).is_empty());
        if let Some(target) = missing.filter(|_| client_workers > 0) {
            return Err(format!("no --address of the family of {target}: give one to connect from"));
        }
        let server = ServerPlan {
            app: talk.app,
            ports,
            requests: talk.requests,
            request_bytes: talk.request.len() as u32,
            response: talk.response,
            last_response: talk.last_response,
            hold: args.hold.into(),
            close: args.close,
            closer: args.closer,
        };
        let server_workers = cpus.len() - if cpus.len() == 1 && wire { 0 } else { client_workers };
        let (client_limits, server_limits) = limits(args, pace, expected, workers, server_workers as u32);
        Ok(Plan {
            driver: args.driver,
            role: args.role,
            cpus,
            client_workers,
            interface: args.interface.clone().unwrap_or_default(),
            addresses,
            gateways: args.gateway.clone(),
            kernel_addresses: args.kernel_address.iter().map(|cidr| (cidr.address(), cidr.prefix_len())).collect(),
            frames: args.frames,
            sleep: args.sleep,
            lock_memory: args.lock_memory,
            pcap: args.pcap.clone(),
            client: Arc::new(client),
            server: Arc::new(server),
            client_limits,
            server_limits,
            duration,
            drain: args.drain.into(),
            max_failures: args.max_failures,
            json: args.json,
        })
    }

    /// Both ends on one core.
    pub(super) fn is_solo(&self) -> bool {
        self.driver == DriverKind::Wire && self.cpus.len() == 1
    }

    /// How the client's stack is set up.
    pub(super) fn client_config(&self) -> Config {
        let mut config = self.config(self.client_limits, &self.addresses);
        // As many flows from each address as there can be.
        config.tcp.ephemeral_port_min = PORT_MIN;
        config
    }

    /// How the server's stack is set up.
    pub(super) fn server_config(&self) -> Config {
        let mut config = match self.driver {
            DriverKind::Wire => {
                let mut config = self.config(self.server_limits, &[WIRE_SERVER.parse().expect("an address")]);
                // The client's addresses beyond its first are a network behind it: one neighbour for all.
                let client: IpAddr = self.addresses[0].first.address();
                let network = [10, 64, 0, 0].into();
                config.ip.routes.push(Route {
                    network: IpAddr::V4(network).into(),
                    prefix_len: 10,
                    gateway: Some(client.into()),
                });
                config
            }
            _ => self.config(self.server_limits, &self.addresses),
        };
        config.listen = self.server.ports.clone();
        config
    }

    fn config(&self, limits: Limits, addresses: &[AddressRange]) -> Config {
        let mut config = Config::default();
        config.limits.conns_max = limits.conns_max;
        config.limits.time_wait_max = limits.time_wait_max;
        config.limits.syn_rcvd_max = limits.conns_max.clamp(16 << 10, 256 << 10);
        config.limits.backlog_max = config.limits.syn_rcvd_max;
        for (at, range) in addresses.iter().enumerate() {
            // The wire's client has a network behind it, which is no neighbour's.
            let behind = self.driver == DriverKind::Wire && at > 0;
            if !behind {
                config.ip.addresses.push(range.first.into());
            }
            let before = u32::from(!behind);
            if range.count > before {
                let first = range.nth(before).into();
                config.ip.ranges.push(OwnRange { first, count: range.count - before });
            }
        }
        config.ip.routes.extend(self.gateways.iter().map(|&gateway| Route::default_via(gateway.into())));
        config
    }
}

impl ClientPlan {
    /// The addresses that this target can be connected to from.
    pub(super) fn sources(&self, target: &SocketAddr) -> &[IpAddr] {
        if target.is_ipv4() { &self.sources_v4 } else { &self.sources_v6 }
    }

    /// How many connections of one worker's are due within a span.
    pub(super) fn due_count(&self, rate: f64, span_us: u64) -> u64 {
        let (per_us, span_us, ramp_us) = (rate / self.workers as f64 / 1e6, span_us as f64, self.ramp_us as f64);
        let count = match span_us < ramp_us {
            true => per_us * span_us * span_us / (2.0 * ramp_us),
            false => per_us * (span_us - ramp_us / 2.0),
        };
        count as u64
    }

    /// When connection `index`, of one worker's, is due in open loop: microseconds after the start.
    pub(super) fn due_us(&self, rate: f64, index: u64) -> u64 {
        let (per_us, index) = (rate / self.workers as f64 / 1e6, index as f64);
        let ramp_us = self.ramp_us as f64;
        // The rate rises evenly, so that half of it is the mean of the ramp.
        let in_ramp = per_us * ramp_us / 2.0;
        let at = match index < in_ramp {
            true => (2.0 * ramp_us * index / per_us).sqrt(),
            false => ramp_us + (index - in_ramp) / per_us,
        };
        at as u64
    }
}

/// What goes over a connection.
struct Talk {
    app: AppKind,
    requests: u32,
    request: Arc<[u8]>,
    answer: Answer,
    response: Arc<[u8]>,
    last_response: Arc<[u8]>,
}

impl Talk {
    fn new(args: &Args) -> Result<Talk, String> {
        let asked = args.request_bytes.is_some() || args.response_bytes.is_some() || args.app == Some(AppKind::Http);
        let requests = args.requests.unwrap_or(u32::from(asked && args.role != Some(Role::Server)));
        let request_bytes = args.request_bytes.unwrap_or(1);
        let app = args.app.unwrap_or(match args.response_bytes {
            Some(0) => AppKind::Discard,
            Some(bytes) if bytes != request_bytes => AppKind::Answer,
            Some(_) => AppKind::Echo,
            None if requests > 0 => AppKind::Echo,
            None => AppKind::Discard,
        });
        let response_bytes = match (app, args.response_bytes) {
            (AppKind::Http, bytes) => bytes.unwrap_or(128),
            (AppKind::Discard, None | Some(0)) => 0,
            (AppKind::Discard, Some(_)) => {
                return Err("--app discard answers nothing: leave --response-bytes out, or use --app answer".into());
            }
            (AppKind::Echo, Some(bytes)) if bytes != request_bytes => {
                return Err(
                    "--app echo answers with the request's bytes: leave --response-bytes out, or use --app answer"
                        .into(),
                );
            }
            (AppKind::Echo, _) => request_bytes,
            (AppKind::Answer, bytes) => bytes.unwrap_or(request_bytes),
        };
        if app == AppKind::Http && args.request_bytes.is_some() {
            return Err("--app http makes requests of its own: leave --request-bytes out".into());
        }
        if !args.path.starts_with('/') || args.path.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
            return Err(format!("--path '{}': it begins with a slash and has no white space", args.path));
        }
        let host = args.target.first().map_or("handfast".into(), SocketAddr::to_string);
        Ok(match app {
            AppKind::Http => Talk {
                app,
                requests,
                request: http::request(&args.path, &host).into(),
                answer: Answer::Http,
                response: http::response(response_bytes as usize, false).into(),
                last_response: http::response(response_bytes as usize, true).into(),
            },
            _ => Talk {
                app,
                requests,
                request: filled(request_bytes),
                answer: Answer::Bytes(response_bytes),
                response: filled(response_bytes),
                last_response: filled(response_bytes),
            },
        })
    }
}

/// Bytes that tell where they are from, for whoever looks at a capture.
fn filled(len: u32) -> Arc<[u8]> {
    (0..len).map(|at| b'a' + (at % 26) as u8).collect()
}

fn check_device(args: &Args) -> Result<(), String> {
    let needs = |what: &str, why: &str| Err(format!("{what} {why}"));
    if args.driver == DriverKind::Wire {
        let given = [
            (args.interface.is_some(), "--interface"),
            (!args.address.is_empty(), "--address"),
            (!args.gateway.is_empty(), "--gateway"),
            (!args.target.is_empty(), "--target"),
            (args.pcap.is_some(), "--pcap"),
        ];
        if let Some((_, flag)) = given.iter().find(|(given, _)| *given) {
            return needs(
                flag,
                "says nothing to a wire in memory: add --driver af_xdp or --driver tap, or leave it out",
            );
        }
    } else {
        match args.role {
            None => return needs("client or server", "must be said with --driver af_xdp and --driver tap"),
            Some(Role::Client) if args.target.is_empty() => {
                return needs("--target", "is missing: whom is the client to load? Such as --target 192.0.2.2:80");
            }
            Some(Role::Server) if !args.target.is_empty() => {
                return needs("--target", "is for the client: leave it out");
            }
            _ => {}
        }
        if args.interface.is_none() {
            return needs("--interface", "is missing: which network interface?");
        }
        if args.address.is_empty() {
            return needs("--address", "is missing: which address is to be ours? Such as --address 192.0.2.1/24");
        }
    }
    if args.driver != DriverKind::Tap && !args.kernel_address.is_empty() {
        return needs("--kernel-address", "is for --driver tap: leave it out");
    }
    if let Some(target) = args.target.iter().find(|target| target.port() == 0) {
        return Err(format!("{target}: nobody listens on port 0"));
    }
    Ok(())
}

fn cpus(args: &Args) -> Result<Vec<Option<usize>>, String> {
    let wire = args.driver == DriverKind::Wire;
    let ends = if wire && args.cores.len() != 1 { 2 } else { 1 };
    if let Some(queues) = args.queues
        && (queues == 0 || !args.cores.is_empty() && usize::from(queues) * ends != args.cores.len())
    {
        return Err(format!(
            "--queues {queues} does not go with {} cores: one worker drives one queue",
            args.cores.len()
        ));
    }
    if !args.cores.is_empty() {
        return Ok(args.cores.iter().copied().map(Some).collect());
    }
    let all: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    let count = match (wire, args.queues) {
        (true, None) => return Ok(if all.is_empty() { vec![None] } else { all.into_iter().map(Some).collect() }),
        (true, Some(queues)) => 2 * usize::from(queues),
        (false, queues) => usize::from(queues.unwrap_or(1)),
    };
    Ok(vec![None; count])
}

/// How many connections a client's worker may make in all, and how many are then in TIME-WAIT.
fn expected(pace: Pace, args: &Args, duration: Option<Duration>, workers: u32) -> u64 {
    let seconds = duration.map_or(f64::INFINITY, |duration| duration.as_secs_f64());
    let rate = match pace {
        Pace::Open(rate) => rate / f64::from(workers),
        Pace::Closed(_) => RATE_PER_CORE_MAX,
    };
    let by_time = (rate * seconds.min(TIME_WAIT_S)).min(1e12) as u64;
    let by_count = args.connections.map_or(u64::MAX, |count| count.div_ceil(workers.into()));
    by_time.min(by_count)
}

fn limits(args: &Args, pace: Pace, expected: u64, clients: u32, servers: u32) -> (Limits, Limits) {
    let at_once = match pace {
        Pace::Closed(count) => u64::from(count),
        Pace::Open(rate) => (rate * (2.0 + args.hold.as_secs_f64())).clamp(65_536.0, 1e9) as u64,
    };
    let at_once = at_once.min(args.connections.unwrap_or(u64::MAX));
    // Those that have begun to close are there beside their successors; and RSS does not deal evenly.
    let share = |workers: u32| {
        let even = at_once.div_ceil(workers.into());
        let over = (even / if workers == 1 { 8 } else { 2 }).max(even.min(64 << 10));
        (even + over + 1024).min(CONNS_MAX) as u32
    };
    let serves_others = args.driver != DriverKind::Wire;
    let server_conns = if serves_others { SERVER_CONNS_MAX.max(share(servers.max(1))) } else { share(servers.max(1)) };
    let memory = available_memory() / 4 / (clients + servers).max(1) as u64;
    let affordable = (memory / TIME_WAIT_BYTES).clamp(1 << 16, 1 << 27);
    let waits = |workers: u32, total: u64| (total / u64::from(workers.max(1)) * 9 / 8 + 1024).min(affordable) as u32;
    let total = expected.saturating_mul(clients.into());
    let none_but_few = 64 << 10;
    let (client_waits, server_waits) = match (args.close, args.closer) {
        _ if serves_others => {
            let unknown = if args.role == Some(Role::Server) { 4 << 20 } else { total };
            (waits(clients, unknown), waits(servers, unknown))
        }
        (CloseBy::Rst, _) => (none_but_few, none_but_few),
        (CloseBy::Fin, Closer::Client) => (waits(clients, total), none_but_few),
        (CloseBy::Fin, Closer::Server) => (none_but_few, waits(servers, total)),
    };
    let limits = |conns: u32, waits: u32| Limits {
        conns_max: args.conns_max.unwrap_or(conns),
        time_wait_max: args.time_wait_max.unwrap_or(waits),
    };
    (limits(share(clients), client_waits), limits(server_conns, server_waits))
}

/// As many addresses of the client's as its connections need ports while TIME-WAIT keeps them.
fn wire_addresses(args: &Args, expected: u64, ports: &[u16]) -> Result<(Vec<AddressRange>, Vec<SocketAddr>), String> {
    let clients = if args.cores.len() == 1 { 1 } else { args.cores.len().max(2) as u64 / 2 };
    let connections = expected.saturating_mul(clients).max(args.concurrency.unwrap_or(0).into());
    // A port more than is needed is cheaper than looking for one that is free.
    let count = (connections * 5 / 4 / PORTS_PER_ADDRESS / ports.len() as u64 + 2).min(WIRE_ADDRESSES_MAX);
    let own = AddressRange { first: WIRE_CLIENT.parse().map_err(|_| "an address")?, count: 1 };
    let more = AddressRange { first: WIRE_MORE.parse().map_err(|_| "an address")?, count: count as u32 };
    let server: AddressRange = WIRE_SERVER.parse()?;
    let targets = ports.iter().map(|&port| SocketAddr::new(server.first.address(), port)).collect();
    Ok((vec![own, more], targets))
}

/// Bytes of memory that this machine could give now.
fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.map_or(4 << 30, |kib| kib << 10)
}

/// The client's end of the wire, the network behind it, and the server's end.
const WIRE_CLIENT: &str = "10.0.0.1/24";
const WIRE_MORE: &str = "10.64.0.1/10";
const WIRE_SERVER: &str = "10.0.0.2/24";
const WIRE_ADDRESSES_MAX: u64 = 1 << 16;

/// For each of the client's workers, unless it is told otherwise.
const CONCURRENCY: u32 = 256;
const PORT_MIN: u16 = 1024;
const PORTS_PER_ADDRESS: u64 = 65_536 - PORT_MIN as u64;
/// More than one core opens in a second.
const RATE_PER_CORE_MAX: f64 = 2e6;
/// Twice the maximum segment lifetime.
const TIME_WAIT_S: f64 = 60.0;
/// A record and its place in the index.
const TIME_WAIT_BYTES: u64 = 80;
const CONNS_MAX: u64 = 1 << 26;
const SERVER_CONNS_MAX: u32 = 1 << 18;

#[cfg(test)]
mod tests;
