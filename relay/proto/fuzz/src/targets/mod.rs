//! What must hold for any input at all. Fuzzing tries inputs; `cargo test` tries those that were
//! worth keeping.

mod channel_data;
mod codec;
mod framing;
mod input;
mod member;
mod rights;
mod stranger;

/// A target by name: it panics if the input shows a fault.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const ALL: [Target; 5] = [
    ("codec", codec::check),
    ("channel_data", channel_data::check),
    ("framing", framing::check),
    ("stranger", stranger::check),
    ("member", member::check),
];
