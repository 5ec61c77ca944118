//! Forwards every connection to another address. The frames that arrive are the frames that leave: no payload is copied.
//!
//! `tcp_proxy --listen 80 --to 198.51.100.7:8080 --interface eth1 --address 192.0.2.1/24 --gateway 192.0.2.254`

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use handfast::{App, Closed, ConnId, Cx};

mod common;

#[derive(Parser)]
#[command(name = "tcp_proxy", about = "Forwards every connection to another address, without copying what it carries")]
pub(crate) struct Options {
    /// The port to listen on.
    #[arg(long)]
    listen: u16,
    /// Where connections are forwarded to.
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    #[command(flatten)]
    device: common::DeviceOptions,
}

fn main() -> ExitCode {
    let Options { listen, to, device } = Options::parse();
    common::run(&device, listen, move |_core| Proxy { to })
}

/// The application of one core. All it knows of a connection is the other one of its pair, and the stack keeps that.
pub(crate) struct Proxy {
    pub(crate) to: SocketAddr,
}

impl App for Proxy {
    fn on_accept(&mut self, cx: &mut Cx<'_>, client: ConnId) {
        let server = match cx.connect(self.to) {
            Ok(server) => server,
            Err(error) => {
                eprintln!("{}: {error}", self.to);
                return cx.abort(client);
            }
        };
        cx.set_user(client, server.to_bits());
        cx.set_user(server, client.to_bits());
        // Whoever wrote these segments has waited already, if he wanted to.
        cx.set_nodelay(client, true);
        cx.set_nodelay(server, true);
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if let Some(other) = other(cx, conn) {
            forward(cx, conn, other);
        }
    }

    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if let Some(other) = other(cx, conn) {
            forward(cx, other, conn);
        }
    }

    /// One half is over, and all of it was passed on. The other half may go on for as long as it likes.
    fn on_peer_close(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if let Some(other) = other(cx, conn) {
            cx.shutdown(other);
        }
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, conn: ConnId, how: Closed) {
        if how != Closed::Orderly
            && let Some(other) = other(cx, conn)
        {
            cx.abort(other);
        }
    }
}

/// Passes on what has come, as far as there is room. The rest stays where it is and closes the sender's window.
fn forward(cx: &mut Cx<'_>, from: ConnId, to: ConnId) {
    while cx.room(to) > 0
        && let Some(frame) = cx.recv(from)
    {
        if cx.send(to, frame).is_err() {
            return cx.abort(from);
        }
    }
}

/// The other connection of the pair. It may be gone already; then the stack ignores what is asked of it.
fn other(cx: &Cx<'_>, conn: ConnId) -> Option<ConnId> {
    ConnId::from_bits(cx.user(conn))
}
