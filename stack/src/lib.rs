//! A kernel-bypass TCP/IP stack: every connection lives on one core, every segment runs to completion.
//!
//! An echo server on two cores, each driving one queue of `eth1` through AF_XDP:
//!
//! ```no_run
//! use handfast::drivers::xdp::AfXdp;
//! use handfast::{App, Config, ConnId, Cx, Runtime};
//!
//! struct Echo;
//!
//! impl App for Echo {
//!     fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
//!         while cx.room(conn) > 0
//!             && let Some(frame) = cx.recv(conn)
//!         {
//!             cx.send(conn, frame).expect("room was checked");
//!         }
//!     }
//!
//!     // Frames that there was no room for wait in the receive queue.
//!     fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
//!         self.on_data(cx, conn);
//!     }
//! }
//!
//! fn main() -> Result<(), handfast::Error> {
//!     Runtime::new(Config::default())
//!         .port(AfXdp::interface("eth1"))
//!         .address("192.0.2.1/24".parse()?)
//!         .cores([2, 3])
//!         .listen(7)
//!         .run(|_core| Echo)
//! }
//! ```
//!
//! # Where things are
//!
//! | to | see |
//! | --- | --- |
//! | write an application | [`App`], [`Cx`] |
//! | set up and start it | `Runtime`, [`Config`] |
//! | choose a device: AF_XDP, TAP, in-memory wire, recorder, impairments | [`drivers`] |
//! | see what happens | [`Metrics`], [`DropReason`], [`trace`] |
//! | drive a stack without threads, clocks or devices | [`Stack`] |
//!
//! # Features
//!
//! `runtime`, on by default, brings threads, a clock and devices. Without it the crate is `no_std + alloc` and does no I/O:
//! [`Stack`] takes bursts of frames and the time as arguments.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod app;
pub mod config;
pub mod demux;
pub mod ip;
pub mod metrics;
pub mod rate_limit;
#[cfg(feature = "runtime")]
pub mod runtime;
pub mod stack;
pub mod tcp;
pub mod time;
pub mod timer_wheel;
pub mod trace;
pub mod wire;

pub use handfast_drivers as drivers;
pub use handfast_drivers::frame::Frame;

pub use self::app::{App, Closed, ConnId, ConnectError, Cx, ListenError, SendError, SendRefused};
pub use self::config::{Config, ConfigError};
pub use self::metrics::{Counter, DropReason, Metrics};
#[cfg(feature = "runtime")]
pub use self::runtime::{Cidr, Error, Idle, RunningRuntime, Runtime, lock_memory};
pub use self::stack::Stack;
