//! Every parser on raw bytes. What is read must be inside, and what is written of it must be read as the same again.

use handfast::wire::address::{Address, Mac};
use handfast::wire::arp::Arp;
use handfast::wire::checksum::Sum;
use handfast::wire::ethernet::Ethernet;
use handfast::wire::icmp::Icmp;
use handfast::wire::icmp6::Icmp6;
use handfast::wire::ipv4::Ipv4;
use handfast::wire::ipv6::Ipv6;
use handfast::wire::ndp::Ndp;
use handfast::wire::packet::{self, Kind, Net};
use handfast::wire::tcp::{self, Header, Options, Segment};
use handfast::wire::usual::{self, Ends, Usual};

use super::frames::{self, Addresses};
use super::{Seen, Source};

pub(super) fn run(bytes: &[u8], seen: &mut Seen) {
    seen.cases += 1;
    let mut source = Source::new(bytes);
    match source.byte() % 10 {
        0 => drop(Ethernet::parse(bytes)),
        1 => arp(source.take(usize::MAX)),
        2 => ipv4(source.take(usize::MAX)),
        3 => ipv6(source.take(usize::MAX)),
        4 => drop(Icmp::parse(source.take(usize::MAX))),
        5 => icmp6(&mut source),
        6 => segment(source.take(usize::MAX)),
        7 => packet(source.take(usize::MAX)),
        // A good packet with a few bytes of it changed, and its checksums mended.
        _ => {
            let addresses = Addresses::new(source.byte() & 1 == 1);
            let mut frame = Vec::new();
            frames::any(&mut source, &addresses, &mut frame);
            frames::mutate(&mut source, &mut frame);
            packet(&frame);
        }
    }
}

fn arp(bytes: &[u8]) {
    if let Ok(arp) = Arp::parse(bytes) {
        assert_eq!(Arp::parse(&arp.emit()), Ok(arp));
    }
}

fn ipv4(bytes: &[u8]) {
    let Ok(ip) = Ipv4::parse(bytes) else { return };
    assert!(
        ip.header_len >= 20 && u16::from(ip.header_len) <= ip.total_len && usize::from(ip.total_len) <= bytes.len()
    );
    let mut out = vec![0; usize::from(ip.total_len)];
    let plain = Ipv4 { header_len: 20, ..ip };
    plain.emit(out.first_chunk_mut().expect("a packet is no shorter than its header"));
    assert_eq!(Ipv4::parse(&out), Ok(plain));
}

fn ipv6(bytes: &[u8]) {
    let Ok(ip) = Ipv6::parse(bytes) else { return };
    assert!(ip.header_len >= 40 && ip.header_len <= ip.total_len && usize::from(ip.total_len) <= bytes.len());
    let mut out = vec![0; usize::from(ip.total_len)];
    let plain = Ipv6 { header_len: 40, ..ip };
    plain.emit(out.first_chunk_mut().expect("a packet is no shorter than its header"));
    if ![0, 43, 44, 51, 60, 135, 139, 140].contains(&plain.protocol) {
        assert_eq!(Ipv6::parse(&out), Ok(plain));
    }
}

fn icmp6(source: &mut Source<'_>) {
    let addresses = Addresses::new(true);
    let (src, dst) =
        if source.byte() & 1 == 0 { (addresses.peer, addresses.own) } else { (Address::v6([0; 16]), addresses.own) };
    let hops = source.pick(&[255, 64, 0]);
    let bytes = source.take(usize::MAX);
    let _ = Icmp6::parse(&src, &dst, hops, bytes);
    let _ = Ndp::parse(&src, &dst, hops, bytes);
}

fn segment(bytes: &[u8]) {
    let Ok(segment) = tcp::parse(bytes) else { return };
    assert_eq!(segment.header_len() + usize::from(segment.payload_len), bytes.len());
    assert!(segment.src_port > 0 && segment.dst_port > 0 && segment.window_scale.unwrap_or(0) <= 14);
    written_again(&segment);
}

/// A header with the same contents is read as the same, but for SACK blocks that found no room beside padded options.
fn written_again(segment: &Segment) {
    let Segment { seq, ack, flags, window, src_port, dst_port, .. } = *segment;
    let Segment { mss, window_scale, sack_permitted, timestamps, sack, .. } = *segment;
    let options = Options { mss, window_scale, sack_permitted, timestamps };
    let header = Header { src_port, dst_port, seq, ack, flags, window, options };
    let mut out = [0; 60];
    let len = header.len(sack.as_slice());
    let out = &mut out[..len];
    header.emit(sack.as_slice(), out, Sum::ZERO, &[], true);
    let mut again = tcp::parse(out).expect("what is written can be read");
    assert!(again.sack.len <= sack.len);
    assert_eq!(again.sack.as_slice(), &sack.as_slice()[..usize::from(again.sack.len)]);
    again.sack = sack;
    assert_eq!(again, Segment { data_offset: tcp::data_offset(len), payload_len: 0, ..*segment });
}

/// A whole packet, and its answer in place.
fn packet(bytes: &[u8]) {
    let (mut net, mut segment) = (Net::default(), Segment::default());
    let unverified = packet::read(bytes, false, &mut net, &mut segment);
    let (mut net, mut segment) = (Net::default(), Segment::default());
    let read = packet::read(bytes, true, &mut net, &mut segment);
    let mut usual_segment = Segment::default();
    let usual = Usual::new(bytes.first_chunk().map(|octets| Mac(*octets)), true).read(bytes, &mut usual_segment);
    if let Some(ends) = usual.filter(Ends::may_be) {
        assert_eq!((read, segment), (Ok(Kind::Tcp), usual_segment), "the short way is no other way");
        assert_eq!((Address::v4(ends.src), Address::v4(ends.dst)), (net.src, net.dst));
        assert_eq!((usize::from(net.l4_offset), net.link.vlan), (usual::L4_OFFSET, None));
    }
    let Ok(kind) = read else { return };
    assert_eq!(unverified, Ok(kind), "a good checksum changes nothing");
    if kind == Kind::Arp {
        return;
    }
    assert!(net.l4(bytes).len() <= bytes.len());
    if kind == Kind::Tcp {
        assert_eq!(bytes[net.payload_range(&segment)].len(), usize::from(segment.payload_len));
        written_again(&segment);
    }
    let mut answer = bytes.to_vec();
    packet::turn_around(&mut answer, &net);
    let (mut back, mut segment) = (Net::default(), Segment::default());
    // The destination may be one that no packet comes from.
    if packet::read(&answer, true, &mut back, &mut segment) == Ok(kind) {
        assert_eq!((back.src, back.dst), (net.dst, net.src));
        assert_eq!((back.link.src_mac, back.link.dst_mac), (net.link.dst_mac, net.link.src_mac));
    }
}
