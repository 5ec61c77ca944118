use super::*;
use crate::wire::address::Address;
use crate::wire::ethernet::Ethernet;
use crate::wire::packet::{self, Ip, Kind, Net};
use crate::wire::tcp::{Flags, Header, Options, Seq, Timestamps};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

fn frame(vlan: Option<u16>, v6: bool, stamped: bool, syn: bool, payload: &[u8]) -> Vec<u8> {
    let link = Ethernet { dst: Mac([2, 0, 0, 0, 0, 2]), src: Mac([4, 0, 0, 0, 0, 1]), vlan, ethertype: 0 };
    let ends = if v6 { ["2001:db8::1", "2001:db8::2"] } else { ["10.0.0.1", "10.0.0.2"] };
    let [src, dst] = ends.map(|text| text.parse().unwrap());
    let timestamps = Timestamps { value: 1, echo: 2 };
    let bare = Options { timestamps: stamped.then_some(timestamps), ..Default::default() };
    let options = if syn { Options::of_syn(1_460, 7, timestamps) } else { bare };
    let (seq, ack, flags) = (Seq(7), Seq(8), Flags::ACK | if syn { Flags::SYN } else { Flags::PSH });
    let header = Header { src_port: 80, dst_port: 1000, seq, ack, flags, window: 9, options };
    let mut out = vec![0; packet::headers_len(vlan.is_some(), v6, &header, &[])];
    packet::emit_headers(&mut out, &link, &Ip::new(src, dst), &header, &[], payload, true);
    out.extend_from_slice(payload);
    out
}

proptest! {
    #[test]
    fn the_usual_packet_is_read_as_every_packet_is(
        vlan in proptest::option::of(1u16..4095), v6: bool, stamped: bool, syn: bool, len in 0usize..60, verify: bool,
        changes in proptest::collection::vec((0usize..80, any::<u8>()), 0..3), keep in 0usize..200
    ) {
        // Most without payload.
        let payload = vec![1; len.saturating_sub(30)];
        let mut bytes = frame(vlan.filter(|vlan| vlan % 4 == 0), v6 && len % 4 == 0, stamped, syn, &payload);
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(keep.max(14));
        let (mut net, mut segment) = (Net::default(), Segment::default());
        let any = packet::read(&bytes, verify, &mut net, &mut segment);
        // The place is not empty: nothing of what it held is left.
        let mut usual_segment = Segment { mss: Some(9), window_scale: Some(1), sack_permitted: true, ..Segment::default() };
        let mac = Mac(*bytes.first_chunk().unwrap());
        let usual = Usual::new(Some(mac), verify).read(&bytes, &mut usual_segment).filter(Ends::may_be);
        if let Some(Ends { src, dst, ports }) = usual {
            prop_assert_eq!((any, segment), (Ok(Kind::Tcp), usual_segment));
            prop_assert_eq!((net.src, net.dst), (Address::v4(src), Address::v4(dst)));
            prop_assert_eq!((ports >> 16, ports & 0xffff), (segment.src_port.into(), segment.dst_port.into()));
            let other = Mac(mac.0.map(|octet| octet ^ 1));
            for mac in [Some(other), None] {
                prop_assert_eq!(Usual::new(mac, verify).read(&bytes, &mut usual_segment), None);
            }
        }
        let is_usual = net.link.header_len == 14 && usize::from(net.l4_offset) == L4_OFFSET && net.src.is_v4();
        prop_assert_eq!(usual.is_some(), any == Ok(Kind::Tcp) && is_usual);
    }
}
