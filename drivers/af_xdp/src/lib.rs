//! AF_XDP: packets between a network queue and user memory, without the kernel's network stack.
//!
//! A [`Umem`] is memory cut into equal chunks. A [`Socket`] joins it to one queue of one interface through four rings:
//! the user gives empty chunks to [`Fill`] and takes received frames from [`Rx`]; he gives frames to send to [`Tx`] and
//! takes their chunks back from [`Completion`]. All four hold raw descriptors (an offset into the memory and a length):
//! who owns a chunk is the user's book-keeping, nothing is allocated or buffered here after setup.
//!
//! ```no_run
//! use af_xdp::{Area, Desc, PageSize, Socket, SocketConfig, Umem, UmemConfig};
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), af_xdp::Error> {
//! let area = Arc::new(Area::new(2048 * 2048, PageSize::Normal)?);
//! let umem = Umem::new(area, UmemConfig::default())?;
//! let (socket, mut rings) = Socket::bind(&umem, "eth1", 0, &SocketConfig::default())?;
//! // Put `socket` into an XSKMAP, from which an XDP program redirects to it: see `AsFd`.
//!
//! let mut free: Vec<u64> = (0..umem.chunks() as u64).map(|chunk| chunk * 2048).collect();
//! loop {
//!     while rings.fill.room(1) > 0 && let Some(chunk) = free.pop() {
//!         assert!(rings.fill.push(chunk), "there was room");
//!     }
//!     rings.fill.submit();
//!     // Send every frame back to where it came from (a real program swaps the addresses first).
//!     let burst = rings.tx.room(64).min(64);
//!     for frame in rings.rx.drain(burst) {
//!         assert!(rings.tx.push(Desc::new(frame.addr, frame.len)), "there was room");
//!     }
//!     rings.tx.submit();
//!     free.extend(rings.completion.drain(64).map(|addr| umem.chunk_of(addr)));
//!
//!     // Every turn, also idle ones: one kick may send only a part, and a driver may fall asleep at any time.
//!     if rings.tx.wants_kick() {
//!         socket.kick_tx()?;
//!     }
//!     if rings.fill.needs_wakeup() {
//!         socket.kick_rx()?;
//!     }
//! }
//! # }
//! ```
//!
//! # What to know
//! - **Namespaces.** A socket belongs to the network namespace of the thread that made it; it works from anywhere afterwards.
//! - **One UMEM per interface.** Its first socket decides copy or zero-copy, need-wakeup and multi-buffer; later ones follow.
//! - **Bind every receive queue.** What arrives on a queue without a socket goes to the kernel.
//! - **Room.** A chunk of 2048 bytes receives 1792 ([`UmemConfig::room`]); the kernel drops longer frames unless
//!   [`SocketConfig::multi_buffer`] is on, therefore [`Socket::bind`] refuses an MTU that does not fit.
//! - **Kernel.** 5.15 or later. Newer features are probed, and where one was asked for and is missing the error names the
//!   version: multi-buffer 6.6, transmit metadata 6.8. A larger transmit budget (6.17) is left out silently.
//!
//! # Map
//! | file | its one job |
//! | --- | --- |
//! | `area.rs` | memory from `mmap`, normal or huge pages; [`Memory`] for memory of one's own |
//! | `umem.rs` | [`Umem`]: memory, chunks and which live sockets share them |
//! | `ring.rs` | the four rings: acquire, release and wrapping indices |
//! | `socket.rs` | [`Socket`]: bind, kicks, waits, statistics |
//! | `metadata.rs` | [`TxMetadata`]: have the checksum filled in on transmission |
//! | `interface.rs` | index, queues, MAC and MTU of an interface |
//! | `error.rs` | [`Error`]: what failed and what to do |
#![deny(unsafe_op_in_unsafe_fn)]
#![cfg(target_os = "linux")]

mod area;
mod error;
mod interface;
mod metadata;
mod ring;
mod socket;
mod umem;

pub use area::{Area, Memory, PageSize};
pub use error::Error;
pub use interface::{interface_index, mac, mtu, queue_count};
pub use metadata::TxMetadata;
pub use ring::{Completion, Consumer, Desc, Drain, Fill, Producer, Rx, Tx};
pub use rustix::io::Errno;
pub use socket::{BindMode, BusyPoll, Kick, Mode, Rings, Socket, SocketConfig, Statistics};
pub use umem::{Umem, UmemConfig};
