//! The same work over the kernel's own sockets: one thread at each end, epoll, as few system calls as it takes.
//!
//! With nothing to do they sleep, so that the kernel's own threads have the core: where they looked again at once instead, fewer
//! connections came about. Round trips are measured both ways.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::report::Latency;
use super::windows::Windows;

/// What the client did.
#[derive(Default)]
pub(super) struct Opened {
    /// Connections that it had done with, by window.
    pub(super) windows: Windows,
    pub(super) failed: u64,
}

/// Keeps so many connections going until the time is over: each is opened, asked `request` if there is one, and closed.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn open_close(
    targets: &[SocketAddrV4],
    at_once: usize,
    request: Option<&[u8]>,
    duration: Duration,
) -> io::Result<Opened> {
    raise_descriptors();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut conns: Vec<Option<Client>> = Vec::new();
    let mut events = Vec::with_capacity(EVENTS);
    let (mut opened, mut open, mut next) = (Opened::default(), 0, 0);
    let begun = Instant::now();
    while begun.elapsed() < duration {
        for _ in 0..OPENS_PER_TURN.min(at_once - open) {
            let socket = socket()?;
            let target = targets[next % targets.len()];
            next += 1;
            match rustix::net::connect(&socket, &target) {
                Ok(()) | Err(Errno::INPROGRESS) => {}
                // No port is free for now, or no memory: those that are open come first.
                Err(Errno::ADDRNOTAVAIL | Errno::NOBUFS) if open > 0 => break,
                Err(error) => return Err(error.into()),
            }
            keep(&mut conns, Client { socket, asked: false }, &epoll, READ_WRITE)?;
            open += 1;
        }
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&SHORT))?;
        let now_us = begun.elapsed().as_micros() as u64;
        for event in events.drain(..) {
            let (flags, at) = (event.flags, event.data.u64() as usize);
            let Some(client) = conns[at].as_mut() else { continue };
            let done = match request {
                _ if flags.contains(epoll::EventFlags::ERR) => Err(Errno::CONNREFUSED),
                None => Ok(true),
                Some(request) => client.ask(request),
            };
            match done {
                Ok(false) => continue,
                Ok(true) => opened.windows.add(now_us, 1),
                Err(_) => opened.failed += 1,
            }
            conns[at] = None; // closed
            open -= 1;
        }
    }
    Ok(opened)
}

struct Client {
    socket: OwnedFd,
    asked: bool,
}

impl Client {
    /// Goes on with what can be done now; true when the answer is there and the server has closed.
    fn ask(&mut self, request: &[u8]) -> Result<bool, Errno> {
        if !self.asked {
            if rustix::io::write(&self.socket, request)? < request.len() {
                return Err(Errno::NOBUFS);
            }
            self.asked = true;
        }
        loop {
            match rustix::io::read(&self.socket, &mut [0; 4096]) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Accepts connections, and closes each when the other end has closed it. Gives those that were, by window.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn serve(services: &[SocketAddrV4], ready: impl FnOnce(), stop: &AtomicBool) -> io::Result<Windows> {
    raise_descriptors();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut listeners = Vec::new();
    for (at, service) in services.iter().enumerate() {
        let listener = socket()?;
        rustix::net::sockopt::set_socket_reuseaddr(&listener, true)?;
        rustix::net::bind(&listener, service)?;
        rustix::net::listen(&listener, BACKLOG)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER | at as u64), epoll::EventFlags::IN)?;
        listeners.push(listener);
    }
    let mut conns: Vec<Option<OwnedFd>> = Vec::new();
    let mut events = Vec::with_capacity(EVENTS);
    let mut windows = Windows::default();
    ready();
    let begun = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&SHORT))?;
        let (now_us, mut closed) = (begun.elapsed().as_micros() as u64, 0);
        for event in events.drain(..) {
            let token = event.data.u64();
            if token & LISTENER == 0 {
                let at = token as usize;
                if conns[at].as_ref().is_some_and(has_ended) {
                    conns[at] = None;
                    closed += 1;
                }
                continue;
            }
            let listener = &listeners[(token & !LISTENER) as usize];
            loop {
                match rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                    // Often the other end has closed already.
                    Ok(conn) if has_ended(&conn) => closed += 1,
                    Ok(conn) => keep(&mut conns, conn, &epoll, epoll::EventFlags::IN)?,
                    Err(Errno::AGAIN) => break,
                    Err(Errno::CONNABORTED | Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if closed > 0 {
            windows.add(now_us, closed);
        }
    }
    Ok(windows)
}

/// Takes what came; whether that was the end.
fn has_ended(conn: &OwnedFd) -> bool {
    loop {
        match rustix::io::read(conn, &mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(Errno::AGAIN) => return false,
            Err(_) => return true,
        }
    }
}

/// Round trips of one byte until the time is over; with `spin` it looks again at once, otherwise it sleeps until the byte is there.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn ping(target: SocketAddrV4, spin: bool, warm_up: Duration, duration: Duration) -> io::Result<Latency> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(target), PATIENCE)?;
    prepare(&stream, spin)?;
    let (mut latency, begun) = (Latency::default(), Instant::now());
    let deadline = begun + duration + PATIENCE;
    loop {
        let sent = Instant::now();
        if sent - begun >= duration {
            return Ok(latency);
        }
        stream.write_all(&[0])?;
        if !read_byte(&mut stream, || Instant::now() < deadline)? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if sent - begun >= warm_up {
            latency.add(sent.elapsed());
        }
    }
}

