//! Payload: exactly the peer's bytes, in the form the client asked for.

use relay_proto::attribute as attr;
use relay_proto::stun::{Class, Message, Method};
use relay_proto::{DropReason, PeerAddr, Verdict};

use super::world::{World, addr, channel_data, client_addr, peer, rendered};

/// Peer and payload of a Data indication (RFC 8656 §11.3).
fn indicated(bytes: &[u8]) -> (std::net::SocketAddr, Vec<u8>) {
    let message = Message::parse(bytes).expect("whole");
    assert_eq!((message.method, message.class), (Some(Method::Data), Class::Indication));
    assert_eq!(message.attributes().count(), 2);
    let peer = message.attribute(attr::XOR_PEER_ADDRESS).and_then(|value| message.unxor(value));
    let data = message.attribute(attr::DATA).expect("DATA, though it may be empty");
    (peer.expect("peer"), data.to_vec())
}

/// DAT-01, DAT-07, and payloads of every length modulo 4.
#[test]
fn send_indication_becomes_the_bare_payload() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 0);
    for length in [0, 1, 2, 3, 4, 5, 1200, 1473] {
        let payload = vec![0xA5; length];
        let bytes = world.indication(peer(1, 7), &payload);
        let wanted = Verdict::ToPeer {
            via: relayed.id,
            to: PeerAddr(peer(1, 7)),
            payload: &payload,
            dont_fragment: false,
        };
        assert_eq!(world.client_sends(&client, &bytes), wanted, "{length}");
    }
}

/// DAT-02: both directions, and nothing to a client that did not ask for it.
#[test]
fn peers_without_permission_are_dropped() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    let verdict = world.peer_sends(relayed, peer(1, 1), b"x");
    assert_eq!(verdict, Verdict::Drop(DropReason::NoPermission));
    let bytes = world.indication(peer(1, 1), b"x");
    assert_eq!(world.client_sends(&client, &bytes), Verdict::Drop(DropReason::NoPermission));
}

/// DAT-03, DAT-04, DAT-11.
#[test]
fn bound_peer_uses_its_channel_and_its_neighbours_do_not() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4ABC, peer(1, 1)), 0);

    let data = channel_data(0x4ABC, b"to the peer");
    let verdict = world.client_sends(&client, &data);
    let Verdict::ToPeer { via, to, payload, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!((via, to, payload), (relayed.id, PeerAddr(peer(1, 1)), &b"to the peer"[..]));

    assert!(world.sends(&client, peer(1, 1)), "Send still works");
    let heard = world.peer_sends(relayed, peer(1, 1), b"back");
    let Verdict::ToClient { to, pad, .. } = heard else { panic!("{heard:?}") };
    assert_eq!((to, pad), (client.addr, 0), "no padding over UDP");
    assert_eq!(rendered(&heard), channel_data(0x4ABC, b"back"));

    let heard = rendered(&world.peer_sends(relayed, peer(1, 2), b"another port"));
    assert_eq!(indicated(&heard), (peer(1, 2), b"another port".to_vec()));
}

/// DAT-05, and ChannelData from who has no allocation.
#[test]
fn unbound_channels_carry_nothing() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    let data = channel_data(0x4000, b"x");
    assert_eq!(world.client_sends(&client, &data), Verdict::Drop(DropReason::NoChannel));
    let stranger = world.relay.from_client(world.now, client_addr(2), &data);
    assert_eq!(stranger, Verdict::Drop(DropReason::NoAllocation));
    for number in [0x5000, 0x7FFF] {
        let data = channel_data(number, b"x");
        assert!(matches!(world.client_sends(&client, &data), Verdict::Drop(_)), "{number:#06x}");
    }
}

/// DAT-06, DAT-09, and ChannelData that is not whole.
#[test]
fn channel_data_is_as_long_as_it_says() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    let to = PeerAddr(peer(1, 1));
    for payload in [&b""[..], b"a", b"abc", b"abcd"] {
        let wanted = Verdict::ToPeer { via: relayed.id, to, payload, dont_fragment: false };
        let mut data = channel_data(0x4000, payload);
        assert_eq!(world.client_sends(&client, &data), wanted);
        data.extend([0, 0, 0]);
        assert_eq!(world.client_sends(&client, &data), wanted, "padding is not relayed");
    }
    let data = channel_data(0x4000, b"abcd");
    for cut in 1..data.len() {
        let verdict = world.client_sends(&client, &data[..cut]);
        assert_eq!(verdict, Verdict::Drop(DropReason::Malformed), "cut at {cut}");
    }
}

