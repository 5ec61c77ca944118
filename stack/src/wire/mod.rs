//! Bytes ↔ header values. No state, no allocation, and no input makes it panic.
//!
//! | file | its one job |
//! | --- | --- |
//! | `address` | `Address` (IPv4 and IPv6 in one type) and `Mac` |
//! | `checksum` | RFC 1071 sums, pseudo headers, RFC 1624 updates |
//! | `tcp` | TCP headers and options, `Seq`, `Flags` |

pub mod address;
pub mod checksum;
pub mod tcp;
