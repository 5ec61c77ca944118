//! TCP headers (RFC 9293 §3.1) and the options that this stack speaks.

use core::fmt;
use core::ops::{BitOr, BitOrAssign};

use handfast_drivers::simd::Pattern;

use super::address::Address;
use super::at;
use super::checksum::{self, Sum};
use crate::metrics::DropReason;

mod seq;

pub use self::seq::Seq;

/// Reads the header of a TCP segment; `bytes` is header and payload. The checksum is verified apart, by [`verify_checksum`].
///
/// # Errors
/// [`DropReason::Truncated`] or [`DropReason::TcpMalformed`].
pub fn parse(bytes: &[u8]) -> Result<Segment, DropReason> {
    let mut segment = Segment::default();
    read(bytes, &mut segment)?;
    Ok(segment)
}

/// Reads the header of a TCP segment into `segment`; where it fails, what that holds means nothing.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn read(bytes: &[u8], segment: &mut Segment) -> Result<(), DropReason> {
    let Some(fixed) = bytes.first_chunk::<HEADER_LEN>() else { return Err(DropReason::Truncated) };
    let header_len = usize::from(fixed[12] >> 2 & 0x3c);
    let Some(options) = bytes.get(HEADER_LEN..header_len) else { return Err(DropReason::TcpMalformed) };
    let payload_len = u16::try_from(bytes.len() - header_len).map_err(|_| DropReason::TcpMalformed)?;
    segment.take_bare(fixed);
    segment.timestamps = None;
    (segment.data_offset, segment.payload_len) = (data_offset(header_len), payload_len);
    if segment.src_port == 0 || segment.dst_port == 0 {
        return Err(DropReason::TcpMalformed);
    }
    // RFC 7323 appendix A: nearly every segment of a connection carries exactly this, or nothing.
    match options.as_array::<TIMESTAMPS_LEN>() {
        Some(options) if u32::from_be_bytes(at(options, 0)) == TIMESTAMPS_ALONE => {
            segment.timestamps = Some(Timestamps::from_octets(at(options, 4)));
        }
        _ if options.is_empty() => {}
        _ => segment.read_options(options),
    }
    Ok(())
}

/// What a header without payload nearly always is, from its byte [`TOLD_AT`] on: its only option is timestamps, as RFC 7323 appendix A
/// has them.
pub const STAMPED: Pattern = Pattern::ANY.with(0, &[data_offset(STAMPED_LEN)]).with(8, &TIMESTAMPS_ALONE.to_be_bytes());

/// What the header of a SYN is as we send it, and most others do, from its byte [`TOLD_AT`] on: with MSS, SACK permitted and timestamps,
/// and after those [what this is not told by](read_usual_syn).
pub const USUAL_SYN: Pattern = Pattern::ANY
    .with(0, &[data_offset(USUAL_SYN_LEN)])
    .with_bits(1, Flags::SYN.0, Flags::SYN.0)
    .with(8, &[MSS, 4])
    .with(12, &TIMESTAMPS_AND_SACK_PERMITTED.to_be_bytes());

/// Where in a header those sixteen bytes are.
pub const TOLD_AT: usize = 12;

/// Reads a [`STAMPED`] header of a segment without payload. Whether its ports are ports is not asked.
#[inline(always)]
pub fn read_stamped(header: &[u8; STAMPED_LEN], segment: &mut Segment) {
    segment.take_bare(header);
    segment.timestamps = Some(Timestamps::from_octets(at(header, HEADER_LEN + 4)));
}

/// Reads a [`USUAL_SYN`] header, as [`read_stamped`] reads others; `false` if after the timestamps there is something else than a window
/// scale.
#[inline(always)]
pub fn read_usual_syn(header: &[u8; USUAL_SYN_LEN], segment: &mut Segment) -> bool {
    const LAST: usize = USUAL_SYN_LEN - 4;
    let before_shift = u32::from_be_bytes(at(header, LAST)) & !0xff;
    if before_shift != u32::from_be_bytes([NOP, WINDOW_SCALE, 3, 0]) {
        return false;
    }
    segment.take_bare(header);
    segment.timestamps = Some(Timestamps::from_octets(at(header, HEADER_LEN + 8)));
    segment.mss = Some(u16::from_be_bytes(at(header, HEADER_LEN + 2)));
    (segment.window_scale, segment.sack_permitted) = (Some(header[LAST + 3].min(MAX_WINDOW_SCALE)), true);
    true
}

/// The byte in a header that says how long it is.
pub const fn data_offset(len: usize) -> u8 {
    (len << 2) as u8
}

