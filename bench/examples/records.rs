//! How much memory open connections take, and what a segment costs among so many: a server whose peers are made of segments alone.
//!
//! ```text
//! cargo run --release -p handfast-bench --example records              ten million
//! cargo run --release -p handfast-bench --example records -- 100000
//! ```

use std::time::Instant as Clock;

use handfast::config::Config;
use handfast::ip::routes::Route;
use handfast::time::{Duration, Instant};
use handfast::wire::address::{Address, Mac};
use handfast::wire::ethernet::{ETHERTYPE_IPV4, Ethernet};
use handfast::wire::packet::{self, Ip};
use handfast::wire::tcp::{Flags, Header, Options, Seq, Timestamps};
use handfast_bench::duo::{CloseBack, End, own_address};
use handfast_drivers::burst::{BURST, RxBurst, TxBurst};
use handfast_drivers::driver::Driver;
use handfast_drivers::wire::{self, WireDriver};

fn main() {
    let count = std::env::args().nth(1).map_or(Ok(10_000_000), |text| text.replace('_', "").parse());
    let Ok(count @ 64..=100_000_000) = count else {
        eprintln!("records: how many connections, from 64 to 100000000?");
        std::process::exit(2);
    };
    // What this program itself remembers of each peer, touched before anything is measured.
    let mut acks = vec![u32::MAX; count as usize];
    let before = resident_bytes();
    let mut server = Server::new(count);
    let reserved = resident_bytes();
    let begun = Clock::now();
    for first in (0..count).step_by(BURST) {
        server.open(first..count.min(first + BURST as u32), &mut acks);
    }
    let took = begun.elapsed();
    assert_eq!(server.end.stack.connections(), count);
    let open = resident_bytes();
    println!("{count} connections are open, on one core, as a server has them: nothing sent or received on them");
    println!("memory at start        {:>8} MiB", (reserved - before) >> 20);
    println!(
        "memory with all open   {:>8} MiB, {} bytes for each connection",
        (open - before) >> 20,
        (open - before) / u64::from(count)
    );
    println!(
        "opened                 {:>8.0} ns each, the peers' part included",
        took.as_nanos() as f64 / f64::from(count)
    );

    for (what, span) in [("the same 64 of them", BURST as u32), ("any of them", count)] {
        let per_segment = server.acknowledge(span, &acks);
        println!("an ACK to {what:<19} {per_segment:>8.0} ns each, in bursts of {BURST}, the peers' part included");
    }
}

struct Server {
    end: End<WireDriver, CloseBack>,
    peer: WireDriver,
    rx: RxBurst,
    tx: TxBurst,
    now: Instant,
}

impl Server {
    fn new(count: u32) -> Server {
        let (peer, device) = wire::pair(wire::Config::default());
        let mut config = Config { listen: vec![80], ..Config::default() };
        config.limits.conns_max = count;
        config.limits.time_wait_max = 1024;
        config.ip.addresses = vec![own_address(2)];
        config.ip.neighbours = vec![(ROUTER, Mac(PEER_MAC))];
        config.ip.routes.push(Route::default_via(ROUTER));
        Server {
            end: End::new(device, config, CloseBack),
            peer,
            rx: RxBurst::new(),
            tx: TxBurst::new(),
            now: Instant::from_micros(1_000_000),
        }
    }

    /// Opens these connections, and remembers what each peer has to acknowledge.
    fn open(&mut self, flows: std::ops::Range<u32>, acks: &mut [u32]) {
        for flow in flows.clone() {
            let options =
                Options { mss: Some(1_460), window_scale: Some(7), sack_permitted: true, timestamps: TIMESTAMPS };
            self.send(flow, &Header { seq: ISN, flags: Flags::SYN, options, ..Header::default() });
        }
        self.exchange();
        assert_eq!(self.rx.len(), flows.len(), "each SYN is answered");
        for (flow, answer) in flows.clone().zip(self.rx.drain(..)) {
            let seq = *answer[SEQ_AT..].first_chunk().expect("a SYN-ACK");
            acks[flow as usize] = u32::from_be_bytes(seq).wrapping_add(1);
        }
        for flow in flows {
            self.send_ack(flow, acks);
        }
        self.exchange();
        assert!(self.rx.is_empty(), "an ACK is not answered");
    }

    /// Sends segments that say nothing new to random connections among the first `span`; nanoseconds of each.
    fn acknowledge(&mut self, span: u32, acks: &[u32]) -> f64 {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            let begun = Clock::now();
            for _ in 0..BURSTS {
                for _ in 0..BURST {
                    // xorshift64*
                    random ^= random >> 12;
                    random ^= random << 25;
                    random ^= random >> 27;
                    let word = random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
                    self.send_ack(((word * u64::from(span)) >> 32) as u32, acks);
                }
                self.exchange();
                self.rx.clear();
            }
            best = best.min(begun.elapsed().as_nanos() as f64 / (BURSTS * BURST) as f64);
        }
        best
    }

    fn send_ack(&mut self, flow: u32, acks: &[u32]) {
        let options = Options { timestamps: TIMESTAMPS, ..Options::default() };
        let ack = Seq(acks[flow as usize]);
        self.send(flow, &Header { seq: ISN + 1, ack, flags: Flags::ACK, options, ..Header::default() });
    }

    fn send(&mut self, flow: u32, header: &Header) {
        let (address, port) = (flow / PORTS, flow % PORTS);
        let [_, a, b, c] = address.to_be_bytes();
        let header = Header { src_port: 1024 + port as u16, dst_port: 80, window: 65_535, ..*header };
        let link = Ethernet { dst: Mac(SERVER_MAC), src: Mac(PEER_MAC), vlan: None, ethertype: ETHERTYPE_IPV4 };
        let ip = Ip::new(Address::v4([11, a, b, c]), own_address(2).address);
        let mut frame = self.peer.pool().alloc().expect("frames came back");
        let room = frame.append(packet::headers_len(false, false, &header, &[]));
        packet::emit_headers(room, &link, &ip, &header, &[], &[], true);
        self.tx.push(frame);
    }

    /// What was sent arrives, and the answers come back.
    fn exchange(&mut self) {
        self.peer.tx_burst(&mut self.tx);
        self.peer.flush();
        self.end.turn(self.now);
        self.peer.rx_burst(&mut self.rx);
        self.now += Duration::from_micros(20);
    }
}

/// Bytes of memory that this process has now.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

const ROUTER: Address = Address::v4([10, 0, 0, 1]);
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];
const TIMESTAMPS: Option<Timestamps> = Some(Timestamps { value: 1, echo: 0 });
const ISN: Seq = Seq(1_000);
/// Of each address of the peers.
const PORTS: u32 = 60_000;
/// Where the sequence number of an IPv4 packet is.
const SEQ_AT: usize = 14 + 20 + 4;
const ROUNDS: usize = 20;
const BURSTS: usize = 1_000;
