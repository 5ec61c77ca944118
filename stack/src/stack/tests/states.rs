//! Every state × every kind of segment × every place in and about the window × every acknowledgment, against the RFC's words.
//!
//! Each table is one section of RFC 9293 §3.10.7 in the RFC's order, a row a sentence of it: the first row that speaks of a segment
//! says what is answered and which state is next. Read a row against its clause; where handfast takes one of several ways that the
//! RFCs allow, the row says why. Nothing here is computed by the code under test.

use super::peer::*;
use super::*;
use crate::tcp::state::State;
use crate::wire::tcp::Flags;

use Begin::*;
use Reply::*;

/// A state, and how it was reached where that matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Begin {
    /// A port that nobody listens on.
    Closed,
    Listen,
    SynSent,
    /// SYN-RECEIVED from LISTEN.
    HalfOpen,
    /// SYN-RECEIVED from SYN-SENT.
    Crossed,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    /// TIME-WAIT with text that the application has not read yet.
    Unread,
}

/// What is answered. ISS is 0, SND.NXT what was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reply {
    Nothing,
    /// `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`
    Ack,
    /// The same, after the text and the FIN that are in order were taken.
    AckOfTaken,
    /// `<SEQ=ISS><ACK=SEG.SEQ+1><CTL=SYN,ACK>`
    SynAck,
    /// `<SEQ=SEG.ACK><CTL=RST>`
    Reset,
    /// `<SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>`
    ResetAck,
}

/// Where a segment begins. The window is [RCV.NXT, RCV.NXT + RCV.WND).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
enum At {
    BeforeLeft,
    Left,
    Inside,
    LastInside,
    BeyondRight,
}

/// What it acknowledges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AckNo {
    /// SND.UNA − MAX.SND.WND − 1
    Ancient,
    /// SND.UNA − MAX.SND.WND
    Old,
    /// SND.UNA
    Una,
    /// SND.NXT
    Nxt,
    /// SND.NXT + 1
    Unsent,
    /// There is no ACK bit.
    Absent,
}

/// A segment that arrives, in the RFC's terms.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    flags: Flags,
    at: At,
    ack: AckNo,
    text: bool,
    begin: Begin,
}

impl Arrival {
    fn syn(&self) -> bool {
        self.flags.syn()
    }
    fn rst(&self) -> bool {
        self.flags.rst()
    }
    fn fin(&self) -> bool {
        self.flags.fin()
    }
    fn has_ack(&self) -> bool {
        self.flags.ack()
    }
    /// SEG.LEN
    fn len(&self) -> u32 {
        self.text as u32 * TEXT.len() as u32 + self.syn() as u32 + self.fin() as u32
    }
    /// The table of §3.10.7.4: where RCV.WND is not 0, some of it is in the window. TIME-WAIT tells a window of 0, since
    /// nothing more may come.
    fn is_acceptable(&self) -> bool {
        match (self.begin, self.at) {
            (TimeWait, at) => at == At::Left && self.len() == 0,
            (_, At::BeforeLeft) => self.len() > 1,
            (_, At::Left | At::Inside | At::LastInside) => true,
            (_, At::BeyondRight) => false,
        }
    }
    fn is_in_order(&self) -> bool {
        self.at == At::Left || (self.at == At::BeforeLeft && self.is_acceptable())
    }
    fn fin_in_order(&self) -> bool {
        self.fin() && self.is_in_order()
    }
    /// How much of the text is new and in order.
    fn new_text(&self) -> &'static [u8] {
        match (self.text, self.at) {
            (true, At::Left) => TEXT,
            (true, At::BeforeLeft) => &TEXT[1..],
            _ => b"",
        }
    }
}

const TEXT: &[u8] = b"text";

/// The clause, the states it speaks of, what it says of a segment, the answer, the next state.
type Row = (&'static str, &'static [Begin], fn(&Arrival) -> bool, Reply, Option<State>);

/// The state does not change.
const STAYS: Option<State> = None;

