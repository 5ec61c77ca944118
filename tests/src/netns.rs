//! Network namespaces without a name, and Ethernet wires between them. They go with the last descriptor, socket and process
//! inside, so that nothing is left however a test ends.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::process;

/// A network namespace, with its loopback interface up.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    /// Makes one. Needs root.
    pub fn new() -> Netns {
        let make = || {
            // SAFETY: of the things that a thread may stop sharing, the network is none that memory safety rests on.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("a new network namespace");
            this_threads()
        };
        let netns = Netns { file: thread::scope(|scope| scope.spawn(make).join().expect("the namespace was made")) };
        netns.ip("link set lo up");
        netns
    }

    /// Moves this thread into the namespace until the result is dropped. Threads and processes that it starts
    /// meanwhile live there for good.
    pub fn enter(&self) -> Inside {
        let before = this_threads();
        move_to(&self.file);
        Inside { before, _not_send: std::marker::PhantomData }
    }

    /// Calls `body` inside.
    pub fn run<T>(&self, body: impl FnOnce() -> T) -> T {
        let _inside = self.enter();
        body()
    }

    /// Runs `ip` inside, with words separated by blanks. It has to succeed.
    pub fn ip(&self, words: &str) {
        self.run(|| process::succeed(Command::new("ip").args(words.split_whitespace())));
    }

    /// Sets a value under `/proc/sys/net`, such as `ipv4/tcp_tw_reuse`.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/{name}");
        self.run(|| fs::write(&path, value)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// The namespace as other programs can name it.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Gives the kernel's interface `name` an address, which is usable at once.
    pub fn address(&self, name: &str, address: IpAddr, prefix_len: u8) {
        let nodad = if address.is_ipv6() { " nodad" } else { "" };
        self.ip(&format!("address add {address}/{prefix_len} dev {name}{nodad}"));
    }

    /// From now on the kernel hears nothing of what arrives on `name`, except ARP and neighbour discovery, and goes on
    /// talking: a peer that has vanished.
    pub fn deafen(&self, name: &str) {
        for family in ["-4", "-6"] {
            // The table of local addresses is asked first of all, so that has to come later.
            self.ip(&format!("{family} rule add pref 100 lookup local"));
            self.ip(&format!("{family} rule add pref 10 iif {name} ipproto tcp blackhole"));
            self.ip(&format!("{family} rule del pref 0"));
        }
    }
}

impl Default for Netns {
    fn default() -> Netns {
        Netns::new()
    }
}

/// This thread is in another namespace until this is dropped.
#[derive(Debug)]
pub struct Inside {
    before: File,
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        move_to(&self.before);
    }
}

/// One end of a wire: an interface name in a namespace.
pub type End<'a> = (&'a Netns, &'a str);

/// Joins two interfaces, made for it, by a wire with so many queues each way. Both are up and do no offloading, so that each
/// packet on the wire is one that could be on a real one. Neither end has an address; the kernel gives itself none.
pub fn veth(a: End<'_>, b: End<'_>, queues: u32, mtu: u32) {
    let end = |(netns, name): End<'_>| {
        let netns = netns.path();
        format!("name {name} mtu {mtu} numrxqueues {queues} numtxqueues {queues} netns {}", netns.display())
    };
    a.0.ip(&format!("link add {} type veth peer {}", end(a), end(b)));
    for (netns, name) in [a, b] {
        netns.sysctl(&format!("ipv6/conf/{name}/addr_gen_mode"), "1");
        netns.sysctl(&format!("ipv6/conf/{name}/accept_ra"), "0");
        netns.run(|| stop_offloads(name));
        netns.ip(&format!("link set {name} up"));
    }
}

/// Has the interface send what a wire carries: whole checksums, no packet larger than the MTU.
pub fn stop_offloads(name: &str) {
    let offloads = ["tx", "off", "tso", "off", "gso", "off", "gro", "off"];
    process::succeed(Command::new("ethtool").arg("-K").arg(name).args(offloads));
}

fn this_threads() -> File {
    File::open("/proc/thread-self/ns/net").expect("a thread has a network namespace")
}

fn move_to(netns: &File) {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("moving to a namespace needs root");
}
