//! Frames over a veth pair, socket to socket, in copy mode. Needs root; says so and passes where it is not.

mod support;

use af_xdp::{
    Area, BindMode, BusyPoll, Desc, Errno, Error, Kick, Mode, PageSize, Rings, Rx, Socket, SocketConfig, Tx,
    TxMetadata, Umem, UmemConfig,
};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Attach, Redirect, in_namespace, veth};

const CHUNKS: u64 = 1024;
const DEADLINE: Duration = Duration::from_secs(20);

fn umem(config: UmemConfig) -> Umem {
    let bytes = CHUNKS as usize * config.chunk_size as usize;
    // Huge pages are seldom reserved; where they are, most tests run on them.
    let area = Area::new(bytes, PageSize::Huge2M).or_else(|_| Area::new(bytes, PageSize::Normal));
    Umem::new(Arc::new(area.unwrap()), config).unwrap()
}

fn bind(umem: &Umem, interface: &str, queue: u32) -> (Socket, Rings) {
    Socket::bind(umem, interface, queue, &SocketConfig::default()).unwrap()
}

/// A copy of a frame.
fn read(umem: &Umem, desc: Desc) -> Vec<u8> {
    let mut bytes = vec![0; desc.len as usize];
    assert!(desc.addr as usize + bytes.len() <= umem.memory().len());
    // SAFETY: inside the memory; tests are one thread and read a chunk only after they took it from a ring.
    unsafe {
        umem.memory().as_ptr().as_ptr().add(desc.addr as usize).copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len())
    };
    bytes
}

