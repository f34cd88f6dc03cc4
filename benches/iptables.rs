//! Measurements; replaced by their owner.

fn main() {}
