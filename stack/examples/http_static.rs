//! Serves the files of a folder over HTTP/1.1.
//!
//! `http_static --root /srv/www --interface eth1 --address 192.0.2.1/24`, then `curl http://192.0.2.1/` elsewhere.
//!
//! A response is made of frames: each takes its bytes straight from the file, as many as a segment carries, while the connection
//! has room. So a file of any size needs no more memory than the send buffer, and nothing is copied on the way out.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use handfast::time::{Duration, Instant};
use handfast::{App, Closed, ConnId, Cx};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

mod common;

#[derive(Parser)]
#[command(name = "http_static", about = "Serves the files of a folder over HTTP/1.1")]
pub(crate) struct Options {
    /// The folder to serve. Links that lead out of it are not followed.
    #[arg(long)]
    root: PathBuf,
    /// The port to listen on.
    #[arg(long, default_value_t = 80)]
    port: u16,
    #[command(flatten)]
    device: common::DeviceOptions,
}

fn main() -> ExitCode {
    let Options { root, port, device } = Options::parse();
    match open_root(&root) {
        Ok(root) => common::run(&device, port, move |_core| Server::new(root.clone())),
        Err(error) => common::fail(format_args!("{}: {error}", root.display())),
    }
}

/// Opens the folder that is served, once for all cores.
pub(crate) fn open_root(path: &std::path::Path) -> io::Result<Arc<File>> {
    let root = File::open(path)?;
    match root.metadata()?.is_dir() {
        true => Ok(Arc::new(root)),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

/// The application of one core.
pub(crate) struct Server {
    root: Arc<File>,
    /// By the connections' indices, which are dense.
    clients: Vec<Client>,
    /// Connections that found no free frame: tried again each turn.
    starved: Vec<ConnId>,
}

/// What is known of a connection.
#[derive(Default)]
struct Client {
    /// What was received and not yet answered. No more is taken in while it holds a whole request.
    input: Vec<u8>,
    /// What is being sent.
    response: Option<Response>,
    /// No request is answered after this response.
    last: bool,
    /// When the client is given up, unless its response moves on.
    deadline: Instant,
}

impl Server {
    pub(crate) fn new(root: Arc<File>) -> Server {
        Server { root, clients: Vec::new(), starved: Vec::new() }
    }

    /// Goes on with a connection until it has to wait: sends the response, then answers the next request.
    fn go_on(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let client = &mut self.clients[conn.index() as usize];
        loop {
            if let Some(response) = &mut client.response {
                match response.send(cx, conn) {
                    Sent::All => client.response = None,
                    Sent::NoRoom => return, // on_writable goes on
                    Sent::NoFrame => {
                        self.starved.push(conn);
                        return cx.wake_at(cx.now() + SOON);
                    }
                    // So many bytes were promised. Only a reset says that they do not come.
                    Sent::FileFailed => return cx.abort(conn),
                }
                if client.last {
                    // To close while more requests come would be a reset, which could overtake the response (RFC 9112 §9.6):
                    // the client closes, or the deadline does.
                    client.deadline = cx.now() + LINGER;
                    cx.set_timer(conn, LINGER);
                    cx.shutdown(conn);
                }
            } else if !client.last
                && let Some((answer, len)) = answer(&self.root, &client.input)
            {
                client.input.drain(..len);
                client.last = answer.last;
                client.response = Some(answer.response);
                client.deadline = cx.now() + IDLE;
            } else if let Some(frame) = cx.recv(conn) {
                if !client.last {
                    client.input.extend_from_slice(&frame);
                }
            } else if cx.peer_closed(conn) {
                return cx.close(conn);
            } else {
                return;
            }
        }
    }
}

impl App for Server {
    fn on_accept(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let at = conn.index() as usize;
        if self.clients.len() <= at {
            self.clients.resize_with(at + 1, Client::default);
        }
        self.clients[at] = Client { deadline: cx.now() + IDLE, ..Client::default() };
        cx.set_timer(conn, IDLE);
        // Nothing follows the last frame of a response that it should wait for.
        cx.set_nodelay(conn, true);
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.go_on(cx, conn);
    }

    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.clients[conn.index() as usize].deadline = cx.now() + IDLE;
        self.go_on(cx, conn);
    }

    /// The client asks no more, but it still reads.
    fn on_peer_close(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.go_on(cx, conn);
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let client = &self.clients[conn.index() as usize];
        match (cx.now() < client.deadline, &client.response) {
            (true, _) => cx.set_timer(conn, client.deadline.since(cx.now())),
            (false, Some(_)) => cx.abort(conn),
            (false, None) => cx.close(conn),
        }
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, conn: ConnId, _how: Closed) {
        self.clients[conn.index() as usize] = Client::default();
    }

    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        for conn in std::mem::take(&mut self.starved) {
            if cx.state(conn).is_some() {
                self.go_on(cx, conn);
            }
        }
    }
}

