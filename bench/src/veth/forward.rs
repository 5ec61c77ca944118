//! A bare forwarder: the rings of `af_xdp` and nothing above them. What it carries is what this machine's kernel can carry.
//!
//! Both ends send back what they receive, untouched; one of them puts the first frames on the wire. That works because both claim the
//! address that the frames are sent to. It is done with as many frames each way, and with two back for each three: so it is when
//! connections are opened and closed, and the end that sends more is what that is limited by.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use af_xdp::{Area, Desc, PageSize, Socket, SocketConfig, Umem, UmemConfig};
use handfast_drivers::xdp::program::{Ownership, Steering};

use super::windows::Windows;

/// How many frames go each way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Every frame is sent back.
    Even,
    /// This end sends two of three back.
    TwoOfThree,
    /// This end sends three for each two.
    ThreeForTwo,
    /// This end sends full frames, as many as it can.
    Flood,
    /// This end takes what comes.
    Sink,
}

/// Forwards what comes on `interface` for as long as `go_on` says so; with `inject`, so many frames are put under way first.
/// Gives the packets both ways, by window; of full frames the bytes that a TCP would have in them.
///
/// # Errors
/// What keeps it from running.
pub(super) fn run(
    interface: &str,
    shape: Shape,
    inject: Option<u32>,
    ready: impl FnOnce(),
    go_on: impl Fn(Duration) -> bool,
) -> Result<Windows, Box<dyn Error + Send + Sync>> {
    let mut steering = Steering::load()?;
    steering.attach(interface, None)?;
    let frame = frame();
    let area = Area::with(CHUNKS as usize * CHUNK, PageSize::Normal, |bytes| {
        bytes.chunks_exact_mut(CHUNK).for_each(|chunk| chunk[..FRAME_LEN].copy_from_slice(&frame));
    })?;
    let umem = Umem::new(Arc::new(area), UmemConfig::default())?;
    let config = SocketConfig { tx_budget: Some(BURST), ..SocketConfig::default() };
    let (socket, mut rings) = Socket::bind(&umem, interface, 0, &config)?;
    steering.register_socket(0, socket.as_fd())?;
    steering.add_address(IpAddr::V4(ADDRESS), Ownership::Own)?;

    let len = if shape == Shape::Flood { FULL_FRAME_LEN } else { FRAME_LEN } as u32;
    let mut free: Vec<u64> = (0..u64::from(CHUNKS)).rev().map(|chunk| chunk * CHUNK as u64).collect();
    let (mut windows, mut missing) = (Windows::default(), inject.unwrap_or(0));
    let (mut moved_at_us, mut received) = (0, 0u32);
    ready();
    let begun = Instant::now();
    loop {
        let since = begun.elapsed();
        if !go_on(since) {
            return Ok(windows);
        }
        let mut moved = 0;
        // With room for those that are added.
        let burst = (rings.tx.room(2 * BURST) / 2).min(BURST);
        for desc in rings.rx.drain(burst) {
            received = received.wrapping_add(1);
            if shape == Shape::Sink {
                moved += u64::from(desc.len) - HEADERS_LEN;
                free.push(umem.chunk_of(desc.addr));
                continue;
            }
            moved += 1;
            if shape == Shape::TwoOfThree && received % 3 == 0 {
                free.push(umem.chunk_of(desc.addr));
                continue;
            }
            let _ = rings.tx.push(Desc::new(desc.addr, desc.len));
            moved += 1;
            if shape == Shape::ThreeForTwo && received % 2 == 0 {
                missing += 1;
            }
        }
        let now_us = since.as_micros() as u64;
        // A frame that was lost is missing for good; after a silence all are sent anew.
        if inject.is_some() && moved == 0 && missing == 0 && now_us - moved_at_us > SILENCE_US {
            missing = inject.unwrap_or(0);
        }
        if shape == Shape::Flood {
            // No more than one kick sends, or the frames would wait where they are cold.
            missing = BURST.saturating_sub(rings.tx.pending());
        }
        while missing > 0
            && rings.tx.room(1) > 0
            && let Some(chunk) = free.pop()
        {
            let _ = rings.tx.push(Desc::new(chunk, len));
            missing -= 1;
            moved += 1;
        }
        if moved > 0 {
            rings.tx.submit();
            windows.add(now_us, moved);
            moved_at_us = now_us;
        }
        if rings.tx.wants_kick() {
            socket.kick_tx()?;
        }
        free.extend(rings.completion.drain(u32::MAX).map(|addr| umem.chunk_of(addr)));
        if rings.fill.pending() <= FILL - BURST {
            for _ in rings.fill.pending()..FILL {
                let Some(chunk) = free.pop() else { break };
                if !rings.fill.push(chunk) {
                    free.push(chunk);
                    break;
                }
            }
            rings.fill.submit();
        }
        if rings.fill.needs_wakeup() {
            socket.kick_rx()?;
        }
    }
}

/// As long as the mean packet of a connection that is opened and closed, and of an address that is ours. The rest of it nobody reads.
fn frame() -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&(FRAME_LEN as u16 - 14).to_be_bytes());
    frame[22..24].copy_from_slice(&[64, 6]);
    frame[30..34].copy_from_slice(&ADDRESS.octets());
    frame
}

/// Bytes of each frame. SYN and SYN-ACK have 74, ACK and FIN 66: 69.2 in the mean.
pub(super) const FRAME_LEN: usize = 70;

/// A segment of 1448 bytes.
const FULL_FRAME_LEN: usize = 1514;
const HEADERS_LEN: u64 = 66;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const CHUNKS: u32 = 4096;
const CHUNK: usize = 2048;
const BURST: u32 = 64;
/// Chunks that wait to be received into.
const FILL: u32 = 1024;
const SILENCE_US: u64 = 2_000;
