//! The example applications, driven over an in-memory wire.
#![allow(clippy::duplicate_mod, dead_code, reason = "the examples are programs, and share a module")]

#[path = "../../examples/http_static.rs"]
mod http_static;
#[path = "../../examples/sink.rs"]
mod sink;
#[path = "../../examples/tcp_proxy.rs"]
mod tcp_proxy;

mod client;
mod http_static_tests;
mod sink_tests;
mod tcp_proxy_tests;
mod world;

#[test]
fn the_command_lines_hold_together() {
    use clap::CommandFactory;
    http_static::Options::command().debug_assert();
    sink::Options::command().debug_assert();
    tcp_proxy::Options::command().debug_assert();
}