/// Puts a frame into memory.
fn write(umem: &Umem, addr: u64, bytes: &[u8]) -> Desc {
    assert!(addr as usize + bytes.len() <= umem.memory().len());
    // SAFETY: inside the memory; tests are one thread and write a chunk only before they give it to a ring.
    unsafe { umem.memory().as_ptr().as_ptr().add(addr as usize).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    Desc::new(addr, bytes.len() as u32)
}

/// A broadcast frame of a local experimental type that carries its number.
fn frame(len: u32, number: u32) -> Vec<u8> {
    let mut frame = vec![number as u8; len as usize];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

fn write_frame(umem: &Umem, addr: u64, len: u32, number: u32) -> Desc {
    write(umem, addr, &frame(len, number))
}

fn read_number(umem: &Umem, desc: Desc) -> u32 {
    let frame = read(umem, desc);
    let number = u32::from_be_bytes(frame[14..18].try_into().unwrap());
    assert_eq!(frame[12..14], [0x88, 0xb5]);
    assert!(frame[18..].iter().all(|&byte| byte == number as u8), "frame {number} was changed");
    number
}

fn fill(rings: &mut Rings, chunks: std::ops::Range<u64>, chunk_size: u32) {
    assert!(chunks.into_iter().all(|chunk| rings.fill.push(chunk * u64::from(chunk_size))));
    rings.fill.submit();
}

fn kick(socket: &Socket, tx: &Tx) {
    if tx.wants_kick() {
        assert_ne!(socket.kick_tx().unwrap(), Kick::Down);
    }
}

/// Sends `count` numbered frames from one socket and receives them with the other, through as few chunks as would make any leak
/// stop it. Everything must arrive, in order, once, and every chunk must come back.
fn send_all(from: (&Socket, &mut Rings), to: (&Socket, &mut Rings), count: u32) {
    let ((sender, tx), (receiver, rx)) = (from, to);
    let mut free: Vec<u64> = (0..128).map(|chunk| chunk * 2048).collect();
    let mut unfilled = Vec::new();
    fill(rx, 512..768, 2048);
    let (mut sent, mut received, mut completed) = (0, 0, 0);
    let start = Instant::now();
    while received < count || completed < count {
        while sent < count
            && tx.tx.room(1) > 0
            && let Some(addr) = free.pop()
        {
            assert!(tx.tx.push(write_frame(sender.umem(), addr, 60 + sent % 1400, sent)));
            sent += 1;
        }
        tx.tx.submit();
        kick(sender, &tx.tx);
        for addr in tx.completion.drain(64) {
            free.push(addr);
            completed += 1;
        }
        for desc in rx.rx.drain(64) {
            assert_eq!(desc.len, 60 + received % 1400);
            assert_eq!(read_number(receiver.umem(), desc), received);
            received += 1;
            unfilled.push(receiver.umem().chunk_of(desc.addr));
        }
        while let Some(addr) = unfilled.pop() {
            if !rx.fill.push(addr) {
                unfilled.push(addr);
                break;
            }
        }
        rx.fill.submit();
        if rx.fill.needs_wakeup() {
            assert_eq!(receiver.kick_rx().unwrap(), Kick::Done);
        }
        let counters = || format!("{:?} {:?}", sender.statistics(), receiver.statistics());
        assert!(start.elapsed() < DEADLINE, "{sent} sent, {completed} completed, {received} received; {}", counters());
    }
    assert_eq!(free.len(), 128);
    assert_eq!(tx.tx.pending(), 0);
}

fn frames_cross(how: Attach, config: &SocketConfig) {
    veth(1, 1500);
    let (ua, ub) = (umem(UmemConfig::default()), umem(UmemConfig::default()));
    let (a, mut a_rings) = Socket::bind(&ua, "a", 0, config).unwrap();
    let (b, mut b_rings) = Socket::bind(&ub, "b", 0, config).unwrap();
    assert_eq!((a.mode(), b.mode()), (Mode::Copy, Mode::Copy));
    assert_eq!(a.zero_copy_refusal().is_some(), config.mode == BindMode::Auto);
    let redirect = Redirect::attach("b", how);
    redirect.add(&b);
    // More than every ring has entries, twice.
    send_all((&a, &mut a_rings), (&b, &mut b_rings), 5000);
    let counted = b.statistics().unwrap();
    assert_eq!((counted.rx_dropped, counted.rx_ring_full, counted.rx_invalid_descs), (0, 0, 0));
    assert_eq!(a.statistics().unwrap().tx_invalid_descs, 0);
}

#[test]
fn frames_cross_a_veth_pair_with_a_generic_program() {
    in_namespace(|| frames_cross(Attach::Generic, &SocketConfig::default()));
}

#[test]
fn frames_cross_a_veth_pair_with_a_native_program() {
    in_namespace(|| frames_cross(Attach::Native, &SocketConfig::default()));
}

#[test]
fn frames_cross_in_forced_copy_mode_without_need_wakeup_over_small_rings() {
    let config = SocketConfig {
        mode: BindMode::ForceCopy,
        need_wakeup: false,
        tx_size: 32,
        rx_size: 256,
        ..SocketConfig::default()
    };
    in_namespace(move || frames_cross(Attach::Native, &config));
}

#[test]
fn one_kick_sends_its_budget_and_the_rest_waits_for_the_next() {
    in_namespace(|| {
        veth(1, 1500);
        for asked in [None, Some(64)] {
            let umem = umem(UmemConfig::default());
            let config = SocketConfig { tx_budget: asked, ..SocketConfig::default() };
            let (a, mut rings) = Socket::bind(&umem, "a", 0, &config).unwrap();
            let budget = a.tx_budget();
            assert!(budget == 32 || Some(budget) == asked);
            for number in 0..100 {
                assert!(rings.tx.push(write_frame(&umem, u64::from(number) * 2048, 60, number)));
            }
            rings.tx.submit();
            assert_eq!(rings.tx.pending(), 100);
            assert_eq!(a.kick_tx().unwrap(), Kick::More);
            assert_eq!(rings.tx.pending(), 100 - budget);
            let start = Instant::now();
            while rings.tx.wants_kick() && start.elapsed() < DEADLINE {
                let _ = a.kick_tx().unwrap();
            }
            let mut back = Vec::new();
            while back.len() < 100 && start.elapsed() < DEADLINE {
                back.extend(rings.completion.drain(64));
            }
            back.sort_unstable();
            assert_eq!(back, (0..100).map(|chunk| chunk * 2048).collect::<Vec<_>>());
        }
    });
}

#[test]
fn two_queues_share_one_umem_and_a_frame_received_on_one_leaves_on_the_other() {
    in_namespace(|| {
        veth(2, 1500);
        let (ua, ub) = (umem(UmemConfig::default()), umem(UmemConfig::default()));
        assert_eq!(af_xdp::queue_count("b").unwrap(), 2);
        let redirect = Redirect::attach("b", Attach::Native);
        let back = Redirect::attach("a", Attach::Native);
        let mut a = [bind(&ua, "a", 0), bind(&ua, "a", 1)];
        let mut b = [bind(&ub, "b", 0), bind(&ub, "b", 1)];
        for queue in 0..2 {
            redirect.add(&b[queue].0);
            back.add(&a[queue].0);
            let at = 512 + 64 * queue as u64;
            fill(&mut b[queue].1, at..at + 64, 2048);
            fill(&mut a[queue].1, at..at + 64, 2048);
            let (socket, rings) = &mut a[queue];
            for number in 0..20 {
                let desc = write_frame(&ua, (queue as u64 * 32 + u64::from(number)) * 2048, 100, number);
                assert!(rings.tx.push(desc));
            }
            rings.tx.submit();
            kick(socket, &rings.tx);
        }
        // What came on a queue goes back on the other one, out of the same chunks.
        let mut crossed = [0, 0];
        let start = Instant::now();
        while crossed != [20, 20] {
            for (queue, crossed) in crossed.iter_mut().enumerate() {
                let frames: Vec<_> = b[queue].1.rx.drain(64).collect();
                let (other, rings) = &mut b[1 - queue];
                for desc in frames {
                    assert_eq!(read_number(&ub, desc), *crossed);
                    *crossed += 1;
                    assert!(rings.tx.push(desc));
                }
                rings.tx.submit();
                kick(other, &rings.tx);
            }
            assert!(start.elapsed() < DEADLINE, "{crossed:?}");
        }
        for queue in 0..2 {
            let mut numbers = Vec::new();
            let mut completions = 0;
            while numbers.len() < 20 || completions < 20 {
                numbers.extend(a[queue].1.rx.drain(64).map(|desc| read_number(&ua, desc)));
                completions += b[queue].1.completion.drain(64).count();
                kick(&b[queue].0, &b[queue].1.tx);
                assert!(start.elapsed() < DEADLINE, "{numbers:?} {completions}");
            }
            assert_eq!(numbers, (0..20).collect::<Vec<_>>());
        }
    });
}

#[test]
fn siblings_send_on_one_queue_and_their_completions_meet() {
    in_namespace(|| {
        veth(1, 1500);
        let umem = umem(UmemConfig::default());
        let (first, mut rings) = bind(&umem, "a", 0);
        let (second, rx, mut tx): (Socket, Rx, Tx) = first.sibling(&SocketConfig::default()).unwrap();
        assert_eq!((second.queue(), second.mode()), (0, Mode::Copy));
        assert!(rings.tx.push(write_frame(&umem, 0, 60, 0)) && tx.push(write_frame(&umem, 2048, 60, 1)));
        rings.tx.submit();
        tx.submit();
        let (mut back, start) = (Vec::new(), Instant::now());
        while back.len() < 2 && start.elapsed() < DEADLINE {
            kick(&first, &rings.tx);
            kick(&second, &tx);
            back.extend(rings.completion.drain(64));
        }
        back.sort_unstable();
        assert_eq!(back, [0, 2048]);

        // The UMEM lives on when the socket that brought it is gone.
        drop((first, rings));
        let other = second.sibling(&SocketConfig::default()).unwrap();
        drop((second, other));
        drop((rx, tx));
        bind(&umem, "a", 0);
    });
}

#[test]
fn a_packet_longer_than_a_chunk_crosses_in_parts() {
    in_namespace(|| {
        veth(1, 9000);
        let config = UmemConfig { chunk_size: 4096, ..UmemConfig::default() };
        let (ua, ub) = (umem(config.clone()), umem(config));
        let error = Socket::bind(&ua, "a", 0, &SocketConfig::default()).unwrap_err();
        assert!(matches!(error, Error::MtuTooLarge { mtu: 9000, room: 3840, .. }), "{error}");
        let config = SocketConfig { multi_buffer: true, ..SocketConfig::default() };
        let bound = Socket::bind(&ua, "a", 0, &config);
        if let Err(Error::KernelTooOld { .. }) = bound {
            return eprintln!("skipped: {}", bound.unwrap_err());
        }
        let (a, mut a_rings) = bound.unwrap();
        let (b, mut b_rings) = Socket::bind(&ub, "b", 0, &config).unwrap();
        let redirect = Redirect::attach("b", Attach::Native);
        redirect.add(&b);
        fill(&mut b_rings, 512..768, 4096);

        let sent = [frame(3000, 1), vec![2; 3000], vec![3; 3000]];
        assert!(a_rings.tx.room(3) >= 3);
        for (part, bytes) in sent.iter().enumerate() {
            let desc = write(&ua, part as u64 * 4096, bytes);
            assert!(a_rings.tx.push(Desc { options: if part < 2 { Desc::CONTINUED } else { 0 }, ..desc }));
        }
        a_rings.tx.submit();
        let mut packet = Vec::new();
        let start = Instant::now();
        'packet: loop {
            kick(&a, &a_rings.tx);
            for desc in b_rings.rx.drain(64) {
                packet.extend(read(&ub, desc));
                if !desc.continued() {
                    break 'packet;
                }
            }
            assert!(start.elapsed() < DEADLINE, "{:?}", b.statistics());
        }
        assert_eq!(packet, sent.concat());
        while a_rings.completion.available(3) < 3 {
            assert!(start.elapsed() < DEADLINE);
        }
        assert_eq!(a_rings.completion.drain(3).collect::<Vec<_>>(), [0, 4096, 8192]);
    });
}

#[test]
fn the_kernel_fills_in_the_checksum_that_metadata_asks_for() {
    in_namespace(|| {
        veth(1, 1500);
        let config =
            UmemConfig { tx_metadata_len: TxMetadata::LEN, tx_software_checksum: true, ..UmemConfig::default() };
        let (ua, ub) = (umem(config), umem(UmemConfig::default()));
        let bound = Socket::bind(&ua, "a", 0, &SocketConfig::default());
        if let Err(Error::KernelTooOld { .. }) = bound {
            return eprintln!("skipped: {}", bound.unwrap_err());
        }
        let (a, mut a_rings) = bound.unwrap();
        let (b, mut b_rings) = bind(&ub, "b", 0);
        let redirect = Redirect::attach("b", Attach::Generic);
        redirect.add(&b);
        fill(&mut b_rings, 512..520, 2048);

        let at = u64::from(TxMetadata::LEN);
        let mut sent = frame(98, 7);
        sent[50..52].fill(0);
        let mut desc = write(&ua, at, &sent);
        let start = ua.memory().as_ptr();
        // SAFETY: the frame begins behind its metadata in a chunk that is not on any ring yet.
        unsafe { TxMetadata::checksum(34, 16).write(start.add(at as usize), TxMetadata::LEN, &mut desc) };
        assert!(a_rings.tx.push(desc));
        a_rings.tx.submit();
        let start = Instant::now();
        while b_rings.rx.available(1) == 0 {
            kick(&a, &a_rings.tx);
            assert!(start.elapsed() < DEADLINE, "{:?} {:?}", a.statistics(), b.statistics());
        }
        let desc = b_rings.rx.drain(1).next().unwrap();
        let segment = &read(&ub, desc)[34..];
        let sum: u32 = segment.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "{segment:02x?}");
    });
}

