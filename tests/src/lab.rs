//! A handfast and a Linux kernel at the two ends of a wire.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use handfast::app::App;
use handfast::config::Config;
use handfast::runtime::{Cidr, Error, Idle, Report, RunningRuntime, Runtime};
use handfast_drivers::clock::Clock;
use handfast_drivers::driver::Port;
use handfast_drivers::impair::{Impair, Impairment};
use handfast_drivers::tap::{self, TapPort};
use handfast_drivers::wrap::Wrapped;
use handfast_drivers::xdp::AfXdp;

use crate::kernel;
use crate::netns::{Netns, veth};
use crate::pick::{Picking, Picks};

/// What handfast's end of the wire is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    /// A veth pair; handfast drives its end through AF_XDP.
    AfXdp,
    /// A TAP device, of which the kernel is the other end.
    Tap,
}

/// Which IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Every device with every IP.
pub const EVERY_WAY: [(Device, Family); 4] =
    [(Device::AfXdp, Family::V4), (Device::AfXdp, Family::V6), (Device::Tap, Family::V4), (Device::Tap, Family::V6)];

impl Family {
    /// Handfast's address.
    pub fn ours(self) -> IpAddr {
        self.host(1)
    }

    /// The kernel's address.
    pub fn peer(self) -> IpAddr {
        self.host(2)
    }

    /// Host `number` of the network.
    pub fn host(self, number: u8) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::new(192, 0, 2, number).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    /// The length of the network's prefix.
    pub fn prefix_len(self) -> u8 {
        match self {
            Family::V4 => 24,
            Family::V6 => 64,
        }
    }

    /// The same as a command line names it.
    pub fn ours_cidr(self) -> String {
        format!("{}/{}", self.ours(), self.prefix_len())
    }
}

/// A wire, and the namespaces at its ends.
#[derive(Debug)]
pub struct Lab {
    /// What our end is.
    pub device: Device,
    /// Where handfast's end is. With a TAP device that is where the peer is too.
    pub ours: Netns,
    peer: Netns,
    queues: u32,
}

impl Lab {
    /// A wire of so many queues, which handfast drives with as many workers.
    pub fn new(device: Device, queues: u32) -> Lab {
        let (ours, peer) = (Netns::new(), Netns::new());
        let lab = Lab { device, ours, peer, queues };
        if device == Device::AfXdp {
            veth((&lab.ours, lab.interface()), (&lab.peer, lab.peer_interface()), queues, 1500);
            for family in [Family::V4, Family::V6] {
                lab.peer.address(lab.peer_interface(), family.peer(), family.prefix_len());
            }
        }
        kernel::widen(lab.peer());
        lab
    }

    /// The interface that handfast drives.
    pub fn interface(&self) -> &'static str {
        "ours"
    }

    /// Where the kernel is the peer.
    pub fn peer(&self) -> &Netns {
        match self.device {
            Device::AfXdp => &self.peer,
            Device::Tap => &self.ours,
        }
    }

    /// The kernel's interface to us.
    pub fn peer_interface(&self) -> &'static str {
        match self.device {
            Device::AfXdp => "peer",
            Device::Tap => self.interface(),
        }
    }

    /// Gives the kernel its addresses on a TAP device that a program has made; false as long as there is none.
    pub fn tap_is_there(&self) -> bool {
        let name = self.interface();
        let there = self.ours.run(|| std::process::Command::new("ip").args(["link", "show", name, "up"]).output());
        if !there.is_ok_and(|output| output.status.success() && !output.stdout.is_empty()) {
            return false;
        }
        for family in [Family::V4, Family::V6] {
            self.ours.address(name, family.peer(), family.prefix_len());
        }
        true
    }

    /// A runtime on this wire, with both addresses, that listens on [`PORT`].
    ///
    /// # Errors
    /// As [`Runtime::spawn`].
    pub fn spawn<A: App>(
        &self,
        setting: Setting,
        app: impl Fn(u16) -> A + Send + Sync + 'static,
    ) -> Result<RunningRuntime, Error> {
        match self.device {
            Device::AfXdp => {
                let port = AfXdp::interface(self.interface()).frames_per_queue(setting.frames_per_queue);
                self.ours.run(|| setting.spawn(port, self.queues as usize, app))
            }
            Device::Tap => {
                // Its address is to be usable at once.
                self.ours.sysctl("ipv6/conf/default/accept_dad", "0");
                self.ours.sysctl("ipv6/conf/default/accept_ra", "0");
                let both = [Family::V4, Family::V6];
                let port = TapPort::new(tap::Config {
                    name: self.interface().into(),
                    kernel_addresses: both.map(|family| (family.peer(), family.prefix_len())).into(),
                    frames_per_queue: setting.frames_per_queue,
                    ..tap::Config::default()
                });
                self.ours.run(|| setting.spawn(port, self.queues as usize, app))
            }
        }
    }
}

