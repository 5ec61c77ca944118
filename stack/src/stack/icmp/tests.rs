use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

use handfast_drivers::burst::{RxBurst, TxBurst};
use handfast_drivers::driver::{Driver, Port, Queue};
use handfast_drivers::wire::{self, WireDriver};

use super::*;
use crate::app::{App, ConnId, Cx};
use crate::config::Config;
use crate::ip::routes::OwnAddress;
use crate::stack::Entropy;
use crate::time::Instant;
use crate::wire::address::{Address, Mac};
use crate::wire::icmp::Quoted;

const US: Address = Address::v4([10, 0, 0, 1]);
const PEER: Address = Address::v4([10, 0, 0, 2]);

#[derive(Default)]
struct Hears(Vec<Closed>);

impl App for Hears {
    fn on_close(&mut self, _: &mut Cx<'_>, _: ConnId, how: Closed) {
        self.0.push(how);
    }
}

#[test]
fn an_error_about_another_cores_connection_reaches_that_core() {
    let config = wire::Config { queues: 2, ..wire::Config::default() };
    let queues = wire::ports(config.clone(), config).0.open(2).unwrap();
    let drivers: Vec<WireDriver> = queues.into_iter().map(|queue| queue.start().unwrap()).collect();
    let mut stacks: Vec<Stack> = drivers.iter().map(stack).collect();
    let (mut app, now) = (Hears::default(), Instant::from_micros(1_000_000));
    let [first, second] = &mut stacks[..] else { unreachable!() };
    let conn = second.connect(SocketAddr::new(PEER.into(), 80)).unwrap();
    second.turn(now, &mut RxBurst::new(), &mut TxBurst::new(), &mut app);
    let tcb = second.conn(conn).unwrap();
    let quoted = Quoted { src: US, dst: PEER, src_port: tcb.key.local_port, dst_port: 80, seq: tcb.snd_una };
    let error = IcmpError { kind: ErrorKind::PortUnreachable, quoted };

    first.icmp_error(&error);
    assert_eq!(first.metrics().drops_total(), 0);
    let handed_over: Vec<_> = first.take_icmp_errors().collect();
    assert_eq!(handed_over, [(1, error)]);

    second.icmp_error(&error);
    second.turn(now, &mut RxBurst::new(), &mut TxBurst::new(), &mut app);
    assert_eq!(app.0, [Closed::Unreachable]);
    assert_eq!(second.metrics().get(Counter::IcmpErrors), 1);
}

/// Found by worlds, seed 1686: the second connection went on sending what was too big, for ever.
#[test]
fn a_path_that_carries_less_is_known_to_each_connection_that_hears_of_it() {
    let (driver, _far) = wire::pair(wire::Config::default());
    let (mut stack, mut app) = (stack(&driver), Hears::default());
    let conns = [80, 81].map(|port| stack.connect(SocketAddr::new(PEER.into(), port)).unwrap());
    stack.turn(Instant::from_micros(1_000_000), &mut RxBurst::new(), &mut TxBurst::new(), &mut app);
    for (conn, lowered) in conns.into_iter().zip([1, 1]) {
        let tcb = stack.conn(conn).unwrap();
        let (src_port, dst_port, seq) = (tcb.key.local_port, tcb.key.remote_port, tcb.snd_una);
        let quoted = Quoted { src: US, dst: PEER, src_port, dst_port, seq };
        stack.icmp_error(&IcmpError { kind: ErrorKind::PacketTooBig { mtu: 1000 }, quoted });
        assert_eq!(stack.conn(conn).unwrap().mss, 960);
        assert_eq!(stack.metrics().get(Counter::PathMtuLowered), lowered);
    }
}

fn stack(driver: &WireDriver) -> Stack {
    let mut config = Config::default();
    config.ip.addresses = vec![OwnAddress { address: US, prefix_len: 24 }];
    config.ip.neighbours = vec![(PEER, Mac([2; 6]))];
    Stack::new(config, driver.pool().clone(), driver.caps(), &Entropy([7; 64])).unwrap()
}
