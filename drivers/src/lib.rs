//! Frame memory and packet drivers for handfast.
//!
//! The bottom of the house: who owns a packet's memory ([`frame`]), how packets move in bulk ([`burst`]), what a device
//! is ([`driver`]), and the devices: an in-memory [`wire`], TAP and AF_XDP, with middleware to record and to impair.
//! All `unsafe` of the data path is in this crate; the protocol code above contains none.
#![cfg_attr(not(any(feature = "std", test)), no_std)]

extern crate alloc;

pub mod burst;
pub mod clock;
pub mod driver;
pub mod frame;
pub mod impair;
#[cfg(feature = "pcap")]
pub mod pcap;
pub mod prefetch;
pub mod ring;
pub mod simd;
pub mod spread;
#[cfg(feature = "tap")]
pub mod tap;
pub mod toeplitz;
pub mod wire;
pub mod wrap;
#[cfg(feature = "xdp")]
pub mod xdp;
