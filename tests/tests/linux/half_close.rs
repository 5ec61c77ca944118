//! One side has closed its half, the other goes on for as long as it likes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use handfast::app::{App, Closed, ConnId, Cx};
use handfast_tests::apps::{Opener, Plan, Tally};
use handfast_tests::kernel::{Server, Service, pattern};
use handfast_tests::lab::{EVERY_WAY, Family, Lab, Setting, nothing_left, service};

use crate::needs;

const BYTES: u64 = 8 << 20;

/// Says nothing until the peer has closed, and then [`BYTES`] of the pattern.
struct Afterwards {
    received: u64,
    sent: u64,
}

impl App for Afterwards {
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while let Some(frame) = cx.recv(conn) {
            self.received += frame.len() as u64;
        }
    }

    fn on_peer_close(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        assert_eq!(self.received, BYTES, "all came before the end");
        self.on_writable(cx, conn);
    }

    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let mut chunk = [0; 1000];
        while self.sent < BYTES {
            let len = pattern(self.sent, &mut chunk[..(BYTES - self.sent).min(1000) as usize]);
            let written = cx.write(conn, &chunk[..len]);
            self.sent += written as u64;
            if written < len {
                return;
            }
        }
        cx.close(conn);
    }

    fn on_close(&mut self, _: &mut Cx<'_>, _: ConnId, how: Closed) {
        assert_eq!(how, Closed::Orderly);
    }
}

#[test]
fn a_kernel_that_has_closed_its_half_still_reads_all_that_we_send() {
    needs!(root);
    for (device, family) in EVERY_WAY {
        let lab = Lab::new(device, 1);
        let running = lab.spawn(Setting::default(), |_| Afterwards { received: 0, sent: 0 }).unwrap();
        lab.peer().run(|| {
            let mut stream = TcpStream::connect(service(family)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut expected = vec![0; BYTES as usize];
            pattern(0, &mut expected);
            stream.write_all(&expected).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            assert!(received == expected, "{} bytes came, or others", received.len());
        });
        nothing_left(running, Duration::from_secs(10));
    }
}

/// Closes its half at once and reads on.
struct ShutAtOnce(Opener);

impl App for ShutAtOnce {
    fn on_start(&mut self, cx: &mut Cx<'_>) {
        self.0.on_start(cx);
    }

    fn on_connect(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        cx.shutdown(conn);
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.0.on_data(cx, conn);
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, conn: ConnId, how: Closed) {
        self.0.on_close(cx, conn, how);
    }
}

#[test]
fn we_read_all_that_a_kernel_sends_after_we_have_closed_our_half() {
    needs!(root);
    for (device, family) in EVERY_WAY {
        let (lab, tally) = (Lab::new(device, 1), Arc::new(Tally::default()));
        let any = if family == Family::V4 { "0.0.0.0:9" } else { "[::]:9" };
        let server = lab.peer().run(|| Server::start(any.parse().unwrap(), Service::Source(BYTES), 1));
        let to = vec![SocketAddr::new(family.peer(), 9)];
        let (app, plan) = (tally.clone(), Plan { to, connections: 1, at_a_time: 1, request: b"", close_after: None });
        let running = lab.spawn(Setting::default(), move |_| ShutAtOnce(Opener::new(&app, plan.clone()))).unwrap();
        assert!(tally.wait_for(1, Duration::from_secs(20)), "{:?}", tally.how());
        assert_eq!((tally.bytes(), server.failures()), (BYTES, vec![]));
        tally.assert_all_orderly(1);
        nothing_left(running, Duration::from_secs(10));
    }
}
