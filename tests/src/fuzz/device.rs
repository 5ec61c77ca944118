//! The device of a stack that hostile bytes are thrown at: few frames, and it is done with them when the case says so.

use std::collections::VecDeque;

use handfast::drivers::burst::{Delayed, RxBurst, TxBurst};
use handfast::drivers::driver::Driver;
use handfast::drivers::wire::{self, WireDriver};

/// The stack's device and the peers' end of the wire.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) near: WireDriver,
    pub(super) far: WireDriver,
    /// What the device has taken and not sent.
    pub(super) sending: VecDeque<Delayed>,
    pub(super) rx: RxBurst,
    pub(super) tx: TxBurst,
    /// Answers, while the device takes nothing.
    pub(super) answers: TxBurst,
}

impl Device {
    pub(super) fn new() -> Device {
        let (near, far) =
            wire::pair(wire::Config { frames_per_queue: FRAMES, ring_len: POSTED, ..wire::Config::default() });
        let (rx, tx, answers) = (RxBurst::new(), TxBurst::new(), TxBurst::new());
        Device { near, far, sending: VecDeque::new(), rx, tx, answers }
    }

    /// How many frames are posted depends on what was: now it is all of them, in each case.
    pub(super) fn settle(&mut self) {
        (0..POSTED).for_each(|_| self.deliver(&[0; 14]));
        self.near.rx_burst(&mut self.rx);
        self.rx.clear();
    }

    /// A frame arrives, unless the device has none to put it in.
    pub(super) fn deliver(&mut self, bytes: &[u8]) {
        let mut frame = self.far.pool().alloc().expect("the peers' frames are free");
        frame.extend_from_slice(&bytes[..bytes.len().min(1_514)]);
        let mut burst = TxBurst::new();
        burst.push(frame);
        self.far.tx_burst(&mut burst);
        burst.cancel();
    }

    pub(super) fn take(&mut self) {
        self.sending.extend(self.answers.drain_front(self.answers.len()));
        self.sending.extend(self.tx.drain_front(self.tx.len()));
    }

    /// What the device has sent of that, up to `count` frames.
    pub(super) fn sent(&mut self, count: usize, mut see: impl FnMut(&[u8])) {
        for delayed in self.sending.drain(..count.min(self.sending.len())) {
            let mut burst = TxBurst::new();
            burst.push_delayed(delayed);
            self.near.tx_burst(&mut burst);
            assert!(burst.is_empty(), "the peers have a frame to receive into");
            let mut rx = RxBurst::new();
            self.far.rx_burst(&mut rx);
            rx.iter().for_each(|frame| see(frame));
        }
    }
}

/// Frames to receive into.
const POSTED: u32 = 32;
/// So few that they run out.
const FRAMES: u32 = 128;
