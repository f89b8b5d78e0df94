//! Allocate: what is asked for, what is granted, and which port.

use relay_proto::attribute as attr;
use relay_proto::relay::Closed;
use relay_proto::request::PortWish;
use relay_proto::stun::Method;
use relay_proto::{Family, PortFailure, Verdict};

use super::world::{Ports, Reply, World, addr, channel_data, client_addr, peer};

type Attribute<'a> = (u16, &'a [u8]);

/// ALC-01.
#[test]
fn allocate_tells_both_addresses_and_ten_minutes() {
    let mut world = World::new();
    let client = world.client(40_000, "ana");
    let reply = world.ask_allocate(&client, |w| w);
    assert_eq!(reply.code(), 0);
    let port = world.last_opened();
    assert_eq!(reply.address(attr::XOR_RELAYED_ADDRESS), Some(port.addr.0));
    assert_eq!(reply.address(attr::XOR_MAPPED_ADDRESS), Some(client.addr.remote));
    assert_eq!(reply.lifetime_s(), Some(600));
    assert_eq!(reply.attribute(attr::RESERVATION_TOKEN), None);
    let opened = world.opened.last().expect("one");
    assert_eq!((opened.family, opened.wish), (Family::V4, PortWish::Any));
    assert_eq!(world.relay.snapshot(world.now).allocations_opened, [1, 0, 0]);
}

#[test]
fn no_reply_before_the_port_is_open() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.ports = Ports::Wait;
    let bytes = world.request(&client, Method::Allocate, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
    });
    assert_eq!(world.replies(client.addr, &bytes), []);
    assert_eq!(world.replies(client.addr, &bytes), [], "nor to its retransmission");
    let [asked] = &world.opened[..] else { panic!("one port is asked for, not two") };
    let relayed = relay_proto::RelayAddr(([203, 0, 113, 1], 50_000).into());
    world.relay.port_opened(asked.id, relayed);
    let replies = world.drain();
    let [reply] = &replies[..] else { panic!("one reply, not {replies:?}") };
    assert_eq!(reply.bytes[8..20], bytes[8..20]);
    assert_eq!(reply.code(), 0);
}

/// ALC-02, -03, -04, -05 and other requests that cannot be granted.
#[test]
fn requests_against_the_rules_are_refused_by_their_code() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let transport = (attr::REQUESTED_TRANSPORT, &[17u8, 0, 0, 0][..]);
    let even = (attr::EVEN_PORT, &[0u8][..]);
    let token = (attr::RESERVATION_TOKEN, &[1u8; 8][..]);
    let v6 = (attr::REQUESTED_ADDRESS_FAMILY, &[2u8, 0, 0, 0][..]);
    let cases: [(&str, u16, &[Attribute<'_>]); 13] = [
        ("no transport", 400, &[]),
        ("transport of one byte", 400, &[(attr::REQUESTED_TRANSPORT, &[17])]),
        ("SCTP", 442, &[(attr::REQUESTED_TRANSPORT, &[132, 0, 0, 0])]),
        ("TCP", 442, &[(attr::REQUESTED_TRANSPORT, &[6, 0, 0, 0])]),
        ("family 3", 440, &[transport, (attr::REQUESTED_ADDRESS_FAMILY, &[3, 0, 0, 0])]),
        ("family of one byte", 400, &[transport, (attr::REQUESTED_ADDRESS_FAMILY, &[1])]),
        ("token with EVEN-PORT", 400, &[transport, token, even]),
        ("token with a family", 400, &[transport, token, v6]),
        ("token of 7 bytes", 400, &[transport, (attr::RESERVATION_TOKEN, &[1; 7])]),
        ("empty EVEN-PORT", 400, &[transport, (attr::EVEN_PORT, &[])]),
        ("lifetime of 2 bytes", 400, &[transport, (attr::LIFETIME, &[0, 0])]),
        ("unknown attribute", 420, &[transport, (0x7F01, &[])]),
        ("ACCESS-TOKEN, which is not offered", 420, &[transport, (0x001B, &[0; 4])]),
    ];
    for (what, code, attributes) in cases {
        let reply = world.ask(&client, Method::Allocate, |w| {
            attributes.iter().fold(w, |w, (kind, value)| w.attribute(*kind, value))
        });
        assert_eq!(reply.code(), code, "{what}");
        assert_eq!(reply.attribute(attr::UNKNOWN_ATTRIBUTES).is_some(), code == 420, "{what}");
    }
    assert!(world.opened.is_empty(), "none of them took a port");
    assert_eq!(world.relay.snapshot(world.now).allocations, 0);
}

/// ALC-06, ALC-14, ALC-15, ALC-21, ALC-22, and a server without the family.
#[test]
fn ports_that_cannot_be_had_have_their_codes() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let cases =
        [(PortFailure::Quota, 486), (PortFailure::Capacity, 508), (PortFailure::Family, 440)];
    for (why, code) in cases {
        world.ports = Ports::Fail(why);
        let bytes = world.request(&client, Method::Allocate, |w| {
            w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        });
        let first = world.reply(client.addr, &bytes);
        assert_eq!(first.code(), code);
        assert!(first.message().verify(&client.key));
        assert_eq!(world.reply(client.addr, &bytes), first, "retransmission");
        assert_eq!(world.relay.snapshot(world.now).allocations, 0);
    }
    world.ports = Ports::Open;
    let unknown = world.ask_allocate(&client, |w| w.attribute(attr::RESERVATION_TOKEN, &[9; 8]));
    assert_eq!(unknown.code(), 508);
    world.allocate(&client);
    assert!(world.closed.is_empty(), "what was not opened is not closed");
}

