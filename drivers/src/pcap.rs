//! Middleware that records what passes a driver as pcapng, for tshark, Wireshark and tcpdump.
//!
//! Each packet carries its direction and a timestamp in nanoseconds, one clock reading a burst. A write that fails stops the
//! recording and nothing else; [`error`](Pcap::error) says why.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError};

use crate::burst::{RxBurst, TxBurst};
use crate::clock::Clock;
use crate::driver::{Caps, Driver};
use crate::frame::FramePool;

/// How to record.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the interface as the reader of the file sees it.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Keeps only so many bytes of each packet; 0 keeps all.
    pub snap_len: u32,
    /// Where timestamps come from.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Options {
        Options { name: "handfast".into(), description: String::new(), snap_len: 0, clock: Clock::system() }
    }
}

/// A driver whose packets are recorded.
pub struct Pcap<D: Driver, W: Write = File> {
    inner: D,
    /// Recorded, and not yet taken by the device.
    sending: TxBurst,
    recorder: Recorder<W>,
}

impl<D: Driver> Pcap<D> {
    /// Records into a file, which is created or emptied.
    pub fn create(inner: D, path: impl AsRef<Path>, options: Options) -> io::Result<Pcap<D>> {
        Pcap::new(inner, File::create(path)?, options)
    }
}

impl<D: Driver, W: Write> Pcap<D, W> {
    /// Records into `writer`, through a buffer. Fails if the file's header cannot be written.
    pub fn new(inner: D, writer: W, options: Options) -> io::Result<Pcap<D, W>> {
        let recorder = Recorder::new(writer, inner.caps(), options).map_err(io_error)?;
        Ok(Pcap { inner, sending: TxBurst::new(), recorder })
    }

    /// Why recording stopped, if it did.
    pub fn error(&self) -> Option<&io::Error> {
        self.recorder.error.as_ref()
    }

    /// How many packets were recorded.
    pub fn recorded(&self) -> u64 {
        self.recorder.recorded
    }

    /// Writes out what is in the buffer. Dropping does so too, without saying whether it worked.
    pub fn sync(&mut self) {
        if self.recorder.error.is_none()
            && let Err(error) = self.recorder.writer.get_mut().flush()
        {
            self.recorder.error = Some(error);
        }
    }

    /// The device.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The device.
    pub fn inner_mut(&mut self) -> &mut D {
        &mut self.inner
    }
}

impl<D: Driver, W: Write> Driver for Pcap<D, W> {
    fn caps(&self) -> &Caps {
        self.inner.caps()
    }

    fn pool(&self) -> &FramePool {
        self.inner.pool()
    }

    fn rx_burst(&mut self, rx: &mut RxBurst) {
        let before = rx.len();
        self.inner.rx_burst(rx);
        self.recorder.record(rx[before..].iter().map(|frame| &frame[..]), INBOUND);
    }

    fn tx_burst(&mut self, tx: &mut TxBurst) {
        // What the device does not take at once waits here, so that it is recorded once.
        let count = tx.len().min(self.sending.room());
        self.recorder.record(tx.packets().take(count), OUTBOUND);
        tx.drain_front(count).for_each(|delayed| self.sending.push_delayed(delayed));
        self.inner.tx_burst(&mut self.sending);
    }

    fn flush(&mut self) {
        if !self.sending.is_empty() {
            self.inner.tx_burst(&mut self.sending);
        }
        self.inner.flush();
    }

    fn inner(&self) -> Option<&dyn Driver> {
        Some(&self.inner)
    }

    fn inner_mut(&mut self) -> Option<&mut dyn Driver> {
        Some(&mut self.inner)
    }
}

impl<D: Driver, W: Write> Drop for Pcap<D, W> {
    fn drop(&mut self) {
        self.sending.cancel();
        self.sync();
    }
}

struct Recorder<W: Write> {
    writer: PcapNgWriter<BufWriter<W>>,
    snap_len: usize,
    clock: Clock,
    recorded: u64,
    error: Option<io::Error>,
}

impl<W: Write> Recorder<W> {
    fn new(writer: W, caps: &Caps, options: Options) -> Result<Recorder<W>, PcapError> {
        let Options { name, description, snap_len, clock } = options;
        let application = concat!("handfast ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(application.into())],
            ..Default::default()
        };
        let mut writer = PcapNgWriter::with_section_header(BufWriter::with_capacity(BUFFER_LEN, writer), section)?;
        let mut options = vec![
            InterfaceDescriptionOption::IfName(name.into()),
            InterfaceDescriptionOption::IfMacAddr(Cow::Borrowed(&caps.mac)),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ];
        if !description.is_empty() {
            options.push(InterfaceDescriptionOption::IfDescription(description.into()));
        }
        let interface = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: snap_len, options };
        writer.write_block(&interface.into_owned().into_block())?;
        let snap_len = if snap_len == 0 { usize::MAX } else { snap_len as usize };
        Ok(Recorder { writer, snap_len, clock, recorded: 0, error: None })
    }

    fn record<'a>(&mut self, packets: impl ExactSizeIterator<Item = &'a [u8]>, direction: u32) {
        if packets.len() == 0 || self.error.is_some() {
            return;
        }
        let timestamp = Duration::from_nanos(self.clock.now_ns());
        for packet in packets {
            let block = EnhancedPacketBlock {
                interface_id: 0,
                timestamp,
                original_len: packet.len() as u32,
                data: Cow::Borrowed(&packet[..packet.len().min(self.snap_len)]),
                options: vec![EnhancedPacketOption::Flags(direction)],
            };
            match self.writer.write_pcapng_block(block) {
                Ok(_) => self.recorded += 1,
                Err(error) => return self.error = Some(io_error(error)),
            }
        }
    }
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

/// epb_flags: bits 0 and 1 are the direction.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// if_tsresol: ten to the minus nine.
const NANOSECONDS: u8 = 9;
const BUFFER_LEN: usize = 256 << 10;

#[cfg(test)]
mod tests;
