//! The table, in the order of its rows.

mod algorithm;
mod allocate;
mod auth;
mod channel;
mod data;
mod framing;
mod lifetime;
mod nat;
mod network;
mod permission;
mod policy;
mod refresh;
mod relayed;
mod stream;
mod whole;

use super::probe::Probe;

/// What each part of the table is about.
pub const PARTS: [(&str, &str); 11] = [
    ("FRM", "Framing and Binding"),
    ("AUT", "Authentication"),
    ("ALC", "Allocate"),
    ("REF", "Refresh"),
    ("PRM", "Permissions and peer policy"),
    ("CHN", "Channels"),
    ("DAT", "Data"),
    ("STR", "Streams and TLS"),
    ("NAT", "NAT discovery"),
    ("ICE", "ICE"),
    ("ERR", "Error codes"),
];

/// Every check.
#[must_use]
pub fn all() -> Vec<Probe> {
    let mut all = [
        framing::PROBES,
        auth::PROBES,
        algorithm::PROBES,
        allocate::PROBES,
        refresh::PROBES,
        permission::PROBES,
        policy::PROBES,
        channel::PROBES,
        data::PROBES,
        network::PROBES,
        stream::PROBES,
        nat::PROBES,
        lifetime::PROBES,
        whole::PROBES,
    ]
    .concat();
    let part = |probe: &Probe| PARTS.iter().position(|(prefix, _)| probe.id.starts_with(prefix));
    all.sort_by_key(|probe| (part(probe), probe.id));
    all
}
