use std::process::Command;
use std::sync::{Arc, Mutex};

use pcap_file::pcapng::{Block, PcapNgReader};

use super::*;
use crate::frame::Frame;
use crate::impair::{Impair, Impairment};
use crate::wire::{self, WireDriver};

/// A file in memory that can be read while it is written.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    /// Direction, time in nanoseconds, original length and bytes of each packet.
    fn packets(&self) -> Vec<(u32, u128, u32, Vec<u8>)> {
        let bytes = self.0.lock().unwrap().clone();
        let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
        let mut packets = Vec::new();
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.unwrap() {
                let [EnhancedPacketOption::Flags(direction)] = packet.options[..] else {
                    panic!("{:?}", packet.options)
                };
                packets.push((direction, packet.timestamp.as_nanos(), packet.original_len, packet.data.into_owned()));
            }
        }
        packets
    }
}

/// A UDP datagram over IPv4 that a dissector finds nothing wrong with.
fn datagram(driver: &impl Driver, payload: &[u8]) -> Frame {
    let mut frame = driver.pool().alloc().unwrap();
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    let len = (28 + payload.len()) as u16;
    let mut ip = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    let sum: u32 = ip.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]) as u32).sum();
    ip[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(&[0x30, 0x39, 0x30, 0x3a]);
    frame.extend_from_slice(&(len - 20).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(payload);
    frame
}

fn send(driver: &mut impl Driver, payloads: &[&[u8]]) {
    let mut tx = TxBurst::new();
    payloads.iter().for_each(|payload| tx.push(datagram(driver, payload)));
    driver.tx_burst(&mut tx);
    driver.flush();
}

fn receive(driver: &mut impl Driver) -> usize {
    let mut rx = RxBurst::new();
    driver.rx_burst(&mut rx);
    rx.len()
}

fn recorded(options: Options) -> (Pcap<WireDriver, Shared>, WireDriver, Shared) {
    let (near, far) = wire::pair(wire::Config { ring_len: 8, ..wire::Config::default() });
    let file = Shared::default();
    (Pcap::new(near, file.clone(), options).unwrap(), far, file)
}

#[test]
fn both_directions_are_recorded_with_their_times() {
    let clock = Clock::manual();
    let (mut near, mut far, file) = recorded(Options { clock: clock.clone(), ..Options::default() });
    clock.set_us(1_700_000_000_000_000);
    send(&mut near, &[b"out"]);
    clock.set_us(1_700_000_000_000_001);
    send(&mut far, &[b"in", b"in too"]);
    assert_eq!((receive(&mut near), receive(&mut far), near.recorded()), (2, 1, 3));
    near.sync();
    let packets = file.packets();
    let seen: Vec<_> =
        packets.iter().map(|(direction, ns, len, bytes)| (*direction, *ns, *len, &bytes[42..])).collect();
    let (first, then) = (1_700_000_000_000_000_000, 1_700_000_000_000_001_000);
    assert_eq!(seen, [(2, first, 45, &b"out"[..]), (1, then, 44, b"in"), (1, then, 48, b"in too")]);
    assert!(near.error().is_none());
}

#[test]
fn a_snap_length_cuts_the_bytes_and_keeps_the_length() {
    let (mut near, _far, file) = recorded(Options { snap_len: 42, ..Options::default() });
    send(&mut near, &[b"payload"]);
    drop(near);
    assert_eq!(file.packets().iter().map(|packet| (packet.2, packet.3.len())).collect::<Vec<_>>(), [(49, 42)]);
}

#[test]
fn what_has_to_wait_for_the_device_is_recorded_once() {
    let (mut near, mut far, file) = recorded(Options::default());
    send(&mut near, &[b"x".as_slice(); 20]);
    let mut arrived = 0;
    while arrived < 20 {
        arrived += receive(&mut far);
        near.flush();
    }
    drop(near);
    assert_eq!(file.packets().len(), 20);
}

#[test]
fn a_full_disk_stops_the_recording_and_nothing_else() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (near, mut far) = wire::pair(wire::Config::default());
    let mut near = Pcap::new(near, Full, Options::default()).unwrap();
    for _ in 0..400 {
        send(&mut near, &[&[0; 1400]]);
        assert_eq!(receive(&mut far), 1);
    }
    assert_eq!(near.error().map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
    assert!(near.recorded() < 400);
}

#[test]
fn a_file_that_cannot_be_made_is_an_error() {
    let (near, _far) = wire::pair(wire::Config::default());
    let error = Pcap::create(near, "/nonexistent/file.pcapng", Options::default()).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn middleware_composes_and_every_frame_comes_home() {
    let (near, mut far) = wire::pair(wire::Config { ring_len: 4, ..wire::Config::default() });
    let pools = [near.pool().clone(), far.pool().clone()];
    let setting = Impairment { duplicate_ppm: 500_000, delay_us: 10, queue_max: 30, ..Impairment::default() };
    let clock = Clock::manual();
    let near = Impair::new(near, setting, setting, 3, clock.clone());
    let mut near = Pcap::new(near, Shared::default(), Options::default()).unwrap();
    for now_us in 0..100 {
        clock.set_us(now_us);
        send(&mut near, &[b"a", b"b"]);
        send(&mut far, &[b"c"]);
        receive(&mut near);
        if now_us % 3 == 0 {
            receive(&mut far);
        }
    }
    assert_eq!(near.inner().accidents().1.lost, 0);
    drop(far);
    drop(near);
    wire::tests::assert_home(&pools[1], &pools[0]);
}

#[test]
fn tshark_reads_it_and_has_nothing_to_say_against_it() {
    if Command::new("tshark").arg("--version").output().is_err() {
        return eprintln!("skipped: tshark is not installed");
    }
    let path = std::env::temp_dir().join(format!("handfast-pcap-test-{}.pcapng", std::process::id()));
    let (near, mut far) = wire::pair(wire::Config::default());
    let options = Options { name: "wire0".into(), description: "a test".into(), ..Options::default() };
    let mut near = Pcap::create(near, &path, options).unwrap();
    send(&mut near, &[b"out", &[7; 1400]]);
    send(&mut far, &[b"in"]);
    assert_eq!(receive(&mut near), 1);
    drop(near);
    let fields = ["frame.interface_name", "frame.packet_flags_direction", "frame.len", "_ws.expert"];
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&path).args(["-o", "ip.check_checksum:TRUE", "-T", "fields"]);
    tshark.args(fields.iter().flat_map(|field| ["-e", field]));
    let output = tshark.output().unwrap();
    std::fs::remove_file(&path).unwrap();
    let stderr: String =
        String::from_utf8_lossy(&output.stderr).lines().filter(|line| !line.contains("as user \"root\"")).collect();
    assert_eq!((output.status.success(), stderr.as_str()), (true, ""));
    let lines: Vec<_> = std::str::from_utf8(&output.stdout).unwrap().lines().map(str::trim_end).collect();
    let direction =
        |line: &str| u32::from_str_radix(line.split('\t').nth(1).unwrap().trim_start_matches("0x"), 16).unwrap();
    assert_eq!(lines.iter().map(|line| direction(line)).collect::<Vec<_>>(), [2, 2, 1]);
    assert!(lines.iter().all(|line| line.starts_with("wire0\t") && line.split('\t').count() == 3), "{lines:?}");
}
