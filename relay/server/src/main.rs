//! `castling-relay`.
fn main() {}
