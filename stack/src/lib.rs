//! A kernel-bypass TCP/IP stack: every connection lives on one core, every segment runs to completion.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod app;
pub mod config;
pub mod demux;
pub mod ip;
pub mod metrics;
pub mod stack;
pub mod tcp;
pub mod time;
pub mod timer_wheel;
pub mod trace;
pub mod wire;
