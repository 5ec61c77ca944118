//! The wire: a veth pair, one end in the namespace of each process, and who has which address on it.

use std::error::Error;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;

use handfast::Cidr;

/// Makes the wire, and takes this end of it. The other process takes the other.
///
/// # Errors
/// What a tool says, or that it is not there.
pub(super) fn set_up(peer_pid: u32) -> Result<(), Box<dyn Error + Send + Sync>> {
    sysctls()?;
    ip(&format!(
        "link add name {HERE} numrxqueues 1 numtxqueues 1 type veth peer name {PEER} netns {peer_pid} numrxqueues 1 numtxqueues 1"
    ))?;
    take(HERE, KERNEL_HERE)
}

/// The other process's part.
///
/// # Errors
/// What a tool says, or that it is not there.
pub(super) fn set_up_peer() -> Result<(), Box<dyn Error + Send + Sync>> {
    sysctls()?;
    take(PEER, *KERNEL_SERVICE.ip())
}

fn take(interface: &str, address: Ipv4Addr) -> Result<(), Box<dyn Error + Send + Sync>> {
    // Packets as a real wire carries them.
    tool("ethtool", &format!("-K {interface} tx off tso off gso off gro off"))?;
    ip(&format!("address add {address}/24 dev {interface}"))?;
    ip(&format!("link set {interface} up"))?;
    ip("link set lo up")
}

/// For the kernel's sake: as many ports and half-open connections as there can be, and TIME-WAIT for all that close.
fn sysctls() -> Result<(), Box<dyn Error + Send + Sync>> {
    for (name, value) in [
        ("ipv4/ip_local_port_range", "1024 65535"),
        ("ipv4/tcp_max_syn_backlog", "65535"),
        ("ipv4/tcp_max_tw_buckets", "4000000"),
        ("core/somaxconn", "65535"),
        ("ipv6/conf/default/disable_ipv6", "1"),
    ] {
        let path = format!("/proc/sys/net/{name}");
        // Without IPv6 there is nothing to turn off.
        if fs::exists(&path)? {
            fs::write(&path, value).map_err(|error| format!("{path}: {error}"))?;
        }
    }
    Ok(())
}

fn ip(words: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    tool("ip", words)
}

fn tool(name: &str, words: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let output = Command::new(name).args(words.split_whitespace()).output();
    let output = output.map_err(|error| format!("{name}: {error}: install iproute2 and ethtool"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{name} {words}: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
    }
}

/// Whether a program is there.
pub(super) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}

/// The cores of this end and of the other: two where there are two.
pub(super) fn cores() -> (usize, usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let core = |at: usize| cores.get(at).map(|core| core.id);
    let first = core(0).unwrap_or(0);
    (first, core(1).unwrap_or(first))
}

/// handfast's addresses in one network, the kernel's in another.
pub(super) fn ours_at_peer() -> Cidr {
    Cidr::new(OURS_SERVICE.ip().to_owned().into(), 24).expect("a host's address")
}

/// The first of handfast's addresses at this end, in the network of [`OURS_SERVICE`].
pub(super) fn ours_here() -> Cidr {
    Cidr::new(Ipv4Addr::new(192, 0, 2, 101).into(), 24).expect("a host's address")
}

/// The same in the kernel's network, to talk to it.
pub(super) fn ours_beside_the_kernel() -> Cidr {
    Cidr::new(Ipv4Addr::new(198, 51, 100, 101).into(), 24).expect("a host's address")
}

/// How many addresses handfast has at this end: from each, 64,512 connections to a port may wait in TIME-WAIT.
pub(super) const OURS_COUNT: u32 = 100;

/// As many ports as the kernel's connections need; the same number of addresses would cost it a system call for each.
pub(super) fn kernel_services() -> Vec<SocketAddrV4> {
    (0..100).map(|more| SocketAddrV4::new(*KERNEL_SERVICE.ip(), KERNEL_SERVICE.port() + more)).collect()
}

pub(super) const OURS_SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), super::ours::PORT);
pub(super) const KERNEL_SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 2), 700);
pub(super) const KERNEL_WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 2), 80);

pub(super) const HERE: &str = "hf0";
pub(super) const PEER: &str = "hf1";
const KERNEL_HERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