/// A response, or what is left of it to send.
struct Response {
    head: Vec<u8>,
    body: Option<Body>,
}

struct Body {
    file: File,
    at: u64,
    end: u64,
}

enum Sent {
    All,
    NoRoom,
    NoFrame,
    FileFailed,
}

impl Response {
    fn send(&mut self, cx: &mut Cx<'_>, conn: ConnId) -> Sent {
        while !self.head.is_empty() || self.body.is_some() {
            if cx.room(conn) == 0 {
                return Sent::NoRoom;
            }
            let Some(mut frame) = cx.alloc() else { return Sent::NoFrame };
            let mut room = frame.tailroom().min(cx.segment_max(conn) as usize);
            let head_len = room.min(self.head.len());
            frame.extend_from_slice(&self.head[..head_len]);
            self.head.drain(..head_len);
            room -= head_len;
            if let Some(body) = &mut self.body {
                let len = (room as u64).min(body.end - body.at);
                // Into the frame from the page cache: the one copy on the way out.
                if body.file.read_exact_at(frame.append(len as usize), body.at).is_err() {
                    return Sent::FileFailed;
                }
                body.at += len;
                if body.at == body.end {
                    self.body = None;
                }
            }
            if cx.send(conn, frame).is_err() {
                return Sent::NoRoom; // the connection is over: on_close follows
            }
        }
        Sent::All
    }
}

/// The response to a request, and whether it is the last one.
struct Answer {
    response: Response,
    last: bool,
}

/// Answers the first request of `input` and says how many bytes it took; `None` while the request is incomplete.
fn answer(root: &File, input: &[u8]) -> Option<(Answer, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let refused = match request.parse(input) {
        Ok(httparse::Status::Complete(len)) if len <= HEAD_MAX => {
            let is_11 = request.version == Some(1);
            let last = !is_11 || header(&request, "connection").is_some_and(|value| has_token(value, "close"));
            let mut answer = Answer { response: Response { head: Vec::new(), body: None }, last };
            match respond(root, &request, last) {
                Ok(response) => answer.response = response,
                Err(refusal) => answer = refusal.answer(last, request.method == Some("HEAD")),
            }
            return Some((answer, len));
        }
        Ok(httparse::Status::Partial) if input.len() < HEAD_MAX => return None,
        Ok(_) if !input.contains(&b'\n') => Refusal::of("414 URI Too Long"),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Refusal::of("431 Request Header Fields Too Large"),
        Err(httparse::Error::Version) => Refusal::of("505 HTTP Version Not Supported"),
        Err(_) => Refusal::of("400 Bad Request"),
    };
    Some((refused.answer(true, false), input.len()))
}