/// DAT-08.
#[test]
fn send_needs_one_peer_and_data() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.permit(&client, &[peer(1, 1), peer(2, 2)]), 0);
    let send = |world: &mut World, attributes: &[u16]| {
        world.message(Method::Send, Class::Indication, |w| {
            attributes.iter().fold(w, |w, kind| match *kind {
                attr::XOR_PEER_ADDRESS => w.xor_address(attr::XOR_PEER_ADDRESS, peer(1, 1)),
                kind => w.attribute(kind, b"data"),
            })
        })
    };
    let incomplete: [&[u16]; 4] = [
        &[],
        &[attr::DATA],
        &[attr::XOR_PEER_ADDRESS],
        &[attr::XOR_PEER_ADDRESS, attr::DATA, 0x7F01],
    ];
    for attributes in incomplete {
        let bytes = send(&mut world, attributes);
        let verdict = world.client_sends(&client, &bytes);
        assert_eq!(verdict, Verdict::Drop(DropReason::Malformed), "{attributes:?}");
    }
    let bytes = world.message(Method::Send, Class::Indication, |w| {
        w.xor_address(attr::XOR_PEER_ADDRESS, peer(2, 2))
            .xor_address(attr::XOR_PEER_ADDRESS, peer(1, 1))
            .attribute(attr::DATA, b"data")
    });
    let first = Verdict::ToPeer {
        via: relayed.id,
        to: PeerAddr(peer(2, 2)),
        payload: b"data",
        dont_fragment: false,
    };
    assert_eq!(world.client_sends(&client, &bytes), first, "the first of two peers");
    assert_eq!(world.drain(), [], "an indication is never answered");
}

/// DAT-10, and what no datagram could hold.
#[test]
fn data_indication_holds_any_payload_that_fits() {
    let mut world = World::new();
    let [four, six] = [1, 2].map(|port| world.client(port, "ana"));
    let four_at = world.allocate(&four);
    let six_at = world.allocate_v6(&six);
    let six_peer = addr("[2001:db8:9::7]:1000");
    assert_eq!(world.permit(&four, &[peer(1, 1)]), 0);
    assert_eq!(world.permit(&six, &[six_peer]), 0);
    for (at, from, head) in [(four_at, peer(1, 1), 36), (six_at, six_peer, 48)] {
        for length in [0usize, 1, 2, 3, 4, 1200, 65_000] {
            let payload = vec![0x5A; length];
            let bytes = rendered(&world.peer_sends(at, from, &payload));
            assert_eq!(bytes.len(), head + length.next_multiple_of(4));
            assert!(bytes[head + length..].iter().all(|byte| *byte == 0), "padding is zero");
            assert_eq!(indicated(&bytes), (from, payload));
        }
        for length in [65_500, 65_507, 65_527, 65_536] {
            let payload = vec![0; length];
            let verdict = world.peer_sends(at, from, &payload);
            assert_eq!(verdict, Verdict::Drop(DropReason::TooBig), "{length}");
        }
    }
}

#[test]
fn channel_data_to_the_client_fits_a_datagram() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    let payload = vec![0; 65_504];
    let verdict = world.peer_sends(relayed, peer(1, 1), &payload[..65_503]);
    assert_eq!(rendered(&verdict).len(), 65_507);
    let verdict = world.peer_sends(relayed, peer(1, 1), &payload);
    assert_eq!(verdict, Verdict::Drop(DropReason::TooBig));
}

#[test]
fn data_indications_have_transaction_ids_of_their_own() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 0);
    let ids =
        [(); 3].map(|()| rendered(&world.peer_sends(relayed, peer(1, 1), b"x"))[8..20].to_vec());
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
}

/// DAT-12, ICE-02: a check between peers is payload here.
#[test]
fn stun_at_a_relayed_port_is_forwarded_untouched() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 0);
    let requests = [
        world.message(Method::Binding, Class::Request, |w| {
            w.attribute(attr::USERNAME, b"a:b").integrity(&[3; 16]).fingerprint()
        }),
        world.request(&client, Method::Refresh, |w| w.attribute(attr::LIFETIME, &[0; 4])),
    ];
    for check in requests {
        let bytes = rendered(&world.peer_sends(relayed, peer(1, 1), &check));
        assert_eq!(indicated(&bytes), (peer(1, 1), check));
        assert_eq!(world.drain(), []);
    }
    assert_eq!(world.relay.snapshot(world.now).allocations, 1);
}
