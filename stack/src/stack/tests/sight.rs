//! What is taken at sight is taken as everything is: two stacks hear the same, and one of them is traced, so that it knows no short way.

use alloc::format;
use alloc::string::String;

use super::peer::*;
use super::*;
use crate::ip::routes::OwnRange;
use crate::wire::tcp::{Flags, Options, Timestamps};

/// All that can be seen of a stack, and what it sent meanwhile.
fn seen(peer: &mut Peer) -> String {
    let mut sent = Vec::new();
    peer.host.turn(peer.now);
    loop {
        let mut rx = RxBurst::new();
        peer.wire.rx_burst(&mut rx);
        peer.wire.flush();
        if rx.is_empty() {
            break;
        }
        sent.extend(rx.drain(..).map(|frame| frame.to_vec()));
        peer.host.turn(peer.now);
    }
    if let Some([.., a, b, c, d]) = sent.first().and_then(|frame| frame.get(34..42)).and_then(<[u8]>::as_array::<8>) {
        peer.iss = Seq(u32::from_be_bytes([*a, *b, *c, *d]));
        peer.seen = peer.iss.add(1);
    }
    let stack = &peer.host.stack;
    let half_open: Vec<_> = (0..16).map(|at| stack.half_open.get(at)).collect();
    let conns: Vec<_> = stack.conns.iter().collect();
    format!("{sent:?} {half_open:?} {conns:?} {:?} {} {}", stack.metrics(), stack.flows.len(), peer.log())
}

/// Two of one kind, the second of which is traced.
fn twins(configure: fn(&mut Config), prepare: fn(&mut Peer)) -> [Peer; 2] {
    let mut twins = [Peer::with(configure), Peer::with(configure)];
    twins[1].host.stack.trace_all(true);
    twins.iter_mut().for_each(prepare);
    twins
}

/// Both hear this; what became of it is the same.
fn hear(twins: &mut [Peer; 2], (src, dst): (Address, Address), out: &Out) {
    let [seen, by_steps] = twins.each_mut().map(|peer| {
        peer.put_between(src, dst, out.clone());
        seen(peer)
    });
    assert_eq!(seen, by_steps, "{out:?}");
}

/// SYNs with and without each option, and other segments.
fn firsts() -> Vec<Out> {
    let mut firsts = Vec::new();
    for flags in [SYN, ACK, RST, SYN_ACK, Flags(SYN.0 | Flags::FIN.0), Flags(SYN.0 | RST.0), Flags(SYN.0 | 0xc8)] {
        for options in 0..16 {
            for (mss, shift) in [(0, 0), (64, 3), (1_400, 7), (9_000, 14)] {
                let has = |bit: u32| options & 1 << bit == 0;
                let mut first = segment(flags, IRS);
                first.header.dst_port = 80;
                first.header.options = Options {
                    mss: has(0).then_some(mss),
                    window_scale: has(1).then_some(shift),
                    sack_permitted: has(2),
                    timestamps: has(3).then_some(Timestamps { value: u32::MAX, echo: 0 }),
                };
                firsts.push(first);
            }
        }
    }
    firsts
}

fn usual_syn() -> Out {
    let mut syn = firsts().swap_remove(2);
    assert_eq!(syn.header.flags, SYN);
    syn.header.dst_port = 80;
    syn
}

#[test]
fn a_first_segment_begins_what_it_begins_by_all_steps() {
    for first in firsts() {
        hear(&mut twins(|_| {}, |_| {}), (CLIENT, SERVER), &first);
    }
    let mut twins = twins(|_| {}, |_| {});
    hear(&mut twins, (CLIENT, SERVER), &usual_syn());
    assert!(twins.iter().all(|twin| twin.host.stack.half_open() == 1));
}

#[test]
fn a_syn_is_taken_at_sight_by_who_takes_it_at_all() {
    let configs: [fn(&mut Config); 8] = [
        |_| {},
        |config| config.tcp.timestamps = false,
        |config| config.tcp.sack = false,
        |config| config.tcp.window_scaling = false,
        |config| config.limits.backlog_max = 1,
        |config| (config.limits.backlog_max, config.tcp.syn_cookies) = (1, false),
        |config| config.limits.syn_rcvd_max = 1,
        |config| {
            config.ip.addresses.push(OwnAddress { address: Address::v4([10, 0, 0, 3]), prefix_len: 24 });
        },
    ];
    let prepared: [fn(&mut Peer); 4] = [
        |_| {},
        |peer| {
            assert!(peer.host.stack.unlisten(None, 80));
        },
        |peer| peer.host.stack.shut_down(peer.now, &mut peer.host.app),
        |peer| peer.host.stack.listen(Some([10, 0, 0, 2].into()), 80).unwrap(),
    ];
    for configure in configs {
        for prepare in prepared {
            let mut twins = twins(configure, prepare);
            // The second is of another flow, the third is the first again.
            for port in [PORT, PORT + 1, PORT] {
                hear(&mut twins, (CLIENT, SERVER), &usual_syn().port(port));
            }
        }
    }
}

