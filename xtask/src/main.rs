//! Tasks of the project: `cargo xtask demo | test | ebpf | …`.

fn main() {}
