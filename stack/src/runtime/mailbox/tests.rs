use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use handfast_drivers::frame::{FramePool, FrameSize, Region};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::wire::address::{Address, Mac};

fn learned() -> Note {
    Note::Learned(Learned { address: Address::v4([10, 0, 0, 1]), mac: Mac([2; 6]), answered: true })
}

/// Waits for the bell, and says whether it rang.
fn hears(bell: BorrowedFd<'_>, seconds: i64) -> bool {
    poll(&mut [PollFd::from_borrowed_fd(bell, PollFlags::IN)], Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).unwrap()
        > 0
}

#[test]
fn no_wake_up_is_lost() {
    let notes = 20_000;
    let mailbox = Arc::new(Mailbox::new(1, Some(Bell::new().unwrap())));
    let sender = mailbox.clone();
    let sending = thread::spawn(move || {
        for _ in 0..notes {
            // Each is taken before the next comes, so that the sleeper is about to sleep when it comes.
            while !sender.is_empty() {
                std::hint::spin_loop();
            }
            sender.note(learned());
        }
    });
    let (mut read, mut longest) = (0, Duration::ZERO);
    while read < notes {
        while mailbox.read_note().is_some() {
            read += 1;
        }
        if read < notes
            && let Some(bell) = mailbox.lie_down()
        {
            let since = Instant::now();
            let rang = hears(bell, 20);
            longest = longest.max(since.elapsed());
            mailbox.get_up(rang);
        }
    }
    sending.join().unwrap();
    assert!(longest < Duration::from_secs(20), "a sleeper was not woken");
}

#[test]
fn a_bell_that_rings_late_ends_one_sleep_only() {
    let mailbox = Mailbox::new(1, Some(Bell::new().unwrap()));
    let bell = mailbox.bell.as_ref().unwrap();
    mailbox.lie_down().unwrap();
    // A sender sees the worker asleep; before it rings, a packet wakes the worker.
    assert!(bell.sleeper.must_be_woken());
    mailbox.get_up(false);
    rustix::io::write(&bell.event, &1u64.to_ne_bytes()).unwrap();
    let rang = hears(mailbox.lie_down().unwrap(), 0);
    assert!(rang);
    mailbox.get_up(rang);
    assert!(!hears(mailbox.lie_down().unwrap(), 0));
}

#[test]
fn a_full_box_gives_the_frame_back() {
    let region = Region::new(STRAYS_MAX as u32 + 1, FrameSize::Small);
    let pool = FramePool::new(region, 0..STRAYS_MAX as u32 + 1);
    let mailbox = Mailbox::new(1, None);
    for _ in 0..STRAYS_MAX {
        mailbox.hand_over(FramePool::part_with(pool.alloc().unwrap())).unwrap();
    }
    let refused = mailbox.hand_over(FramePool::part_with(pool.alloc().unwrap())).unwrap_err();
    drop(pool.adopt(refused));
    while let Some(stray) = mailbox.stray() {
        drop(pool.adopt(stray));
    }
    assert_eq!(pool.free(), pool.capacity());
}

#[test]
fn every_frame_of_a_share_fits_on_its_way_home() {
    let region = Region::new(8, FrameSize::Small);
    let (ours, theirs) = (FramePool::new(region.clone(), 0..4), FramePool::new(region, 4..8));
    let boxes = [(Mailbox::new(4, None), 0..4), (Mailbox::new(4, None), 4..8)];
    let office = PostOffice::new(boxes);
    let frames: Vec<_> = (0..4).map(|_| theirs.alloc().unwrap()).collect();
    frames.into_iter().for_each(|frame| drop(ours.adopt(FramePool::part_with(frame))));
    while let Some(frame) = ours.take_away() {
        office.send_home(frame);
    }
    while let Some(frame) = office.boxes()[1].returned() {
        theirs.bring_home(frame);
    }
    assert_eq!((ours.free(), theirs.free()), (4, 4));
}
