//! The command line.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use handfast::Cidr;
use handfast::ip::routes::OwnRange;
use handfast::runtime::CidrError;

/// Loads a TCP with connections, and says what happened.
///
/// Without arguments: handfast against itself over a wire in memory, client and server on this machine's cores, for 5 seconds.
/// `client` loads somebody's server, `server` serves somebody's clients; over the wire both run, and the role says whose figures
/// are reported. Ctrl-C ends with a report. The exit status is 0 if no more than --max-failures connections failed.
#[derive(Parser, Clone, Debug)]
#[command(name = "handfast-load", version)]
pub struct Args {
    /// Which end of the connections to be, and to report.
    #[arg(value_enum)]
    pub role: Option<Role>,

    /// How packets come and go.
    #[arg(long, value_enum, default_value_t = DriverKind::Wire, help_heading = "Device")]
    pub driver: DriverKind,
    /// The network interface; of TAP: the one to make, with the kernel at its other end.
    #[arg(long, help_heading = "Device")]
    pub interface: Option<String>,
    /// An address of ours or a range of them, with their network: 192.0.2.1/24, 192.0.2.1-192.0.2.100/24, 2001:db8::1/64, or all of a
    /// network: 198.18.0.0/16. Repeat it for more. A client has 64,512 connections from each to each target, those in TIME-WAIT included.
    #[arg(long, value_name = "ADDRESS[-LAST]/BITS", help_heading = "Device")]
    pub address: Vec<AddressRange>,
    /// The router to other networks. Repeat it for the other family.
    #[arg(long, value_name = "ADDRESS", help_heading = "Device")]
    pub gateway: Vec<IpAddr>,
    /// An address for the kernel's end of a TAP device. Repeat it for more.
    #[arg(long, value_name = "ADDRESS/BITS", help_heading = "Device")]
    pub kernel_address: Vec<Cidr>,
    /// The cores to run on, one for each queue, such as 2,3. Over the wire the first half is the client's, and one core alone runs
    /// both ends. Otherwise: all cores over the wire; elsewhere one worker for each of --queues, anywhere.
    #[arg(long, value_name = "CORE,..", value_delimiter = ',', help_heading = "Device")]
    pub cores: Vec<usize>,
    /// How many queues of the device to drive, one worker each; over the wire, at each end.
    #[arg(long, value_name = "COUNT", help_heading = "Device")]
    pub queues: Option<u16>,
    /// Frames of each queue, of 2 KiB: what all its connections have between them.
    #[arg(long, value_name = "COUNT", default_value_t = 16_384, help_heading = "Device")]
    pub frames: u32,
    /// Sleep while nothing happens, instead of looking again at once.
    #[arg(long, help_heading = "Device")]
    pub sleep: bool,
    /// Have all memory from the start, instead of as it is touched: the longest latencies are shorter. Takes as much as all tables may
    /// hold, and the right to lock it.
    #[arg(long, help_heading = "Device")]
    pub lock_memory: bool,
    /// Record all packets, as pcapng. Further queues' files get their number. Not over the wire.
    #[arg(long, value_name = "FILE", help_heading = "Device")]
    pub pcap: Option<PathBuf>,

