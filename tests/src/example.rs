//! The examples of handfast, and its load generator, as programs.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Device, Family, Lab};
use crate::process::{self, Running};

/// A command that starts an example.
pub fn example(name: &str) -> Command {
    Command::new(folder().join(name))
}

/// A command that starts an example on this wire, with both addresses. It sleeps when idle.
pub fn on(lab: &Lab, name: &str) -> Command {
    let mut command = example(name);
    let driver = match lab.device {
        Device::AfXdp => "af_xdp",
        Device::Tap => "tap",
    };
    command.args(["--driver", driver, "--interface", lab.interface(), "--sleep"]);
    command.args(["--address", &Family::V4.ours_cidr(), "--address", &Family::V6.ours_cidr()]);
    command
}

/// Starts it at our end of the wire, and returns when it accepts connections to this address.
pub fn start(lab: &Lab, command: &mut Command, service: SocketAddr) -> Running {
    let mut running = lab.ours.run(|| Running::start(command));
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut at_home = false;
    loop {
        if running.ended().is_some() {
            panic!("{command:?} ended: {}", running.stop().1);
        }
        if lab.device == Device::Tap && !at_home {
            at_home = lab.tap_is_there();
        } else if lab.peer().run(|| TcpStream::connect_timeout(&service, Duration::from_millis(500))).is_ok() {
            return running;
        }
        assert!(Instant::now() < deadline, "{command:?} does not accept connections to {service}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Ends it as Ctrl-C would and gives its last words. No frame may be missing then.
#[track_caller]
pub fn stop(mut running: Running) -> String {
    let (status, written) = running.stop();
    assert!(status.success(), "{status}: {written}");
    assert!(written.contains("owned: 0, receiving: 0, sending: 0, moving: 0"), "{written}");
    written
}

/// A command that starts `handfast-load`.
pub fn load() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let build = || build(&["--package", "handfast-bench", "--bin", "handfast-load"]).join("handfast-load");
    Command::new(PROGRAM.get_or_init(build))
}

/// Where the examples are.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| build(&["--package", "handfast", "--examples"]).join("examples"))
}

/// Builds it as the tests were built; the folder of that.
fn build(what: &[&str]) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let target = profile.parent().expect("target/PROFILE");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).env("CARGO_TARGET_DIR", target);
    cargo.args(["build", "--quiet"]).args(what);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    process::succeed(&mut cargo);
    profile.into()
}
