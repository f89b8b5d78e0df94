//! Clients and peers of both families on real sockets.
//!
//! Loopback has one IPv6 address, so that peers share it with the relay, whose ports are kept out
//! of the range from which the kernel chooses.

use std::net::{SocketAddr, UdpSocket};

use relay_proto::attribute as attr;
use relay_proto::stun::{Message, Method};
use tempfile::TempDir;

use super::equipment::{metric, peer_at, state};
use super::turn_client::{TurnClient, USER, channel_data, is_success};
use crate::Running;

const FAMILY_V6: &[u8] = &[2, 0, 0, 0];

/// A relay on one listening address, with `ports` as its range.
fn relay(state: &TempDir, listen: &str, ports: (&str, &str), more: &[&str]) -> Running {
    let (first, last) = ports;
    let flags = ["--listen", listen, "--user", USER, "--min-port", first, "--max-port", last];
    let peers = ["127.0.0.2/32", "::1/128"].map(|peer| ["--allow-peer", peer]);
    Running::start(state.path(), &[&flags[..], peers.as_flattened(), more].concat())
}

/// A payload each way through a channel; the peer sees the relayed address.
fn carries(client: &mut TurnClient, number: u16, relayed: SocketAddr, peer: &UdpSocket) {
    client.bind(number, peer.local_addr().expect("address"));
    client.send(&channel_data(number, b"to the peer."));
    let mut buffer = [0; 64];
    let (length, from) = peer.recv_from(&mut buffer).expect("received");
    assert_eq!((&buffer[..length], from), (&b"to the peer."[..], relayed));
    peer.send_to(b"back", from).expect("sent");
    assert_eq!(client.next(), Some(channel_data(number, b"back")));
}

/// Each family of client reaches peers of the other, over UDP and TCP.
#[test]
fn clients_of_one_family_reach_peers_of_the_other() {
    let state = state();
    for (listen, ports, family, at) in [
        ("127.0.0.1:0", ("21000", "21049"), 2, "[::1]:0"),
        ("[::1]:0", ("21050", "21099"), 1, "127.0.0.2:0"),
    ] {
        let relay = relay(&state, listen, ports, &["--relay-ip", "::1"]);
        let (peer, _) = peer_at(at);
        for mut client in [TurnClient::over_udp(relay.turn), TurnClient::over_tcp(relay.turn)] {
            let asked = client.try_allocate_with(|w| {
                w.attribute(attr::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])
            });
            let relayed = asked.expect("allocated")[0];
            assert_eq!(relayed.is_ipv6(), family == 2);
            carries(&mut client, 0x4000, relayed, &peer);
        }
        assert_eq!(metric(&relay, "relay_conservation_errors_total"), 0);
    }
}

/// ALC-20: two addresses, two ports, one unit of every quota; REF-03: one of them given back.
#[test]
fn one_allocation_reaches_peers_of_both_families() {
    let state = state();
    let flags = ["--relay-ip", "::1", "--allocations-per-user", "1"];
    let relay = relay(&state, "127.0.0.1:0", ("21100", "21149"), &flags);
    let mut client = TurnClient::over_udp(relay.turn);
    let (four, _) = peer_at("127.0.0.2:0");
    let (six, _) = peer_at("[::1]:0");
    for _ in 0..3 {
        let both = client
            .try_allocate_with(|w| w.attribute(attr::ADDITIONAL_ADDRESS_FAMILY, FAMILY_V6))
            .expect("allocated");
        assert_eq!(both.len(), 2);
        assert!(both[0].is_ipv4() && both[1].is_ipv6());
        assert_eq!(metric(&relay, "relay_allocations"), 1);
        assert_eq!(metric(&relay, "relay_ports_free"), 49);
        carries(&mut client, 0x4000, both[0], &four);
        carries(&mut client, 0x4001, both[1], &six);
        let give_back = |client: &mut TurnClient, family: u8| {
            let request = client.request(Method::Refresh, |w| {
                w.attribute(attr::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])
                    .attribute(attr::LIFETIME, &[0; 4])
            });
            client.send(&request);
            assert!(is_success(&client.next().expect("answered")));
        };
        give_back(&mut client, 1);
        // Its port is closed, and free for anybody.
        drop(UdpSocket::bind(both[0]).expect("free"));
        carries(&mut client, 0x4001, both[1], &six);
        assert_eq!(TurnClient::over_udp(relay.turn).try_allocate(), Err(486), "still one unit");
        give_back(&mut client, 2);
        drop(UdpSocket::bind(both[1]).expect("free"));
        assert_eq!(metric(&relay, "relay_allocations"), 0);
        assert_eq!(metric(&relay, "relay_ports_free"), 50);
    }
    assert_eq!(metric(&relay, "relay_conservation_errors_total"), 0);
}

/// ALC-19, and 440 where no other family was asked for.
#[test]
fn host_without_ipv6_says_so() {
    let state = state();
    let relay = relay(&state, "127.0.0.1:0", ("21150", "21199"), &[]);
    let mut client = TurnClient::over_udp(relay.turn);
    let only_six =
        client.try_allocate_with(|w| w.attribute(attr::REQUESTED_ADDRESS_FAMILY, FAMILY_V6));
    assert_eq!(only_six, Err(440));
    let request = client.request(Method::Allocate, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
            .attribute(attr::ADDITIONAL_ADDRESS_FAMILY, FAMILY_V6)
    });
    client.send(&request);
    let answer = client.next().expect("answered");
    let answer = Message::parse(&answer).expect("STUN");
    assert_eq!(answer.attribute(attr::ADDRESS_ERROR_CODE), Some(&[2, 0, 4, 40][..]));
    assert!(answer.attribute(attr::XOR_RELAYED_ADDRESS).is_some());
}

/// Ports of both families belong to other threads than their clients': rings and owners know both.
#[test]
fn two_families_meet_between_threads() {
    let state = state();
    let flags = ["--relay-ip", "::1", "--workers", "1"];
    let relay = relay(&state, "127.0.0.1:0", ("21200", "21249"), &flags);
    let mut ana = TurnClient::over_udp(relay.turn);
    let mut ben = TurnClient::over_tcp(relay.turn);
    let [ana_at, ben_at] = [&mut ana, &mut ben].map(|client| {
        client
            .try_allocate_with(|w| w.attribute(attr::ADDITIONAL_ADDRESS_FAMILY, FAMILY_V6))
            .expect("allocated")
    });
    for (number, (mine, theirs)) in (0x4000..).zip(ana_at.into_iter().zip(ben_at)) {
        ana.bind(number, theirs);
        ben.bind(number, mine);
        ana.send(&channel_data(number, b"four"));
        assert_eq!(ben.next(), Some(channel_data(number, b"four")));
        ben.send(&channel_data(number, b"back"));
        assert_eq!(ana.next(), Some(channel_data(number, b"back")));
    }
    assert_eq!(metric(&relay, "relay_hairpin_packets_total"), 4);
}
