//! `castling-signaling`.
fn main() {}
