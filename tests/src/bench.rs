//! How fast and how small the relay is, beside another one on the same machine.
//!
//! Absolute figures belong to the machine; what lasts are ratios from alternating runs. Relay and
//! load each have a core and a network namespace:
//!
//! ```text
//!  core 0                                core 1
//!  relay 198.51.100.1 ── veth pair ── 198.51.100.2 clients and peers
//!  its NAPI thread                       their NAPI thread
//! ```
//!
//! [`field`] makes that, [`subject`] says which relays there are, [`server`] starts one, [`flows`]
//! opens allocations, over [`stream`]s too, [`load`] sends at one rate and counts what is lost,
//! [`search`] finds the highest rate that holds, [`throughput`], [`footprint`] and [`overload`]
//! measure one subject, [`figures`] sums rounds up for a reader.

pub mod cpu;
pub mod field;
pub mod figures;
pub mod flows;
pub mod footprint;
mod kernel;
pub mod load;
pub mod machine;
pub mod overload;
pub mod packet;
pub mod plan;
pub mod ready;
pub mod search;
pub mod server;
pub mod stream;
pub mod subject;
pub mod throughput;
