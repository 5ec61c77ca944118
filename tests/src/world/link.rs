//! What is between the hosts: a switch, and to each host a link that loses, delays, turns over, repeats and damages.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use handfast::time::{Duration, Instant};
use handfast_drivers::impair::Impairment;

use super::packet;
use super::random::Random;

/// One direction of a host's link.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// What happens to packets by chance, and how long they take.
    pub impairment: Impairment,
    /// Nothing gets through from then to then.
    pub dark: Vec<(Instant, Instant)>,
    /// Packets that come once more much later, per million.
    pub stray_ppm: u32,
    /// How much later at most, in milliseconds: less than the maximum segment lifetime.
    pub stray_ms: u32,
}

impl Link {
    /// A good link on which a packet takes this long.
    pub fn of_delay_us(delay_us: u32) -> Link {
        Link { impairment: Impairment { delay_us, ..Impairment::default() }, ..Link::default() }
    }
}

/// Where a packet is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum At {
    /// It comes to the switch from this host.
    Switch(usize),
    /// It comes to this host.
    Host(usize),
}

/// A packet on its way.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Underway {
    /// When it arrives.
    pub at: Instant,
    /// Which one it is: those that arrive at the same time come in this order.
    number: u64,
    /// Where it arrives.
    pub place: At,
    /// The frame.
    pub bytes: Rc<[u8]>,
    /// Bits of it were flipped.
    pub damaged: bool,
}

/// What happened to packets.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Accidents {
    /// Lost by chance.
    pub lost: u64,
    /// Lost in a blackout.
    pub darkened: u64,
    /// Lost because the queue was full.
    pub overflowed: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Come once more, much later.
    pub strayed: u64,
    /// Too large for the way, and their senders were told so.
    pub too_big: u64,
    /// Overtaken.
    pub reordered: u64,
    /// Damaged.
    pub damaged: u64,
}

/// One direction of a link and what it is doing.
#[derive(Debug)]
struct Path {
    link: Link,
    busy_until_ns: u64,
    last_at: Instant,
    waiting: u32,
}

/// All links and all packets on them.
#[derive(Debug)]
pub struct Network {
    /// Up from, and down to, each host.
    paths: Vec<[Path; 2]>,
    underway: BinaryHeap<Reverse<Underway>>,
    random: Random,
    numbered: u64,
    /// What happened.
    pub accidents: Accidents,
}

impl Network {
    /// Without hosts yet.
    pub fn new(random: Random) -> Network {
        Network { paths: Vec::new(), underway: BinaryHeap::new(), random, numbered: 0, accidents: Accidents::default() }
    }

    /// Joins a host by its link: the way up, from it, and down, to it.
    pub fn join(&mut self, up: Link, down: Link) {
        let path = |link| Path { link, busy_until_ns: 0, last_at: Instant::ZERO, waiting: 0 };
        self.paths.push([path(up), path(down)]);
    }

    /// A host's link, up and down, to change.
    pub fn link_mut(&mut self, host: usize) -> (&mut Link, &mut Link) {
        let [up, down] = &mut self.paths[host];
        (&mut up.link, &mut down.link)
    }

    /// When the next packet arrives somewhere.
    pub fn next_at(&self) -> Option<Instant> {
        self.underway.peek().map(|Reverse(packet)| packet.at)
    }

    /// Packets on their way.
    pub fn underway(&self) -> usize {
        self.underway.len()
    }

    /// Takes a packet that has arrived out.
    pub fn arrived(&mut self, now: Instant) -> Option<Underway> {
        if self.next_at()? > now {
            return None;
        }
        let Reverse(packet) = self.underway.pop()?;
        let path = match packet.place {
            At::Switch(host) => &mut self.paths[host][0],
            At::Host(host) => &mut self.paths[host][1],
        };
        path.waiting = path.waiting.saturating_sub(1);
        Some(packet)
    }

