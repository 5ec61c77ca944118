//! Captures of what passed a wire, and the judgment of tshark on them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use pcap_file::pcap::PcapReader;

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
        Capture::with(netns, interface, file, &["--immediate-mode", "-U", "-B", "65536"])
    }

    /// The same for many packets: only their headers, and with much room for those that tcpdump has no time for yet.
    pub fn of_headers(netns: &Netns, interface: &str, file: PathBuf) -> Capture {
        Capture::with(netns, interface, file, &["-U", "-s", "96", "-B", "524288"])
    }

    fn with(netns: &Netns, interface: &str, file: PathBuf, options: &[&str]) -> Capture {
        let mut command = Command::new("tcpdump");
        command.args(options).args(["-n", "-Z", "root", "-i", interface, "-w"]).arg(&file);
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

/// What a capture of headers has of each Ethernet address that sent anything.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sent {
    /// Packets of whatever kind.
    pub packets: u64,
    /// With the Ethernet header.
    pub bytes: u64,
    /// TCP segments with SYN and without ACK.
    pub syns: u64,
    /// TCP segments with SYN and ACK.
    pub syn_acks: u64,
    /// TCP segments with FIN.
    pub fins: u64,
    /// TCP segments with RST.
    pub resets: u64,
}

impl Capture {
    /// Ends the recording, which must have missed nothing, and counts what each Ethernet address sent. TCP is looked for in plain IPv4.
    pub fn count(mut self) -> BTreeMap<[u8; 6], Sent> {
        // The kernel hands over what came once a second.
        thread::sleep(Duration::from_millis(1500));
        let (status, written) = self.tcpdump.stop();
        assert!(status.success() && written.contains("\n0 packets dropped by kernel"), "tcpdump: {status}: {written}");
        let file = File::open(&self.file).expect("tcpdump made it");
        let mut reader = PcapReader::new(BufReader::new(file)).expect("a capture");
        let mut counts = BTreeMap::<[u8; 6], Sent>::new();
        while let Some(packet) = reader.next_packet() {
            let packet = packet.expect("a whole packet");
            let Some(source) = packet.data.get(6..12).and_then(|mac| mac.try_into().ok()) else { continue };
            let sent = counts.entry(source).or_default();
            sent.packets += 1;
            sent.bytes += u64::from(packet.orig_len);
            let is_tcp = packet.data[12..].starts_with(&[0x08, 0x00, 0x45]) && packet.data.get(23) == Some(&6);
            if let Some(flags) = packet.data.get(47).filter(|_| is_tcp) {
                let has = |bits: u8| u64::from(flags & bits == bits);
                sent.syn_acks += has(0x12);
                sent.syns += has(0x02) - has(0x12);
                sent.fins += has(0x01);
                sent.resets += has(0x04);
            }
        }
        counts
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