/// Whether the checksum of `bytes`, header and payload, is right (RFC 9293 §3.1, MUST-3).
#[inline]
pub fn verify_checksum(src: &Address, dst: &Address, bytes: &[u8]) -> bool {
    checksum::is_valid(checksum::sum(pseudo_header(src, dst, bytes.len()), bytes))
}

/// The sum of the pseudo header over a segment of `len` bytes, header and payload.
#[inline]
pub fn pseudo_header(src: &Address, dst: &Address, len: usize) -> Sum {
    checksum::pseudo_header(src, dst, PROTOCOL, len as u32)
}

/// A TCP segment's header, in host order; its payload stays in the frame.
///
/// Its fields are in the order in which they are written together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Segment {
    /// SEG.SEQ.
    pub seq: Seq,
    /// The receiver's port; that it is none is found where its flow is.
    pub dst_port: u16,
    /// The sender's port, likewise.
    pub src_port: u16,
    /// SEG.WND as on the wire, not scaled.
    pub window: u16,
    /// The control bits.
    pub flags: Flags,
    /// The byte that says where the data begins, without what is reserved in it: [`header_len`](Self::header_len).
    pub data_offset: u8,
    /// SEG.ACK; means something if the ACK flag is set.
    pub ack: Seq,
    /// RFC 7323 §3.
    pub timestamps: Option<Timestamps>,
    /// The payload's length in bytes.
    pub payload_len: u16,
    /// RFC 9293 §3.7.1, on SYN segments only. As the peer wrote it: may be 0.
    pub mss: Option<u16>,
    /// RFC 2018 §2, on SYN segments only.
    pub sack_permitted: bool,
    /// RFC 7323 §2, on SYN segments only. At most 14.
    pub window_scale: Option<u8>,
    /// RFC 2018 §3.
    pub sack: SackBlocks,
}

impl Segment {
    /// SEG.LEN: the sequence numbers that the segment occupies, its SYN and FIN included.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "SEG.LEN is not a container's length")]
    pub const fn len(&self) -> u32 {
        self.payload_len as u32 + self.flags.syn() as u32 + self.flags.fin() as u32
    }

    /// The header's length in bytes, options included: 20 to 60.
    #[inline]
    pub const fn header_len(&self) -> usize {
        self.data_offset as usize >> 2
    }

    /// Takes over what is in every header; after it there is nothing, and there are no options but timestamps, which are the caller's.
    /// In place, field by field: what is moved whole is written twice.
    #[inline(always)]
    fn take_bare<const LEN: usize>(&mut self, header: &[u8; LEN]) {
        let [first, second] = [0, 8].map(|place| u64::from_be_bytes(at(header, place)));
        self.seq = Seq(first as u32);
        (self.dst_port, self.src_port) = ((first >> 32) as u16, (first >> 48) as u16);
        (self.window, self.flags) = (second as u16, Flags((second >> 16) as u8));
        (self.data_offset, self.ack) = ((second >> 24) as u8, Seq((second >> 32) as u32));
        self.payload_len = 0;
        (self.mss, self.window_scale, self.sack_permitted, self.sack.len) = (None, None, false, 0);
    }

    /// An option of a length that is not its own is passed over. A length that cannot be (less than 2, or beyond the header)
    /// ends the list; what came before it stands (RFC 9293 §3.1, MUST-6 and MUST-7).
    #[inline(never)]
    fn read_options(&mut self, mut options: &[u8]) {
        let syn = self.flags.syn();
        loop {
            options = match *options {
                [] | [END, ..] => return,
                [NOP, ref rest @ ..] => rest,
                [kind, len, ..] if len >= 2 && usize::from(len) <= options.len() => {
                    let (option, rest) = options.split_at(usize::from(len));
                    match (kind, &option[2..]) {
                        (MSS, &[a, b]) if syn => self.mss = Some(u16::from_be_bytes([a, b])),
                        // RFC 7323 §2.3: a shift above 14 is taken as 14.
                        (WINDOW_SCALE, &[shift]) if syn => self.window_scale = Some(shift.min(MAX_WINDOW_SCALE)),
                        (SACK_PERMITTED, &[]) if syn => self.sack_permitted = true,
                        (SACK, body) => self.sack = SackBlocks::parse(body),
                        (TIMESTAMPS, body) => {
                            if let Some(&octets) = body.as_array() {
                                self.timestamps = Some(Timestamps::from_octets(octets));
                            }
                        }
                        _ => {}
                    }
                    rest
                }
                _ => return,
            }
        }
    }
}

