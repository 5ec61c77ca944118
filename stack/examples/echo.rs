//! Sends back what it receives (RFC 862).
//!
//! `echo --interface eth1 --address 192.0.2.1/24`, then `nc 192.0.2.1 7` elsewhere.

use std::process::ExitCode;

use clap::Parser;
use handfast::{App, ConnId, Cx};

mod common;

#[derive(Parser)]
#[command(name = "echo", about = "Sends back what it receives")]
struct Options {
    /// The port to listen on.
    #[arg(long, default_value_t = 7)]
    port: u16,
    #[command(flatten)]
    device: common::DeviceOptions,
}

struct Echo;

impl App for Echo {
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while cx.room(conn) > 0
            && let Some(frame) = cx.recv(conn)
        {
            cx.send(conn, frame).expect("room was checked");
        }
    }

    // Frames that there was no room for wait in the receive queue.
    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.on_data(cx, conn);
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    common::run(&options.device, options.port, |_core| Echo)
}
