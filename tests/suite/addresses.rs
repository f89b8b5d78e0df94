//! Addresses that the relay's host gets while the relay runs.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::lab::{Lab, Network};
use e2e::process::until;
use e2e::report::skip;

use crate::laboratory_turn;
use crate::relay::{Relay, Subject, allocate};

/// Long enough for a loaded machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Rule 5 of the peer policy, PRM-10, I-1.
#[test]
fn address_that_the_host_gets_is_no_peer_any_more_even_of_a_running_call() {
    let Some(_turn) = laboratory_turn("addresses of the host") else { return };
    let program = match Subject::Castling.program() {
        Ok(program) => program,
        Err(reason) => return skip("addresses of the host", &reason),
    };
    let lab = Lab::build(&[Network::Public]).expect("laboratory");
    let relay = Relay::start(&lab, Subject::Castling, &program).expect("relay");
    let denied = || {
        let metrics = relay.metrics().expect("our relay");
        metrics.count("relay_dropped_packets_total", &[("reason", "peer_denied")]).expect("counter")
    };
    let mut client =
        allocate(lab.client(0), Lab::public_address(0), "room.ana").expect("allocated");
    let peer: SocketAddr = "9.9.9.9:5000".parse().expect("address");
    client.permit(peer).expect("an address of somebody else");
    assert_eq!(denied(), 0);

    lab.server().ip("address add 9.9.9.9/32 dev lo").expect("address");
    let refused = until(PATIENCE, || client.permit(peer).err()).expect("the host's own address");
    assert!(refused.to_string().ends_with("refused: 403"), "{refused}");
    client.send_indication(peer, b"to the host").expect("sent");
    client.permit(peer).expect_err("what was sent before is decided");
    assert_eq!(denied(), 1);

    lab.server().ip("address delete 9.9.9.9/32 dev lo").expect("address");
    until(PATIENCE, || client.permit(peer).ok()).expect("somebody else's again");
}
