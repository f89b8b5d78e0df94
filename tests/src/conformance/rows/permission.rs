//! PRM-01 to PRM-05: permissions.

use std::net::{Ipv4Addr, SocketAddr};

use super::relayed::{dropped, outward};
use crate::Outcome;
use crate::conformance::attr;
use crate::conformance::client::{Client, indication};
use crate::conformance::message::{CREATE_PERMISSION, Draft};
use crate::conformance::probe::Probe;
use crate::conformance::server::Setup::Open;
use crate::conformance::site::{PEER, PEER_V6};
use crate::conformance::trial::{Peer, Trial};
use crate::conformance::verdict::{Answer, Verdict};

/// Permissions of one allocation that a server must not exceed, and those installed before.
const CAP: u8 = 64;
const BEFORE: u8 = 60;

pub const PROBES: &[Probe] = &[
    Probe::wire("PRM-01", "8656 §10.2", "IPv6 peer on an IPv4 allocation", "443", Open, |trial| {
        let peer = SocketAddr::new(PEER_V6.into(), 9_000);
        Ok(permit(&trial.allocated()?, peer)?.error(&[443]))
    }),
    Probe::wire("PRM-02", "8656 §5", "CreatePermission without allocation", "437", Open, |trial| {
        let mut client = trial.client()?;
        client.login()?;
        Ok(permit(&client, (PEER, 9_000).into())?.error(&[437]))
    }),
    Probe::wire(
        "PRM-03",
        "8656 §10.2",
        "XOR-PEER-ADDRESS of family 9",
        "400 or 443",
        Open,
        |trial| {
            let value = [0, 9, 0x21, 0x12, 1, 2, 3, 4];
            let draft = Draft::request(CREATE_PERMISSION).with(attr::XOR_PEER_ADDRESS, &value);
            Ok(trial.allocated()?.request(draft)?.error(&[400, 443]))
        },
    ),
    Probe::wire(
        "PRM-04",
        "8656 §10.2; hardening",
        "8 peers of which the 5th would pass the cap of 64",
        "508, none installed",
        Open,
        over_the_cap,
    ),
    Probe::wire(
        "PRM-05",
        "8656 §10.2",
        "two peers, one forbidden",
        "403, none installed",
        Open,
        |trial| {
            let (client, peer) = (trial.allocated()?, trial.peer()?);
            let draft = Draft::request(CREATE_PERMISSION);
            let both = draft.peer(peer.address).peer((Ipv4Addr::LOCALHOST, 9_000).into());
            let refused = client.request(both)?.error(&[403]);
            let witness = other_peer()?;
            client.permit(witness.address)?;
            let stimulus = indication(peer.address, b"x");
            let got = outward(&client, stimulus.bytes(), &peer, &witness)?;
            Ok(refused.and(dropped(&got)))
        },
    ),
];

/// Asks for a permission, whatever comes of it.
pub fn permit(client: &Client, peer: SocketAddr) -> Outcome<Answer> {
    client.request(Draft::request(CREATE_PERMISSION).peer(peer))
}

/// A peer at an address of its own.
pub fn other_peer() -> Outcome<Peer> {
    Peer::at((Ipv4Addr::new(198, 51, 100, 2), 0).into())
}

fn over_the_cap(trial: &Trial<'_>) -> Outcome<Verdict> {
    let client = trial.allocated()?;
    let peer = |nth: u8| SocketAddr::from((Ipv4Addr::new(198, 51, 100, 64 + nth), 0));
    let request = |range: std::ops::Range<u8>| {
        let draft = Draft::request(CREATE_PERMISSION);
        client.request(range.fold(draft, |draft, nth| draft.peer(peer(nth))))
    };
    for first in (0..BEFORE).step_by(10) {
        request(first..first + 10)?.succeeded("CreatePermission")?;
    }
    let refused = request(BEFORE..BEFORE + 8)?.error(&[508]);
    let (first, witness) = (Peer::at(peer(CAP - 1))?, Peer::at(peer(0))?);
    let stimulus = indication(first.address, b"x");
    let got = outward(&client, stimulus.bytes(), &first, &witness)?;
    Ok(refused.and(dropped(&got)))
}