/// ALC-09 and I-12.
#[test]
fn second_allocate_is_a_mismatch_and_a_retransmission_is_not() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let bytes = world.request(&client, Method::Allocate, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
            .attribute(attr::LIFETIME, &1800u32.to_be_bytes())
    });
    let first = world.reply(client.addr, &bytes);
    assert_eq!(world.ask_allocate(&client, |w| w).code(), 437);
    world.pass_ms(39_000);
    assert_eq!(world.refresh(&client, 600).code(), 0);
    assert_eq!(world.reply(client.addr, &bytes), first, "the same bytes");
    assert_eq!(world.opened.len(), 1);
}

/// ALC-10, ALC-11: between ten minutes and an hour.
#[test]
fn lifetime_is_granted_within_its_bounds() {
    let mut world = World::new();
    let cases =
        [(0, 600), (10, 600), (600, 600), (601, 601), (3600, 3600), (7200, 3600), (!0, 3600)];
    for (port, (asked, granted)) in (1..).zip(cases) {
        let client = world.client(port, "ana");
        let reply =
            world.ask_allocate(&client, |w| w.attribute(attr::LIFETIME, &u32::to_be_bytes(asked)));
        assert_eq!(reply.lifetime_s(), Some(granted), "{asked}");
    }
}

/// ALC-12, ALC-13, ALC-16.
#[test]
fn even_port_may_reserve_the_next() {
    let mut world = World::new();
    let [plain, first, second] = [1, 2, 3].map(|port| world.client(port, "ana"));
    let reply = world.ask_allocate(&plain, |w| w.attribute(attr::EVEN_PORT, &[0x7F]));
    assert_eq!(reply.code(), 0);
    assert_eq!(world.opened.last().map(|port| port.wish), Some(PortWish::Even), "reserved bits");
    assert_eq!(reply.attribute(attr::RESERVATION_TOKEN), None);

    let reply = world.ask_allocate(&first, |w| w.attribute(attr::EVEN_PORT, &[0xFF]));
    let token = reply.attribute(attr::RESERVATION_TOKEN).expect("names the next port");
    let kept = attr::reservation_token(&token).expect("8 bytes");
    assert_eq!(world.opened.last().map(|port| port.wish), Some(PortWish::EvenAndNext(kept)));
    let even = world.last_opened().addr.0.port();
    assert!(even.is_multiple_of(2));

    let reply = world.ask_allocate(&second, |w| w.attribute(attr::RESERVATION_TOKEN, &token));
    assert_eq!(reply.code(), 0);
    assert_eq!(world.opened.last().map(|port| port.wish), Some(PortWish::Reserved(kept)));
    assert_eq!(world.last_opened().addr.0.port(), even + 1);

    let third = world.client(4, "ana");
    let reply = world.ask_allocate(&third, |w| w.attribute(attr::RESERVATION_TOKEN, &token));
    assert_eq!(reply.code(), 508, "a token is good once");
}

