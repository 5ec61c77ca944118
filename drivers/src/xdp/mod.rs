//! AF_XDP devices: packets between a network interface's queues and frames, past the kernel.
//!
//! | file | its one job |
//! | --- | --- |
//! | `port.rs` | [`AfXdp`]: what is asked for, and the opening of all queues |
//! | `queue.rs` | [`XdpQueue`], [`XdpDriver`]: rings ↔ frames |
//! | `program.rs`, `steer.bpf.c` | the steering program: what is ours |
//! | `interface.rs`, `rss.rs` | what the kernel says of an interface's addresses, and of how it chooses queues |

mod interface;
mod port;
pub mod program;
mod queue;
mod rss;

pub use af_xdp::{BindMode, BusyPoll, Mode as CopyMode, Statistics};
pub use port::{AfXdp, XdpError};
pub use program::Mode as AttachMode;
pub use queue::{QueueFault, QueueReport, XdpDriver, XdpQueue, XdpStats};
