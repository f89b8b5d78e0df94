//! The table, in the order of its rows.

mod allocate;
mod auth;
mod channel;
mod data;
mod framing;
mod nat;
mod permission;
mod refresh;
mod relayed;
mod stream;

use super::probe::Probe;

/// Every check.
#[must_use]
pub fn all() -> Vec<Probe> {
    [
        framing::PROBES,
        auth::PROBES,
        allocate::PROBES,
        refresh::PROBES,
        permission::PROBES,
        channel::PROBES,
        data::PROBES,
        stream::PROBES,
        nat::PROBES,
    ]
    .concat()
}
