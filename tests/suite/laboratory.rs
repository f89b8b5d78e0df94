//! The laboratory itself: what its networks let through, and that it leaves nothing behind.

use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use e2e::counters;
use e2e::lab::{Lab, Network, SERVER};
use e2e::namespace::Namespace;

use crate::laboratory_turn;

/// Time given to a packet that must not arrive.
const SILENCE: Duration = Duration::from_millis(200);

#[test]
fn firewalls_let_udp_through_only_where_they_say() {
    let Some(_turn) = laboratory_turn("firewalls") else { return };
    let networks = [
        Network::Public,
        Network::Cone,
        Network::Symmetric,
        Network::Firewall,
        Network::TurnPortOnly,
        Network::NoUdp,
    ];
    let lab = Lab::build(&networks).expect("laboratory");
    let turn = (lab.server(), SocketAddr::from((SERVER, 3478)));
    let relayed = (lab.server(), SocketAddr::from((SERVER, 50_000)));
    let stranger = (lab.client(0), SocketAddr::from((Lab::public_address(0), 50_000)));
    let passes = |from: usize, target: (&Namespace, SocketAddr)| echo(lab.client(from), target);
    for index in [1, 2] {
        assert!(passes(index, turn) && passes(index, relayed) && passes(index, stranger));
    }
    assert!(passes(3, turn) && passes(3, relayed) && !passes(3, stranger), "firewall");
    assert!(passes(4, turn) && !passes(4, relayed) && !passes(4, stranger), "TURN port only");
    assert!(!passes(5, turn) && !passes(5, relayed) && !passes(5, stranger), "no UDP");
}

#[test]
fn two_ports_of_a_symmetric_nat_differ_and_those_of_a_cone_agree() {
    let Some(_turn) = laboratory_turn("mappings") else { return };
    let lab = Lab::build(&[Network::Cone, Network::Symmetric]).expect("laboratory");
    let listeners = [3478, 3479]
        .map(|port| lab.server().udp(SocketAddr::from((SERVER, port))).expect("server socket"));
    let ports_seen = |client: usize| {
        let socket = lab.client(client).udp(any()).expect("client socket");
        [0, 1].map(|nth| {
            let listener = &listeners[nth];
            socket.send_to(b"x", listener.local_addr().expect("bound")).expect("sent");
            listener.recv_from(&mut [0; 8]).expect("arrives").1.port()
        })
    };
    let [first, second] = ports_seen(0);
    assert_eq!(first, second, "cone");
    let [first, second] = ports_seen(1);
    assert_ne!(first, second, "symmetric");
}

#[test]
fn the_server_interface_sees_its_own_packets_alone() {
    let Some(_turn) = laboratory_turn("quiet wire") else { return };
    let lab = Lab::build(&[Network::Public, Network::Public]).expect("laboratory");
    let before = counters::interface(lab.server()).expect("counters");
    let at = SocketAddr::from((Lab::public_address(1), 50_000));
    assert!(echo(lab.client(0), (lab.client(1), at)), "neighbours reach each other");
    let after = counters::interface(lab.server()).expect("counters");
    assert_eq!((after - before).rx.packets, 0, "packets between others");
    assert!(echo(lab.client(0), (lab.server(), SocketAddr::from((SERVER, 3478)))));
    let seen = counters::interface(lab.server()).expect("counters") - after;
    // "?" there and "!" back: 1 byte of payload, 28 of UDP and IPv4 each.
    assert_eq!((seen.rx.packets, seen.rx.bytes, seen.tx.packets, seen.tx.bytes), (1, 29, 1, 29));
}

#[test]
fn a_panic_leaves_no_namespace_behind() {
    let Some(_turn) = laboratory_turn("removal") else { return };
    let names = || std::fs::read_dir("/run/netns").expect("namespaces").count();
    let mut inside = 0;
    let before = names();
    let broken = catch_unwind(AssertUnwindSafe(|| {
        let _lab = Lab::build(&[Network::Cone]).expect("laboratory");
        inside = names();
        panic!("as a failing test would");
    }));
    assert!(broken.is_err());
    assert_eq!((inside, names()), (before + 4, before), "wan, server, router and client");
}

/// Whether a datagram from `from` reaches `target`, and its answer comes back.
fn echo(from: &Namespace, (namespace, at): (&Namespace, SocketAddr)) -> bool {
    let client = from.udp(any()).expect("client socket");
    let target = namespace.udp(at).expect("target socket");
    for socket in [&client, &target] {
        socket.set_read_timeout(Some(SILENCE)).expect("a time that is not zero");
    }
    // A router that refuses may say so: that is a datagram lost, too.
    let _ = client.send_to(b"?", at);
    let Ok((_, source)) = target.recv_from(&mut [0; 8]) else { return false };
    target.send_to(b"!", source).expect("answered");
    client.recv_from(&mut [0; 8]).is_ok()
}

fn any() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 0).into()
}
