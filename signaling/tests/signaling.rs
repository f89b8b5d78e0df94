//! Behaviour of the crate from outside.

#[path = "signaling/wire.rs"]
mod wire;