#[test]
fn waiting_ends_with_a_frame_or_with_the_timeout() {
    in_namespace(|| {
        veth(1, 1500);
        let (ua, ub) = (umem(UmemConfig::default()), umem(UmemConfig::default()));
        let busy_poll = Some(BusyPoll { usecs: 20, budget: 64, prefer: true });
        let config = SocketConfig { busy_poll, ..SocketConfig::default() };
        let (b, mut b_rings) = Socket::bind(&ub, "b", 0, &config).unwrap();
        let (a, mut a_rings) = bind(&ua, "a", 0);
        let redirect = Redirect::attach("b", Attach::Native);
        redirect.add(&b);
        fill(&mut b_rings, 512..520, 2048);
        let start = Instant::now();
        assert!(!b.wait(Some(Duration::from_millis(20))).unwrap());
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert!(a_rings.tx.push(write_frame(&ua, 0, 60, 1)));
        a_rings.tx.submit();
        kick(&a, &a_rings.tx);
        assert!(b.wait(Some(DEADLINE)).unwrap());
        assert_eq!(b_rings.rx.drain(64).map(|desc| read_number(&ub, desc)).collect::<Vec<_>>(), [1]);
    });
}

#[test]
fn a_busy_queue_is_waited_for_and_then_named() {
    in_namespace(|| {
        veth(1, 1500);
        let first = bind(&umem(UmemConfig::default()), "a", 0);
        let start = Instant::now();
        let error = Socket::bind(&umem(UmemConfig::default()), "a", 0, &SocketConfig::default()).unwrap_err();
        assert!(matches!(&error, Error::QueueBusy { interface, queue: 0, .. } if interface == "a"), "{error}");
        assert!(start.elapsed() >= Duration::from_secs(2));
        // The kernel needs a moment after the close.
        drop(first);
        for _ in 0..10 {
            bind(&umem(UmemConfig::default()), "a", 0);
        }
    });
}

