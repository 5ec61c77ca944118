//! What reaches a worker from outside its own core: segments of its flows that came to another queue, its frames that were
//! freed elsewhere, notes. Everything is bounded, and nobody waits: what does not fit stays with the sender.
//!
//! A worker that sleeps is woken by its bell.

use core::ops::Range;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crossbeam::channel::Sender;
use crossbeam::queue::ArrayQueue;
use handfast_drivers::frame::Desc;
use rustix::event::{EventfdFlags, eventfd};

use super::Snapshot;
use super::sync::Sleeper;
use crate::ip::Learned;
use crate::wire::icmp::IcmpError;

/// One worker's box.
#[derive(Debug)]
pub(super) struct Mailbox {
    strays: ArrayQueue<Desc>,
    returns: ArrayQueue<Desc>,
    notes: ArrayQueue<Note>,
    bell: Option<Bell>,
}

/// A message without a frame.
#[derive(Debug)]
pub(super) enum Note {
    /// Another worker heard about a neighbour.
    Learned(Learned),
    /// An ICMP error about a flow of this worker's.
    IcmpError(IcmpError),
    /// Somebody wants to see the counters. The channel has room for every worker's answer.
    Snapshot(Sender<Snapshot>),
}

impl Mailbox {
    /// The box of a worker with a share of `frames` frames; with a bell if it is going to sleep.
    pub(super) fn new(frames: usize, bell: Option<Bell>) -> Mailbox {
        Mailbox {
            // A full queue may not keep so many frames from their owner that it can no longer receive.
            strays: ArrayQueue::new(STRAYS_MAX),
            // Each frame of the share is in it once at most, so it is never full.
            returns: ArrayQueue::new(frames.max(1)),
            notes: ArrayQueue::new(NOTES_MAX),
            bell,
        }
    }

    /// A segment of a flow of this worker's. It comes back if there are too many.
    pub(super) fn hand_over(&self, stray: Desc) -> Result<(), Desc> {
        self.strays.push(stray)?;
        self.ring();
        Ok(())
    }

    pub(super) fn stray(&self) -> Option<Desc> {
        self.strays.pop()
    }

    /// A frame of this worker's share that was freed elsewhere.
    pub(super) fn give_back(&self, frame: Desc) {
        if self.returns.push(frame).is_err() {
            too_many_returns();
        }
        self.ring();
    }

    pub(super) fn returned(&self) -> Option<Desc> {
        self.returns.pop()
    }

    /// A note is lost if there are too many already.
    pub(super) fn note(&self, note: Note) {
        let _ = self.notes.push(note);
        self.ring();
    }

    pub(super) fn read_note(&self) -> Option<Note> {
        self.notes.pop()
    }

    /// Wakes the worker if it sleeps.
    pub(super) fn ring(&self) {
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }

    /// For the worker, before it sleeps: the bell to wait for, unless something has come.
    pub(super) fn lie_down(&self) -> Option<BorrowedFd<'_>> {
        let bell = self.bell.as_ref()?;
        bell.sleeper.lies_down(|| self.is_empty()).then(|| bell.event.as_fd())
    }

    /// For the worker, after it slept; `rang` is whether the bell could be read.
    pub(super) fn get_up(&self, rang: bool) {
        let Some(bell) = &self.bell else { return };
        bell.sleeper.gets_up();
        // Who found the worker asleep may ring only now: then the next sleep ends at once, and takes the ring.
        if rang {
            let _ = rustix::io::read(&bell.event, &mut [0; 8]);
        }
    }

    fn is_empty(&self) -> bool {
        self.strays.is_empty() && self.returns.is_empty() && self.notes.is_empty()
    }
}

/// What wakes a sleeping worker.
#[derive(Debug)]
pub(super) struct Bell {
    sleeper: Sleeper,
    event: OwnedFd,
}

impl Bell {
    pub(super) fn new() -> io::Result<Bell> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Bell { sleeper: Sleeper::new(), event })
    }

    fn ring(&self) {
        if self.sleeper.must_be_woken() {
            // It fails only if the counter is full, and then the worker is awake.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }
}

/// All boxes, and whose each frame is.
#[derive(Debug)]
pub(super) struct PostOffice {
    boxes: Box<[Mailbox]>,
    /// The share of each worker.
    shares: Box<[Range<u32>]>,
}

impl PostOffice {
    pub(super) fn new(workers: impl IntoIterator<Item = (Mailbox, Range<u32>)>) -> PostOffice {
        let (boxes, shares): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
        PostOffice { boxes: boxes.into(), shares: shares.into() }
    }

    pub(super) fn boxes(&self) -> &[Mailbox] {
        &self.boxes
    }

    /// Sends a frame home that was freed elsewhere.
    pub(super) fn send_home(&self, frame: Desc) {
        match self.shares.iter().position(|share| share.contains(&frame.index())) {
            Some(owner) => self.boxes[owner].give_back(frame),
            None => nobodys_frame(frame.index()),
        }
    }
}

#[cold]
#[inline(never)]
fn too_many_returns() -> ! {
    panic!("more frames came back than this worker has")
}

#[cold]
#[inline(never)]
fn nobodys_frame(index: u32) -> ! {
    panic!("frame {index} is in no worker's share: the port gave out frames without an owner")
}

const STRAYS_MAX: usize = 1024;
const NOTES_MAX: usize = 256;

#[cfg(test)]
mod tests;
