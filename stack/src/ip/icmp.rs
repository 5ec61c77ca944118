//! What ICMP asks of us: echo replies, errors handed up, and errors of our own about what nobody here speaks.

use handfast_drivers::burst::TxBurst;
use handfast_drivers::frame::Frame;

use super::{Ip, push};
use crate::metrics::{Counter, DropReason, Metrics};
use crate::time::Instant;
use crate::wire::icmp::{self, Icmp, IcmpError};
use crate::wire::icmp6::{self, Icmp6};
use crate::wire::packet::{self, Net};

impl Ip {
    /// Takes in an admitted ICMP packet. An echo request is answered in its own frame; an error about a segment from one of our
    /// addresses is returned, for the connection to judge by its sequence number (RFC 5927 §4).
    pub fn on_icmp(
        &mut self,
        mut frame: Frame,
        net: &Net,
        tx: &mut TxBurst,
        metrics: &mut Metrics,
    ) -> Option<IcmpError> {
        match Icmp::parse(net.l4(&frame)) {
            Ok(Icmp::EchoRequest) => {
                Icmp::reply(&mut frame[net.l4_range()]);
                send_back(frame, net, tx, metrics);
                None
            }
            Ok(Icmp::Error(error)) => self.about_us(error, metrics),
            Err(reason) => {
                metrics.dropped(reason);
                None
            }
        }
    }

    /// Takes in an admitted ICMPv6 packet: as [`on_icmp`](Self::on_icmp), and neighbour discovery.
    pub fn on_icmp6(
        &mut self,
        now: Instant,
        mut frame: Frame,
        net: &Net,
        tx: &mut TxBurst,
        metrics: &mut Metrics,
    ) -> Option<IcmpError> {
        match Icmp6::parse(&net.src, &net.dst, net.hop_limit, net.l4(&frame)) {
            // RFC 4443 §4.2 lets us be silent to groups, and no answer goes to an address that is none.
            Ok(Icmp6::EchoRequest) if net.dst.is_multicast() || net.link.dst_mac.is_multicast() => {
                metrics.dropped(DropReason::IcmpIgnored);
                None
            }
            Ok(Icmp6::EchoRequest) if net.src.is_unspecified() => {
                metrics.dropped(DropReason::BadSource);
                None
            }
            Ok(Icmp6::EchoRequest) => {
                Icmp6::reply(&mut frame[net.l4_range()]);
                send_back(frame, net, tx, metrics);
                None
            }
            Ok(Icmp6::Error(error)) => self.about_us(error, metrics),
            Ok(Icmp6::Ndp(message)) => {
                self.on_ndp(now, frame, net, message, tx, metrics);
                None
            }
            Err(reason) => {
                metrics.dropped(reason);
                None
            }
        }
    }

    fn about_us(&self, error: IcmpError, metrics: &mut Metrics) -> Option<IcmpError> {
        if !self.is_ours(error.quoted.src) {
            metrics.dropped(DropReason::IcmpUnrelated);
            return None;
        }
        Some(error)
    }

    /// Answers an admitted packet of a protocol that nobody here speaks with destination unreachable, in its own frame: port
    /// unreachable for UDP, protocol unreachable for others over IPv4 (RFC 1122 §3.2.2.1, RFC 4443 §3.1). Limited in rate.
    pub fn on_other(
        &mut self,
        now: Instant,
        mut frame: Frame,
        net: &Net,
        protocol: u8,
        tx: &mut TxBurst,
        metrics: &mut Metrics,
    ) {
        metrics.dropped(DropReason::Protocol);
        let v6 = !net.src.is_v4();
        let code = match (protocol, v6) {
            (UDP, false) => icmp::CODE_PORT_UNREACHABLE,
            (_, false) => icmp::CODE_PROTOCOL_UNREACHABLE,
            (UDP, true) => icmp6::CODE_PORT_UNREACHABLE,
            (_, true) => return,
        };
        let ethernet = self.ethernet(net.link.src_mac);
        let headers_len = packet::ip_headers_len(ethernet.vlan.is_some(), v6);
        let room = frame.headroom() + usize::from(net.link.header_len);
        // RFC 1122 §3.2.2: nothing is said to an address that is no single host.
        if net.src.is_unspecified() || room < headers_len + icmp::HEADER_LEN || !self.icmp_errors.take(now) {
            return;
        }
        frame.truncate(usize::from(net.link.header_len) + usize::from(net.ip_len));
        frame.trim_front(usize::from(net.link.header_len));
        // RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c): as much as fits in the smallest packet that every link carries.
        let packet_max = if v6 { 1280 - 40 } else { 576 - 20 };
        frame.truncate(packet_max - icmp::HEADER_LEN);
        let (src, dst, protocol, header) = if v6 {
            (net.dst, net.src, icmp6::PROTOCOL, icmp6::emit_unreachable(&net.dst, &net.src, code, &frame))
        } else {
            (net.dst, net.src, icmp::PROTOCOL, icmp::emit_unreachable(code, &frame))
        };
        frame.prepend(header.len()).copy_from_slice(&header);
        let len = frame.len();
        packet::emit_ip_headers(frame.prepend(headers_len), &ethernet, &packet::Ip::new(src, dst), protocol, len);
        push(frame, tx, metrics);
    }
}

fn send_back(mut frame: Frame, net: &Net, tx: &mut TxBurst, metrics: &mut Metrics) {
    packet::turn_around(&mut frame, net);
    metrics.count(Counter::EchoReplies);
    push(frame, tx, metrics);
}

const UDP: u8 = 17;

#[cfg(test)]
mod tests;
