//! The neighbour table: who on the link has which Ethernet address, and who waits to know (RFC 826, RFC 4861 §7.3).
//!
//! One state machine serves ARP and neighbour discovery. It sends nothing itself.

use alloc::vec::Vec;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::hash_of;
use crate::time::{Duration, Instant};
use crate::wire::address::{Address, Mac};

/// Where a packet goes on the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextHop {
    /// To this Ethernet address.
    Ready(Mac),
    /// The neighbour is being asked. The waiter, if one was given, is woken when there is an answer or none comes.
    /// If too many wait already it is not, and has to come again by its own timer.
    Pending,
    /// The neighbour was asked and did not answer. It is asked again by whoever comes in a few seconds.
    Unreachable,
    /// There is no way to the destination.
    NoRoute,
}

/// What a connection keeps of its next hop. A stale one finds nobody.
#[derive(Clone, Copy, Eq, Default, Debug)]
pub struct NeighbourId {
    index: u32,
    /// Never 0 in the table.
    generation: u32,
}

impl NeighbourId {
    /// Of no neighbour, and of no connection that has not yet looked for its neighbour either.
    pub const NOBODY: NeighbourId = NeighbourId { index: u32::MAX, generation: 0 };
}

impl PartialEq for NeighbourId {
    #[inline(always)]
    fn eq(&self, other: &NeighbourId) -> bool {
        let word = |id: &NeighbourId| u64::from(id.generation) << 32 | u64::from(id.index);
        word(self) == word(other)
    }
}

/// How something about a neighbour came to be known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// It answered us: it hears us and is there.
    Answered,
    /// It asked us: most likely we are about to send to it.
    Asked,
    /// It told everyone, unasked: believed about neighbours that are known already.
    Announced,
    /// It told without claiming to replace what is known (a neighbour advertisement without the override flag).
    Hinted {
        /// It was an answer to us.
        solicited: bool,
    },
}

/// The neighbours of one core.
#[derive(Debug)]
pub struct Neighbours {
    entries: Vec<Entry>,
    index: HashTable<u32>,
    hasher: SipHasher13,
    neighbours_max: usize,
    /// (entry, who waits)
    waiters: Vec<(u32, u32)>,
    woken: Vec<u32>,
    waiters_max: usize,
    /// Where the search for a victim goes on.
    hand: usize,
    /// A neighbour answered or failed since someone asked.
    settled: bool,
    /// The earliest deadline of any entry, or earlier.
    next_due: Instant,
    scanned: Instant,
}

impl Neighbours {
    /// An empty table. `key` is secret: it keeps strangers from choosing where addresses fall.
    pub fn new(neighbours_max: usize, waiters_max: usize, key: [u8; 16]) -> Neighbours {
        let neighbours_max = neighbours_max.max(1);
        Neighbours {
            entries: Vec::with_capacity(neighbours_max),
            index: HashTable::with_capacity(neighbours_max),
            hasher: SipHasher13::new_with_key(&key),
            neighbours_max,
            waiters: Vec::with_capacity(waiters_max),
            woken: Vec::with_capacity(waiters_max),
            waiters_max,
            hand: 0,
            settled: false,
            next_due: NEVER,
            scanned: Instant::ZERO,
        }
    }

    /// The fast path: an index, two compares.
    #[inline]
    pub fn fresh(&self, now: Instant, id: NeighbourId) -> Option<Mac> {
        let entry = self.entries.get(id.index as usize)?;
        (entry.generation == id.generation && now < entry.fresh_until).then_some(entry.mac)
    }

    /// The neighbour's Ethernet address, if it is fresh, or used while proof of it is being waited for (RFC 4861 §7.3.3).
    pub fn usable(&mut self, now: Instant, id: NeighbourId) -> Option<Mac> {
        let entry = self.entries.get_mut(id.index as usize)?;
        let proving = matches!(entry.state, State::Delay | State::Probe);
        if entry.generation != id.generation || !(proving || now < entry.fresh_until) {
            return None;
        }
        entry.used = now;
        Some(entry.mac)
    }

    /// Whether `id` is still a neighbour, fresh or not.
    #[inline]
    pub fn contains(&self, id: NeighbourId) -> bool {
        self.entries.get(id.index as usize).is_some_and(|entry| entry.generation == id.generation)
    }