    /// Whom to load: address and port. Repeat it, or separate by commas, for more, which are used in turn.
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',', help_heading = "Load")]
    pub target: Vec<SocketAddr>,
    /// Open loop: open so many connections a second, whatever becomes of them. Latencies count from when each was due.
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "concurrency", value_parser = positive, help_heading = "Load")]
    pub rate: Option<f64>,
    /// Closed loop: keep so many connections going, a new one for each that ends; no more than 4096 of each core's are in their
    /// handshake. 256 for each core unless --rate is given.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1 << 26), help_heading = "Load")]
    pub concurrency: Option<u32>,
    /// End after so many connections.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Load")]
    pub connections: Option<u64>,
    /// End after so long, such as 30, 500ms or 2m: what is open then may end. A client's is 5 s unless --connections is given; a
    /// server's has no end.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Load")]
    pub duration: Option<Duration>,
    /// Reach the rate or the concurrency in so long, evenly from 0.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "0", help_heading = "Load")]
    pub ramp: Duration,
    /// Keep each connection open for so long before it is closed.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "0", help_heading = "Load")]
    pub hold: Duration,
    /// Requests on each connection, one after the other's response: 0 unless anything below asks for one.
    #[arg(long, value_name = "COUNT", help_heading = "Load")]
    pub requests: Option<u32>,
    /// Bytes of each request: 1 unless told otherwise.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=BYTES_MAX), help_heading = "Load")]
    pub request_bytes: Option<u32>,
    /// Bytes of each response. As many as the request's, or 0 from `discard`, or an HTTP body of 128, unless told otherwise.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=BYTES_MAX), help_heading = "Load")]
    pub response_bytes: Option<u32>,
    /// What is asked for with `--app http`.
    #[arg(long, default_value = "/", help_heading = "Load")]
    pub path: String,
    /// How connections are closed: in good order, or by a reset.
    #[arg(long, value_enum, default_value_t = CloseBy::Fin, help_heading = "Load")]
    pub close: CloseBy,
    /// Who closes first; with FIN it keeps the connection in TIME-WAIT. A server does when it has answered --requests.
    #[arg(long, value_enum, default_value_t = Closer::Client, help_heading = "Load")]
    pub closer: Closer,

    /// What the server does, and what the client expects of it.
    #[arg(long, value_enum, help_heading = "Server")]
    pub app: Option<AppKind>,
    /// Ports to listen on: 7, or 80 for `http`, unless told otherwise.
    #[arg(long, value_name = "PORT,..", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..), help_heading = "Server")]
    pub port: Vec<u16>,

    /// Connections that each core has room for. Chosen from the load unless given.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1 << 27), help_heading = "Limits")]
    pub conns_max: Option<u32>,
    /// Connections in TIME-WAIT, 64 bytes each, that each core has room for. Chosen from the load and this machine's memory unless given;
    /// the report says if it was too few.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1 << 27), help_heading = "Limits")]
    pub time_wait_max: Option<u32>,
    /// How long connections may take to end when the load is over.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "5", help_heading = "Limits")]
    pub drain: Duration,
    /// How many connections may fail without the exit status saying so.
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Limits")]
    pub max_failures: u64,

    /// Print one JSON object on standard output, and nothing else there.
    #[arg(long)]
    pub json: bool,
}

/// Which end of the connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Role {
    /// Opens them.
    Client,
    /// Accepts them.
    Server,
}

/// How packets come and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum DriverKind {
    /// A wire in memory: both ends in this process.
    Wire,
    /// A TAP device: this machine's kernel is at the other end.
    Tap,
    /// The queues of a network interface, past the kernel.
    #[value(name = "af_xdp")]
    AfXdp,
}

/// How connections are closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum CloseBy {
    /// In good order.
    Fin,
    /// By a reset.
    Rst,
}

/// Who closes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Closer {
    /// Whoever opened the connection.
    Client,
    /// Whoever accepted it.
    Server,
}

/// What a server does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum AppKind {
    /// Takes all and says nothing.
    Discard,
    /// Sends back what it gets.
    Echo,
    /// Answers each --request-bytes with --response-bytes.
    Answer,
    /// Answers each HTTP/1.1 request with a body of --response-bytes.
    Http,
}

/// Addresses one after the other in one network: `192.0.2.1/24`, or `192.0.2.1-192.0.2.100/24`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressRange {
    /// The first, with the network.
    pub first: Cidr,
    /// How many there are, from 1.
    pub count: u32,
}

