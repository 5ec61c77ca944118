//! What a connection borrows from its core while it works.

use handfast_drivers::frame::{Frame, FramePool, Held};

use crate::config::TcpConfig;
use crate::metrics::Metrics;
use crate::rate_limit::RateLimit;
use crate::tcp::chain::Store;
use crate::tcp::open;
use crate::tcp::rtt::Rtt;
use crate::tcp::tcb::{Bits, RCV_MSS_MIN};
use crate::time::Instant;

/// Everything of the core that TCP needs beside the connection's own record.
#[derive(Debug)]
pub struct Env {
    /// Time of this turn.
    pub now: Instant,
    /// The same in wrapped milliseconds, the unit of the deadlines.
    pub now_ms: u32,
    /// How TCP behaves.
    pub config: TcpConfig,
    /// What follows from that.
    pub fixed: Fixed,
    /// Where frames come from.
    pub pool: FramePool,
    /// Received frames of all connections.
    pub rx: Store<Frame, ()>,
    /// Sent frames of all connections.
    pub tx: Store<Held, Sent>,
    /// The counters.
    pub metrics: Metrics,
    /// Frames that receive queues may not take.
    pub frames_reserved: usize,
    /// Challenge ACKs that may still be sent in this second (RFC 5961 §7).
    pub challenges: RateLimit,
}

/// What follows from the configuration and is wanted for each connection.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    /// The window of a SYN, in bytes.
    pub syn_window: u32,
    /// Rcv.Wind.Shift, where the peer scales too.
    pub own_shift: u8,
    /// Our SYNs have all options.
    pub all_options: bool,
    /// The whole receive buffer, as far as the header can say with this shift:
    pub whole_window: u32,
    /// The same as the header's field says it.
    pub whole_window_field: u16,
    /// Half of the buffer, in bytes.
    pub half_buffer: u32,
    /// Rcv.Wind.Shift of who may tell the whole window while nothing is kept. No shift at all, where the frames that may be kept hold it
    /// only if the peer's segments are large.
    pub whole_window_shift: u8,
    /// Which round trips have the shortest retransmission timeout: [`Rtt::is_short`].
    pub short_rtt_us: u64,
    /// As many milliseconds as a timer is armed for that.
    pub rto_min_ms: u32,
    /// The same of the timeout before anything was measured.
    pub rto_initial_ms: u32,
    /// What every connection has from the start.
    pub own_bits: Bits,
    /// When an active open is given up, in milliseconds.
    pub connect_give_up_ms: u32,
    /// When FIN-WAIT-2 is given up, in milliseconds.
    pub fin_wait_2_timeout_ms: u32,
}

impl Fixed {
    fn of(config: &TcpConfig) -> Fixed {
        let own_shift = open::own_shift(config);
        let whole_window = config.recv_buffer_bytes.min(u32::from(u16::MAX) << own_shift);
        let frames_suffice = u32::from(config.recv_frames_max) * u32::from(RCV_MSS_MIN) >= config.recv_buffer_bytes;
        Fixed {
            syn_window: open::syn_window(config),
            own_shift,
            all_options: config.timestamps && config.sack && config.window_scaling,
            whole_window,
            whole_window_field: (whole_window >> own_shift) as u16,
            half_buffer: config.recv_buffer_bytes / 2,
            whole_window_shift: if frames_suffice { own_shift } else { u8::MAX },
            short_rtt_us: Rtt::short_us(config),
            rto_min_ms: Rtt { srtt_us: 1, ..Rtt::default() }.timeout_ms(config),
            rto_initial_ms: Rtt::default().timeout_ms(config),
            own_bits: if config.nagle { Bits::default() } else { Bits::NODELAY },
            connect_give_up_ms: config.connect_give_up.as_millis() as u32,
            fin_wait_2_timeout_ms: config.fin_wait_2_timeout.as_millis() as u32,
        }
    }
}

/// What is noted about a frame in a send queue.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sent {
    /// When it was sent last, in wrapped microseconds: a [stamp](crate::tcp::tcb::Tcb::stamp_us), so that later output is later.
    pub at_us: u32,
    /// How often it was sent; stays at 255.
    pub times: u8,
    /// Selectively acknowledged (RFC 2018).
    pub sacked: bool,
    /// Taken for lost; to be sent again.
    pub lost: bool,
    /// Sent again in this recovery.
    pub resent: bool,
}

impl Sent {
    /// How long ago it was sent, in microseconds.
    #[inline]
    pub fn ago_us(&self, now_us: u32) -> u32 {
        // A stamp may be a little ahead of the clock.
        (now_us.wrapping_sub(self.at_us) as i32).max(0) as u32
    }
}

impl Env {
    /// The environment of a core whose frames are numbered below the region's count.
    pub fn new(config: TcpConfig, pool: FramePool, frames_reserved: usize) -> Env {
        let frames = pool.region().frames();
        let challenges = RateLimit::new(config.challenge_acks_per_second);
        Env {
            now: Instant::ZERO,
            now_ms: 0,
            fixed: Fixed::of(&config),
            config,
            pool,
            rx: Store::new(frames),
            tx: Store::new(frames),
            metrics: Metrics::new(),
            frames_reserved,
            challenges,
        }
    }

    /// Sets the time.
    pub fn at(&mut self, now: Instant) {
        self.now = now;
        self.now_ms = now.as_millis32();
    }

    /// Wrapped microseconds, for [`Sent::at_us`].
    #[inline]
    pub fn now_us32(&self) -> u32 {
        self.now.as_micros() as u32
    }
}
