//! What a stack is told at start: plain data, checked once.

use alloc::vec::Vec;

use thiserror::Error;

use crate::ip::IpConfig;
use crate::time::Duration;
use crate::wire::address::Mac;

/// Everything that a stack is told. The defaults suit a server with tens of thousands of connections a core.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses, routes, neighbours. An Ethernet address of zero and an MTU of 0 are replaced by the device's.
    pub ip: IpConfig,
    /// How TCP behaves.
    pub tcp: TcpConfig,
    /// How much of everything there may be, on each core.
    pub limits: Limits,
    /// Ports to listen on from the start, on every address.
    pub listen: Vec<u16>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            ip: IpConfig::new(Mac([0; 6]), 0),
            tcp: TcpConfig::default(),
            limits: Limits::default(),
            listen: Vec::new(),
        }
    }
}

/// How TCP behaves.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// Bytes that may wait for the application on one connection: the largest receive window.
    pub recv_buffer_bytes: u32,
    /// Frames that may be kept for one connection's input, in order or not. A frame of one byte counts as much as a full one.
    pub recv_frames_max: u16,
    /// Bytes that may wait to be sent or acknowledged on one connection.
    pub send_buffer_bytes: u32,
    /// Frames that may be kept for one connection's output.
    pub send_frames_max: u16,
    /// Offer timestamps and PAWS (RFC 7323 §3).
    pub timestamps: bool,
    /// Offer selective acknowledgment (RFC 2018).
    pub sack: bool,
    /// Offer window scaling (RFC 7323 §2).
    pub window_scaling: bool,
    /// Collect small segments (RFC 9293 §3.7.4). Each connection can turn it off.
    pub nagle: bool,
    /// Longest delay of an acknowledgment (RFC 9293 §3.8.6.3, at most 500 ms). Zero: every burst is acknowledged at once.
    pub ack_delay: Duration,
    /// Smallest retransmission timeout. RFC 6298 §2.4 says 1 s; 200 ms is what is deployed.
    pub rto_min: Duration,
    /// Largest retransmission timeout (RFC 6298 §2.5: at least 60 s).
    pub rto_max: Duration,
    /// First retransmission timeout, before any round trip was measured (RFC 6298 §2.1).
    pub rto_initial: Duration,
    /// How long data may stay unacknowledged before the connection is given up (RFC 9293 §3.8.3, R2: at least 100 s).
    pub give_up: Duration,
    /// How long an active open tries (RFC 9293 MUST-23: at least 3 minutes).
    pub connect_give_up: Duration,
    /// How often an unanswered SYN-ACK is sent again before the half-open connection is forgotten.
    pub syn_ack_retries: u8,
    /// Answer SYNs by cookies when no more half-open connections may be kept (RFC 4987 §3.6); otherwise they are dropped.
    pub syn_cookies: bool,
    /// Probe a connection that was idle for this long (RFC 9293 §3.8.4). `None`, the default, never probes.
    pub keepalive_idle: Option<Duration>,
    /// Time between unanswered keep-alive probes.
    pub keepalive_interval: Duration,
    /// Unanswered keep-alive probes before the connection is given up.
    pub keepalive_probes: u8,
    /// How long FIN-WAIT-2 waits for the peer's FIN once the application has closed.
    pub fin_wait_2_timeout: Duration,
    /// The maximum segment lifetime; TIME-WAIT lasts twice as long. RFC 9293 §3.4.2 says 2 minutes; 30 s is what is deployed.
    pub msl: Duration,
    /// Challenge ACKs a second (RFC 5961 §7).
    pub challenge_acks_per_second: u32,
    /// First local port of active opens.
    pub ephemeral_port_min: u16,
    /// Last local port of active opens.
    pub ephemeral_port_max: u16,
}

impl Default for TcpConfig {
    fn default() -> TcpConfig {
        TcpConfig {
            recv_buffer_bytes: 256 << 10,
            recv_frames_max: 512,
            send_buffer_bytes: 256 << 10,
            send_frames_max: 512,
            timestamps: true,
            sack: true,
            window_scaling: true,
            nagle: true,
            ack_delay: Duration::from_millis(40),
            rto_min: Duration::from_millis(200),
            rto_max: Duration::from_secs(60),
            rto_initial: Duration::from_secs(1),
            give_up: Duration::from_secs(120),
            connect_give_up: Duration::from_secs(180),
            syn_ack_retries: 5,
            syn_cookies: true,
            keepalive_idle: None,
            keepalive_interval: Duration::from_secs(75),
            keepalive_probes: 9,
            fin_wait_2_timeout: Duration::from_secs(60),
            msl: Duration::from_secs(30),
            challenge_acks_per_second: 1000,
            ephemeral_port_min: 32768,
            ephemeral_port_max: 65535,
        }
    }
}