const CLOSED: &[Row] = &[
    ("§3.10.7.1: a segment containing a RST is discarded", &[Closed], |s| s.rst(), Nothing, STAYS),
    ("§3.10.7.1: ACK off: SEQ=0, ACK=SEG.SEQ+SEG.LEN, RST, ACK", &[Closed], |s| !s.has_ack(), ResetAck, STAYS),
    ("§3.10.7.1: ACK on: SEQ=SEG.ACK, RST", &[Closed], |s| s.has_ack(), Reset, STAYS),
];

const LISTEN: &[Row] = &[
    ("§3.10.7.2 first: an incoming RST is ignored", &[Listen], |s| s.rst(), Nothing, STAYS),
    ("§3.10.7.2 second: any acknowledgment is bad: reset", &[Listen], |s| s.has_ack(), Reset, STAYS),
    ("§3.10.7.2 third: SYN: SYN-ACK. Its text comes again", &[Listen], |s| s.syn(), SynAck, Some(State::SynReceived)),
    ("§3.10.7.2 fourth: anything else: drop it", &[Listen], |_| true, Nothing, STAYS),
];

const SYN_SENT: &[Row] = &[
    (
        "§3.10.7.3 first: SEG.ACK =< ISS or > SND.NXT with RST: drop",
        &[SynSent],
        |s| s.has_ack() && s.ack != AckNo::Nxt && s.rst(),
        Nothing,
        STAYS,
    ),
    (
        "§3.10.7.3 first: SEG.ACK =< ISS or > SND.NXT: reset",
        &[SynSent],
        |s| s.has_ack() && s.ack != AckNo::Nxt,
        Reset,
        STAYS,
    ),
    (
        "§3.10.7.3 second: RST, the ACK was acceptable: CLOSED",
        &[SynSent],
        |s| s.rst() && s.has_ack(),
        Nothing,
        Some(State::Closed),
    ),
    ("§3.10.7.3 second: RST without ACK: drop", &[SynSent], |s| s.rst(), Nothing, STAYS),
    (
        "§3.10.7.3 fourth: SYN, and our SYN is acknowledged: ESTABLISHED",
        &[SynSent],
        |s| s.syn() && s.has_ack(),
        AckOfTaken,
        Some(State::Established),
    ),
    (
        "§3.10.7.3 fourth: SYN alone: SYN-RECEIVED. Its text comes again",
        &[SynSent],
        |s| s.syn(),
        SynAck,
        Some(State::SynReceived),
    ),
    ("§3.10.7.3 fifth: neither SYN nor RST: drop", &[SynSent], |_| true, Nothing, STAYS),
];

/// Before [`TAKEN`], for what it says nothing about.
const SYN_RECEIVED: &[Row] = &[
    (
        "§3.5 figure 7, line 6: their SYN-ACK completes a simultaneous open. Its text comes again",
        &[Crossed],
        |s| s.syn() && s.at == At::BeforeLeft && s.ack == AckNo::Nxt,
        Ack,
        Some(State::Established),
    ),
    (
        "§3.10.7.4 first: the SYN again is unacceptable and answered; by our SYN-ACK, which may have been lost",
        &[HalfOpen, Crossed],
        |s| s.syn() && s.at == At::BeforeLeft && (s.begin == Crossed || !s.has_ack()),
        SynAck,
        STAYS,
    ),
    (
        "RFC 5961 §4.2: any other SYN: a challenge. A passive open stays too, lest a forged SYN end it",
        &[HalfOpen, Crossed],
        |s| s.syn(),
        Ack,
        STAYS,
    ),
    (
        "§3.10.7.4 second: RST in its place: CLOSED, or LISTEN",
        &[HalfOpen, Crossed],
        |s| s.rst() && s.at == At::Left,
        Nothing,
        Some(State::Closed),
    ),
    (
        "RFC 5961 §3.2: RST elsewhere in the window: a challenge",
        &[HalfOpen, Crossed],
        |s| s.rst() && matches!(s.at, At::Inside | At::LastInside),
        Ack,
        STAYS,
    ),
    ("RFC 5961 §3.2: RST outside the window: discard", &[HalfOpen, Crossed], |s| s.rst(), Nothing, STAYS),
    ("§3.10.7.4 first: not acceptable: an ACK", &[HalfOpen, Crossed], |s| !s.is_acceptable(), Ack, STAYS),
    ("§3.10.7.4 fifth: ACK off: drop", &[HalfOpen, Crossed], |s| !s.has_ack(), Nothing, STAYS),
    (
        "§3.10.7.4 fifth: not SND.UNA < SEG.ACK =< SND.NXT: reset",
        &[HalfOpen, Crossed],
        |s| s.ack != AckNo::Nxt,
        Reset,
        STAYS,
    ),
];