/// What a header to be written says.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Header {
    /// Our port.
    pub src_port: u16,
    /// The peer's port.
    pub dst_port: u16,
    /// SEG.SEQ.
    pub seq: Seq,
    /// SEG.ACK.
    pub ack: Seq,
    /// The control bits.
    pub flags: Flags,
    /// SEG.WND, already scaled.
    pub window: u16,
    /// The options.
    pub options: Options,
}

impl Header {
    /// Its length in bytes, options and their padding included, with these SACK blocks.
    #[inline]
    pub const fn len(&self, sack: &[SackBlock]) -> usize {
        HEADER_LEN + self.options.len(sack)
    }

    /// Writes the header of a segment with this payload into `out`. The checksum is computed, or, if it is left to the device,
    /// that of the pseudo header.
    ///
    /// # Panics
    /// If `out` is not [as long](Header::len) as the header.
    #[inline(always)]
    pub fn emit(&self, sack: &[SackBlock], out: &mut [u8], pseudo_header: Sum, payload: &[u8], compute: bool) {
        let sum = self.emit_words(sack, out, pseudo_header);
        // A header's length is even, so that its sum and the payload's add up.
        let checksum = match (compute, payload.is_empty()) {
            (false, _) => pseudo_header.fold(),
            (true, true) => checksum::finish_header(sum),
            (true, false) => checksum::finish_header(checksum::sum(sum, payload)),
        };
        out[16..18].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Writes all words, the checksum's as 0, and adds them to `initial`. Nearly every segment has timestamps and nothing else, and
    /// nearly every SYN these.
    #[inline(always)]
    fn emit_words(&self, sack: &[SackBlock], out: &mut [u8], initial: Sum) -> Sum {
        // In a connection's key the two are one word, the other way round.
        let ports = (u32::from(self.src_port) | u32::from(self.dst_port) << 16).rotate_left(16);
        let len_and_flags = (out.len() as u32) << 26 | u32::from(self.flags.0) << 16;
        let (numbers, window) = (pair(self.seq.0, self.ack.0), len_and_flags | u32::from(self.window));
        let (fixed, out) = out.split_first_chunk_mut::<HEADER_LEN>().expect(ROOM);
        put(fixed, 0, ports.to_be_bytes());
        put(fixed, 4, numbers.to_be_bytes());
        put(fixed, 12, pair(window, 0).to_be_bytes());
        match self.options {
            Options { mss: None, window_scale: None, sack_permitted: false, timestamps: None } if sack.is_empty() => {
                assert!(out.is_empty(), "{ROOM}");
                checksum::plus_pairs(checksum::plus_words(initial, [ports, window]), [numbers])
            }
            Options { mss: None, window_scale: None, sack_permitted: false, timestamps: Some(timestamps) }
                if sack.is_empty() =>
            {
                let (out, stamps) = (room::<TIMESTAMPS_LEN>(out), pair(timestamps.value, timestamps.echo));
                put(out, 0, TIMESTAMPS_ALONE.to_be_bytes());
                put(out, 4, stamps.to_be_bytes());
                let words = [ports, window, TIMESTAMPS_ALONE];
                checksum::plus_pairs(checksum::plus_words(initial, words), [numbers, stamps])
            }
            Options {
                mss: Some(mss),
                window_scale: Some(shift),
                sack_permitted: true,
                timestamps: Some(Timestamps { value, echo }),
            } if sack.is_empty() => {
                let (mss, last) = (MSS_BEFORE | u32::from(mss), WINDOW_SCALE_BEFORE | u32::from(shift));
                let (out, stamps) = (room::<SYN_OPTIONS_LEN>(out), pair(value, echo));
                put(out, 0, mss.to_be_bytes());
                put(out, 4, TIMESTAMPS_AND_SACK_PERMITTED.to_be_bytes());
                put(out, 8, stamps.to_be_bytes());
                put(out, 16, last.to_be_bytes());
                let words = [ports, window, mss, TIMESTAMPS_AND_SACK_PERMITTED, last];
                checksum::plus_pairs(checksum::plus_words(initial, words), [numbers, stamps])
            }
            _ => {
                let sum = self.options.emit_all(sack, out, initial);
                checksum::plus_pairs(checksum::plus_words(sum, [ports, window]), [numbers])
            }
        }
    }
}

/// Two words of a header, one after the other.
#[inline(always)]
const fn pair(first: u32, second: u32) -> u64 {
    (first as u64) << 32 | second as u64
}

/// The room of these options.
#[inline(always)]
fn room<const LEN: usize>(out: &mut [u8]) -> &mut [u8; LEN] {
    out.as_mut_array().expect(ROOM)
}

/// Writes octets at a place that the compiler knows.
#[inline(always)]
fn put<const LEN: usize, const N: usize>(out: &mut [u8; LEN], place: usize, octets: [u8; N]) {
    out[place..place + N].copy_from_slice(&octets);
}

const ROOM: &str = "the room is that of the header";

/// Options to be written, SACK blocks apart: few segments have those, and they are large.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Options {
    /// Maximum segment size, for SYN segments.
    pub mss: Option<u16>,
    /// Window scale, for SYN segments.
    pub window_scale: Option<u8>,
    /// SACK permitted, for SYN segments.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
}

