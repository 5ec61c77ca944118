//! Middleware that decides about each segment that comes from the peer: for the loss of just that one.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use handfast_drivers::burst::{RxBurst, TxBurst};
use handfast_drivers::driver::{Caps, Driver};
use handfast_drivers::frame::FramePool;

use crate::world::packet::{self, Packet, Segment};

/// What becomes of a segment that came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pick {
    /// The stack gets it.
    Pass,
    /// It is lost.
    Lose,
    /// The stack gets this frame before it.
    After(Vec<u8>),
}

type Choose = dyn FnMut(&Segment, &[u8]) -> Pick + Send;

/// Decides about the segments of all queues.
#[derive(Clone, Default)]
pub struct Picks(Option<Arc<Mutex<Box<Choose>>>>);

impl Picks {
    /// Asks this about each segment, with its whole frame.
    pub fn new(choose: impl FnMut(&Segment, &[u8]) -> Pick + Send + 'static) -> Picks {
        Picks(Some(Arc::new(Mutex::new(Box::new(choose)))))
    }
}

impl fmt::Debug for Picks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picks({})", self.0.is_some())
    }
}

/// A driver whose input is chosen.
#[derive(Debug)]
pub struct Picking<D> {
    inner: D,
    picks: Picks,
}

impl<D: Driver> Picking<D> {
    /// Chooses from what `inner` receives.
    pub fn new(inner: D, picks: Picks) -> Picking<D> {
        Picking { inner, picks }
    }
}

impl<D: Driver> Driver for Picking<D> {
    fn caps(&self) -> &Caps {
        self.inner.caps()
    }

    fn pool(&self) -> &FramePool {
        self.inner.pool()
    }

    fn rx_burst(&mut self, rx: &mut RxBurst) {
        let Picks(Some(choose)) = &self.picks else { return self.inner.rx_burst(rx) };
        let mut choose = choose.lock().unwrap_or_else(PoisonError::into_inner);
        let mut arrived = RxBurst::new();
        self.inner.rx_burst(&mut arrived);
        for frame in arrived {
            let pick = match packet::read(&frame) {
                Ok(Packet::Tcp(segment)) => choose(&segment, &frame),
                _ => Pick::Pass,
            };
            match pick {
                Pick::Lose => continue,
                Pick::After(bytes) if rx.remaining_capacity() > 1 => {
                    rx.extend(self.inner.pool().alloc().map(|mut before| {
                        before.extend_from_slice(&bytes);
                        before
                    }));
                }
                Pick::Pass | Pick::After(_) => {}
            }
            // What there is no room for is lost, as on a card.
            if !rx.is_full() {
                rx.push(frame);
            }
        }
    }

    fn tx_burst(&mut self, tx: &mut TxBurst) {
        self.inner.tx_burst(tx);
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn inner(&self) -> Option<&dyn Driver> {
        Some(&self.inner)
    }

    fn inner_mut(&mut self) -> Option<&mut dyn Driver> {
        Some(&mut self.inner)
    }
}
