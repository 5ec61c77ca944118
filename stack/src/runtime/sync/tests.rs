use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::*;

/// A box with room for one message of each sender, and the bell.
struct Shared {
    sleeper: Sleeper,
    mail: [AtomicBool; 2],
    rings: AtomicUsize,
}

impl Shared {
    fn new() -> Arc<Shared> {
        let mail = [AtomicBool::new(false), AtomicBool::new(false)];
        Arc::new(Shared { sleeper: Sleeper::new(), mail, rings: AtomicUsize::new(0) })
    }

    fn send(&self, sender: usize) {
        self.mail[sender].store(true, Ordering::Release);
        if self.sleeper.must_be_woken() {
            self.rings.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn is_empty(&self) -> bool {
        !self.mail.iter().any(|mail| mail.load(Ordering::Acquire))
    }
}

#[test]
fn whoever_sleeps_with_mail_in_the_box_is_woken_once() {
    loom::model(|| {
        let shared = Shared::new();
        let senders = [0, 1].map(|sender| {
            let shared = shared.clone();
            thread::spawn(move || shared.send(sender))
        });
        let sleeps = shared.sleeper.lies_down(|| shared.is_empty());
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let rings = shared.rings.load(Ordering::Acquire);
        // Who did not sleep may be rung for once: the next sleep ends at once, and takes the ring.
        assert!(rings <= 1 && (!sleeps || rings == 1), "sleeps {sleeps}, rings {rings}");
    });
}

#[test]
fn mail_that_comes_between_two_sleeps_is_not_slept_over() {
    loom::model(|| {
        let shared = Shared::new();
        let sender = {
            let shared = shared.clone();
            thread::spawn(move || shared.send(0))
        };
        // A packet ends the first sleep, and not the bell.
        if shared.sleeper.lies_down(|| shared.is_empty()) {
            shared.sleeper.gets_up();
        }
        let sleeps = shared.sleeper.lies_down(|| shared.is_empty());
        sender.join().unwrap();
        assert!(!sleeps || shared.rings.load(Ordering::Acquire) == 1);
    });
}

#[test]
fn what_was_done_before_the_gate_is_seen_behind_it() {
    loom::model(|| {
        let gate = Arc::new((Gate::new(2), UnsafeCell::new(0), UnsafeCell::new(0)));
        let other = {
            let gate = gate.clone();
            thread::spawn(move || {
                gate.1.with_mut(|_| {});
                gate.0.pass();
            })
        };
        gate.2.with_mut(|_| {});
        gate.0.pass();
        if gate.0.is_open() {
            // loom panics if this races with the other's write.
            gate.1.with(|_| {});
        }
        other.join().unwrap();
        assert!(gate.0.is_open());
    });
}
