//! What the tests of handfast share.
