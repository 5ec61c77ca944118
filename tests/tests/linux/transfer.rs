//! Files through the examples: what arrives is what was sent, over good networks and bad ones.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use handfast_tests::kernel::pattern;
use handfast_tests::lab::{Device, EVERY_WAY, Family, Lab};
use handfast_tests::process::succeed;
use handfast_tests::{Scratch, example, full, say};

use crate::needs;

/// A file of so many MiB, in a folder of its own.
fn file(folder: &Scratch, mib: u64) -> PathBuf {
    let path = folder.path().join("file");
    let mut writer = BufWriter::new(File::create(&path).unwrap());
    let mut chunk = vec![0; 1 << 20];
    for at in 0..mib {
        pattern(at << 20, &mut chunk);
        writer.write_all(&chunk).unwrap();
    }
    writer.flush().unwrap();
    path
}

fn sha256(path: &Path) -> String {
    succeed(Command::new("sha256sum").arg(path)).split_whitespace().next().unwrap().to_owned()
}

/// What each bad network does to packets, each way.
const BAD: [&str; 3] = ["loss=1%", "loss=5%", "loss=1%,reorder=10%,duplicate=1%,jitter=0.2ms"];

fn bad_mib() -> u64 {
    if full() { 1024 } else { 16 }
}

fn download(device: Device, family: Family, mib: u64, impair: Option<&str>) {
    let (lab, folder) = (Lab::new(device, 1), Scratch::new());
    let path = file(&folder, mib);
    let mut command = example::on(&lab, "http_static");
    command.arg("--root").arg(folder.path());
    command.args(impair.map(|bad| ["--impair", bad]).as_slice().as_flattened());
    let service = SocketAddr::new(family.ours(), 80);
    let server = example::start(&lab, &mut command, service);
    let begun = Instant::now();
    let fetch = format!("set -o pipefail; curl -sS --fail --max-time 3600 http://{service}/file | sha256sum");
    let sum = lab.peer().run(|| succeed(Command::new("bash").args(["-c", &fetch])));
    let took = begun.elapsed().as_secs_f64();
    let mbps = (mib << 23) as f64 / 1e6 / took;
    say(format_args!(
        "{device:?} {family:?} {}: curl got {mib} MiB in {took:.2} s, {mbps:.0} Mbit/s",
        impair.unwrap_or("good network")
    ));
    let written = example::stop(server);
    assert_eq!(sum.split_whitespace().next(), Some(&*sha256(&path)), "{written}");
}

#[test]
fn curl_fetches_a_gibibyte_and_its_sha_256_is_right() {
    needs!(root, "curl");
    download(Device::AfXdp, Family::V4, 1024, None);
    download(Device::AfXdp, Family::V6, if full() { 1024 } else { 64 }, None);
    download(Device::Tap, Family::V4, if full() { 1024 } else { 64 }, None);
    download(Device::Tap, Family::V6, if full() { 1024 } else { 64 }, None);
}

#[test]
fn curl_fetches_what_is_right_over_bad_networks() {
    needs!(root, "curl");
    for ((device, family), bad) in EVERY_WAY.into_iter().zip(BAD.into_iter().cycle()) {
        download(device, family, bad_mib(), Some(bad));
    }
}

fn upload(device: Device, family: Family, mib: u64, impair: Option<&str>) {
    let (lab, folder) = (Lab::new(device, 1), Scratch::new());
    let path = file(&folder, mib);
    let mut command = example::on(&lab, "sink");
    command.arg("--sha256").args(impair.map(|bad| ["--impair", bad]).as_slice().as_flattened());
    let service = SocketAddr::new(family.ours(), 9);
    let server = example::start(&lab, &mut command, service);
    let begun = Instant::now();
    lab.peer().run(|| {
        let mut stream = TcpStream::connect(service).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        assert_eq!(std::io::copy(&mut File::open(&path).unwrap(), &mut stream).unwrap(), mib << 20);
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the sink closes when all has come");
    });
    let took = begun.elapsed().as_secs_f64();
    let mbps = (mib << 23) as f64 / 1e6 / took;
    say(format_args!(
        "{device:?} {family:?} {}: the sink got {mib} MiB in {took:.2} s, {mbps:.0} Mbit/s",
        impair.unwrap_or("good network")
    ));
    let written = example::stop(server);
    assert!(written.contains(&format!("Orderly: {} bytes sha256 {}", mib << 20, sha256(&path))), "{written}");
}

#[test]
fn the_sink_gets_a_gibibyte_and_its_sha_256_is_right() {
    needs!(root);
    upload(Device::AfXdp, Family::V4, 1024, None);
    upload(Device::AfXdp, Family::V6, if full() { 1024 } else { 64 }, None);
    upload(Device::Tap, Family::V4, if full() { 1024 } else { 64 }, None);
    upload(Device::Tap, Family::V6, if full() { 1024 } else { 64 }, None);
}

#[test]
fn the_sink_gets_what_is_right_over_bad_networks() {
    needs!(root);
    for ((device, family), bad) in EVERY_WAY.into_iter().zip(BAD.into_iter().cycle()) {
        upload(device, family, bad_mib(), Some(bad));
    }
}
