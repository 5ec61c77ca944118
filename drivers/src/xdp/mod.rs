//! AF_XDP devices.
