//! Reads packets on the link with code that shares nothing with the stack: a mistake in the stack's own reader or checksum
//! must not hide from it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

/// FIN.
pub const FIN: u8 = 1;
/// SYN.
pub const SYN: u8 = 2;
/// RST.
pub const RST: u8 = 4;
/// PSH.
pub const PSH: u8 = 8;
/// ACK.
pub const ACK: u8 = 16;

/// A TCP segment as it is on the link.
#[derive(Clone, PartialEq, Eq)]
pub struct Segment {
    /// Who sent it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: u32,
    /// The flags' byte.
    pub flags: u8,
    /// The window field.
    pub window: u16,
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale.
    pub scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// TSval and TSecr.
    pub timestamps: Option<(u32, u32)>,
    /// SACK blocks.
    pub sack: Vec<(u32, u32)>,
    /// Where the payload is in the frame.
    pub payload: Range<usize>,
}

impl Segment {
    /// Whether one of these flags is set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Bytes of text.
    pub fn text_len(&self) -> u32 {
        self.payload.len() as u32
    }

    /// SEG.LEN: text, SYN and FIN.
    pub fn len(&self) -> u32 {
        self.text_len() + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }

    /// It takes no room in the sequence space.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sequence number after it.
    pub fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len())
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (ACK, "ACK")];
        let flags: Vec<_> = names.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| *name).collect();
        write!(f, "{} → {} {} seq {}", self.from, self.to, flags.join("+"), self.seq)?;
        if self.has(ACK) {
            write!(f, " ack {}", self.ack)?;
        }
        write!(f, " len {} win {}", self.payload.len(), self.window)?;
        if !self.sack.is_empty() {
            write!(f, " sack {:?}", self.sack)?;
        }
        Ok(())
    }
}

/// What a frame holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet {
    /// A TCP segment.
    Tcp(Segment),
    /// Anything else.
    Other,
}

/// Reads an Ethernet frame that a stack sent; an error says what is wrong with it.
pub fn read(frame: &[u8]) -> Result<Packet, String> {
    let ether_type = u16_at(frame, 12).ok_or("shorter than an Ethernet header")?;
    let packet = &frame[14..];
    let (from, to, protocol, text): (IpAddr, IpAddr, u8, Range<usize>) = match ether_type {
        0x0800 => {
            let total = usize::from(u16_at(packet, 2).ok_or("IPv4: too short")?);
            let header = usize::from(packet[0] & 15) * 4;
            ensure(packet[0] >> 4 == 4 && header >= 20 && total >= header && total <= packet.len(), "IPv4: lengths")?;
            ensure(sum(0, &packet[..header]) == 0xffff, "IPv4: header checksum")?;
            let address = |at: usize| IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap()));
            (address(12), address(16), packet[9], header..total)
        }
        0x86dd => {
            let len = usize::from(u16_at(packet, 4).ok_or("IPv6: too short")?);
            ensure(packet[0] >> 4 == 6 && packet.len() >= 40 + len, "IPv6: lengths")?;
            let address = |at: usize| IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap()));
            (address(8), address(24), packet[6], 40..40 + len)
        }
        _ => return Ok(Packet::Other),
    };
    if protocol != 6 {
        return Ok(Packet::Other);
    }
    let tcp = &packet[text.clone()];
    let header = tcp.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
    ensure(header >= 20 && header <= tcp.len(), "TCP: header length")?;
    let pseudo = pseudo_header(from, to, tcp.len());
    ensure(sum(pseudo, tcp) == 0xffff, "TCP: checksum")?;
    let mut segment = Segment {
        from: SocketAddr::new(from, u16_at(tcp, 0).unwrap_or(0)),
        to: SocketAddr::new(to, u16_at(tcp, 2).unwrap_or(0)),
        seq: u32_at(tcp, 4),
        ack: u32_at(tcp, 8),
        flags: tcp[13],
        window: u16_at(tcp, 14).unwrap_or(0),
        mss: None,
        scale: None,
        sack_permitted: false,
        timestamps: None,
        sack: Vec::new(),
        payload: 14 + text.start + header..14 + text.end,
    };
    options(&mut segment, &tcp[20..header])?;
    Ok(Packet::Tcp(segment))
}

fn options(segment: &mut Segment, mut options: &[u8]) -> Result<(), String> {
    while let Some(&kind) = options.first() {
        if kind == 0 {
            break;
        }
        if kind == 1 {
            options = &options[1..];
            continue;
        }
        let len = usize::from(*options.get(1).ok_or("TCP: an option without a length")?);
        ensure(len >= 2 && len <= options.len(), "TCP: an option's length")?;
        let value = &options[2..len];
        match (kind, value.len()) {
            (2, 2) => segment.mss = u16_at(value, 0),
            (3, 1) => segment.scale = Some(value[0]),
            (4, 0) => segment.sack_permitted = true,
            (5, _) => segment.sack = value.chunks_exact(8).map(|block| (u32_at(block, 0), u32_at(block, 4))).collect(),
            (8, 8) => segment.timestamps = Some((u32_at(value, 0), u32_at(value, 4))),
            _ => return Err(format!("TCP: option {kind} of {} bytes", value.len())),
        }
        options = &options[len..];
    }
    Ok(())
}

