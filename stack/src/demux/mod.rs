//! Flow key to owner: the tables of every life stage, each with a limit whose memory is reserved at start.

pub mod conns;
pub mod flow;
pub mod flows;
pub mod listeners;
pub mod ports;
mod queues;
pub mod rss;
pub mod slab;
pub mod syn_rcvd;
pub mod time_wait;
pub mod turns;
