//! What the benchmarks of handfast and `handfast-load` share.

pub mod bodies;
pub mod duo;
pub mod load;
pub mod veth;
