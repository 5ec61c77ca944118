//! ICMP errors about our segments (RFC 9293 §3.9.2.2, RFC 5927).

use super::Stack;
use crate::app::Closed;
use crate::demux::flow::FlowKey;
use crate::demux::flows::Owner;
use crate::metrics::{Counter, DropReason};
use crate::tcp::sack;
use crate::tcp::state::State;
use crate::wire::icmp::{ErrorKind, IcmpError};

impl Stack {
    /// Takes an error to heart if it quotes a segment that is in flight (RFC 5927 §4). One about another core's flow is left for
    /// [`take_icmp_errors`](Self::take_icmp_errors): devices do not look into ICMP to choose the queue.
    pub fn icmp_error(&mut self, error: &IcmpError) {
        let quoted = &error.quoted;
        let key = FlowKey {
            local: quoted.src,
            remote: quoted.dst,
            local_port: quoted.src_port,
            remote_port: quoted.dst_port,
        };
        let home = self.home.of(&key);
        if home != self.core {
            if self.astray_errors.try_push((home, *error)).is_err() {
                self.env.metrics.dropped(DropReason::HandoverFull);
            }
            return;
        }
        let hash = self.hasher.hash(&key);
        let Some(Owner::Conn(at)) = self.owner(&key, hash) else {
            return self.env.metrics.dropped(DropReason::IcmpUnrelated);
        };
        let Some(tcb) = self.conns.at(at) else { return };
        if !quoted.seq.within(tcb.snd_una, tcb.flight()) {
            return self.env.metrics.dropped(DropReason::IcmpUnrelated);
        }
        self.env.metrics.count(Counter::IcmpErrors);
        match error.kind {
            ErrorKind::PacketTooBig { mtu } => self.too_big(at, &key, mtu),
            // RFC 9293 §3.9.2.2, SHLD-26: hard errors end an attempt; RFC 5927 §5.2: but no connection.
            ErrorKind::ProtocolUnreachable | ErrorKind::PortUnreachable | ErrorKind::Prohibited => {
                if matches!(tcb.state(), State::SynSent | State::SynReceived) {
                    self.end(at, Closed::Unreachable);
                }
            }
            // MUST-56: soft errors end nothing.
            ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::TimeExceeded
            | ErrorKind::ParameterProblem => {}
        }
        self.mark(at);
    }

    /// ICMP errors that came here and are about other cores' flows: the core, and the error for its
    /// [`icmp_error`](Self::icmp_error).
    pub fn take_icmp_errors(&mut self) -> impl Iterator<Item = (u16, IcmpError)> + '_ {
        self.astray_errors.drain(..)
    }

    /// The path carries less than was thought (RFC 1191, RFC 8201): smaller segments from now on, those that were lost at once.
    fn too_big(&mut self, at: u32, key: &FlowKey, mtu: u32) {
        self.ip.lower_path_mtu(self.env.now, key.remote, mtu, &mut self.env.metrics);
        // Another connection's error may have lowered it before.
        let mss = self.local_mss(key);
        if let Some(tcb) = self.conns.at_mut(at)
            && mss < tcb.mss
        {
            tcb.mss = mss;
            sack::mark_oversized_lost(tcb, &mut self.env);
        }
    }
}

#[cfg(test)]
mod tests;