#[test]
fn what_the_kernel_refuses_is_said_in_words() {
    in_namespace(|| {
        veth(1, 1500);
        let config = SocketConfig::default();
        let umem = umem(UmemConfig::default());
        let error = Socket::bind(&umem, "hf-none", 0, &config).unwrap_err();
        assert!(matches!(error, Error::NoInterface { .. }), "{error}");
        let error = Socket::bind(&umem, "a", 1, &config).unwrap_err();
        assert!(matches!(error, Error::NoQueue { queue: 1, rx: 1, tx: 1, .. }), "{error}");
        let zero_copy = SocketConfig { mode: BindMode::ForceZeroCopy, ..SocketConfig::default() };
        let error = Socket::bind(&umem, "a", 0, &zero_copy).unwrap_err();
        assert!(matches!(error, Error::ZeroCopyRefused { errno: Errno::OPNOTSUPP, .. }), "{error}");

        support::run("ip link set dev a down");
        match Socket::bind(&umem, "a", 0, &config) {
            Ok((socket, _)) => assert_eq!(socket.kick_tx().unwrap(), Kick::Down),
            Err(error) => assert!(matches!(error, Error::InterfaceDown { .. }), "{error}"),
        }
        support::run("ip link set dev a up");

        let (socket, _rings) = bind(&umem, "a", 0);
        let error = socket.sibling(&zero_copy).unwrap_err();
        assert!(matches!(error, Error::SharedUmem { what: "mode", first: "copy" }), "{error}");
        let error = socket.sibling(&SocketConfig { need_wakeup: false, ..SocketConfig::default() }).unwrap_err();
        assert!(matches!(error, Error::SharedUmem { what: "need_wakeup", first: "true" }), "{error}");
        support::run("ip link set dev a down");
        assert_eq!(socket.kick_tx().unwrap(), Kick::Down);
        support::run("ip link del dev a");
        let error = socket.kick_tx().unwrap_err();
        assert!(matches!(error, Error::InterfaceGone { .. }), "{error}");
    });
}

#[test]
fn without_privileges_the_missing_capability_is_named() {
    in_namespace(|| {
        veth(1, 1500);
        support::keep_capabilities(CapabilitySet::empty());
        let error = Socket::bind(&umem(UmemConfig::default()), "a", 0, &SocketConfig::default()).unwrap_err();
        assert!(matches!(error, Error::Privilege { call: "socket(AF_XDP)", errno: Errno::PERM }), "{error}");
        assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
    });
}

#[test]
fn memory_beyond_the_lock_limit_is_named_with_the_ways_out() {
    in_namespace(|| {
        veth(1, 1500);
        // The limit is the whole process's, but only this thread gives up the capability to exceed it.
        let limit = rustix::process::getrlimit(Resource::Memlock);
        rustix::process::setrlimit(Resource::Memlock, Rlimit { current: Some(1 << 16), ..limit }).unwrap();
        support::keep_capabilities(CapabilitySet::NET_RAW);
        let error = Socket::bind(&umem(UmemConfig::default()), "a", 0, &SocketConfig::default()).unwrap_err();
        assert!(matches!(error, Error::MemoryLock { bytes: 2_097_152, .. }), "{error}");
    });
}
