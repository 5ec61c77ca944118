//! AF_XDP devices: packets between a network interface's queues and frames, past the kernel.

pub mod program;
