//! What tshark says about the packets of ordinary runs, as the kernel's side and our recorder saw them.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use handfast_tests::capture::{self, Capture};
use handfast_tests::kernel::{self, FirstToClose, Load};
use handfast_tests::lab::{Device, EVERY_WAY, Lab};
use handfast_tests::process::succeed;
use handfast_tests::{Scratch, example, say};

use crate::needs;

#[test]
fn no_packet_is_malformed_or_has_a_bad_checksum() {
    needs!(root, "tshark", "tcpdump", "curl", "ping");
    let networks = [None, Some("loss=2%,duplicate=2%,reorder=5%"), Some("loss=2%,duplicate=2%,reorder=5%"), None];
    for ((device, family), impair) in EVERY_WAY.into_iter().zip(networks) {
        let (lab, folder) = (Lab::new(device, 1), Scratch::new());
        std::fs::write(folder.path().join("file"), vec![b'x'; 1 << 20]).unwrap();
        let ours = folder.path().join("ours.pcapng");
        let mut command = example::on(&lab, "http_static");
        command.arg("--root").arg(folder.path()).arg("--pcap").arg(&ours);
        command.args(impair.map(|bad| ["--impair", bad]).as_slice().as_flattened());
        let service = SocketAddr::new(family.ours(), 80);
        let server = example::start(&lab, &mut command, service);
        let recording = Capture::start(lab.peer(), lab.peer_interface(), folder.path().join("theirs.pcap"));
        lab.peer().run(|| {
            let url = format!("http://{service}/file");
            succeed(Command::new("curl").args(["-sS", "--fail", "--max-time", "60", "-o", "/dev/null", &url, &url]));
            // Nobody listens there.
            let closed =
                TcpStream::connect_timeout(&SocketAddr::new(family.ours(), 81), std::time::Duration::from_secs(10));
            assert_eq!(closed.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
            // Neither do they answer the last one, if the network is bad.
            let _ =
                Command::new("ping").args(["-c", "20", "-i", "0.01", "-s", "900", &family.ours().to_string()]).output();
            let load = Load { to: vec![service], connections: 50, at_a_time: 8, first: FirstToClose::Client };
            // An HTTP server makes an error of it; each connection has an answer and an end.
            kernel::open_and_close(&load);
        });
        let theirs = recording.stop();
        example::stop(server);
        for (who, file) in [("tcpdump", &theirs), ("our recorder", &ours)] {
            let packets = capture::packets(file);
            say(format_args!("{device:?} {family:?}: tshark reads {packets} packets of {who}"));
            assert!(packets > 700, "{packets} packets of {who}");
            assert_eq!(capture::faults(file), "", "{who}");
        }
        if device == Device::AfXdp && impair.is_none() {
            assert_eq!(capture::tshark(&theirs, "tcp.analysis.retransmission"), "", "a good network loses nothing");
        }
    }
}
