//! A network namespace with a veth pair, and the smallest XDP program that feeds AF_XDP sockets.

use rustix::thread::{CapabilitySet, CapabilitySets};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::thread;

/// Runs `test` on a thread in a network namespace of its own, which goes with the thread and its sockets. Without root it
/// says that it skips.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root for a network namespace");
        return;
    }
    let name = thread::current().name().unwrap_or("test").to_owned();
    let body = move || {
        // SAFETY: a system call without pointers; it moves only this thread.
        let answer = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        if answer != 0 {
            eprintln!("skipped: no network namespace here: {}", io::Error::last_os_error());
            return;
        }
        test();
    };
    if let Err(panic) = thread::Builder::new().name(name).spawn(body).unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

/// Makes the interfaces `a` and `b` with that many queues, joined by a wire.
pub(crate) fn veth(queues: u32, mtu: u32) {
    let queues = format!("numrxqueues {queues} numtxqueues {queues}");
    run(&format!("ip link add name a mtu {mtu} {queues} type veth peer name b mtu {mtu} {queues}"));
    for end in ["a", "b"] {
        // The kernel itself has nothing to say on this wire.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1");
        run(&format!("ip link set dev {end} arp off up"));
    }
}

pub(crate) fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().expect(command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Takes all other capabilities from the calling thread.
pub(crate) fn keep_capabilities(kept: CapabilitySet) {
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).unwrap();
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Attach {
    Generic = 2,
    Native = 4,
}

/// An XDP program that redirects each packet to the socket of its queue, and passes what has none. Detached on drop.
pub(crate) struct Redirect {
    sockets: OwnedFd,
    _link: OwnedFd,
}

impl Redirect {
    pub(crate) fn attach(interface: &str, how: Attach) -> Self {
        // BPF_MAP_CREATE: type XSKMAP, four-byte keys and values, 64 entries.
        let sockets = bpf(0, words(&[17, 4, 4, 64]));
        let program = [
            insn(0x61, 2, 1, 16, 0),                         // r2 = xdp_md.rx_queue_index
            insn(0x18, 1, 1, 0, sockets.as_raw_fd() as u32), // r1 = the map
            insn(0, 0, 0, 0, 0),                             // (second half of the address)
            insn(0xb7, 3, 0, 0, 2),                          // r3 = XDP_PASS, if there is no socket
            insn(0x85, 0, 0, 0, 51),                         // r0 = bpf_redirect_map(r1, r2, r3)
            insn(0x95, 0, 0, 0, 0),                          // return r0
        ];
        // BPF_PROG_LOAD
        let mut load = [0u8; 128];
        load[0..4].copy_from_slice(&6u32.to_ne_bytes()); // type: XDP
        load[4..8].copy_from_slice(&(program.len() as u32).to_ne_bytes());
        load[8..16].copy_from_slice(&(program.as_ptr() as u64).to_ne_bytes());
        load[16..24].copy_from_slice(&(c"MIT".as_ptr() as u64).to_ne_bytes());
        load[44..48].copy_from_slice(&(1u32 << 5).to_ne_bytes()); // flags: BPF_F_XDP_HAS_FRAGS
        load[68..72].copy_from_slice(&37u32.to_ne_bytes()); // expected attach type: BPF_XDP
        let program = bpf(5, load);
        // BPF_LINK_CREATE
        let index = af_xdp::interface_index(interface).unwrap();
        let link = bpf(28, words(&[program.as_raw_fd() as u32, index, 37, how as u32]));
        Redirect { sockets, _link: link }
    }

    pub(crate) fn add(&self, socket: &af_xdp::Socket) {
        let (key, value) = (socket.queue(), socket.as_raw_fd());
        let mut update = [0u8; 128];
        update[0..4].copy_from_slice(&self.sockets.as_raw_fd().to_ne_bytes());
        update[8..16].copy_from_slice(&(&raw const key as u64).to_ne_bytes());
        update[16..24].copy_from_slice(&(&raw const value as u64).to_ne_bytes());
        // BPF_MAP_UPDATE_ELEM
        assert_eq!(bpf_raw(2, &update), 0, "{}", io::Error::last_os_error());
    }
}

fn insn(code: u8, dst: u8, src: u8, off: i16, imm: u32) -> u64 {
    let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&off.to_ne_bytes());
    bytes[4..8].copy_from_slice(&imm.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

fn words(words: &[u32]) -> [u8; 128] {
    let mut bytes = [0u8; 128];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn bpf(command: i32, attributes: [u8; 128]) -> OwnedFd {
    let fd = bpf_raw(command, &attributes);
    assert!(fd >= 0, "bpf({command}): {}", io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn bpf_raw(command: i32, attributes: &[u8; 128]) -> i64 {
    // SAFETY: `bpf` reads 128 bytes of attributes, and through their pointers the caller's locals, which outlive the call.
    unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), attributes.len()) }
}
