//! Flow key to owner: the tables of every life stage, each with a limit whose memory is reserved at start.

pub mod conns;
pub mod flows;
pub mod slab;