#[test]
fn nobody_opens_at_sight_who_may_not_open() {
    const ANOTHER: Address = Address::v4([10, 0, 0, 3]);
    // With one address, two, and a range.
    let configs: [fn(&mut Config); 3] = [
        |_| {},
        |config| config.ip.addresses.push(OwnAddress { address: ANOTHER, prefix_len: 24 }),
        |config| config.ip.ranges.push(OwnRange { first: ANOTHER, count: 3 }),
    ];
    let addresses = [CLIENT, SERVER, ANOTHER, Address::v4([10, 0, 0, 4]), Address::v4([10, 0, 0, 255])];
    let never = [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], [0, 1, 2, 3], [223, 9, 9, 9]];
    for src in addresses.into_iter().chain(never.map(Address::v4)) {
        for dst in addresses.into_iter().chain(never.map(Address::v4)) {
            for (src_port, dst_port) in [(PORT, 80), (0, 80), (PORT, 0), (PORT, 81)] {
                let mut syn = usual_syn().port(src_port);
                syn.header.dst_port = dst_port;
                for configure in configs {
                    hear(&mut twins(configure, |_| {}), (src, dst), &syn);
                }
            }
        }
    }
}

#[test]
fn a_second_segment_completes_what_it_completes_by_all_steps() {
    let prepared: [fn(&mut Peer); 3] = [
        |_| {},
        |peer| {
            assert!(peer.host.stack.unlisten(None, 80));
        },
        |peer| {
            // Room for no connection.
            let to = SocketAddr::new(CLIENT.into(), 7);
            while (Cx { stack: &mut peer.host.stack }).connect(to).is_ok() {}
            peer.turn();
        },
    ];
    for prepare in prepared {
        for flags in [ACK, FIN_ACK, SYN, SYN_ACK, RST, RST_ACK, Flags(ACK.0 | 0xe8)] {
            for (seq, ack) in [(NXT, 1), (NXT, 2), (NXT, 0), (NXT + 1, 1), (IRS, 1)] {
                for stamp in [None, Some(u32::MAX), Some(0), Some(u32::MAX - 1), Some(1 << 31)] {
                    for payload in [&b""[..], b"text"] {
                        let mut twins = twins(|_| {}, |_| {});
                        hear(&mut twins, (CLIENT, SERVER), &usual_syn());
                        twins.iter_mut().for_each(|peer| {
                            let (iss, now_seen) = (peer.iss, peer.seen);
                            prepare(peer);
                            (peer.iss, peer.seen) = (iss, now_seen);
                        });
                        let mut out = segment(flags, seq).ack(ack).data(payload);
                        out.header.dst_port = 80;
                        out.header.options.timestamps = stamp.map(|value| Timestamps { value, echo: 1_000 });
                        hear(&mut twins, (CLIENT, SERVER), &out);
                    }
                }
            }
        }
    }
}

#[test]
fn a_connection_that_is_opened_at_sight_is_opened_as_by_all_steps() {
    let mut twins = twins(|config| config.limits.conns_max = 500, |_| {});
    for n in 0..510 {
        let remote = (core::net::IpAddr::from([10, 0, 0, 1 + n as u8 % 2 * 3]), if n == 400 { 0 } else { 80 + n % 3 });
        let opened = twins.each_mut().map(|peer| {
            let stack = &mut peer.host.stack;
            let opened = match stack.trace.wants(false) {
                true => stack.connect_from(None, remote.into()),
                false => stack.connect(remote.into()),
            };
            let tcb = opened.ok().and_then(|conn| stack.conns.get(conn));
            format!("{opened:?} {tcb:?} {:?} {} {}", stack.metrics(), stack.flows.len(), stack.owing.len())
        });
        assert_eq!(opened[0], opened[1]);
    }
    for twin in &twins {
        assert_eq!(twin.host.stack.connections(), 500);
        twin.host.stack.check().unwrap();
    }
}

#[test]
fn a_cookie_takes_nothing_off_what_both_ends_and_the_path_carry() {
    let mut peer = Peer::with(|config| (config.limits.backlog_max, config.ip.mtu) = (1, 1_450));
    let syn = |port| {
        let mut syn = usual_syn().port(port);
        syn.header.options.mss = Some(1_460);
        syn
    };
    peer.put_between(CLIENT, SERVER, syn(PORT + 1));
    peer.turn();
    peer.put_between(CLIENT, SERVER, syn(PORT));
    peer.turn();
    assert_eq!(peer.get(Counter::SynCookiesSent), 1);
    let mut third = segment(ACK, NXT).ack(1);
    third.header.dst_port = 80;
    third.header.options.timestamps = Some(Timestamps { value: u32::MAX, echo: peer.stamp.unwrap() });
    peer.put_between(CLIENT, SERVER, third);
    peer.turn();
    let mss: Vec<_> = peer.host.stack.conns.iter().map(|(_, tcb)| tcb.mss).collect();
    assert_eq!(mss, [1_410]);
}