/// ALC-13 with a pair of IPv6: its token names an IPv6 port, and REQUESTED-ADDRESS-FAMILY may not
/// stand beside it (RFC 8656 §7.2).
#[test]
fn reserved_port_is_of_the_family_of_its_pair() {
    let mut world = World::new();
    let first = world.client(1, "ana");
    let reply = world.ask_allocate(&first, |w| {
        w.attribute(attr::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0])
            .attribute(attr::EVEN_PORT, &[0x80])
    });
    let token = reply.attribute(attr::RESERVATION_TOKEN).expect("names the next port");
    let second = world.client(2, "ana");
    world.ports = Ports::Wait;
    let bytes = world.request(&second, Method::Allocate, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[attr::TRANSPORT_UDP, 0, 0, 0])
            .attribute(attr::RESERVATION_TOKEN, &token)
    });
    assert_eq!(world.replies(second.addr, &bytes), []);
    let id = world.opened.last().expect("a port was asked for").id;
    world.relay.port_opened(id, relay_proto::RelayAddr(addr("[2001:db8:0:1::1]:50003")));
    assert_eq!(world.drain().first().map(Reply::code), Some(0));
    assert_eq!(world.permit(&second, &[addr("[2001:db8:9::7]:1000")]), 0);
    assert_eq!(world.permit(&second, &[peer(1, 1)]), 443);
}

#[test]
fn reservation_tokens_differ_between_workers_and_calls() {
    let mut tokens = Vec::new();
    for seed in [2, 3] {
        let mut world = World::new();
        let keys = relay_proto::Keys { seed: [seed; 32], ..super::world::keys() };
        world.relay = relay_proto::Relay::new(super::world::settings(), &keys);
        for port in 1..=3 {
            let client = world.client(port, "ana");
            let reply = world.ask_allocate(&client, |w| w.attribute(attr::EVEN_PORT, &[0x80]));
            tokens.push(reply.attribute(attr::RESERVATION_TOKEN).expect("token"));
        }
    }
    let count = tokens.len();
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), count);
}

/// ALC-17: the order of checks puts the unknown attribute before the allocation's absence.
#[test]
fn unknown_attribute_is_told_to_authenticated_clients_only() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let reply = world.ask(&client, Method::Refresh, |w| w.attribute(0x7F01, &[]));
    assert_eq!(reply.code(), 420);
    assert_eq!(reply.attribute(attr::UNKNOWN_ATTRIBUTES), Some(vec![0x7F, 0x01]));
    let stranger = world.message(Method::Refresh, relay_proto::stun::Class::Request, |w| {
        w.attribute(0x7F01, &[0; 4])
    });
    assert_eq!(world.reply(client.addr, &stranger).code(), 401);
}

#[test]
fn ipv6_is_given_to_who_asks_for_it() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate_v6(&client);
    assert_eq!(world.opened.last().map(|port| port.family), Some(Family::V6));
}

/// An edge that answers late finds that nobody waits any more.
#[test]
fn port_that_opens_too_late_is_closed_again() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.ports = Ports::Wait;
    let bytes = world.request(&client, Method::Allocate, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
    });
    assert_eq!(world.replies(client.addr, &bytes), []);
    let id = world.opened[0].id;
    world.relay.port_failed(id, PortFailure::Capacity);
    assert_eq!(world.drain().len(), 1);
    world.relay.port_failed(id, PortFailure::Capacity);
    assert_eq!(world.drain(), [], "one answer to one question");
    world.relay.port_opened(id, relay_proto::RelayAddr(([203, 0, 113, 1], 50_000).into()));
    assert_eq!(world.drain(), []);
    assert_eq!(world.closed, [id]);
}

