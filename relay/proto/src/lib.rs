//! TURN and STUN as a value.
#![forbid(unsafe_code)]

pub mod credential;
