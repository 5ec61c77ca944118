//! Frames of a peer, written byte by byte, with checksums that are right unless a case wants otherwise. Nothing here is the stack's.

use handfast::wire::address::Address;

use super::Source;

/// Who is on the link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) own: Address,
    pub(super) peer: Address,
    pub(super) own_mac: [u8; 6],
    pub(super) peer_mac: [u8; 6],
}

impl Addresses {
    pub(super) fn new(is_v6: bool) -> Addresses {
        let address = |last| match is_v6 {
            true => Address::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]),
            false => Address::v4([10, 0, 0, last]),
        };
        let mac = |last| [2, 0, 0, 0, 0, last];
        Addresses { own: address(2), peer: address(1), own_mac: mac(0x0a), peer_mac: mac(0x0b) }
    }

    pub(super) fn is_v6(&self) -> bool {
        !self.own.is_v4()
    }
}

/// A segment before it is bytes.
#[derive(Clone, Default, Debug)]
pub(super) struct Segment {
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) options: Vec<u8>,
    pub(super) payload_len: usize,
}

/// Each byte of a peer's stream is the low byte of its sequence number: so any text that is taken can be told to be in its place.
pub(super) fn segment(segment: &Segment, addresses: &Addresses, out: &mut Vec<u8>) {
    let options = segment.options.len().min(40).next_multiple_of(4);
    ip(addresses, TCP, 64, 20 + options + segment.payload_len, out);
    out.extend_from_slice(&segment.src_port.to_be_bytes());
    out.extend_from_slice(&segment.dst_port.to_be_bytes());
    out.extend_from_slice(&segment.seq.to_be_bytes());
    out.extend_from_slice(&segment.ack.to_be_bytes());
    out.extend_from_slice(&[(20 + options as u8) << 2, segment.flags]);
    out.extend_from_slice(&segment.window.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend((0..options).map(|at| segment.options.get(at).copied().unwrap_or(0)));
    let first = segment.seq.wrapping_add(u32::from(segment.flags & SYN != 0));
    out.extend((0..segment.payload_len).map(|at| first.wrapping_add(at as u32) as u8));
    mend(out);
}

/// Something that is not a segment of a conversation: ARP, ICMP, neighbour discovery, other protocols, stray segments.
pub(super) fn any(source: &mut Source<'_>, addresses: &Addresses, out: &mut Vec<u8>) {
    match (source.byte() % 6, addresses.is_v6()) {
        (0, false) => arp(source, addresses, out),
        (0, true) => neighbour_discovery(source, addresses, out),
        (1, _) => echo(source, addresses, out),
        (2, _) => error(source, addresses, None, out),
        (3, _) => {
            let protocol = source.byte();
            let body = source.take(40);
            ip(addresses, protocol, 64, body.len(), out);
            out.extend_from_slice(body);
        }
        _ => {
            let len = usize::from(source.byte() % 12);
            let options = source.take(len).to_vec();
            let (src_port, dst_port) = (source.u16(), source.pick(&[80, 81, 0, 40_000]));
            let (seq, ack, flags, window) = (source.u32(), source.u32(), source.byte(), source.u16());
            let payload_len = usize::from(source.byte());
            segment(&Segment { src_port, dst_port, seq, ack, flags, window, options, payload_len }, addresses, out);
        }
    }
    mend(out);
}

/// An ICMP error that quotes this packet, or one that is drawn.
pub(super) fn error(source: &mut Source<'_>, addresses: &Addresses, quoted: Option<&[u8]>, out: &mut Vec<u8>) {
    let mut drawn = Vec::new();
    let quoted = quoted.unwrap_or_else(|| {
        let back = Addresses { own: addresses.peer, peer: addresses.own, ..*addresses };
        ip(&back, TCP, 64, 20, &mut drawn);
        drawn.extend_from_slice(source.take(20));
        &drawn[ETHERNET..]
    });
    let quoted = &quoted[..quoted.len().min(usize::from(source.byte()) + 8)];
    let (protocol, kinds) = match addresses.is_v6() {
        true => (ICMP6, [1, 2, 3, 4]),
        false => (ICMP, [3, 4, 11, 12]),
    };
    ip(addresses, protocol, 64, 8 + quoted.len(), out);
    out.extend_from_slice(&[source.pick(&kinds), source.byte() % 16, 0, 0]);
    out.extend_from_slice(&u32::from(source.pick(&[0, 68, 296, 576, 1280, 1400, 1500, 9000_u16])).to_be_bytes());
    out.extend_from_slice(quoted);
    mend(out);
}

fn arp(source: &mut Source<'_>, addresses: &Addresses, out: &mut Vec<u8>) {
    out.extend_from_slice(if source.byte() & 1 == 0 { &[0xff; 6] } else { &addresses.own_mac });
    out.extend_from_slice(&addresses.peer_mac);
    out.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + source.byte() % 2]);
    out.extend_from_slice(&addresses.peer_mac);
    out.extend_from_slice(&addresses.peer.as_v4());
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(&addresses.own.as_v4());
}