/// ALC-23: a client behind a NAT that forgot it begins again.
#[test]
fn rebound_client_gets_a_new_allocation_and_the_old_one_ends() {
    let mut world = World::new();
    let before = world.client(1, "ana");
    let old = world.allocate(&before);
    let after = world.client(2, "ana");
    let new = world.allocate(&after);
    assert_ne!(old.addr, new.addr);
    world.pass_ms(599_000);
    assert_eq!(world.refresh(&after, 600).code(), 0);
    world.pass_ms(1_000);
    world.tick();
    assert_eq!(world.closed, [old.id]);
    assert_eq!(world.relay.snapshot(world.now).allocations, 1);
}

/// I-26: an identifier of one boot means nothing to the next allocation in its place.
#[test]
fn stale_ids_find_nothing() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let old = world.allocate(&client);
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 0);
    assert_eq!(world.refresh(&client, 0).code(), 0);
    let new = world.allocate(&client);
    assert_eq!(new.id.index(), old.id.index());
    assert_ne!(new.id, old.id);
    assert!(!world.hears(old, peer(1, 1)));
    assert!(!world.hears(new, peer(1, 1)), "permissions do not pass on");
    let data = channel_data(0x4000, b"x");
    let verdict = world.relay.from_client(world.now, client_addr(1), &data);
    assert!(matches!(verdict, Verdict::Drop(_)));
}

/// ALC-07, ALC-08.
#[test]
fn additional_family_has_rules() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let additional = (attr::ADDITIONAL_ADDRESS_FAMILY, &[2u8, 0, 0, 0][..]);
    let cases: [(&str, &[Attribute<'_>]); 5] = [
        ("with a family", &[additional, (attr::REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0])]),
        ("with a reserved next port", &[additional, (attr::EVEN_PORT, &[0x80])]),
        ("with a token", &[additional, (attr::RESERVATION_TOKEN, &[1; 8])]),
        ("IPv4", &[(attr::ADDITIONAL_ADDRESS_FAMILY, &[1, 0, 0, 0])]),
        ("of one byte", &[(attr::ADDITIONAL_ADDRESS_FAMILY, &[2])]),
    ];
    for (what, attributes) in cases {
        let reply = world.ask_allocate(&client, |w| {
            attributes.iter().fold(w, |w, (kind, value)| w.attribute(*kind, value))
        });
        assert_eq!(reply.code(), 400, "{what}");
    }
    let (kind, value) = additional;
    let reply =
        world.ask_allocate(&client, |w| w.attribute(kind, value).attribute(attr::EVEN_PORT, &[0]));
    assert_eq!(reply.code(), 0);
}

/// RFC 8656 §5: before its success there is no allocation to speak of.
#[test]
fn allocation_that_waits_for_its_port_cannot_be_used() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.ports = Ports::Wait;
    let bytes = world.request(&client, Method::Allocate, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
    });
    assert_eq!(world.replies(client.addr, &bytes), []);
    assert_eq!(world.refresh(&client, 0).code(), 437);
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 437);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 437);
    assert!(world.closed.is_empty(), "a port that is not open is not closed");
    let id = world.opened[0].id;
    world.relay.port_opened(id, relay_proto::RelayAddr(([203, 0, 113, 1], 50_000).into()));
    assert_eq!(world.drain().len(), 1);
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 0);
    assert_eq!(world.refresh(&client, 0).code(), 0);
    assert_eq!(world.closed, [id], "each port is closed once");
}

/// An edge that answers after ten minutes answers nobody, and the port is closed once.
#[test]
fn allocation_that_waits_too_long_is_forgotten() {
    let mut world = World::new();
    let mut client = world.client(1, "ana");
    world.ports = Ports::Wait;
    let bytes = world.request(&client, Method::Allocate, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
    });
    assert_eq!(world.replies(client.addr, &bytes), []);
    let id = world.opened[0].id;
    world.pass_ms(600_000);
    world.renew_nonce(&mut client);
    assert_eq!(world.refresh(&client, 600).code(), 437);
    assert!(world.closed.is_empty());
    world.relay.port_opened(id, relay_proto::RelayAddr(([203, 0, 113, 1], 50_000).into()));
    assert_eq!(world.drain(), []);
    assert_eq!(world.closed, [id]);
    let after = world.relay.snapshot(world.now);
    assert_eq!(after.allocations_opened, [0; 3]);
    assert_eq!(after.allocations_closed, [0; Closed::ALL.len()]);
}
