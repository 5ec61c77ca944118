//! Peers made of kernel sockets: clients that open and close many connections, servers, and clients that vanish.
//!
//! Call everything here inside the peer's namespace ([`Netns::run`](crate::netns::Netns::run)); its threads stay there.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, listen, shutdown, socket_with};

use crate::Scratch;
use crate::netns::Netns;
use crate::process::Running;

/// Who sends the first FIN, and with it has the TIME-WAIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstToClose {
    /// The side that opened the connection.
    Client,
    /// The side that accepted it.
    Server,
}

/// Many short connections: each is opened, sends [`REQUEST`], reads as much back, and is closed in an orderly way.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to; the connections are spread over all.
    pub to: Vec<SocketAddr>,
    /// How many in all.
    pub connections: u64,
    /// How many at a time.
    pub at_a_time: usize,
    /// Who closes first.
    pub first: FirstToClose,
}

/// What each connection of a [`Load`] says.
pub const REQUEST: &[u8; 64] = b"the quick brown fox jumps over the lazy dog, and then once more.";

/// How a load went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Connections that did all that they should.
    pub done: u64,
    /// What went wrong with the others: the first few.
    pub failures: Vec<String>,
    /// How long it all took.
    pub took: Duration,
    /// How long the slowest connection took.
    pub slowest: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { done, failures, took, slowest } = self;
        let (took, slowest) = (took.as_secs_f64(), slowest.as_millis());
        let rate = *done as f64 / took;
        write!(
            f,
            "{done} connections in {took:.2} s, {rate:.0} a second, the slowest {slowest} ms; failures: {failures:?}"
        )
    }
}

/// Lets the namespace open far more connections than the defaults do: more ports, and TIME-WAIT used again after a second.
pub fn widen(netns: &Netns) {
    netns.sysctl("ipv4/ip_local_port_range", "1024 65535");
    netns.sysctl("ipv4/tcp_tw_reuse", "1");
    netns.sysctl("core/somaxconn", "65535");
    netns.sysctl("ipv4/tcp_max_syn_backlog", "65535");
}

/// Opens and closes connections; returns when all are through.
pub fn open_and_close(load: &Load) -> Outcome {
    let begun = Instant::now();
    let (next, done, slowest_us) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    let client = || {
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= load.connections {
                return;
            }
            let to = load.to[number as usize % load.to.len()];
            let connection = Instant::now();
            let result = one_connection(to, load.first);
            slowest_us.fetch_max(connection.elapsed().as_micros() as u64, Relaxed);
            match result {
                Ok(()) => _ = done.fetch_add(1, Relaxed),
                Err(error) => {
                    let mut failures = failures.lock().expect("no client panics");
                    if failures.len() < 8 {
                        failures.push(format!("{number}: {error}"));
                    }
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..load.at_a_time {
            thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, client).expect("a thread");
        }
    });
    let failures = failures.into_inner().expect("no client panics");
    let slowest = Duration::from_micros(slowest_us.into_inner());
    Outcome { done: done.into_inner(), failures, took: begun.elapsed(), slowest }
}

fn one_connection(to: SocketAddr, first: FirstToClose) -> io::Result<()> {
    let step = |name: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(20)).map_err(step("connect"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(REQUEST).map_err(step("write"))?;
    let mut answer = [0; REQUEST.len()];
    stream.read_exact(&mut answer).map_err(step("read"))?;
    if answer != *REQUEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "other bytes came back"));
    }
    if first == FirstToClose::Client {
        stream.shutdown(Shutdown::Write).map_err(step("shutdown"))?;
    }
    match stream.read(&mut answer).map_err(step("read the end"))? {
        0 => Ok(()),
        n => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{n} bytes too many"))),
    }
}

/// TCP sockets of this namespace that neither listen nor are in TIME-WAIT, as lines of `/proc/net/tcp`.
pub fn sockets_left() -> Vec<String> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let both = read("tcp") + &read("tcp6");
    // The fourth word is the state; TCP_TIME_WAIT is 6 and TCP_LISTEN is 10. The headings have `st` there.
    let state = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
    both.lines()
        .filter(|line| state(line).is_none_or(|st| !["06", "0A", "st"].contains(&&*st)))
        .map(Into::into)
        .collect()
}

/// What a server does with each connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// Sends back what comes, until the client closes.
    Echo,
    /// Sends back one [`REQUEST`] and closes first.
    EchoOnce,
    /// Reads until the client closes, and counts.
    Sink,
    /// Sends so many bytes of [`pattern`], and closes.
    Source(u64),
}

