//! Bytes to header values and back. No state.