const OPEN: &[Begin] = &[Established, FinWait1, FinWait2, CloseWait, Closing, LastAck, Unread];

/// Before [`TAKEN`].
const SYNCHRONISED: &[Row] = &[
    ("RFC 5961 §4.2: a SYN, wherever it is: a challenge ACK", OPEN, |s| s.syn(), Ack, STAYS),
    ("RFC 1337 §4: TIME-WAIT ignores RST", &[Unread], |s| s.rst(), Nothing, STAYS),
    (
        "§3.10.7.4 second, RFC 5961 §3.2 (2): RST at RCV.NXT: reset the connection",
        OPEN,
        |s| s.rst() && s.at == At::Left,
        Nothing,
        Some(State::Closed),
    ),
    (
        "§3.10.7.4 second, RFC 5961 §3.2 (3): RST elsewhere in the window: a challenge ACK",
        OPEN,
        |s| s.rst() && matches!(s.at, At::Inside | At::LastInside),
        Ack,
        STAYS,
    ),
    (
        "§3.10.7.4 first and second, RFC 5961 §3.2 (1): RST outside the window: discard",
        OPEN,
        |s| s.rst(),
        Nothing,
        STAYS,
    ),
    ("§3.10.7.4 first: not acceptable: an ACK", OPEN, |s| !s.is_acceptable(), Ack, STAYS),
    ("§3.10.7.4 fifth: ACK off: drop", OPEN, |s| !s.has_ack(), Nothing, STAYS),
    ("§3.10.7.4 fifth: ACK of something not yet sent: an ACK, drop", OPEN, |s| s.ack == AckNo::Unsent, Ack, STAYS),
    ("RFC 5961 §5.2: SEG.ACK < SND.UNA − MAX.SND.WND: an ACK, discard", OPEN, |s| s.ack == AckNo::Ancient, Ack, STAYS),
    (
        "§3.10.7.4 fifth, CLOSING: our FIN is acknowledged: TIME-WAIT",
        &[Closing],
        |s| s.ack == AckNo::Nxt,
        Nothing,
        Some(State::TimeWait),
    ),
    (
        "§3.10.7.4 fifth, LAST-ACK: our FIN is acknowledged: CLOSED",
        &[LastAck],
        |s| s.ack == AckNo::Nxt,
        Nothing,
        Some(State::Closed),
    ),
    (
        "§3.10.7.4 seventh, eighth: after their FIN, text is ignored and a FIN remains in the state",
        &[CloseWait, Closing, LastAck, Unread],
        |_| true,
        Nothing,
        STAYS,
    ),
];