/// How much of everything there may be, on each core. The memory is reserved at start.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections from SYN-SENT to LAST-ACK.
    pub conns_max: u32,
    /// Half-open passive connections.
    pub syn_rcvd_max: u32,
    /// Connections in TIME-WAIT. When it is full, the one that waited longest makes room.
    pub time_wait_max: u32,
    /// Half-open connections of one listener.
    pub backlog_max: u32,
    /// Frames that neither a receive queue nor an application may take, so that acknowledgments can always be sent.
    pub frames_reserved: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            conns_max: 65_536,
            syn_rcvd_max: 16_384,
            time_wait_max: 1 << 20,
            backlog_max: 4_096,
            frames_reserved: 256,
        }
    }
}

/// A configuration that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is outside its range.
    #[error("{name} is {value}: it must be from {min} to {max}")]
    OutOfRange {
        /// The field.
        name: &'static str,
        /// What it was set to.
        value: u64,
        /// The least it may be.
        min: u64,
        /// The most it may be.
        max: u64,
    },
    /// No address: nobody could reach the stack.
    #[error("no address: give the stack at least one, such as 192.0.2.1/24")]
    NoAddress,
}

impl Config {
    /// Checks every number against its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let tcp = &self.tcp;
        let limits = &self.limits;
        let in_range = |name, value: u64, min: u64, max: u64| match (min..=max).contains(&value) {
            true => Ok(()),
            false => Err(ConfigError::OutOfRange { name, value, min, max }),
        };
        if self.ip.addresses.is_empty() {
            return Err(ConfigError::NoAddress);
        }
        in_range("recv_buffer_bytes", tcp.recv_buffer_bytes.into(), 4 << 10, 1 << 30)?;
        in_range("send_buffer_bytes", tcp.send_buffer_bytes.into(), 4 << 10, 1 << 30)?;
        in_range("recv_frames_max", tcp.recv_frames_max.into(), 4, u16::MAX.into())?;
        // Segments may have to be split: the count must have room for that.
        in_range("send_frames_max", tcp.send_frames_max.into(), 4, 1 << 15)?;
        in_range("ack_delay in ms", tcp.ack_delay.as_millis(), 0, 500)?;
        in_range("rto_min in ms", tcp.rto_min.as_millis(), 1, 60_000)?;
        in_range("rto_max in ms", tcp.rto_max.as_millis(), tcp.rto_min.as_millis(), 600_000)?;
        in_range("rto_initial in ms", tcp.rto_initial.as_millis(), tcp.rto_min.as_millis(), tcp.rto_max.as_millis())?;
        in_range("syn_ack_retries", tcp.syn_ack_retries.into(), 0, 7)?;
        in_range("msl in ms", tcp.msl.as_millis(), 1, 240_000)?;
        // Deadlines are compared modulo 2^32 milliseconds.
        let span_max = (1 << 31) - 1;
        in_range("give_up in ms", tcp.give_up.as_millis(), 1, span_max)?;
        in_range("connect_give_up in ms", tcp.connect_give_up.as_millis(), 1, span_max)?;
        in_range("fin_wait_2_timeout in ms", tcp.fin_wait_2_timeout.as_millis(), 0, span_max)?;
        if let Some(idle) = tcp.keepalive_idle {
            in_range("keepalive_idle in ms", idle.as_millis(), 1, span_max)?;
        }
        in_range("keepalive_interval in ms", tcp.keepalive_interval.as_millis(), 1, span_max)?;
        in_range("keepalive_probes", tcp.keepalive_probes.into(), 1, 100)?;
        in_range("ephemeral_port_min", tcp.ephemeral_port_min.into(), 1, tcp.ephemeral_port_max.into())?;
        in_range("listen: the number of ports", self.listen.len() as u64, 0, LISTENERS_MAX.into())?;
        in_range("conns_max", limits.conns_max.into(), 1, 1 << 27)?;
        in_range("syn_rcvd_max", limits.syn_rcvd_max.into(), 1, 1 << 27)?;
        in_range("time_wait_max", limits.time_wait_max.into(), 1, 1 << 27)?;
        Ok(())
    }
}

/// Listeners that one core may have.
pub(crate) const LISTENERS_MAX: u32 = 1024;

#[cfg(test)]
mod tests;
