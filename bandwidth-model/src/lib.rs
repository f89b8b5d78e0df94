//! How many links of a video class a relay carries, and what that costs.
//!
//! Ask with a [`Class`], read the answer from its [`Plan`]:
//!
//! ```
//! use bandwidth_model::{Class, Plan};
//!
//! let class = Class::from_pairs([("people", "5"), ("relayed", "1"), ("video", "1Mbit")])?;
//! let plan = Plan::of(&class);
//! assert_eq!(plan.links.relayed.count(), 4);
//! # Ok::<(), bandwidth_model::QuestionError>(())
//! ```
//!
//! # Derivation
//!
//! **Links.** In a mesh of P people every pair is one link: S = P(P−1)/2. Let T people be
//! *blocked*: their network lets no direct connection through. A link is direct exactly if
//! neither end is blocked, so D = C(P−T, 2) links are direct, and the relay carries the rest:
//!
//! K = C(P,2) − C(P−T,2) = (P² − P − (P−T)² + (P−T))/2 = T(2P−T−1)/2
//!
//! Each blocked person meets P−T others who are not (K1 = T(P−T) one-sided links) and the blocked
//! meet each other (K2 = C(T,2) two-sided links). K1 + K2 = K.
//!
//! **Rate.** A link is a stream there and a stream back. Every datagram of both enters the relay
//! once and leaves it once. With b the *wire* rate of a stream, that is, of its IP packets,
//!
//! ingress = egress = 2·K·b, in and out together 4·K·b.
//!
//! **Unequal senders.** A blocked person's stream is relayed towards all P−1 others, anybody
//! else's towards the T blocked ones: (P−1)·Σ b over the blocked + T·Σ b over the others. With
//! equal b: (P−1)Tb + T(P−T)b = T(2P−T−1)b = 2·K·b again.
//!
//! **Two-sided links** pass two allocations of the relay. Castling hands their datagrams over
//! inside the process, so its interface carries them like any other link. Client legs double
//! instead: [`meter`] counts (K1 + 2·K2)·b towards clients.
//!
//! **Overhead.** The rate an encoder is set to is not what a network carries. [`wire`] adds
//! headers and reports, by a measured rule or packet by packet.
//!
//! **Chance.** Before class only a share may be known: q of people blocked, or r of links
//! relayed, with r = 1−(1−q)². [`chance`] gives mean, variance and quantiles of K.
//!
//! # Arithmetic
//!
//! Counts, rates, volumes and money are integers or exact fractions, and checked: no input makes
//! them wrap or round unseen. Only [`chance`], [`nat`], [`posterior`] and the forecast in
//! [`schedule`] use floating point, because probabilities need it. Nothing here reads a clock,
//! a file or the network.

#![forbid(unsafe_code)]

pub mod article;
pub mod chance;
pub mod class;
pub mod error;
pub mod links;
pub mod measured;
pub mod meter;
pub mod nat;
pub mod plan;
pub mod posterior;
pub mod price;
mod question;
pub mod rates;
pub mod ratio;
pub mod schedule;
pub mod sfu;
pub mod table;
pub mod units;
pub mod vectors;
pub mod wire;

pub use class::{Class, QuestionError};
pub use error::ModelError;
pub use links::{PEOPLE_MAX, Room};
pub use plan::Plan;
pub use rates::{Sender, relay_rate, relay_rate_unequal};
pub use ratio::Ratio;
pub use units::{BitsPerSec, Bytes, LinkCount, Seconds};
