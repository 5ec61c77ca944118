//! Two network namespaces joined by a veth pair, made by the test and gone with it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::thread;

/// Runs `test` in a network namespace of its own, in which interface `a` is one end of a wire; the other, `b`, is in the namespace of the
/// [`Peer`]. Without root it says that it skips.
pub(crate) fn on_a_wire(queues: u32, test: impl FnOnce(&Peer) + Send + 'static) {
    in_namespace(move || {
        let peer = Peer::new();
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        let netns = peer.path();
        run(&format!("ip link add name a {queues} type veth peer name b netns {netns} {queues}"));
        bring_up("a");
        peer.enter(|| bring_up("b"));
        test(&peer);
    });
}

/// Runs `test` in an empty network namespace.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root for a network namespace");
        return;
    }
    let name = thread::current().name().unwrap_or("test").to_owned();
    let body = move || match unshare() {
        Ok(()) => test(),
        Err(error) => eprintln!("skipped: no network namespace here: {error}"),
    };
    if let Err(panic) = thread::Builder::new().name(name).spawn(body).unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

/// The namespace at the other end.
pub(crate) struct Peer {
    namespace: File,
}

impl Peer {
    fn new() -> Peer {
        let made = thread::spawn(|| {
            unshare().unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Peer { namespace: made.join().unwrap() }
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }

    /// Runs `body` on a thread in that namespace.
    pub(crate) fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                // SAFETY: a system call without pointers; it moves only this thread.
                let answer = unsafe { libc::setns(self.namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(answer, 0, "{}", io::Error::last_os_error());
                body()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().expect(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The kernel at one end of the wire: a packet socket that sends anything and receives one Ethernet type.
pub(crate) struct Tap {
    fd: OwnedFd,
}

impl Tap {
    pub(crate) fn new(interface: &str, ethertype: u16) -> Tap {
        let index = af_xdp::interface_index(interface).unwrap();
        // SAFETY: a system call without pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the kernel has just made this descriptor for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all of it is integers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ethertype.to_be();
        address.sll_ifindex = index as i32;
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the kernel reads the address, which outlives the call.
        let answer = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
        assert_eq!(answer, 0, "{}", io::Error::last_os_error());
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&fd, 16 << 20).unwrap();
        Tap { fd }
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        let sent = rustix::net::send(&self.fd, frame, rustix::net::SendFlags::empty());
        assert_eq!(sent, Ok(frame.len()));
    }

    pub(crate) fn recv(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 1 << 16];
        match rustix::net::recv(&self.fd, &mut frame[..], rustix::net::RecvFlags::empty()) {
            Ok((len, _)) => {
                frame.truncate(len);
                Some(frame)
            }
            Err(rustix::io::Errno::AGAIN) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

fn bring_up(interface: &str) {
    // Without it the kernel has nothing to say on this wire of its own accord.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1");
    run(&format!("ip link set dev {interface} up"));
}

fn unshare() -> io::Result<()> {
    // SAFETY: a system call without pointers; it moves only this thread.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
