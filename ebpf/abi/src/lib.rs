//! Map types and the Service lookup, shared by the eBPF programs and user space.

#![no_std]
