//! Channels: numbers, bindings and how long they last.

use relay_proto::attribute as attr;
use relay_proto::stun::Method;
use relay_proto::{DropReason, PeerAddr, Verdict};

use super::world::{Client, World, channel_data, peer, rendered};

fn reaches(world: &mut World, client: &Client, number: u16) -> Option<PeerAddr> {
    match world.client_sends(client, &channel_data(number, b"x")) {
        Verdict::ToPeer { to, .. } => Some(to),
        _ => None,
    }
}

/// CHN-01, CHN-02.
#[test]
fn numbers_outside_the_range_are_bad_requests() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    for number in [0, 0x3FFF, 0x5000, 0x7FFF, 0x8000, 0xFFFF] {
        assert_eq!(world.bind(&client, number, peer(1, 1)), 400, "{number:#06x}");
    }
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    assert_eq!(world.bind(&client, 0x4FFF, peer(1, 2)), 0);
}

/// CHN-03, CHN-04.
#[test]
fn number_and_peer_are_both_needed() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    let reply = world
        .ask(&client, Method::ChannelBind, |w| w.xor_address(attr::XOR_PEER_ADDRESS, peer(1, 1)));
    assert_eq!(reply.code(), 400);
    let numbers: [&[u8]; 3] = [&[0x40, 0, 0, 0], &[0x40, 0], &[]];
    for number in numbers {
        let reply =
            world.ask(&client, Method::ChannelBind, |w| w.attribute(attr::CHANNEL_NUMBER, number));
        assert_eq!(reply.code(), 400, "{number:?}");
    }
    assert_eq!(world.relay.snapshot(world.now).permissions, 0);
}

/// CHN-05 and I-10, both ways.
#[test]
fn pairs_are_one_to_one_and_the_first_binding_stays() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    assert_eq!(world.bind(&client, 0x4001, peer(1, 1)), 400);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 2)), 400);
    assert_eq!(reaches(&mut world, &client, 0x4000), Some(PeerAddr(peer(1, 1))));
    assert_eq!(reaches(&mut world, &client, 0x4001), None);
    let heard = rendered(&world.peer_sends(relayed, peer(1, 1), b"x"));
    assert_eq!(heard, channel_data(0x4000, b"x"));
    assert_eq!(world.relay.snapshot(world.now).channels, 1);
}

/// CHN-06, CHN-07.
#[test]
fn same_pair_again_refreshes() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    assert_eq!(world.refresh(&client, 3600).code(), 0);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    world.pass_ms(500_000);
    let bytes = world.request(&client, Method::ChannelBind, |w| {
        w.attribute(attr::CHANNEL_NUMBER, &[0x40, 0, 0, 0])
            .xor_address(attr::XOR_PEER_ADDRESS, peer(1, 1))
    });
    let first = world.reply(client.addr, &bytes);
    assert_eq!(first.code(), 0);
    assert_eq!(world.reply(client.addr, &bytes), first, "a retransmission gets the same");
    world.pass_ms(599_000);
    assert!(reaches(&mut world, &client, 0x4000).is_some());
}

/// CHN-10: the cap; forbidden addresses are with the permissions.
#[test]
fn channels_above_the_cap_are_refused() {
    let mut world = World::with(|settings| settings.channels_max = 2);
    let client = world.client(1, "ana");
    world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    assert_eq!(world.bind(&client, 0x4001, peer(1, 2)), 0);
    assert_eq!(world.bind(&client, 0x4002, peer(1, 3)), 508);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0, "a refresh needs no room");
}

/// CHN-11.
#[test]
fn channel_lasts_six_hundred_seconds() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.refresh(&client, 3600).code(), 0);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    world.pass_ms(599_900);
    assert!(reaches(&mut world, &client, 0x4000).is_some());
    world.pass_ms(200);
    let data = channel_data(0x4000, b"x");
    assert_eq!(world.client_sends(&client, &data), Verdict::Drop(DropReason::Expired));
    assert!(!world.hears(relayed, peer(1, 1)));
    assert_eq!(world.relay.snapshot(world.now).channels, 0);
}

/// CHN-12, default: clients that refresh only their channel go on.
#[test]
fn channel_carries_its_peer_beyond_the_permission() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.refresh(&client, 3600).code(), 0);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    world.pass_ms(300_100);
    assert!(reaches(&mut world, &client, 0x4000).is_some());
    let heard = rendered(&world.peer_sends(relayed, peer(1, 1), b"x"));
    assert_eq!(heard, channel_data(0x4000, b"x"));
    assert!(!world.sends(&client, peer(1, 2)), "other ports of the address have ended");
    assert!(!world.hears(relayed, peer(1, 2)));
}

/// CHN-13, default.
#[test]
fn number_and_peer_are_free_after_their_end() {
    let mut world = World::new();
    let mut client = world.client(1, "ana");
    world.allocate(&client);
    assert_eq!(world.refresh(&client, 3600).code(), 0);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    world.pass_ms(660_000);
    world.renew_nonce(&mut client);
    assert_eq!(world.bind(&client, 0x4000, peer(2, 2)), 0, "the number");
    assert_eq!(world.bind(&client, 0x4001, peer(1, 1)), 0, "the peer");
    assert_eq!(reaches(&mut world, &client, 0x4000), Some(PeerAddr(peer(2, 2))));
    assert_eq!(reaches(&mut world, &client, 0x4001), Some(PeerAddr(peer(1, 1))));
}

/// An error changes nothing: neither a new permission nor a longer one.
#[test]
fn refused_binding_permits_nobody() {
    let mut world = World::with(|settings| settings.channels_max = 1);
    let client = world.client(1, "ana");
    world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    assert_eq!(world.bind(&client, 0x4000, peer(2, 2)), 400);
    assert_eq!(world.bind(&client, 0x4001, peer(3, 3)), 508);
    assert_eq!(world.relay.snapshot(world.now).permissions, 1);
    assert!(!world.sends(&client, peer(2, 2)) && !world.sends(&client, peer(3, 3)));
    world.pass_ms(200_000);
    assert_eq!(world.bind(&client, 0x4001, peer(1, 1)), 400);
    world.pass_ms(100_000);
    assert!(!world.sends(&client, peer(1, 1)), "a refused request refreshes nothing");
}

/// Neither does a binding that has no room for its permission.
#[test]
fn refused_permission_binds_nothing() {
    let mut world = World::with(|settings| settings.permissions_max = 1);
    let client = world.client(1, "ana");
    world.allocate(&client);
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 0);
    assert_eq!(world.bind(&client, 0x4000, peer(2, 2)), 508);
    assert_eq!(world.relay.snapshot(world.now).channels, 0);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0, "the number is still free");
}

/// For clients of RFC 5766, where the operator asks for it.
#[test]
fn numbers_of_rfc_5766_can_be_allowed() {
    let mut world = World::with(|settings| settings.rfc5766_channels = true);
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    for number in [0x3FFF, 0x8000, 0xFFFF] {
        assert_eq!(world.bind(&client, number, peer(1, 1)), 400, "{number:#06x}");
    }
    for (port, number) in (1..).zip([0x4000, 0x5000, 0x7FFF]) {
        assert_eq!(world.bind(&client, number, peer(1, port)), 0, "{number:#06x}");
        assert_eq!(reaches(&mut world, &client, number), Some(PeerAddr(peer(1, port))));
        let heard = rendered(&world.peer_sends(relayed, peer(1, port), b"x"));
        assert_eq!(heard, channel_data(number, b"x"));
    }
}
