//! Captures of what passed a wire, and the judgment of tshark on them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::netns::Netns;
use crate::process::{self, Running};

/// tcpdump on an interface of the kernel's.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Running,
    file: PathBuf,
}

impl Capture {
    /// Begins to record all that passes `interface`, and returns when tcpdump is listening.
    pub fn start(netns: &Netns, interface: &str, file: PathBuf) -> Capture {
        let mut command = Command::new("tcpdump");
        command.args(["--immediate-mode", "-U", "-n", "-B", "65536", "-Z", "root", "-i", interface, "-w"]).arg(&file);
        let tcpdump = netns.run(|| Running::start(&mut command));
        // It writes the file's header when it has opened the interface.
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::metadata(&file).map_or(0, |meta| meta.len()) < 24 {
            assert!(Instant::now() < deadline, "tcpdump does not begin");
            thread::sleep(Duration::from_millis(10));
        }
        Capture { tcpdump, file }
    }

    /// Ends the recording and gives the file.
    pub fn stop(mut self) -> PathBuf {
        // What is still in the socket's buffer is written when the next packet is waited for.
        thread::sleep(Duration::from_millis(200));
        let (status, written) = self.tcpdump.stop();
        assert!(status.success(), "tcpdump: {status}: {written}");
        self.file.clone()
    }
}

/// How many packets the file has.
pub fn packets(file: &Path) -> usize {
    tshark(file, "frame").lines().count()
}

/// Every packet with a bad checksum, or that is malformed, or that the dissectors call an error; one a line.
pub fn faults(file: &Path) -> String {
    tshark(
        file,
        "_ws.malformed or _ws.expert.severity == error or ip.checksum.status == 0 or tcp.checksum.status == 0 \
         or icmp.checksum.status == 0 or icmpv6.checksum.status == 0",
    )
}

/// The packets that a display filter matches, one a line.
pub fn tshark(file: &Path, filter: &str) -> String {
    // TCP is judged, not what it carries: putting that together, tshark calls some segments that were sent again malformed.
    let checks = ["tcp.check_checksum:TRUE", "ip.check_checksum:TRUE", "tcp.desegment_tcp_streams:FALSE"];
    let checks = checks.map(|option| ["-o", option]);
    let mut command = Command::new("tshark");
    command.env("HOME", "/nonexistent").args(["-n", "-r"]).arg(file).args(checks.as_flattened());
    process::succeed(command.args(["-Y", filter]))
}