/// A server of kernel sockets. Ends when it is dropped, with the connections that it has accepted.
#[derive(Debug)]
pub struct Server {
    listener: Arc<TcpListener>,
    state: Arc<ServerState>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct ServerState {
    ending: AtomicBool,
    done: AtomicU64,
    bytes: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Server {
    /// Serves `address`, so many connections at a time.
    pub fn start(address: SocketAddr, service: Service, at_a_time: usize) -> Server {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("listening on {address}: {error}"));
        listen(&listener, 65535).expect("a longer backlog");
        let (listener, state) = (Arc::new(listener), Arc::new(ServerState::default()));
        let worker = || {
            let (listener, state) = (listener.clone(), state.clone());
            let body = move || state.accept_all(&listener, service);
            thread::Builder::new().stack_size(256 << 10).spawn(body).expect("a thread")
        };
        let threads = (0..at_a_time).map(|_| worker()).collect();
        Server { listener, state, threads }
    }

    /// Connections that ended as they should.
    pub fn done(&self) -> u64 {
        self.state.done.load(Relaxed)
    }

    /// Bytes received on all of them.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Relaxed)
    }

    /// What went wrong with the others: the first few.
    pub fn failures(&self) -> Vec<String> {
        self.state.failures.lock().expect("no worker panics").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.ending.store(true, Relaxed);
        // It makes every waiting accept() return.
        let _ = shutdown(&*self.listener, rustix::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl ServerState {
    fn accept_all(&self, listener: &TcpListener, service: Service) {
        loop {
            let accepted = listener.accept();
            if self.ending.load(Relaxed) {
                return;
            }
            match accepted.and_then(|(stream, _)| self.serve(stream, service)) {
                Ok(()) => _ = self.done.fetch_add(1, Relaxed),
                Err(error) => {
                    let mut failures = self.failures.lock().expect("no worker panics");
                    if failures.len() < 8 {
                        failures.push(error.to_string());
                    }
                }
            }
        }
    }

    fn serve(&self, mut stream: TcpStream, service: Service) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut buffer = vec![0; 64 << 10];
        match service {
            Service::Echo | Service::Sink => loop {
                let n = stream.read(&mut buffer)?;
                self.bytes.fetch_add(n as u64, Relaxed);
                if n == 0 {
                    return Ok(());
                }
                if service == Service::Echo {
                    stream.write_all(&buffer[..n])?;
                }
            },
            Service::EchoOnce => {
                let request = &mut buffer[..REQUEST.len()];
                stream.read_exact(request)?;
                stream.write_all(request)?;
                stream.shutdown(Shutdown::Write)?;
                match stream.read(&mut buffer)? {
                    0 => Ok(()),
                    _ => Err(io::Error::new(io::ErrorKind::InvalidData, "more than was asked for")),
                }
            }
            Service::Source(total) => {
                let mut sent = 0;
                while sent < total {
                    let n = pattern(sent, &mut buffer[..(total - sent).min(64 << 10) as usize]);
                    stream.write_all(&buffer[..n])?;
                    sent += n as u64;
                }
                stream.shutdown(Shutdown::Write)?;
                while stream.read(&mut buffer)? > 0 {}
                Ok(())
            }
        }
    }
}

/// Fills `bytes` with what stands at `offset` of an endless stream in which no two places nearby look alike.
pub fn pattern(offset: u64, bytes: &mut [u8]) -> usize {
    for (at, byte) in (offset..).zip(bytes.iter_mut()) {
        let word = (at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        *byte = (word >> (8 * (at % 8))) as u8;
    }
    bytes.len()
}

/// Connections that were begun and not waited for. Dropped, they are given up without a packet while their SYN is unanswered.
pub fn begin(to: SocketAddr, count: usize) -> Vec<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let one = || {
        let socket = socket_with(family, SocketType::STREAM, flags, None).expect("a socket");
        match connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => socket,
            Err(error) => panic!("connect to {to}: {error}"),
        }
    };
    (0..count).map(|_| one()).collect()
}

/// nginx on port 80 of every address.
#[derive(Debug)]
pub struct Nginx {
    _running: Running,
    _folder: Scratch,
}

impl Nginx {
    /// Starts it with this as the content of its one `location`, and returns when it listens.
    pub fn start(location: &str) -> Nginx {
        let folder = Scratch::new();
        let path = folder.path().display();
        let configuration = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/errors;\n\
             events {{ worker_connections 16384; }}\n\
             http {{ access_log off; client_body_temp_path {path}; proxy_temp_path {path}; fastcgi_temp_path {path};\n\
             uwsgi_temp_path {path}; scgi_temp_path {path};\n\
             server {{ listen 80 backlog=65535; listen [::]:80 backlog=65535; location / {{ {location} }} }} }}\n"
        );
        let file = folder.path().join("configuration");
        std::fs::write(&file, configuration).expect("a configuration for nginx");
        let mut command = Command::new("/usr/sbin/nginx");
        let running = Running::start(command.arg("-e").arg(folder.path().join("errors")).arg("-c").arg(file));
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect("127.0.0.1:80").is_err() {
            let errors = || std::fs::read_to_string(folder.path().join("errors")).unwrap_or_default();
            assert!(Instant::now() < deadline, "nginx does not listen: {}", errors());
            thread::sleep(Duration::from_millis(10));
        }
        Nginx { _running: running, _folder: folder }
    }
}