impl Options {
    /// What nearly every segment has.
    #[inline]
    pub const fn of_timestamps(timestamps: Timestamps) -> Options {
        Options { mss: None, window_scale: None, sack_permitted: false, timestamps: Some(timestamps) }
    }

    /// All that a SYN may have, as nearly every SYN does.
    #[inline]
    pub const fn of_syn(mss: u16, window_scale: u8, timestamps: Timestamps) -> Options {
        let (mss, window_scale, timestamps) = (Some(mss), Some(window_scale), Some(timestamps));
        Options { mss, window_scale, sack_permitted: true, timestamps }
    }

    /// The length in bytes when written with these SACK blocks, the most urgent first; those that have no room are left out.
    /// A multiple of 4, at most 40.
    #[inline]
    pub const fn len(&self, sack: &[SackBlock]) -> usize {
        let mss = if self.mss.is_some() { 4 } else { 0 };
        let timestamps = if self.timestamps.is_some() { TIMESTAMPS_LEN } else { 0 };
        // SACK-permitted takes the place of the two NOPs before the timestamps.
        let sack_permitted = if self.sack_permitted && self.timestamps.is_none() { 4 } else { 0 };
        let window_scale = if self.window_scale.is_some() { 4 } else { 0 };
        let len = mss + timestamps + sack_permitted + window_scale;
        if sack.is_empty() {
            return len;
        }
        let room = (MAX_OPTIONS_LEN - 4 - len) / 8;
        len + 4 + 8 * if sack.len() < room { sack.len() } else { room }
    }

    /// Writes MSS, SACK-permitted and timestamps, window scale, SACK blocks, each aligned to 4. Adds all to `initial`.
    #[inline(never)]
    fn emit_all(self, sack: &[SackBlock], out: &mut [u8], initial: Sum) -> Sum {
        let (words, spare) = out.as_chunks_mut::<4>();
        let (mut room, mut sum) = (words.iter_mut(), initial);
        let mut push = |word: u32| {
            *room.next().expect("len() counted every option") = word.to_be_bytes();
            sum = checksum::plus_words(sum, [word]);
        };
        let mut left = self.len(sack) - self.len(&[]);
        if let Some(mss) = self.mss {
            push(MSS_BEFORE | u32::from(mss));
        }
        match (self.timestamps, self.sack_permitted) {
            (Some(Timestamps { value, echo }), permitted) => {
                push(if permitted { TIMESTAMPS_AND_SACK_PERMITTED } else { TIMESTAMPS_ALONE });
                push(value);
                push(echo);
            }
            (None, true) => push(u32::from_be_bytes([NOP, NOP, SACK_PERMITTED, 2])),
            (None, false) => {}
        }
        if let Some(shift) = self.window_scale {
            push(WINDOW_SCALE_BEFORE | u32::from(shift));
        }
        if left > 0 {
            left -= 4;
            push(u32::from_be_bytes([NOP, NOP, SACK, 2 + left as u8]));
            for (start, end) in &sack[..left / 8] {
                push(start.0);
                push(end.0);
            }
        }
        assert!(room.next().is_none() && spare.is_empty(), "{ROOM}");
        sum
    }
}

/// The timestamps option (RFC 7323 §3.2).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Timestamps {
    /// TSecr: what the sender last heard; means something if the ACK flag is set.
    pub echo: u32,
    /// TSval: the sender's clock.
    pub value: u32,
}

impl Timestamps {
    #[inline]
    const fn from_octets(octets: [u8; 8]) -> Timestamps {
        let both = u64::from_be_bytes(octets);
        Timestamps { echo: both as u32, value: (both >> 32) as u32 }
    }
}

/// A left edge and the right edge just after the block (RFC 2018 §3).
pub type SackBlock = (Seq, Seq);

/// The blocks of a SACK option: at most four.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SackBlocks {
    /// How many of `blocks` count.
    pub len: u8,
    /// The blocks, in the option's order.
    pub blocks: [SackBlock; 4],
}