    /// Finds the neighbour at `address`, or has it asked for. `cached`, if it is still good, spares the search.
    pub fn resolve(
        &mut self,
        now: Instant,
        address: Option<Address>,
        cached: &mut NeighbourId,
        waiter: Option<u32>,
    ) -> NextHop {
        let known = self.contains(*cached);
        let index = match (known, address) {
            (true, _) => cached.index,
            (false, None) => return NextHop::NoRoute,
            (false, Some(address)) => match self.find(address).or_else(|| self.insert(now, address)) {
                Some(index) => index,
                None => return NextHop::Unreachable,
            },
        };
        let entry = &mut self.entries[index as usize];
        let id = NeighbourId { index, generation: entry.generation };
        entry.used = now;
        match entry.state {
            State::Reachable | State::Permanent if now < entry.fresh_until => {}
            // RFC 4861 §7.3.3: the first packet to a stale neighbour goes out, and proof is waited for a while.
            State::Reachable | State::Permanent | State::Stale => {
                entry.state = State::Delay;
                entry.deadline = now + DELAY_FIRST_PROBE;
                self.next_due = self.next_due.min(entry.deadline);
            }
            State::Delay | State::Probe => {}
            State::Failed if now < entry.deadline => return NextHop::Unreachable,
            State::New | State::Failed => {
                (entry.state, entry.tries, entry.deadline) = (State::Incomplete, 0, now);
                self.next_due = self.next_due.min(now);
                self.wait(id, cached, waiter, false);
                return NextHop::Pending;
            }
            State::Incomplete => {
                self.wait(id, cached, waiter, known);
                return NextHop::Pending;
            }
        }
        let mac = entry.mac;
        *cached = id;
        NextHop::Ready(mac)
    }

    /// Whoever has the id of an incomplete neighbour waits for it already.
    fn wait(&mut self, id: NeighbourId, cached: &mut NeighbourId, waiter: Option<u32>, waits_already: bool) {
        if let Some(waiter) = waiter
            && !waits_already
            && self.waiters.len() < self.waiters_max
        {
            self.waiters.push((id.index, waiter));
            *cached = id;
        } else if !waits_already {
            *cached = NeighbourId::default();
        }
    }

    /// Something was heard about the neighbour at `address`. `mac` is missing where the message gave none.
    /// Says whether an Ethernet address was learned or confirmed that others may want to know.
    pub fn heard(&mut self, now: Instant, address: Address, mac: Option<Mac>, evidence: Evidence) -> bool {
        let Some(index) = self.find(address) else {
            let Some(mac) = mac.filter(|_| matches!(evidence, Evidence::Asked | Evidence::Answered)) else {
                return false;
            };
            // Who answers without being asked here was asked by another core; who did not, does not push anybody out.
            if evidence == Evidence::Answered && self.is_full() {
                return true;
            }
            let Some(index) = self.insert(now, address) else { return true };
            self.settle(now, index, mac, evidence == Evidence::Answered);
            return true;
        };
        let entry = &self.entries[index as usize];
        let differs = mac.is_some_and(|mac| mac != entry.mac);
        let mac = mac.unwrap_or(entry.mac);
        match (entry.state, evidence) {
            (State::Permanent, _) => false,
            // Nothing to go by: the message named no Ethernet address, and none is known.
            (State::New | State::Incomplete | State::Failed, _) if mac == Mac::default() => false,
            (State::New | State::Incomplete | State::Failed, evidence) => {
                self.settle(
                    now,
                    index,
                    mac,
                    matches!(evidence, Evidence::Answered | Evidence::Hinted { solicited: true }),
                );
                true
            }
            // RFC 4861 §7.2.5: without the override flag another address makes us doubt, no more.
            (State::Reachable, Evidence::Hinted { .. }) if differs => {
                let mac = entry.mac;
                self.settle(now, index, mac, false);
                false
            }
            (_, Evidence::Hinted { .. }) if differs => false,
            (_, Evidence::Answered | Evidence::Hinted { solicited: true }) => {
                self.settle(now, index, mac, true);
                true
            }
            (_, Evidence::Asked | Evidence::Announced | Evidence::Hinted { solicited: false }) => {
                if differs {
                    self.settle(now, index, mac, false);
                }
                differs
            }
        }
    }