/// Sends back each byte of one connection, until it is closed.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn echo(service: SocketAddrV4, spin: bool, ready: impl FnOnce(), stop: &AtomicBool) -> io::Result<()> {
    let mut stream = accept(service, ready, stop)?;
    prepare(&stream, spin)?;
    while read_byte(&mut stream, || !stop.load(Ordering::Relaxed))? {
        stream.write_all(&[0])?;
    }
    Ok(())
}

/// False at the end of the connection, or when `go_on` says that it was long enough.
fn read_byte(stream: &mut TcpStream, go_on: impl Fn() -> bool) -> io::Result<bool> {
    loop {
        match stream.read(&mut [0]) {
            Ok(count) => return Ok(count > 0),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                if !go_on() {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Sends as much as it can until the time is over.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn source(target: SocketAddrV4, duration: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(target), PATIENCE)?;
    prepare(&stream, false)?;
    let (chunk, begun) = (vec![b'x'; CHUNK], Instant::now());
    while begun.elapsed() < duration {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

/// Takes what one connection brings, until it is closed. Gives the bytes by window.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn sink(service: SocketAddrV4, ready: impl FnOnce(), stop: &AtomicBool) -> io::Result<Windows> {
    let mut stream = accept(service, ready, stop)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut room, mut windows, begun) = (vec![0; CHUNK], Windows::default(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut room)? {
            0 => break,
            count => windows.add(begun.elapsed().as_micros() as u64, count as u64),
        }
    }
    Ok(windows)
}

/// One connection, as long as nobody tells it to stop waiting.
fn accept(service: SocketAddrV4, ready: impl FnOnce(), stop: &AtomicBool) -> io::Result<TcpStream> {
    let listener = TcpListener::bind(service)?;
    listener.set_nonblocking(true)?;
    ready();
    loop {
        match listener.accept() {
            Ok((stream, _)) => return stream.set_nonblocking(false).map(|()| stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock && !stop.load(Ordering::Relaxed) => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}

fn prepare(stream: &TcpStream, spin: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(spin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
}

/// Has epoll tell of it, under the number of its descriptor.
fn keep<T: AsFd>(conns: &mut Vec<Option<T>>, conn: T, epoll: &OwnedFd, flags: epoll::EventFlags) -> io::Result<()> {
    let at = conn.as_fd().as_raw_fd() as usize;
    epoll::add(epoll, &conn, epoll::EventData::new_u64(at as u64), flags | epoll::EventFlags::ET)?;
    if at >= conns.len() {
        conns.resize_with(at + 1, || None);
    }
    conns[at] = Some(conn);
    Ok(())
}

/// As many descriptors as may be. Where that is not allowed there are fewer, and an error says so.
fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

const EVENTS: usize = 512;
/// What is opened before it is looked what became of the others: all at once would come and go in waves.
const OPENS_PER_TURN: usize = 32;
/// It sleeps no longer, to see whether it is to end.
const SHORT: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
const READ_WRITE: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::OUT);
/// Beside the number, which is a descriptor's otherwise.
const LISTENER: u64 = 1 << 32;
const BACKLOG: i32 = 65_535;
const CHUNK: usize = 256 << 10;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(3);