impl AddressRange {
    /// The address at `index`, counted round the range.
    pub fn nth(&self, index: u32) -> IpAddr {
        OwnRange { first: self.first.address().into(), count: self.count }.nth(index).into()
    }
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<AddressRange, String> {
        let Some((first, rest)) = text.split_once('-') else {
            return match text.parse() {
                Ok(first) => Ok(AddressRange { first, count: 1 }),
                Err(CidrError::Network(network)) => hosts_of(network),
                Err(error) => Err(error.to_string()),
            };
        };
        let last: Cidr = rest.parse().map_err(|error| format!("the last of the range: {error}"))?;
        let first = format!("{first}/{}", last.prefix_len());
        let first: Cidr = first.parse().map_err(|error| format!("the first of the range: {error}"))?;
        let distance = match (first.address(), last.address()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => u128::from(last.to_bits()).checked_sub(first.to_bits().into()),
            (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits().checked_sub(first.to_bits()),
            _ => None,
        };
        let Some(distance) = distance else {
            return Err("the last address must be of the same family as the first, and not before it".into());
        };
        let count = distance + 1;
        if count > RANGE_MAX.into() {
            return Err(format!("{count} addresses: a range has at most {RANGE_MAX}"));
        }
        let range = AddressRange { first, count: count as u32 };
        // They differ in their last 32 bits, and must not leave the network.
        let same_network = match first.address() {
            IpAddr::V4(v4) => {
                v4.to_bits().checked_shr(32 - u32::from(first.prefix_len())).unwrap_or(0) == {
                    let IpAddr::V4(last) = last.address() else { unreachable!("same family") };
                    last.to_bits().checked_shr(32 - u32::from(first.prefix_len())).unwrap_or(0)
                }
            }
            IpAddr::V6(v6) => {
                let IpAddr::V6(last) = last.address() else { unreachable!("same family") };
                let shift = (128 - u32::from(first.prefix_len())).max(32);
                v6.to_bits().checked_shr(shift).unwrap_or(0) == last.to_bits().checked_shr(shift).unwrap_or(0)
            }
        };
        match same_network {
            true => Ok(range),
            false => Err(format!("{} is in another network than {first}", last.address())),
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "{}", self.first),
            count => write!(f, "{}-{}/{}", self.first.address(), self.nth(count - 1), self.first.prefix_len()),
        }
    }
}

/// All hosts of a network that is given by its first address.
fn hosts_of(network: Cidr) -> Result<AddressRange, String> {
    let prefix_len = network.prefix_len();
    let (host_bits, first) = match network.address() {
        IpAddr::V4(v4) => (32 - prefix_len, IpAddr::from(Ipv4Addr::from_bits(v4.to_bits().wrapping_add(1)))),
        IpAddr::V6(v6) => (128 - prefix_len, IpAddr::from(Ipv6Addr::from_bits(v6.to_bits().wrapping_add(1)))),
    };
    if host_bits > RANGE_MAX.ilog2() as u8 {
        return Err(format!("{network} has too many addresses: a range has at most {RANGE_MAX}"));
    }
    // Without the network's own, and the broadcast address of IPv4.
    let count = (1 << host_bits) - if first.is_ipv4() { 2 } else { 1 };
    // Of the broadcast address there is no next one in the network.
    let first = Cidr::new(first, prefix_len).ok().filter(|_| network.address() < first);
    first.map(|first| AddressRange { first, count }).ok_or_else(|| CidrError::Network(network).to_string())
}

/// A time as people write it: `5`, `5s`, `250ms`, `2m`, `1h`.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("'{unit}' is no unit of time: use us, ms, s, m or h")),
    };
    let number: Option<f64> = digits.parse().ok().filter(|number| (0.0..=1e9).contains(number));
    let seconds = number.map(|number| number * scale).filter(|seconds| *seconds <= TIME_MAX_S);
    seconds
        .map(Duration::from_secs_f64)
        .ok_or(format!("'{text}' is no time up to 30 days: write one such as 30, 500ms or 2m"))
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.replace('_', "").parse().ok().filter(|number| (0.001..=1e9).contains(number));
    number.ok_or(format!("'{text}' is no rate: give connections a second, from 0.001 to 1000000000"))
}

const BYTES_MAX: i64 = 64 << 20;
const RANGE_MAX: u32 = 1 << 16;
const TIME_MAX_S: f64 = 30.0 * 86_400.0;

#[cfg(test)]
mod tests;