/// A TCP segment in an Ethernet frame, with right checksums: what somebody else might send. `segment.payload` does not count.
pub fn write(macs: ([u8; 6], [u8; 6]), segment: &Segment, text: &[u8]) -> Vec<u8> {
    let mut options = Vec::new();
    if let Some(mss) = segment.mss {
        options.extend_from_slice(&[2, 4]);
        options.extend_from_slice(&mss.to_be_bytes());
    }
    if let Some(scale) = segment.scale {
        options.extend_from_slice(&[1, 3, 3, scale]);
    }
    if segment.sack_permitted {
        options.extend_from_slice(&[1, 1, 4, 2]);
    }
    if let Some((value, echo)) = segment.timestamps {
        options.extend_from_slice(&[1, 1, 8, 10]);
        options.extend_from_slice(&value.to_be_bytes());
        options.extend_from_slice(&echo.to_be_bytes());
    }
    let mut tcp = Vec::new();
    tcp.extend_from_slice(&segment.from.port().to_be_bytes());
    tcp.extend_from_slice(&segment.to.port().to_be_bytes());
    tcp.extend_from_slice(&segment.seq.to_be_bytes());
    tcp.extend_from_slice(&segment.ack.to_be_bytes());
    tcp.push((((20 + options.len()) / 4) << 4) as u8);
    tcp.push(segment.flags);
    tcp.extend_from_slice(&segment.window.to_be_bytes());
    tcp.extend_from_slice(&[0; 4]);
    tcp.extend_from_slice(&options);
    tcp.extend_from_slice(text);
    let (from, to) = (segment.from.ip(), segment.to.ip());
    let checksum = !sum(pseudo_header(from, to, tcp.len()), &tcp);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = [macs.1, macs.0].concat();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0];
            ip[2..4].copy_from_slice(&((20 + tcp.len()) as u16).to_be_bytes());
            ip.extend_from_slice(&from.octets());
            ip.extend_from_slice(&to.octets());
            let checksum = !sum(0, &ip);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend_from_slice(&[0x08, 0x00]);
            frame.extend_from_slice(&ip);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend_from_slice(&(tcp.len() as u16).to_be_bytes());
            frame.extend_from_slice(&[6, 64]);
            frame.extend_from_slice(&from.octets());
            frame.extend_from_slice(&to.octets());
        }
        _ => panic!("one family at a time"),
    }
    frame.extend_from_slice(&tcp);
    frame
}

/// What a router says to the sender of a packet that is larger than its next link carries (RFC 792, RFC 4443 §3.2).
pub fn too_big(router: [u8; 6], frame: &[u8], mtu: u16) -> Vec<u8> {
    let mut answer = [&frame[6..12], &router, &frame[12..14]].concat();
    let packet = &frame[14..];
    match u16_at(frame, 12) {
        Some(0x0800) => {
            let mut icmp = vec![3, 4, 0, 0, 0, 0, (mtu >> 8) as u8, mtu as u8];
            icmp.extend_from_slice(&packet[..packet.len().min(28)]);
            let checksum = !sum(0, &icmp);
            icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
            let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 254];
            ip[2..4].copy_from_slice(&((20 + icmp.len()) as u16).to_be_bytes());
            ip.extend_from_slice(&packet[12..16]);
            let checksum = !sum(0, &ip);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            answer.extend_from_slice(&ip);
            answer.extend_from_slice(&icmp);
        }
        _ => {
            let mut icmp = vec![2, 0, 0, 0, 0, 0, (mtu >> 8) as u8, mtu as u8];
            icmp.extend_from_slice(&packet[..packet.len().min(100)]);
            let mut addresses = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 254).octets().to_vec();
            addresses.extend_from_slice(&packet[8..24]);
            let pseudo = sum(58 + icmp.len() as u32, &addresses);
            let checksum = !sum(pseudo.into(), &icmp);
            icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
            answer.extend_from_slice(&[0x60, 0, 0, 0]);
            answer.extend_from_slice(&(icmp.len() as u16).to_be_bytes());
            answer.extend_from_slice(&[58, 64]);
            answer.extend_from_slice(&addresses);
            answer.extend_from_slice(&icmp);
        }
    }
    answer
}

/// Of these bits a checksum tells when some are flipped; `None` if of none. Of the others a real link's frame check sequence does.
pub fn checksummed(frame: &[u8]) -> Option<Range<usize>> {
    match u16_at(frame, 12)? {
        0x0800 => Some(14 * 8..(14 + usize::from(u16_at(frame, 16)?)) * 8),
        // The addresses and what follows: they are in the pseudo-header. What is not TCP may be judged by its address before.
        0x86dd if frame.get(20) == Some(&6) => Some(22 * 8..(54 + usize::from(u16_at(frame, 18)?)) * 8),
        _ => None,
    }
}

fn pseudo_header(from: IpAddr, to: IpAddr, len: usize) -> u32 {
    let addresses = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
        _ => Vec::new(),
    };
    u32::from(sum(6 + len as u32, &addresses))
}

/// The ones' complement sum of RFC 1071, as its text says it.
fn sum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = u64::from(start);
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        sum += u64::from(u16::from_be_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        sum += u64::from(*last) << 8;
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn ensure(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}
