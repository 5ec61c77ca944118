//! The bpf link that holds the program on the interface.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use super::{FRAGS, LINEAR, SteeringError};

/// Closing it detaches the program: that is what a bpf link is for, and why the netlink attachment, which would outlive
/// a killed process and might replace another's program, is never used.
#[derive(Debug)]
pub(super) struct Link {
    _fd: OwnedFd,
    pub(super) attached: Attached,
}

impl Link {
    pub(super) fn attach(
        program: BorrowedFd<'_>,
        interface: &str,
        mode: Option<Mode>,
        multi_buffer: bool,
    ) -> Result<Self, SteeringError> {
        let index = interface_index(interface)?;
        let attached = |mode, native_refused| {
            let interface = interface.to_owned();
            Attached { interface, index, mode, native_refused, multi_buffer }
        };
        let attach_in = |mode| attach_or_wait(program, interface, index, mode);
        match attach_in(mode.unwrap_or(Mode::Native)) {
            Ok(fd) => Ok(Self { _fd: fd, attached: attached(mode.unwrap_or(Mode::Native), None) }),
            Err(SteeringError::Refused { source, .. }) if mode.is_none() => {
                Ok(Self { _fd: attach_in(Mode::Generic)?, attached: attached(Mode::Generic, Some(source)) })
            }
            Err(error) => Err(error),
        }
    }
}

/// Where and how the program is attached.
#[derive(Debug)]
pub struct Attached {
    /// The interface's name.
    pub interface: String,
    /// The interface's index in its namespace.
    pub index: u32,
    /// Where in the receive path the program runs.
    pub mode: Mode,
    /// Why it is not native mode, if that was tried first.
    pub native_refused: Option<io::Error>,
    /// Whether packets may span several buffers (Linux 5.18).
    pub multi_buffer: bool,
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: XDP in {} mode", self.interface, self.mode)?;
        if let Some(why) = &self.native_refused {
            write!(f, ", because the driver refuses native mode: {why}")?;
        }
        if !self.multi_buffer {
            write!(f, ", single-buffer packets only")?;
        }
        Ok(())
    }
}

/// Where in the receive path an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel makes a socket buffer; zero-copy needs it.
    Native,
    /// In the kernel's stack, after it: any interface, slower.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

const ATTACHING: &str = "attaching the steering program";

fn attach_or_wait(program: BorrowedFd<'_>, interface: &str, index: u32, mode: Mode) -> Result<OwnedFd, SteeringError> {
    let deadline = Instant::now() + ENDING_PROCESS;
    loop {
        let error = match create_link(program, index, mode) {
            Ok(fd) => return Ok(fd),
            Err(error) => error,
        };
        let other = match error.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => {
                attached_program(index).map_err(|error| SteeringError::system(ATTACHING, &error))?
            }
            Some(libc::EPERM | libc::ENOMEM) => return Err(SteeringError::system(ATTACHING, &error)),
            Some(libc::EINVAL) if kernel_before(5, 9) => return Err(SteeringError::system(ATTACHING, &error)),
            Some(libc::ENODEV) => return Err(SteeringError::NoSuchInterface { interface: interface.to_owned() }),
            _ => None,
        };
        let interface = interface.to_owned();
        let Some(program) = other else { return Err(SteeringError::Refused { interface, mode, source: error }) };
        let name = program_name(program);
        let maybe_ending = name.as_deref().is_none_or(|name| name == FRAGS || name == LINEAR);
        if !maybe_ending || Instant::now() >= deadline {
            return Err(SteeringError::Occupied { interface, program, name });
        }
        sleep(Duration::from_millis(10));
    }
}

/// How long the program of a process that was killed may stay on the interface, with a wide margin.
const ENDING_PROCESS: Duration = Duration::from_secs(1);

fn interface_index(interface: &str) -> Result<u32, SteeringError> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| SteeringError::system("looking up the interface", &error))?;
    rustix::net::netdevice::name_to_index(&socket, interface)
        .map_err(|_| SteeringError::NoSuchInterface { interface: interface.to_owned() })
}

/// `bpf(BPF_LINK_CREATE)`. Not through the loader library, which falls back to netlink when the kernel gives no link.
fn create_link(program: BorrowedFd<'_>, index: u32, mode: Mode) -> io::Result<OwnedFd> {
    const BPF_LINK_CREATE: libc::c_int = 28;
    const BPF_XDP: u32 = 37;
    const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
    const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
    let flags = match mode {
        Mode::Native => XDP_FLAGS_DRV_MODE,
        Mode::Generic => XDP_FLAGS_SKB_MODE,
    };
    let attr = [program.as_raw_fd() as u32, index, BPF_XDP, flags];
    // SAFETY: the kernel reads `attr`, which is ours and lives through the call, and nothing else of our memory.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, attr.as_ptr(), size_of_val(&attr)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The id of the XDP program on an interface, in whatever mode and however attached.
pub(super) fn attached_program(index: u32) -> io::Result<Option<u32>> {
    const REQUEST_LEN: u32 = 32;
    let mut request = Vec::with_capacity(REQUEST_LEN as usize); // struct nlmsghdr, struct ifinfomsg
    request.extend(REQUEST_LEN.to_ne_bytes());
    request.extend(libc::RTM_GETLINK.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request.extend([0; 12]); // sequence, port; family, type
    request.extend(index.to_ne_bytes());
    request.extend([0; 8]); // flags, change
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &request, SendFlags::empty())?;
    let mut reply = vec![0; 64 << 10];
    let (len, _) = recv(&socket, &mut reply[..], RecvFlags::empty())?;
    Ok(reply[..len].get(REQUEST_LEN as usize..).and_then(xdp_program_id))
}

/// The first program id inside IFLA_XDP of a link's attributes.
fn xdp_program_id(link: &[u8]) -> Option<u32> {
    const IFLA_XDP: u16 = 43;
    const IFLA_XDP_PROG_ID: u16 = 4; // then 5, 6, 7: of driver, generic and offload mode
    let (_, xdp) = attributes(link).find(|&(kind, _)| kind == IFLA_XDP)?;
    let (_, id) = attributes(xdp).find(|&(kind, _)| (IFLA_XDP_PROG_ID..=IFLA_XDP_PROG_ID + 3).contains(&kind))?;
    Some(u32::from_ne_bytes(id.try_into().ok()?))
}

/// Netlink attributes: length and type of two bytes each, the value, padding to four bytes.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const NESTED: u16 = libc::NLA_F_NESTED as u16;
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & !NESTED;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// `None` if it has no name, or if we may not list programs.
fn program_name(id: u32) -> Option<String> {
    let programs = aya::programs::loaded_programs();
    let program = programs.filter_map(Result::ok).find(|program| program.id() == id)?;
    program.name_as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

pub(super) fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or("?".into(), |release| release.trim().to_owned())
}

pub(super) fn kernel_before(major: u32, minor: u32) -> bool {
    let release = kernel_release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    matches!((numbers.next(), numbers.next()), (Some(a), Some(b)) if (a, b) < (major, minor))
}
