use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

/// Where the fake kernel puts its indices: one cache line each, like the real one.
const AT: XdpRingOffset = XdpRingOffset { producer: 0, consumer: 64, flags: Some(128), desc: 192 };

/// A ring in plain memory, both of whose indices stand at `start`.
fn ring<T: Copy>(size: u32, start: u32) -> Ring<T> {
    let len = ring_len::<T>(&AT, size);
    // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory.
    let memory = unsafe {
        rustix::mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE).unwrap()
    };
    let ring = Ring::over(Mapping { start: NonNull::new(memory.cast()).unwrap(), len }, &AT, size);
    ring.producer().store(start, Ordering::Relaxed);
    ring.consumer().store(start, Ordering::Relaxed);
    ring
}

/// The kernel's end of a ring, written without any of the code under test.
struct Kernel<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
}

// SAFETY: a test that sends it away keeps the ring, which owns the memory, until the other thread has ended.
unsafe impl<T: Send> Send for Kernel<T> {}

impl<T: Copy> Kernel<T> {
    fn of(ring: &Ring<T>) -> Self {
        let &Ring { producer, consumer, flags, entries, .. } = ring;
        Kernel { producer, consumer, flags, entries, size: ring.size() }
    }

    fn atomic(&self, at: NonNull<AtomicU32>) -> &AtomicU32 {
        // SAFETY: inside the ring's mapping, which outlives this.
        unsafe { at.as_ref() }
    }

    fn take(&self) -> Option<T> {
        let consumer = self.atomic(self.consumer).load(Ordering::Relaxed);
        if consumer == self.atomic(self.producer).load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: inside the ring; published by the producer, which leaves it alone until it is released below.
        let entry = unsafe { self.entries.add((consumer % self.size) as usize).read() };
        self.atomic(self.consumer).store(consumer.wrapping_add(1), Ordering::Release);
        Some(entry)
    }

    fn put(&self, entry: T) -> bool {
        let producer = self.atomic(self.producer).load(Ordering::Relaxed);
        if producer.wrapping_sub(self.atomic(self.consumer).load(Ordering::Acquire)) == self.size {
            return false;
        }
        // SAFETY: inside the ring; free, and the consumer does not read it until it is published below.
        unsafe { self.entries.add((producer % self.size) as usize).write(entry) };
        self.atomic(self.producer).store(producer.wrapping_add(1), Ordering::Release);
        true
    }
}

fn producer<T: Copy>(size: u32, start: u32) -> (Producer<T>, Kernel<T>) {
    let ring = ring(size, start);
    let kernel = Kernel::of(&ring);
    (Producer::new(ring), kernel)
}

fn consumer<T: Copy>(size: u32, start: u32) -> (Consumer<T>, Kernel<T>) {
    let ring = ring(size, start);
    let kernel = Kernel::of(&ring);
    (Consumer::new(ring), kernel)
}

#[test]
fn what_is_pushed_is_seen_after_submit_and_not_before() {
    let (mut fill, kernel) = producer(4, 0);
    assert!(fill.push(10u64) && fill.push(11));
    assert_eq!((kernel.take(), fill.pending()), (None, 0));
    fill.submit();
    assert_eq!(fill.pending(), 2);
    assert_eq!((kernel.take(), kernel.take(), kernel.take()), (Some(10), Some(11), None));
    assert_eq!(fill.pending(), 0);
}