fn respond(root: &File, request: &httparse::Request<'_, '_>, last: bool) -> Result<Response, Refusal> {
    let is_head = request.method == Some("HEAD");
    if !is_head && request.method != Some("GET") {
        return Err(Refusal {
            fields: "Allow: GET, HEAD\r\n".into(),
            has_body: true,
            ..Refusal::of("405 Method Not Allowed")
        });
    }
    let has_body = header(request, "content-length").is_some_and(|value| value != b"0")
        || header(request, "transfer-encoding").is_some();
    if has_body {
        return Err(Refusal { has_body, ..Refusal::of("413 Content Too Large") });
    }
    // RFC 9112 §3.2: a request of HTTP/1.1 without Host, or with two, is bad.
    if request.version == Some(1) && request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("host")).count() != 1
    {
        return Err(Refusal::of("400 Bad Request"));
    }
    let path = request.path.and_then(local_path).ok_or(Refusal::of("400 Bad Request"))?;
    let file = open(root, &path)?;
    let metadata = file.metadata().map_err(|_| Refusal::of("500 Internal Server Error"))?;
    if metadata.is_dir() {
        let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
        let fields = format!("Location: /{}/\r\n", path.trim_matches('/'));
        return Err(Refusal { fields, ..Refusal::of("301 Moved Permanently") });
    }
    if !metadata.is_file() {
        return Err(Refusal::of("404 Not Found"));
    }

    let size = metadata.size();
    let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
    let nanos = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let etag = format!("\"{size:x}-{nanos:x}\"");
    let known = header(request, "if-none-match").is_some_and(|value| value == b"*" || has_token(value, &etag));
    let may_be_partial = header(request, "if-range").is_none_or(|value| value == etag.as_bytes());
    let (status, at, end) =
        match header(request, "range").filter(|_| !is_head && may_be_partial).and_then(|r| range(r, size)) {
            _ if known => ("304 Not Modified", 0, 0),
            None => ("200 OK", 0, size),
            Some(Some((at, end))) => ("206 Partial Content", at, end),
            Some(None) => {
                let fields = format!("Content-Range: bytes */{size}\r\n");
                return Err(Refusal { fields, ..Refusal::of("416 Range Not Satisfiable") });
            }
        };
    let mut head = head(status, last);
    let _ = write!(head, "ETag: {etag}\r\nLast-Modified: {}\r\nAccept-Ranges: bytes\r\n", HttpDate(modified));
    if !known {
        let _ = write!(head, "Content-Type: {}\r\nContent-Length: {}\r\n", content_type(&path), end - at);
    }
    if status.starts_with("206") {
        let _ = write!(head, "Content-Range: bytes {at}-{}/{size}\r\n", end - 1);
    }
    head.push_str("\r\n");
    let body = (!is_head && at < end).then_some(Body { file, at, end });
    Ok(Response { head: head.into_bytes(), body })
}

/// A request that is not answered by a file.
struct Refusal {
    status: &'static str,
    fields: String,
    /// A body follows the request, which is not read: nothing behind it can be told from it.
    has_body: bool,
}

impl Refusal {
    fn of(status: &'static str) -> Refusal {
        Refusal { status, fields: String::new(), has_body: false }
    }

    fn answer(self, last: bool, is_head: bool) -> Answer {
        let last = last || self.has_body;
        let mut head = head(self.status, last);
        let _ = write!(
            head,
            "{}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            self.fields,
            self.status.len() + 1
        );
        if !is_head {
            let _ = writeln!(head, "{}", self.status);
        }
        Answer { response: Response { head: head.into_bytes(), body: None }, last }
    }
}

/// The beginning of a response's head.
fn head(status: &str, last: bool) -> String {
    let connection = if last { "Connection: close\r\n" } else { "" };
    format!("HTTP/1.1 {status}\r\nDate: {}\r\n{connection}", HttpDate(SystemTime::now()))
}

/// Opens a file beneath `root`. The kernel sees to it that neither `..` nor a link leads out.
fn open(root: &File, path: &[u8]) -> Result<File, Refusal> {
    // Without O_NONBLOCK a named pipe would stop the core.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
        .map(File::from)
        .map_err(|error| {
            Refusal::of(match error {
                Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::NAMETOOLONG | Errno::NXIO => {
                    "404 Not Found"
                }
                Errno::ACCESS | Errno::PERM => "403 Forbidden",
                Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => "503 Service Unavailable",
                _ => "500 Internal Server Error",
            })
        })
}

