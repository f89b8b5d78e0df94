//! TURN and STUN as a value: feed it datagrams and the time, drain what it decides.
//!
//! [`Relay`] owns no socket, clock, thread or entropy. Media gets its [`Verdict`] at once,
//! without a queue, a heap allocation or a copy; a request answers [`Verdict::Control`], after
//! which [`Relay::next_effect`] is drained: replies to send, ports to open and to close. Equal
//! construction and equal calls give equal bytes, and any bytes are legal input.
//!
//! Specifications: RFC 8489 (STUN), RFC 8656 (TURN).
#![forbid(unsafe_code)]

pub mod address;
pub mod algorithm;
pub mod allocation;
pub mod attribute;
pub mod auth;
pub mod channel_data;
mod control;
pub mod credential;
mod dual;
mod farewell;
pub mod framing;
pub mod icmp;
pub mod limit;
mod media;
pub mod nonce;
pub mod operator;
pub mod policy;
pub mod relay;
pub mod replace;
pub mod request;
pub mod revocation;
pub mod shape;
mod standing;
pub mod stun;
mod table;
pub mod traffic;

pub use address::{AllocationId, ClientAddr, Family, PeerAddr, RelayAddr, Transport};
pub use icmp::IcmpError;
pub use operator::{Alternates, Kicked};
pub use relay::{Effect, Head, Keys, More, PortFailure, Relay, Settings, Snapshot, Verdict};
pub use revocation::Who;
pub use traffic::{DropReason, Traffic};

/// One moment, read from both clocks together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Now {
    /// Milliseconds of a monotonic clock that started with the server; drives every lifetime.
    pub mono_ms: u64,
    /// Unix time in seconds; judges the expiry of credentials and nothing else.
    pub unix_s: u64,
}

impl Now {
    /// Seconds of the monotonic clock.
    pub(crate) fn second(self) -> u32 {
        u32::try_from(self.mono_ms / 1000).unwrap_or(u32::MAX)
    }

    /// The moment so many seconds later, in milliseconds of the monotonic clock.
    pub(crate) fn after_s(self, seconds: u32) -> u64 {
        self.mono_ms + u64::from(seconds) * 1000
    }
}
