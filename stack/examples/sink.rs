//! Takes all that anybody sends and throws it away: for upload tests, and to see how fast data arrives.
//!
//! `sink --interface eth1 --address 192.0.2.1/24`, then `nc -N 192.0.2.1 9 < file` elsewhere.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use handfast::time::{Duration, Instant};
use handfast::{App, Closed, ConnId, Cx};
use sha2::{Digest, Sha256};

mod common;

#[derive(Parser)]
#[command(name = "sink", about = "Takes all that anybody sends and throws it away")]
pub(crate) struct Options {
    /// The port to listen on.
    #[arg(long, default_value_t = 9)]
    port: u16,
    /// Print the SHA-256 of what each connection sent.
    #[arg(long)]
    sha256: bool,
    #[command(flatten)]
    device: common::DeviceOptions,
}

fn main() -> ExitCode {
    let Options { port, sha256, device } = Options::parse();
    common::run(&device, port, move |_core| Sink::new(std::io::stdout(), sha256))
}

/// The application of one core. What it has to say goes to `out`.
pub(crate) struct Sink<W: Write> {
    pub(crate) out: W,
    sha256: bool,
    /// By the connections' indices, which are dense.
    uploads: Vec<Option<Upload>>,
    bytes: u64,
    /// The beginning of this second and what `bytes` was then.
    second: (Instant, u64),
}

struct Upload {
    from: SocketAddr,
    bytes: u64,
    digest: Option<Sha256>,
}

impl<W: Write> Sink<W> {
    pub(crate) fn new(out: W, sha256: bool) -> Sink<W> {
        Sink { out, sha256, uploads: Vec::new(), bytes: 0, second: (Instant::ZERO, 0) }
    }
}

impl<W: Write> App for Sink<W> {
    fn on_accept(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let Some(from) = cx.remote(conn) else { return };
        let at = conn.index() as usize;
        if self.uploads.len() <= at {
            self.uploads.resize_with(at + 1, || None);
        }
        self.uploads[at] = Some(Upload { from, bytes: 0, digest: self.sha256.then(Sha256::new) });
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let Some(upload) = &mut self.uploads[conn.index() as usize] else { return };
        // Dropping a frame gives it back to the device.
        while let Some(frame) = cx.recv(conn) {
            upload.bytes += frame.len() as u64;
            self.bytes += frame.len() as u64;
            if let Some(digest) = &mut upload.digest {
                digest.update(&frame[..]);
            }
        }
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>, conn: ConnId, how: Closed) {
        let Some(upload) = self.uploads[conn.index() as usize].take() else { return };
        let digest = upload.digest.map(|digest| format!(" sha256 {:x}", digest.finalize())).unwrap_or_default();
        say(&mut self.out, format_args!("{} {:?}: {} bytes{digest}", upload.from, how, upload.bytes));
    }

    /// Once a second, if anything came: the rate.
    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        let (since, bytes_then) = self.second;
        let passed = cx.now().since(since);
        if passed < SECOND || (since != Instant::ZERO && self.bytes == bytes_then) {
            return;
        }
        if since != Instant::ZERO {
            let mbps = (self.bytes - bytes_then) as f64 * 8.0 / passed.as_micros() as f64;
            let connections = cx.connections();
            say(&mut self.out, format_args!("core {}: {mbps:.0} Mbit/s, {connections} connections", cx.core()));
        }
        self.second = (cx.now(), self.bytes);
        cx.wake_at(cx.now() + SECOND);
    }
}

/// Nobody reads our output any more: that is no reason to stop.
fn say(out: &mut impl Write, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{line}");
}

const SECOND: Duration = Duration::from_secs(1);
