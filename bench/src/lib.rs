//! Benchmarks of handfast.