impl SackBlocks {
    /// No blocks.
    pub const EMPTY: SackBlocks = SackBlocks { len: 0, blocks: [(Seq(0), Seq(0)); 4] };

    /// The blocks that count.
    #[inline]
    pub const fn as_slice(&self) -> &[SackBlock] {
        let len = if self.len < 4 { self.len as usize } else { 4 };
        self.blocks.split_at(len).0
    }

    /// Appends a block; `false` if there are four already.
    #[inline]
    pub const fn push(&mut self, start: Seq, end: Seq) -> bool {
        if self.len >= 4 {
            return false;
        }
        self.blocks[self.len as usize] = (start, end);
        self.len += 1;
        true
    }

    /// A body that is not one to four whole blocks is no SACK option.
    fn parse(body: &[u8]) -> SackBlocks {
        let mut sack = SackBlocks::EMPTY;
        let (blocks, rest) = body.as_chunks::<8>();
        if rest.is_empty() {
            for &[s0, s1, s2, s3, e0, e1, e2, e3] in blocks {
                sack.push(Seq(u32::from_be_bytes([s0, s1, s2, s3])), Seq(u32::from_be_bytes([e0, e1, e2, e3])));
            }
        }
        sack
    }
}

impl fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// The control bits (RFC 9293 §3.1, RFC 3168 §6.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// Reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// Push.
    pub const PSH: Flags = Flags(0x08);
    /// The acknowledgment field counts.
    pub const ACK: Flags = Flags(0x10);
    /// The urgent pointer counts.
    pub const URG: Flags = Flags(0x20);
    /// ECN echo.
    pub const ECE: Flags = Flags(0x40);
    /// Congestion window reduced.
    pub const CWR: Flags = Flags(0x80);

    /// Every flag of `other` is set.
    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those of `flags` that are set.
    #[inline]
    pub const fn only(self, flags: Flags) -> Flags {
        Flags(self.0 & flags.0)
    }

    /// SYN is set.
    #[inline]
    pub const fn syn(self) -> bool {
        self.contains(Flags::SYN)
    }

    /// ACK is set.
    #[inline]
    pub const fn ack(self) -> bool {
        self.contains(Flags::ACK)
    }

    /// FIN is set.
    #[inline]
    pub const fn fin(self) -> bool {
        self.contains(Flags::FIN)
    }

    /// RST is set.
    #[inline]
    pub const fn rst(self) -> bool {
        self.contains(Flags::RST)
    }

    /// PSH is set.
    #[inline]
    pub const fn psh(self) -> bool {
        self.contains(Flags::PSH)
    }

    /// URG is set.
    #[inline]
    pub const fn urg(self) -> bool {
        self.contains(Flags::URG)
    }
}

impl BitOr for Flags {
    type Output = Flags;
    #[inline]
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let mut set = NAMES.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 != 0).map(|(_, name)| name);
        f.write_str(set.next().unwrap_or(&"-"))?;
        set.try_for_each(|name| write!(f, "|{name}"))
    }
}

/// TCP's number in the IP header.
pub const PROTOCOL: u8 = 6;
/// A header without options, in bytes.
pub const HEADER_LEN: usize = 20;
/// The most that options can take, in bytes.
pub const MAX_OPTIONS_LEN: usize = 40;
/// The largest window scale shift (RFC 7323 §2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;

/// The option of nearly every segment, aligned: the timestamps with what stands before them, in bytes.
pub const TIMESTAMPS_LEN: usize = 12;
/// A header with that option and no other, in bytes.
pub const STAMPED_LEN: usize = HEADER_LEN + TIMESTAMPS_LEN;
/// A header with MSS, SACK permitted, timestamps and window scale, in bytes.
pub const USUAL_SYN_LEN: usize = HEADER_LEN + SYN_OPTIONS_LEN;
const SYN_OPTIONS_LEN: usize = 20;
/// What stands before the two timestamps.
const TIMESTAMPS_ALONE: u32 = u32::from_be_bytes([NOP, NOP, TIMESTAMPS, 10]);
const MSS_BEFORE: u32 = u32::from_be_bytes([MSS, 4, 0, 0]);
const WINDOW_SCALE_BEFORE: u32 = u32::from_be_bytes([NOP, WINDOW_SCALE, 3, 0]);
const TIMESTAMPS_AND_SACK_PERMITTED: u32 = u32::from_be_bytes([SACK_PERMITTED, 2, TIMESTAMPS, 10]);

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

#[cfg(test)]
mod tests;