/// How handfast is set up.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The stack; addresses and [`PORT`] are added.
    pub config: Config,
    /// What happens to packets on the way to us, and on the way to the peer.
    pub network: (Impairment, Impairment),
    /// What happens to single segments of the peer's, before that.
    pub picks: Picks,
    /// Frames of each worker.
    pub frames_per_queue: u32,
    /// Pin the workers to the first cores.
    pub pinned: bool,
}

/// The port that handfast listens on.
pub const PORT: u16 = 7;

impl Default for Setting {
    /// A good network, and TIME-WAIT so short that a test can wait for its end.
    fn default() -> Setting {
        let mut config = Config::default();
        config.tcp.msl = handfast::time::Duration::from_millis(250);
        let network = (Impairment::default(), Impairment::default());
        Setting { config, network, picks: Picks::default(), frames_per_queue: 8192, pinned: false }
    }
}

impl Setting {
    fn spawn<P: Port, A: App>(
        self,
        port: P,
        workers: usize,
        app: impl Fn(u16) -> A + Send + Sync + 'static,
    ) -> Result<RunningRuntime, Error>
    where
        P::Queue: 'static,
        <P::Queue as handfast_drivers::driver::Queue>::Driver: 'static,
    {
        let (rx, tx) = self.network;
        let picks = self.picks;
        let port = Wrapped::new(port, move |queue: u16, driver| {
            let driver = Picking::new(driver, picks.clone());
            Ok(Impair::new(driver, rx, tx, 1 + u64::from(queue), Clock::system()))
        });
        let cidr = |family: Family| Cidr::new(family.ours(), family.prefix_len()).expect("a host's address");
        let runtime = Runtime::new(self.config).port(port).idle(Idle::Sleep).listen(PORT);
        let runtime = runtime.address(cidr(Family::V4)).address(cidr(Family::V6));
        match self.pinned {
            true => runtime.cores(0..workers).spawn(app),
            false => runtime.workers(workers).spawn(app),
        }
    }
}

/// Loss and disorder both ways.
pub fn bad_network(loss_ppm: u32, reorder_ppm: u32) -> (Impairment, Impairment) {
    let bad = Impairment { loss_ppm, reorder_ppm, reorder_us: 500, ..Impairment::default() };
    (bad, bad)
}

/// Where [`PORT`] of handfast is.
pub fn service(family: Family) -> SocketAddr {
    SocketAddr::new(family.ours(), PORT)
}

/// Waits until no worker has a connection, in whatever state, and then for the end of the runtime. Every frame is free then.
#[track_caller]
pub fn nothing_left(running: RunningRuntime, within: Duration) -> Report {
    let deadline = Instant::now() + within;
    loop {
        let left: Vec<_> = running.snapshot().into_iter().map(|s| (s.connections, s.half_open, s.time_waits)).collect();
        if left.iter().all(|&left| left == (0, 0, 0)) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "connections, half-open, TIME-WAIT of each worker: {left:?}\n{}",
            Metrics(&running)
        );
        thread::sleep(Duration::from_millis(20));
    }
    running.stop();
    let report = running.join().expect("no worker panicked");
    all_frames_free(&report);
    assert_eq!(report.aborted(), 0, "{report}");
    report
}

/// Every frame of every worker is back in its pool.
#[track_caller]
pub fn all_frames_free(report: &Report) {
    for worker in &report.workers {
        let frames = &worker.frames;
        assert_eq!(frames.owned + frames.receiving + frames.sending + frames.moving, 0, "{report}");
    }
}

/// The counters of a runtime that runs, for messages.
#[derive(Debug)]
pub struct Metrics<'a>(pub &'a RunningRuntime);

impl fmt::Display for Metrics<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for snapshot in self.0.snapshot() {
            write!(f, "worker {}:", snapshot.core)?;
            snapshot.metrics.iter().try_for_each(|(name, n)| write!(f, " {name}={n}"))?;
            writeln!(f, " {:?}, {} frames free", snapshot.device, snapshot.frames_free)?;
        }
        Ok(())
    }
}
