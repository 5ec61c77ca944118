//! A kernel-bypass TCP/IP stack.