    /// A neighbour that is never asked for and never forgotten. `false` if there is no room.
    pub fn add_permanent(&mut self, address: Address, mac: Mac) -> bool {
        let Some(index) = self.find(address).or_else(|| self.insert(Instant::ZERO, address)) else { return false };
        self.settle(Instant::ZERO, index, mac, true);
        let entry = &mut self.entries[index as usize];
        (entry.state, entry.fresh_until) = (State::Permanent, NEVER);
        true
    }

    /// What an upper layer knows: the neighbour takes our packets on (RFC 4861 §7.3.1).
    #[inline]
    pub fn confirm(&mut self, now: Instant, id: NeighbourId) {
        if let Some(entry) = self.entries.get_mut(id.index as usize)
            && entry.generation == id.generation
            && matches!(entry.state, State::Reachable | State::Stale | State::Delay | State::Probe)
        {
            (entry.state, entry.fresh_until) = (State::Reachable, now + REACHABLE_TIME);
        }
    }

    /// When [`poll`](Self::poll) wants to be called; `None` if nobody is being asked.
    #[inline]
    pub fn next_poll(&self) -> Option<Instant> {
        (self.next_due != NEVER).then(|| self.next_due.max(self.scanned + SCAN_INTERVAL))
    }

    /// Goes through the neighbours that are being asked. `solicit(address, mac)` asks one, everyone on the link if there is no
    /// `mac`, and says `false` if that cannot be done now.
    pub fn poll(&mut self, now: Instant, mut solicit: impl FnMut(Address, Option<Mac>) -> bool) {
        if self.next_poll().is_none_or(|at| now < at) {
            return;
        }
        (self.scanned, self.next_due) = (now, NEVER);
        for index in 0..self.entries.len() {
            let entry = &mut self.entries[index];
            if !matches!(entry.state, State::Incomplete | State::Delay | State::Probe) {
                continue;
            }
            if entry.deadline <= now {
                if entry.state == State::Delay {
                    (entry.state, entry.tries) = (State::Probe, 0);
                }
                if entry.tries >= TRIES {
                    (entry.state, entry.deadline) = (State::Failed, now + FAILED_TIME);
                    // Those who knew it look it up anew: whoever has the id of an incomplete neighbour is one that waits.
                    entry.renew();
                    self.wake(index as u32);
                    continue;
                }
                let mac = (entry.state == State::Probe).then_some(entry.mac);
                if solicit(entry.address, mac) {
                    entry.tries += 1;
                    entry.deadline = now + RETRANS_TIMER;
                }
            }
            self.next_due = self.next_due.min(entry.deadline);
        }
    }

