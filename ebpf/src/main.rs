//! The eBPF programs: what happens to a Service's packets, at the sockets that send them and at the devices.
//!
//! `hooks` has one program for each attach type; `connect`, `datagram`, `restore` and `bind` are what they do; `maps` are the maps
//! and how the shared lookup reads them; `event` tells
//! who listens; `client` is who sends; `address` reads and writes the hook's context.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod address;
mod bind;
mod client;
mod connect;
mod datagram;
mod event;
mod hooks;
mod maps;
mod packet;
mod restore;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The licence as the kernel reads it; helpers for GPL-compatible programs only are among those used.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