#[test]
fn a_full_ring_refuses_until_the_kernel_takes() {
    let (mut fill, kernel) = producer(4, u32::MAX - 1);
    assert!((0..4u64).all(|i| fill.push(i)));
    fill.submit();
    assert_eq!(fill.room(1), 0);
    assert!(!fill.push(4));
    assert_eq!(kernel.take(), Some(0));
    assert_eq!(fill.room(1), 1);
    assert!(fill.push(4) && !fill.push(5));
    fill.submit();
    assert_eq!(std::iter::from_fn(|| kernel.take()).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn entries_that_a_drain_did_not_reach_stay() {
    let (mut rx, kernel) = consumer(4, u32::MAX);
    assert!((0..4).all(|i| kernel.put(Desc::new(i, 60))));
    assert!(!kernel.put(Desc::default()));
    let mut drain = rx.drain(3);
    assert_eq!(drain.len(), 3);
    assert_eq!(drain.next(), Some(Desc::new(0, 60)));
    assert!(!kernel.put(Desc::default()), "nothing is released while the drain lives");
    drop(drain);
    assert!(kernel.put(Desc::new(4, 60)));
    assert_eq!(rx.drain(u32::MAX).map(|desc| desc.addr).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(rx.drain(64).len(), 0);
}

#[test]
fn the_wakeup_flag_is_read_afresh_and_a_kick_is_wanted_only_for_waiting_frames() {
    let (mut tx, kernel) = producer(4, 0);
    assert!(!tx.needs_wakeup());
    kernel.atomic(kernel.flags).store(NEED_WAKEUP, Ordering::Relaxed);
    assert!(tx.needs_wakeup() && !tx.wants_kick());
    assert!(tx.push(Desc::new(0, 60)));
    assert!(!tx.wants_kick(), "a kick before the submit does nothing");
    tx.submit();
    assert!(tx.wants_kick());
    kernel.take();
    assert!(!tx.wants_kick());
}

#[test]
fn descriptors_have_the_kernels_layout() {
    assert_eq!(size_of::<Desc>(), size_of::<libc::xdp_desc>());
    assert_eq!(Desc::CONTINUED, libc::XDP_PKT_CONTD);
    assert_eq!(Desc::METADATA, libc::XDP_TX_METADATA);
    assert_eq!(NEED_WAKEUP, libc::XDP_RING_NEED_WAKEUP);
    assert!(Desc { options: Desc::CONTINUED, ..Desc::default() }.continued());
}

#[test]
fn two_threads_pass_every_entry_once_and_in_order_across_the_wrap() {
    const COUNT: u64 = 200_000;
    let start = u32::MAX - (COUNT / 2) as u32;
    let (mut tx, kernel) = producer(64, start);
    thread_pair(
        || {
            for i in 0..COUNT {
                while !tx.push(Desc { addr: i, len: i as u32, options: !i as u32 }) {
                    tx.submit();
                    std::thread::yield_now();
                }
                if i % 7 == 0 {
                    tx.submit();
                }
            }
            tx.submit();
        },
        move || take_all(COUNT, || kernel.take()),
    );
    let (mut rx, kernel) = consumer(64, start);
    thread_pair(
        || {
            let mut seen = Vec::new();
            take_all(COUNT, || {
                if seen.is_empty() {
                    seen.extend(rx.drain(48));
                    seen.reverse();
                }
                seen.pop()
            });
        },
        move || {
            for i in 0..COUNT {
                while !kernel.put(Desc { addr: i, len: i as u32, options: !i as u32 }) {
                    std::thread::yield_now();
                }
            }
        },
    );
}

fn thread_pair(here: impl FnOnce(), there: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(there);
        here();
    });
}

fn take_all(count: u64, mut take: impl FnMut() -> Option<Desc>) {
    for i in 0..count {
        let entry = loop {
            match take() {
                Some(entry) => break entry,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(entry, Desc { addr: i, len: i as u32, options: !i as u32 });
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ours(u32),
    Submit,
    Kernel(u32),
    Room(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..20u32).prop_map(Step::Ours),
        Just(Step::Submit),
        (0..20u32).prop_map(Step::Kernel),
        (0..20u32).prop_map(Step::Room),
    ];
    prop::collection::vec(step, 0..200)
}

/// Most start where the indices wrap during the test.
fn starts() -> impl Strategy<Value = u32> {
    prop_oneof![(0..100u32).prop_map(|before| u32::MAX - before), any::<u32>()]
}

proptest! {
    #[test]
    fn a_producer_is_a_bounded_queue(size in (0..5u32).prop_map(|log| 1 << log), start in starts(), steps in steps()) {
        let (mut ours, kernel) = producer(size, start);
        let (mut written, mut submitted) = (VecDeque::new(), VecDeque::new());
        let mut next = 0u64;
        for step in steps {
            match step {
                Step::Ours(count) => for _ in 0..count {
                    let fits = written.len() + submitted.len() < size as usize;
                    prop_assert_eq!(ours.push(next), fits);
                    if fits {
                        written.push_back(next);
                        next += 1;
                    }
                },
                Step::Submit => {
                    ours.submit();
                    submitted.append(&mut written);
                }
                Step::Kernel(count) => for _ in 0..count {
                    prop_assert_eq!(kernel.take(), submitted.pop_front());
                },
                Step::Room(want) => {
                    let free = size - (written.len() + submitted.len()) as u32;
                    let room = ours.room(want);
                    // What is free is known exactly only when it was looked for.
                    prop_assert!(room <= free && (room == free || room >= want));
                }
            }
            prop_assert_eq!(ours.pending() as usize, submitted.len());
        }
    }

    #[test]
    fn a_consumer_is_a_bounded_queue(size in (0..5u32).prop_map(|log| 1 << log), start in starts(), steps in steps()) {
        let (mut ours, kernel) = consumer(size, start);
        let mut queue = VecDeque::new();
        let mut next = 0u64;
        for step in steps {
            match step {
                Step::Kernel(count) => for _ in 0..count {
                    let fits = queue.len() < size as usize;
                    prop_assert_eq!(kernel.put(next), fits);
                    if fits {
                        queue.push_back(next);
                        next += 1;
                    }
                },
                Step::Ours(count) => {
                    let expected: Vec<_> = queue.drain(..queue.len().min(count as usize)).collect();
                    prop_assert_eq!(ours.drain(count).collect::<Vec<_>>(), expected);
                }
                Step::Submit => {
                    let expected = queue.pop_front();
                    prop_assert_eq!(ours.drain(size).next(), expected);
                }
                Step::Room(want) => {
                    let known = ours.available(want);
                    prop_assert!(known as usize <= queue.len());
                    prop_assert!(known as usize == queue.len() || known >= want);
                }
            }
        }
    }
}

#[test]
fn a_ring_moves_between_threads_but_is_not_shared() {
    fn is_send<T: Send>() {}
    is_send::<Fill>();
    is_send::<Completion>();
    is_send::<Rx>();
    is_send::<Tx>();

    // Does not compile where both implementations fit.
    trait NotSync<Which> {
        fn holds() {}
    }
    impl<T> NotSync<()> for T {}
    impl<T: Sync> NotSync<u8> for T {}
    <Fill as NotSync<_>>::holds();
    <Rx as NotSync<_>>::holds();
}