/// Seventh and eighth in the states that take text. What is out of order is kept, and acknowledged at once (RFC 5681 §4.2).
const TAKEN: &[Row] = &[
    (
        "§3.10.7.4 eighth: FIN in SYN-RECEIVED and ESTABLISHED: CLOSE-WAIT",
        &[HalfOpen, Crossed, Established],
        |s| s.fin_in_order(),
        AckOfTaken,
        Some(State::CloseWait),
    ),
    (
        "§3.10.7.4 eighth, FIN-WAIT-1: FIN, our FIN acknowledged: TIME-WAIT",
        &[FinWait1],
        |s| s.fin_in_order() && s.ack == AckNo::Nxt,
        AckOfTaken,
        Some(State::TimeWait),
    ),
    (
        "§3.10.7.4 eighth, FIN-WAIT-1: FIN, ours not acknowledged: CLOSING",
        &[FinWait1],
        |s| s.fin_in_order(),
        AckOfTaken,
        Some(State::Closing),
    ),
    (
        "§3.10.7.4 eighth, FIN-WAIT-2: FIN: TIME-WAIT",
        &[FinWait2],
        |s| s.fin_in_order(),
        AckOfTaken,
        Some(State::TimeWait),
    ),
    (
        "§3.10.7.4 fifth, FIN-WAIT-1: our FIN is acknowledged: FIN-WAIT-2; seventh: text",
        &[FinWait1],
        |s| s.ack == AckNo::Nxt && s.len() > 0,
        AckOfTaken,
        Some(State::FinWait2),
    ),
    (
        "§3.10.7.4 fifth, FIN-WAIT-1: our FIN is acknowledged: FIN-WAIT-2",
        &[FinWait1],
        |s| s.ack == AckNo::Nxt,
        Nothing,
        Some(State::FinWait2),
    ),
    (
        "§3.10.7.4 fifth, SYN-RECEIVED: ESTABLISHED; seventh: text",
        &[HalfOpen, Crossed],
        |s| s.len() > 0,
        AckOfTaken,
        Some(State::Established),
    ),
    ("§3.10.7.4 fifth, SYN-RECEIVED: ESTABLISHED", &[HalfOpen, Crossed], |_| true, Nothing, Some(State::Established)),
    (
        "§3.10.7.4 seventh: text, or a FIN out of order: an ACK",
        &[Established, FinWait1, FinWait2],
        |s| s.len() > 0,
        AckOfTaken,
        STAYS,
    ),
    (
        "§3.10.7.4 fifth: an ACK alone, old or new, is not answered",
        &[Established, FinWait1, FinWait2],
        |_| true,
        Nothing,
        STAYS,
    ),
];

const TIME_WAIT: &[Row] = &[
    ("RFC 1337 §4: RST is ignored", &[TimeWait], |s| s.rst(), Nothing, STAYS),
    (
        "MAY-2, RFC 6191 §2: a SYN above all that came: a new connection",
        &[TimeWait],
        |s| s.syn() && !s.has_ack() && s.at != At::BeforeLeft,
        SynAck,
        Some(State::SynReceived),
    ),
    (
        "§3.10.7.4 first: not acceptable: an ACK; fifth: the FIN again: acknowledge it",
        &[TimeWait],
        |s| !s.is_acceptable(),
        Ack,
        STAYS,
    ),
    (
        "What is left is empty and in its place. Nothing, or two ends would acknowledge for ever",
        &[TimeWait],
        |_| true,
        Nothing,
        STAYS,
    ),
];

const TABLES: [&[Row]; 7] = [CLOSED, LISTEN, SYN_SENT, SYN_RECEIVED, SYNCHRONISED, TAKEN, TIME_WAIT];

/// A state, how it is reached, its name, SND.UNA and SND.NXT relative to ISS.
type Reached = (Begin, Start, State, u32, u32);

const STATES: [Reached; 13] = [
    (Closed, closed, State::Closed, 100_000, 100_001),
    (Listen, listen, State::Closed, 100_000, 100_001),
    (SynSent, syn_sent, State::SynSent, 0, 1),
    (HalfOpen, half_open, State::SynReceived, 0, 1),
    (Crossed, syns_crossed, State::SynReceived, 0, 1),
    (Established, established, State::Established, 1, 1),
    (FinWait1, fin_wait_1, State::FinWait1, 1, 2),
    (FinWait2, fin_wait_2, State::FinWait2, 2, 2),
    (CloseWait, close_wait, State::CloseWait, 1, 1),
    (Closing, closing, State::Closing, 1, 2),
    (LastAck, last_ack, State::LastAck, 1, 2),
    (TimeWait, time_wait, State::TimeWait, 2, 2),
    (Unread, unread_time_wait, State::TimeWait, 2, 2),
];

fn closed() -> Peer {
    let mut peer = Peer::new();
    peer.header.dst_port = 81;
    peer
}

/// What the peer offers as its window in all its segments.
const MAX_SND_WND: u32 = 10_000;

const FLAGS: [Flags; 8] = [SYN, SYN_ACK, Flags::FIN, FIN_ACK, RST, RST_ACK, ACK, Flags(0)];
const PLACES: [At; 5] = [At::BeforeLeft, At::Left, At::Inside, At::LastInside, At::BeyondRight];
const ACKS: [AckNo; 5] = [AckNo::Ancient, AckNo::Old, AckNo::Una, AckNo::Nxt, AckNo::Unsent];