    /// Those who waited for a neighbour that has now answered or failed.
    pub fn take_woken(&mut self) -> impl Iterator<Item = u32> + '_ {
        self.woken.drain(..)
    }

    /// Whether any neighbour answered or failed since the last call: then packets that wait can be looked at.
    pub fn take_settled(&mut self) -> bool {
        core::mem::take(&mut self.settled)
    }

    /// What is known of the neighbour at `address`, without asking.
    pub fn peek(&self, address: Address) -> NextHop {
        let Some(entry) = self.find(address).map(|index| &self.entries[index as usize]) else {
            return NextHop::Unreachable;
        };
        match entry.state {
            State::New | State::Incomplete => NextHop::Pending,
            State::Failed => NextHop::Unreachable,
            State::Reachable | State::Stale | State::Delay | State::Probe | State::Permanent => {
                NextHop::Ready(entry.mac)
            }
        }
    }

    /// How many neighbours there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    fn is_full(&self) -> bool {
        self.index.len() >= self.neighbours_max
    }

    /// The neighbour is at `mac`: proven now, or likely.
    fn settle(&mut self, now: Instant, index: u32, mac: Mac, proven: bool) {
        let entry = &mut self.entries[index as usize];
        entry.mac = mac;
        (entry.state, entry.fresh_until) =
            if proven { (State::Reachable, now + REACHABLE_TIME) } else { (State::Stale, Instant::ZERO) };
        self.wake(index);
    }

    fn wake(&mut self, index: u32) {
        self.settled = true;
        let Neighbours { waiters, woken, .. } = self;
        waiters.retain(|&(entry, waiter)| {
            // As many may be woken as may wait; if those of before were not taken yet, they come by their own timers.
            if entry == index && woken.len() < self.waiters_max {
                woken.push(waiter);
            }
            entry != index
        });
    }

    fn find(&self, address: Address) -> Option<u32> {
        self.index.find(self.hash(address), |&i| self.entries[i as usize].address == address).copied()
    }

    fn insert(&mut self, now: Instant, address: Address) -> Option<u32> {
        let index = if self.entries.len() < self.neighbours_max {
            self.entries.push(Entry::new(address));
            self.entries.len() - 1
        } else {
            let index = self.victim()?;
            self.wake(index as u32);
            let (old, generation) = (self.entries[index].address, self.entries[index].generation);
            if let Ok(found) = self.index.find_entry(self.hash(old), |&i| i as usize == index) {
                found.remove();
            }
            self.entries[index] = Entry { generation, ..Entry::new(address) };
            self.entries[index].renew();
            index
        };
        self.entries[index].used = now;
        let (hash, entries, hasher) = (self.hash(address), &self.entries, self.hasher);
        self.index.insert_unique(hash, index as u32, |&i| hash_of(hasher, entries[i as usize].address));
        Some(index as u32)
    }

    /// Whom to forget, of the next few: best one that failed, then one still unknown (so that a scan of the network pushes out
    /// its own kind, RFC 6583 §7.1), then the one not looked up for longest.
    fn victim(&mut self) -> Option<usize> {
        let len = self.entries.len();
        let candidates = (0..len.min(VICTIM_CANDIDATES)).map(|n| (self.hand + n) % len);
        let rank = |index: &usize| {
            let entry = &self.entries[*index];
            let rank = match entry.state {
                State::New | State::Failed => 0,
                State::Incomplete => 1,
                State::Stale => 2,
                State::Delay | State::Probe | State::Reachable => 3,
                State::Permanent => 4,
            };
            (rank, entry.used)
        };
        let victim = candidates.min_by_key(rank)?;
        self.hand = (self.hand + VICTIM_CANDIDATES) % len;
        (self.entries[victim].state != State::Permanent).then_some(victim)
    }

    fn hash(&self, address: Address) -> u64 {
        hash_of(self.hasher, address)
    }
}

#[derive(Debug)]
struct Entry {
    address: Address,
    mac: Mac,
    state: State,
    /// Solicitations sent without an answer.
    tries: u8,
    generation: u32,
    /// Until when `mac` is good without another thought.
    fresh_until: Instant,
    /// When an incomplete, delayed or probed neighbour is asked (again); until when a failed one is left alone.
    deadline: Instant,
    /// When it was last looked up.
    used: Instant,
}

impl Entry {
    fn new(address: Address) -> Entry {
        let (mac, state) = (Mac::default(), State::New);
        let zero = Instant::ZERO;
        Entry { address, mac, state, tries: 0, generation: 1, fresh_until: zero, deadline: zero, used: zero }
    }

    /// Makes every id of it stale. 0 is the generation of no neighbour.
    fn renew(&mut self) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.fresh_until = Instant::ZERO;
    }
}

/// RFC 4861 §7.3.2, with a beginning and two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nobody asked yet.
    New,
    /// Being asked; nothing is known.
    Incomplete,
    /// Answered not long ago.
    Reachable,
    /// Known, but not proven for a while.
    Stale,
    /// Used while stale: perhaps someone proves it before we ask.
    Delay,
    /// Being asked, and used meanwhile.
    Probe,
    /// Asked, and did not answer.
    Failed,
    /// Configured.
    Permanent,
}

const NEVER: Instant = Instant::from_micros(u64::MAX);
/// RFC 4861 §10.
const REACHABLE_TIME: Duration = Duration::from_secs(30);
const RETRANS_TIMER: Duration = Duration::from_secs(1);
const DELAY_FIRST_PROBE: Duration = Duration::from_secs(5);
const TRIES: u8 = 3;
/// How long a neighbour that did not answer is left alone.
const FAILED_TIME: Duration = Duration::from_secs(3);
/// The table is gone through at most this often, however many ask.
const SCAN_INTERVAL: Duration = Duration::from_millis(1);
const VICTIM_CANDIDATES: usize = 16;

#[cfg(test)]
mod tests;