/// The file that a request's target names, relative to the root; `None` if it names none.
fn local_path(target: &str) -> Option<Vec<u8>> {
    // RFC 9112 §3.2.2: a server takes the absolute form too.
    let target = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    let encoded = target.split(['?', '#']).next()?.strip_prefix('/')?;
    let mut path = Vec::with_capacity(encoded.len() + INDEX.len());
    let mut bytes = encoded.trim_start_matches('/').bytes();
    while let Some(byte) = bytes.next() {
        path.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    if path.is_empty() || path.ends_with(b"/") {
        path.extend_from_slice(INDEX);
    }
    // `%2f` at the beginning would make it absolute; the kernel refuses that. A NUL it never sees.
    (!path.contains(&0)).then_some(path)
}

/// The part of `size` bytes that a Range field asks for (RFC 9110 §14.1.2), from and to; `Some(None)` if there is no such part,
/// `None` if all of it is to be sent: not a range of bytes, or several.
fn range(value: &[u8], size: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = std::str::from_utf8(value).ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let (at, end) = match (first, last) {
        ("", suffix) => (size.saturating_sub(suffix.parse().ok()?), size),
        (first, "") => (first.parse().ok()?, size),
        (first, last) => (first.parse().ok()?, last.parse::<u64>().ok()?.saturating_add(1).min(size)),
    };
    Some((at < end).then_some((at, end)))
}

fn header<'a>(request: &httparse::Request<'_, 'a>, name: &str) -> Option<&'a [u8]> {
    request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Whether a list separated by commas has this element; `W/` before an entity tag does not count (RFC 9110 §13.1.2).
fn has_token(list: &[u8], token: &str) -> bool {
    list.split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .any(|element| element.strip_prefix(b"W/").unwrap_or(element).eq_ignore_ascii_case(token.as_bytes()))
}

fn content_type(path: &[u8]) -> &'static str {
    match path.rsplit(|&byte| byte == b'.' || byte == b'/').next().unwrap_or_default() {
        b"html" | b"htm" => "text/html; charset=utf-8",
        b"css" => "text/css; charset=utf-8",
        b"js" | b"mjs" => "text/javascript; charset=utf-8",
        b"txt" | b"md" => "text/plain; charset=utf-8",
        b"json" => "application/json",
        b"xml" => "application/xml",
        b"pdf" => "application/pdf",
        b"wasm" => "application/wasm",
        b"svg" => "image/svg+xml",
        b"png" => "image/png",
        b"jpg" | b"jpeg" => "image/jpeg",
        b"gif" => "image/gif",
        b"webp" => "image/webp",
        b"ico" => "image/x-icon",
        b"woff2" => "font/woff2",
        b"mp4" => "video/mp4",
        _ => "application/octet-stream",
    }
}

/// A date as HTTP writes it (RFC 9110 §5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
struct HttpDate(SystemTime);

impl std::fmt::Display for HttpDate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let days = seconds / 86_400;
        // Years begin in March here, so that the leap day is the last; 400 of them are 146,097 days.
        let from_march_0 = days + 719_468;
        let (era, day) = (from_march_0 / 146_097, from_march_0 % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
        let name = ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"][month as usize];
        let year = era * 400 + year + u64::from(month >= 10);
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{weekday}, {day:02} {name} {year} {hour:02}:{minute:02}:{second:02} GMT")
    }
}

/// A client that neither asks nor reads for so long is given up.
const IDLE: Duration = Duration::from_secs(30);
/// How long a client has to close its half once ours is closed.
const LINGER: Duration = Duration::from_secs(5);
/// When to look for a free frame again.
const SOON: Duration = Duration::from_millis(1);
/// The longest head of a request, in bytes.
const HEAD_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;
const INDEX: &[u8] = b"index.html";