/// Every segment of the product, for one state.
fn arrivals(begin: Begin, una: u32, nxt: u32) -> impl Iterator<Item = Arrival> {
    let acks = |flags: Flags| if flags.ack() { &ACKS[..] } else { &[AckNo::Absent][..] };
    let all = FLAGS.into_iter().flat_map(move |flags| {
        let places = move |ack| PLACES.into_iter().map(move |at| (flags, ack, at));
        acks(flags).iter().flat_map(move |&ack| places(ack))
    });
    let all = all.flat_map(move |(flags, ack, at)| [false, true].map(|text| Arrival { flags, at, ack, text, begin }));
    // Where everything is acknowledged, SND.UNA is SND.NXT.
    all.filter(move |s| una != nxt || s.ack != AckNo::Una)
}

/// The first row that speaks of it.
fn row(s: &Arrival) -> (usize, usize) {
    let says = |row: &Row| row.1.contains(&s.begin) && (row.2)(s);
    let found = TABLES.iter().enumerate().find_map(|(t, table)| table.iter().position(says).map(|row| (t, row)));
    found.unwrap_or_else(|| panic!("no row speaks of {s:?}"))
}

#[test]
fn every_state_answers_every_segment_as_the_rfc_says() {
    let mut used = TABLES.map(|table| vec![0; table.len()]);
    for (begin, start, name, una, nxt) in STATES {
        for s in arrivals(begin, una, nxt) {
            let at = row(&s);
            used[at.0][at.1] += 1;
            let (clause, _, _, reply, next) = TABLES[at.0][at.1];
            let mut peer = start();
            // RCV.NXT and RCV.WND as the wire was told them; before that, anywhere.
            let (left, window) = match begin {
                Closed | Listen | SynSent => (NXT, 65_535),
                _ => (peer.acked.0, peer.window),
            };
            let seq = match s.at {
                At::BeforeLeft => left - 1,
                At::Left => left,
                At::Inside => left + 1_000,
                At::LastInside => left + window - 1,
                At::BeyondRight => left + window,
            };
            let ack = match s.ack {
                AckNo::Ancient => una.wrapping_sub(MAX_SND_WND + 1),
                AckNo::Old => una.wrapping_sub(MAX_SND_WND),
                AckNo::Una => una,
                AckNo::Nxt => nxt,
                AckNo::Unsent => nxt + 1,
                AckNo::Absent => 0,
            };
            let taken = s.new_text().len() as u32 + u32::from(s.fin_in_order());
            let expected = match (reply, begin) {
                (Nothing, _) => vec![],
                (Ack, _) => vec![answer(ACK, nxt, left)],
                (AckOfTaken, SynSent) => vec![answer(ACK, nxt, seq + s.len())],
                (AckOfTaken, _) => vec![answer(ACK, nxt, left + taken)],
                (SynAck, _) => vec![answer(SYN_ACK, 0, seq + 1)],
                (Reset, _) => vec![answer(RST, ack, 0)],
                (ResetAck, _) => vec![answer(RST_ACK, 0, seq + s.len())],
            };
            let text = if s.text { TEXT } else { b"" };
            let answers = peer.send(segment(s.flags, seq).ack(ack).data(text));
            assert_eq!(answers, expected, "{clause}: {s:?}");
            assert_eq!(peer.state(), next.unwrap_or(name), "{clause}: {s:?}");
            let read = match (reply, begin) {
                (AckOfTaken, SynSent) => text,
                (AckOfTaken, _) => s.new_text(),
                _ => b"",
            };
            assert_eq!(peer.host.app.read, read, "{clause}: {s:?}");
        }
    }
    let unused = |(table, counts): (usize, &Vec<u32>)| {
        let rows = counts.iter().enumerate().filter(|(_, count)| **count == 0);
        rows.map(|(row, _)| TABLES[table][row].0).collect::<Vec<_>>()
    };
    let unused: Vec<_> = used.iter().enumerate().flat_map(unused).collect();
    assert!(unused.is_empty(), "no segment comes to {unused:?}");
    // 240 a state, and 200 where SND.UNA is SND.NXT.
    assert_eq!(used.iter().flatten().sum::<u32>(), 8 * 240 + 5 * 200);
}
