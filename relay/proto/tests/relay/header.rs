//! What the network says about a payload's datagram, and what is asked of its IP header.

use std::net::SocketAddr;

use relay_proto::icmp::ICMP_PER_S_MAX;
use relay_proto::stun::{Class, Message, Method};
use relay_proto::{ClientAddr, IcmpError, PeerAddr, Transport, Verdict, attribute as attr};

use super::world::{
    Client, Relayed, Reply, SECRET, World, addr, client_addr, client_addr_v6, peer,
};

const PEER_V6: &str = "[2001:db8:9::7]:1000";

fn told(world: &mut World, at: Relayed, from: SocketAddr, error: IcmpError) -> Vec<Reply> {
    world.relay.icmp(world.now, at.id, PeerAddr(from), error);
    world.drain()
}

/// The ICMP attribute's value, from an indication that names the peer and has no DATA.
fn icmp_value(reply: &Reply, peer: SocketAddr) -> Vec<u8> {
    let message = Message::parse(&reply.bytes).expect("whole");
    assert_eq!((message.method, message.class), (Some(Method::Data), Class::Indication));
    assert_eq!(message.attributes().count(), 2);
    assert_eq!(reply.address(attr::XOR_PEER_ADDRESS), Some(peer));
    reply.attribute(attr::ICMP).expect("ICMP")
}

/// DAT-15: type in 7 bits, code in 9, and the MTU where there is one (RFC 8656 §18.13).
#[test]
fn errors_about_permitted_peers_reach_the_client() {
    let mut world = World::new();
    let [four, six] = [1, 2].map(|port| world.client(port, "ana"));
    let (four_at, six_at) = (world.allocate(&four), world.allocate_v6(&six));
    assert_eq!(world.permit(&four, &[peer(1, 1)]), 0);
    assert_eq!(world.permit(&six, &[addr(PEER_V6)]), 0);
    let cases = [
        (four_at, peer(1, 9), (3, 3, 0), [0, 0, 6, 3, 0, 0, 0, 0]),
        (four_at, peer(1, 9), (3, 4, 1280), [0, 0, 6, 4, 0, 0, 5, 0]),
        (four_at, peer(1, 9), (11, 0, 7), [0, 0, 22, 0, 0, 0, 0, 0]),
        (six_at, addr(PEER_V6), (1, 4, 7), [0, 0, 2, 4, 0, 0, 0, 0]),
        (six_at, addr(PEER_V6), (2, 0, 1280), [0, 0, 4, 0, 0, 0, 5, 0]),
        (six_at, addr(PEER_V6), (3, 1, 0), [0, 0, 6, 1, 0, 0, 0, 0]),
    ];
    for (at, from, (kind, code, mtu), value) in cases {
        let replies = told(&mut world, at, from, IcmpError { kind, code, mtu });
        let [reply] = &replies[..] else { panic!("one indication, not {replies:?}") };
        assert_eq!(icmp_value(reply, from), value, "{kind}/{code}");
    }
    // DAT-14: the allocation is as it was.
    assert!(world.sends(&four, peer(1, 1)) && world.hears(four_at, peer(1, 1)));
}

#[test]
fn errors_that_are_not_the_clients_business_are_kept_from_it() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let at = world.allocate(&client);
    let unreachable = IcmpError { kind: 3, code: 3, mtu: 0 };
    assert_eq!(told(&mut world, at, peer(1, 1), unreachable), [], "no permission");
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 0);
    assert_eq!(told(&mut world, at, peer(2, 1), unreachable), [], "another peer's");
    for kind in [0, 1, 2, 4, 5, 8, 12, 13] {
        let error = IcmpError { kind, ..unreachable };
        assert_eq!(told(&mut world, at, peer(1, 1), error), [], "type {kind}");
    }
    assert_eq!(told(&mut world, at, peer(1, 1), unreachable).len(), 1);
    world.pass_ms(300_000);
    assert_eq!(told(&mut world, at, peer(1, 1), unreachable), [], "the permission is over");
    assert_eq!(world.refresh(&client, 0).code(), 0);
    assert_eq!(told(&mut world, at, peer(1, 1), unreachable), [], "the allocation is gone");
}

#[test]
fn errors_are_rationed_by_the_second() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let at = world.allocate(&client);
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 0);
    let error = IcmpError { kind: 3, code: 3, mtu: 0 };
    for _ in 0..3 {
        let told: usize = (0..100).map(|_| told(&mut world, at, peer(1, 1), error).len()).sum();
        assert_eq!(told, usize::from(ICMP_PER_S_MAX));
        world.pass_ms(1_000);
    }
    assert_eq!(told(&mut world, at, peer(2, 1), error), []);
    // I-8: each is counted once.
    assert_eq!(world.relay.snapshot(world.now).icmp_errors, [30, 1, 270]);
}

fn send(world: &mut World, client: &Client, to: SocketAddr, whole: bool) -> bool {
    let bytes = world.message(Method::Send, Class::Indication, |w| {
        let w = w.xor_address(attr::XOR_PEER_ADDRESS, to).attribute(attr::DATA, b"x");
        if whole { w.attribute(attr::DONT_FRAGMENT, &[]) } else { w }
    });
    match world.client_sends(client, &bytes) {
        Verdict::ToPeer { dont_fragment, .. } => dont_fragment,
        other => panic!("{other:?}"),
    }
}

/// DAT-16: DF only where it was asked for, and never across or within IPv6 (RFC 8656 §13).
#[test]
fn dont_fragment_is_for_ipv4_on_both_legs_and_for_streams() {
    let mut world = World::new();
    let stream = |addr: ClientAddr| ClientAddr { transport: Transport::Tcp, ..addr };
    let cases = [
        (client_addr(1), true),
        (client_addr_v6(1), false),
        (stream(client_addr(2)), true),
        (stream(client_addr_v6(2)), true),
    ];
    for (from, honoured) in cases {
        let made = relay_proto::credential::mint(SECRET, "ana", world.now.unix_s + 3600);
        let client = world.client_at(from, &made.username, &made.password);
        let reply = world.ask_allocate(&client, |w| {
            w.attribute(attr::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0])
                .attribute(attr::DONT_FRAGMENT, &[])
        });
        assert_eq!(reply.code(), 0, "DONT-FRAGMENT is understood");
        assert_eq!(world.permit(&client, &[peer(1, 1), addr(PEER_V6)]), 0);
        assert_eq!(send(&mut world, &client, peer(1, 1), true), honoured, "{from:?}");
        assert!(!send(&mut world, &client, addr(PEER_V6), true), "{from:?}");
        assert!(!send(&mut world, &client, peer(1, 1), false), "nobody asked");
    }
}
