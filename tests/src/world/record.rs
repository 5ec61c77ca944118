//! What a world's links carried, as pcapng: an interface for each host.

use std::borrow::Cow;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::Duration;

use handfast::time::Instant;
use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};

/// A file that is being written.
pub struct Recorder {
    writer: PcapNgWriter<BufWriter<File>>,
}

impl Recorder {
    /// Creates the file, or empties it.
    pub fn create(path: &Path) -> Recorder {
        let file = File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Recorder { writer: PcapNgWriter::new(BufWriter::new(file)).expect("a file that can be written") }
    }

    /// The next host's interface.
    pub fn interface(&mut self, name: &str) {
        let options = vec![InterfaceDescriptionOption::IfName(name.into()), InterfaceDescriptionOption::IfTsResol(9)];
        let interface = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options };
        self.writer.write_block(&interface.into_owned().into_block()).expect("a file that can be written");
    }

    /// A packet leaves a host, or comes to it.
    pub fn packet(&mut self, now: Instant, host: usize, leaves: bool, bytes: &[u8]) {
        let block = EnhancedPacketBlock {
            interface_id: host as u32,
            timestamp: Duration::from_micros(now.as_micros()),
            original_len: bytes.len() as u32,
            data: Cow::Borrowed(bytes),
            options: vec![EnhancedPacketOption::Flags(if leaves { 2 } else { 1 })],
        };
        self.writer.write_pcapng_block(block).expect("a file that can be written");
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}