    /// A host sends, or the switch passes on: chance decides what becomes of it.
    pub fn carry(&mut self, now: Instant, place: At, bytes: Rc<[u8]>, mut damaged: bool) {
        let path = match place {
            At::Switch(host) => &self.paths[host][0],
            At::Host(host) => &self.paths[host][1],
        };
        if path.link.dark.iter().any(|&(from, until)| (from..until).contains(&now)) {
            self.accidents.darkened += 1;
            return;
        }
        let Impairment { loss_ppm, duplicate_ppm, corrupt_ppm, .. } = path.link.impairment;
        let Link { stray_ppm, stray_ms, .. } = path.link;
        if self.random.chance(loss_ppm) {
            self.accidents.lost += 1;
            return;
        }
        if self.random.chance(duplicate_ppm) {
            self.accidents.duplicated += 1;
            self.put(now, place, bytes.clone(), damaged);
        }
        if stray_ppm > 0 && self.random.chance(stray_ppm) {
            self.accidents.strayed += 1;
            let later = Duration::from_millis(self.random.skewed(1, stray_ms.into()));
            self.arrive(now + later, place, bytes.clone(), damaged);
        }
        let mut bytes = bytes;
        // Damaged twice it might be whole again.
        if self.random.chance(corrupt_ppm) && !damaged {
            // What is for many is not for everyone who gets it: he need not look at its checksum.
            let Some(bits) = packet::checksummed(&bytes).filter(|_| bytes[0] & 1 == 0) else {
                self.accidents.lost += 1; // the frame check sequence
                return;
            };
            bytes = flip(&bytes, bits, &mut self.random);
            damaged = true;
            self.accidents.damaged += 1;
        }
        self.put(now, place, bytes, damaged);
    }

    /// Puts a packet on its way without accidents but for a full queue: it arrives after the link's delay.
    fn put(&mut self, now: Instant, place: At, bytes: Rc<[u8]>, damaged: bool) {
        let path = match place {
            At::Switch(host) => &mut self.paths[host][0],
            At::Host(host) => &mut self.paths[host][1],
        };
        let Impairment { reorder_ppm, reorder_us, delay_us, jitter_us, rate_bps, queue_max, .. } = path.link.impairment;
        if path.waiting >= queue_max {
            self.accidents.overflowed += 1;
            return;
        }
        let send_ns = (bytes.len() as u64 * 8_000_000_000).checked_div(rate_bps).unwrap_or(0);
        path.busy_until_ns = path.busy_until_ns.max(now.as_micros() * 1000) + send_ns;
        let late_us = u64::from(delay_us) + self.random.below(u64::from(jitter_us) + 1);
        let at = Instant::from_micros(path.busy_until_ns / 1000) + Duration::from_micros(late_us);
        path.last_at = path.last_at.max(at);
        let mut at = path.last_at;
        if self.random.chance(reorder_ppm) {
            self.accidents.reordered += 1;
            at += Duration::from_micros(u64::from(reorder_us));
        }
        path.waiting += 1;
        self.arrive(at, place, bytes, damaged);
    }

    /// Has a packet arrive at a time, whatever the link.
    pub fn arrive(&mut self, at: Instant, place: At, bytes: Rc<[u8]>, damaged: bool) {
        self.numbered += 1;
        self.underway.push(Reverse(Underway { at, number: self.numbered, place, bytes, damaged }));
    }
}

/// Flips some bits next to each other: any burst shorter than the checksum's 16 bits is found by it.
pub fn flip(bytes: &[u8], bits: std::ops::Range<usize>, random: &mut Random) -> Rc<[u8]> {
    let mut bytes = bytes.to_vec();
    let end = bits.end.min(bytes.len() * 8);
    let first = bits.start + random.below((end - bits.start) as u64) as usize;
    let len = 1 + random.below(8) as usize;
    bytes[first / 8] ^= 0x80 >> (first % 8);
    for bit in first + 1..end.min(first + len) {
        bytes[bit / 8] ^= (random.number() as u8 & 0x80) >> (bit % 8);
    }
    bytes.into()
}