fn neighbour_discovery(source: &mut Source<'_>, addresses: &Addresses, out: &mut Vec<u8>) {
    let (kind, target) =
        source.pick(&[(135, addresses.own), (136, addresses.peer), (134, addresses.peer), (137, addresses.own)]);
    let options = usize::from(source.byte() % 3);
    ip(addresses, ICMP6, 255, 24 + 8 * options, out);
    out.extend_from_slice(&[kind, 0, 0, 0, source.byte(), 0, 0, 0]);
    out.extend_from_slice(&target.octets());
    for _ in 0..options {
        out.extend_from_slice(&[source.pick(&[1, 2, 5, 9]), source.pick(&[1, 1, 1, 0, 2])]);
        out.extend_from_slice(&addresses.peer_mac);
    }
}

fn echo(source: &mut Source<'_>, addresses: &Addresses, out: &mut Vec<u8>) {
    let (protocol, kind) = if addresses.is_v6() { (ICMP6, 128) } else { (ICMP, 8) };
    let body = source.take(16);
    ip(addresses, protocol, 64, 4 + body.len(), out);
    out.extend_from_slice(&[kind + source.byte() % 2, 0, 0, 0]);
    out.extend_from_slice(body);
}

fn ip(addresses: &Addresses, protocol: u8, hop_limit: u8, len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&addresses.own_mac);
    out.extend_from_slice(&addresses.peer_mac);
    if addresses.is_v6() {
        out.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
        out.extend_from_slice(&(len as u16).to_be_bytes());
        out.extend_from_slice(&[protocol, hop_limit]);
        out.extend_from_slice(&addresses.peer.octets());
        out.extend_from_slice(&addresses.own.octets());
    } else {
        out.extend_from_slice(&[8, 0, 0x45, 0]);
        out.extend_from_slice(&(20 + len as u16).to_be_bytes());
        out.extend_from_slice(&[0, 0, 0x40, 0, hop_limit, protocol, 0, 0]);
        out.extend_from_slice(&addresses.peer.as_v4());
        out.extend_from_slice(&addresses.own.as_v4());
    }
}

/// Changes a few bytes, or the length, of a frame; then mends its checksums, or not.
pub(super) fn mutate(source: &mut Source<'_>, frame: &mut Vec<u8>) {
    let (count, how) = (source.byte() % 5, source.byte());
    for _ in 0..count {
        let at = usize::from(source.byte());
        let by = source.byte();
        let len = frame.len();
        if let Some(byte) = frame.get_mut(at % len.clamp(1, 128)) {
            *byte = if by < 128 { by } else { *byte ^ (1 << (by & 7)) };
        }
    }
    match how & 7 {
        0 => frame.truncate(usize::from(source.byte())),
        1 => frame.resize(frame.len() + usize::from(source.byte()), 0xee),
        _ => {}
    }
    if how & 0x80 == 0 {
        mend(frame);
    }
}

/// A segment whose checksum holds by accident must not carry what its peer never sent: the text is put right.
pub(super) fn settle(frame: &mut [u8], scratch: &mut Vec<u8>) {
    scratch.clear();
    scratch.extend_from_slice(frame);
    write_checksums(scratch, false);
    if scratch == frame {
        mend(frame);
    }
}

/// Makes the checksums right, as far as there are headers, and the text of a segment what its sequence number says.
fn mend(frame: &mut [u8]) {
    write_checksums(frame, true);
}

fn write_checksums(frame: &mut [u8], text_too: bool) {
    let (l4, protocol, mut sum) = match frame {
        [_, _, _, _, _, _, _, _, _, _, _, _, 8, 0, first, ..] if *first >> 4 == 4 => {
            let header = usize::from(*first & 15) * 4;
            let ip = &mut frame[ETHERNET..];
            if header < 20 || ip.len() < header {
                return;
            }
            ip[10..12].fill(0);
            let sum = complement(add(0, &ip[..header]));
            ip[10..12].copy_from_slice(&sum);
            let total = usize::from(u16::from_be_bytes([ip[2], ip[3]])).clamp(header, ip.len());
            let (protocol, addresses) = (ip[9], add(0, &ip[12..20]));
            (ETHERNET + header..ETHERNET + total, protocol, addresses)
        }
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, first, ..]
            if *first >> 4 == 6 && frame.len() >= ETHERNET + 40 =>
        {
            let ip = &frame[ETHERNET..];
            let total = (40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]))).min(ip.len());
            (ETHERNET + 40..ETHERNET + total, ip[6], add(0, &ip[8..40]))
        }
        _ => return,
    };
    let body = &mut frame[l4];
    let at = match protocol {
        TCP => 16,
        ICMP | ICMP6 => 2,
        _ => return,
    };
    if body.len() < at + 2 {
        return;
    }
    if protocol == TCP && text_too {
        let first = body[7].wrapping_add(u8::from(body[13] & SYN != 0));
        let header = usize::from(body[12] >> 4) * 4;
        let text = body.iter_mut().skip(header.max(20));
        text.enumerate().for_each(|(at, byte)| *byte = first.wrapping_add(at as u8));
    }
    body[at..at + 2].fill(0);
    sum = if protocol == ICMP { 0 } else { sum + u64::from(protocol) + body.len() as u64 };
    let sum = complement(add(sum, body));
    body[at..at + 2].copy_from_slice(&sum);
}

/// RFC 1071, in the plainest way.
fn add(sum: u64, bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    bytes.chunks(2).map(word).sum::<u64>() + sum
}

fn complement(mut sum: u64) -> [u8; 2] {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const PSH: u8 = 8;
pub(super) const ACK: u8 = 16;
const ETHERNET: usize = 14;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMP6: u8 = 58;
