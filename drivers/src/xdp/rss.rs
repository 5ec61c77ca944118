//! Receive-side scaling of an interface, as `ethtool -x` shows it.

use std::mem;
use std::ops::Range;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::driver::Rss;

/// Key and indirection table of `interface`, the queues counted from the first of `queues`. `None` where the kernel does not
/// say, where the hash is not plain Toeplitz, or where packets also go to other queues.
pub(super) fn read(interface: &str, queues: Range<u32>) -> Option<Rss> {
    let lengths = ask(interface, 0, 0)?;
    let (table_len, key_len) = (lengths[TABLE_LEN] as usize, lengths[KEY_LEN] as usize);
    if table_len > TABLE_MAX || key_len > KEY_MAX {
        return None;
    }
    parse(&ask(interface, table_len, key_len)?, queues)
}

/// `ETHTOOL_GRSSH` with room for `table_len` entries and `key_len` bytes; with none, it answers the lengths alone.
fn ask(interface: &str, table_len: usize, key_len: usize) -> Option<Vec<u32>> {
    let mut request = vec![0u32; HEADER_WORDS + table_len + key_len.div_ceil(4)];
    (request[COMMAND], request[TABLE_LEN], request[KEY_LEN]) = (ETHTOOL_GRSSH, table_len as u32, key_len as u32);
    // SAFETY: all of `ifreq` is integers and pointers, for which zero is a value.
    let mut ifreq: libc::ifreq = unsafe { mem::zeroed() };
    if interface.len() >= ifreq.ifr_name.len() {
        return None;
    }
    for (to, from) in ifreq.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    ifreq.ifr_ifru.ifru_data = request.as_mut_ptr().cast();
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    // SAFETY: the kernel reads and writes `ifreq` and `request`, both ours alone; of `request` no more than the header and the
    // lengths in it, for which it has room.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut ifreq) };
    (answer >= 0).then_some(request)
}

fn parse(reply: &[u32], queues: Range<u32>) -> Option<Rss> {
    let (header, config) = reply.split_at_checked(HEADER_WORDS)?;
    let [function, transformation, ..] = header[FUNCTION].to_ne_bytes();
    let (table, key) = config.split_at_checked(header[TABLE_LEN] as usize)?;
    let queue = |entry: &u32| queues.contains(entry).then(|| (entry - queues.start) as u16);
    let table: Vec<u16> = table.iter().map(queue).collect::<Option<_>>()?;
    let mut key: Vec<u8> = key.iter().flat_map(|word| word.to_ne_bytes()).collect();
    key.truncate(header[KEY_LEN] as usize);
    let usable = function == TOEPLITZ && transformation == 0 && !table.is_empty() && matches!(key.len(), 40 | 52);
    usable.then_some(Rss { key, table })
}

// struct ethtool_rxfh: words, the fifth of which is bytes; then the table, then the key.
const COMMAND: usize = 0;
const TABLE_LEN: usize = 2;
const KEY_LEN: usize = 3;
const FUNCTION: usize = 4;
const HEADER_WORDS: usize = 6;

const ETHTOOL_GRSSH: u32 = 0x46;
/// `ETH_RSS_HASH_TOP`
const TOEPLITZ: u8 = 1;
const TABLE_MAX: usize = 1 << 16;
const KEY_MAX: usize = 1 << 10;

#[cfg(test)]
mod tests;
