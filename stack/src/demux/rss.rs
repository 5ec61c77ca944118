//! Which worker owns a flow. Every worker computes it alike.

use handfast_drivers::driver::Rss;
use handfast_drivers::toeplitz::Toeplitz;

use super::flow::FlowKey;

/// The workers' homes: where the packets of each flow are handled.
#[derive(Clone, Debug)]
pub struct Home {
    /// `None` if there is a single worker, which owns everything.
    spread: Option<Spread>,
}

impl Home {
    /// Spreads flows over `workers` as the device itself does, if its hash is known, so that packets arrive at home;
    /// else by a hash that gives both directions of a flow the same worker.
    pub fn new(workers: u16, rss: Option<&Rss>) -> Home {
        if workers <= 1 {
            return Home { spread: None };
        }
        let mut rss = rss.filter(|rss| !rss.table.is_empty()).cloned().unwrap_or_else(|| Rss::symmetric(workers));
        // Queues beyond the workers are served by none: their flows are shared out and steered.
        rss.table.iter_mut().for_each(|queue| *queue %= workers);
        let spread = Spread { hash: Toeplitz::new(&rss.key), rss };
        Home { spread: Some(spread) }
    }

    /// Whether there are several workers.
    #[inline]
    pub fn is_spread(&self) -> bool {
        self.spread.is_some()
    }

    /// Whether `worker` owns the flow between these IPv4 addresses and [ports](FlowKey::ports).
    #[inline(always)]
    pub fn is_at_v4(&self, worker: u16, local: [u8; 4], remote: [u8; 4], ports: u32) -> bool {
        self.spread.as_ref().is_none_or(|spread| spread.of_v4(local, remote, ports) == worker)
    }

    /// The worker that owns this flow.
    #[inline]
    pub fn of(&self, key: &FlowKey) -> u16 {
        match &self.spread {
            None => 0,
            Some(spread) => spread.of(key),
        }
    }
}

#[derive(Clone, Debug)]
struct Spread {
    hash: Toeplitz,
    /// Its table is of workers, and never empty.
    rss: Rss,
}

impl Spread {
    /// The device hashes what it receives: the peer is the source.
    #[inline(never)]
    fn of(&self, key: &FlowKey) -> u16 {
        let FlowKey { local, remote, local_port, remote_port } = *key;
        if remote.is_v4() {
            return self.of_v4(local.as_v4(), remote.as_v4(), key.ports());
        }
        self.rss.queue(self.hash.hash_v6(remote.octets(), local.octets(), remote_port, local_port))
    }

    #[inline(never)]
    fn of_v4(&self, local: [u8; 4], remote: [u8; 4], ports: u32) -> u16 {
        let (local_port, remote_port) = (ports as u16, (ports >> 16) as u16);
        self.rss.queue(self.hash.hash_v4(remote, local, remote_port, local_port))
    }
}

#[cfg(test)]
mod tests;
