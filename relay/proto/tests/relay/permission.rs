//! Permissions and the peers that nobody may reach.

use std::net::SocketAddr;

use relay_proto::attribute as attr;
use relay_proto::stun::Method;
use relay_proto::{DropReason, Verdict};

use super::world::{EXTERNAL_IP, World, addr, ip, peer};

const PEER_V6: &str = "[2001:db8:9::7]:1000";

/// PRM-01, CHN-08.
#[test]
fn peers_of_the_other_family_are_a_mismatch() {
    let mut world = World::new();
    let [four, six] = [1, 2].map(|port| world.client(port, "ana"));
    world.allocate(&four);
    world.allocate_v6(&six);
    assert_eq!(world.permit(&four, &[addr(PEER_V6)]), 443);
    assert_eq!(world.bind(&four, 0x4000, addr(PEER_V6)), 443);
    assert_eq!(world.permit(&six, &[peer(1, 1)]), 443);
    assert_eq!(world.permit(&six, &[addr(PEER_V6)]), 0);
    assert_eq!(world.permit(&four, &[peer(1, 1), addr(PEER_V6)]), 443, "all or none");
    assert!(!world.sends(&four, peer(1, 1)));
}

/// PRM-03, and CreatePermission without a peer.
#[test]
fn peers_that_cannot_be_read_are_bad_requests() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    assert_eq!(world.permit(&client, &[]), 400);
    let values: [&[u8]; 4] =
        [&[0, 9, 0, 0, 1, 2, 3, 4], &[0, 1, 0, 0, 1, 2, 3], &[0, 2, 0, 0], &[]];
    for value in values {
        let reply = world.ask(&client, Method::CreatePermission, |w| {
            w.xor_address(attr::XOR_PEER_ADDRESS, peer(1, 1))
                .attribute(attr::XOR_PEER_ADDRESS, value)
        });
        assert_eq!(reply.code(), 400, "{value:?}");
    }
    assert!(!world.sends(&client, peer(1, 1)), "the readable one was not installed either");
}

/// PRM-04.
#[test]
fn request_above_the_cap_installs_nothing() {
    let mut world = World::with(|settings| settings.permissions_max = 8);
    let client = world.client(1, "ana");
    world.allocate(&client);
    let peers = |range: std::ops::Range<u8>| range.map(|n| peer(n, 1)).collect::<Vec<_>>();
    assert_eq!(world.permit(&client, &peers(0..4)), 0);
    assert_eq!(world.permit(&client, &peers(10..18)), 508);
    assert_eq!(world.relay.snapshot(world.now).permissions, 4);
    let twice: Vec<_> = peers(10..14).into_iter().chain(peers(10..14)).collect();
    assert_eq!(world.permit(&client, &twice), 0, "the same peer counts once");
    assert_eq!(world.permit(&client, &peers(0..4)), 0, "a refresh needs no room");
    assert_eq!(world.permit(&client, &peers(20..21)), 508);
    assert_eq!(world.bind(&client, 0x4000, peer(20, 1)), 508, "a channel permits too");
    world.pass_ms(300_000);
    assert_eq!(world.permit(&client, &peers(20..28)), 0, "expired ones make room");
}

/// PRM-05.
#[test]
fn one_forbidden_peer_forbids_all() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    assert_eq!(world.permit(&client, &[peer(1, 1), addr("127.0.0.1:1")]), 403);
    assert_eq!(world.relay.snapshot(world.now).permissions, 0);
    assert!(!world.sends(&client, peer(1, 1)));
}

/// PRM-06 to PRM-09: through every door, and 403 before any 443.
#[test]
fn special_addresses_are_forbidden_through_every_door() {
    let v4 = "0.0.0.0 0.1.2.3 127.0.0.1 127.255.1.2 10.0.0.1 172.16.0.1 192.168.1.1 \
              169.254.169.254 100.64.0.1 192.0.0.1 198.18.0.1 224.0.0.1 239.1.2.3 240.0.0.1 \
              255.255.255.255";
    let v6 = ":: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 \
              ::ffff:0:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::1 2001:0:7f00:1::1 fe80::1 fc00::1 \
              fd00:ec2::254 fec0::1 ff02::1 2606:4700::5efe:10.0.0.1 64:ff9b::cb00:7101";
    let mut world = World::new();
    let [four, six] = [1, 2].map(|port| world.client(port, "ana"));
    world.allocate(&four);
    world.allocate_v6(&six);
    let own = SocketAddr::new(ip(EXTERNAL_IP), 80);
    let peers = v4.split_whitespace().chain(v6.split_whitespace());
    let peers: Vec<_> = peers.map(|text| SocketAddr::new(ip(text), 5000)).collect();
    for peer in peers.into_iter().chain([own]) {
        for client in [&four, &six] {
            assert_eq!(world.permit(client, &[peer]), 403, "permission for {peer}");
            assert_eq!(world.bind(client, 0x4000, peer), 403, "channel to {peer}");
            assert!(!world.sends(client, peer), "Send to {peer}");
        }
    }
    let after = world.relay.snapshot(world.now);
    assert_eq!((after.permissions, after.channels), (0, 0));
}

/// PRM-09: a permission is for an address, but the ports of our own address differ.
#[test]
fn permission_for_our_own_address_opens_relayed_ports_only() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    let own = |port| SocketAddr::new(ip(EXTERNAL_IP), port);
    assert_eq!(world.permit(&client, &[own(60_000)]), 0);
    for port in [0, 22, 80, 3478, 3479, 49_151] {
        let bytes = world.indication(own(port), b"x");
        let verdict = world.client_sends(&client, &bytes);
        assert_eq!(verdict, Verdict::Drop(DropReason::PeerDenied), "{port}");
    }
}

#[test]
fn port_zero_is_nobody() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    assert_eq!(world.permit(&client, &[peer(1, 0)]), 0, "a permission has no port");
    assert!(world.sends(&client, peer(1, 1)));
    let bytes = world.indication(peer(1, 0), b"x");
    assert_eq!(world.client_sends(&client, &bytes), Verdict::Drop(DropReason::PeerDenied));
    assert_eq!(world.bind(&client, 0x4000, peer(1, 0)), 403);
}

/// PRM-11, first half.
#[test]
fn traffic_and_refresh_do_not_keep_a_permission() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 0);
    for _ in 0..2 {
        world.pass_ms(140_000);
        assert!(world.sends(&client, peer(1, 1)) && world.hears(relayed, peer(1, 1)));
        assert_eq!(world.refresh(&client, 3600).code(), 0);
    }
    world.pass_ms(20_000);
    assert!(!world.sends(&client, peer(1, 1)) && !world.hears(relayed, peer(1, 1)));
}

/// PRM-11, second half.
#[test]
fn channel_bind_keeps_a_permission() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    world.pass_ms(200_000);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    world.pass_ms(200_000);
    assert!(world.sends(&client, peer(1, 2)) && world.hears(relayed, peer(1, 2)), "other ports");
}

/// PRM-12.
#[test]
fn permission_lasts_three_hundred_seconds_both_ways() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 0);
    world.pass_ms(299_900);
    assert!(world.sends(&client, peer(1, 1)) && world.hears(relayed, peer(1, 1)));
    world.pass_ms(200);
    let bytes = world.indication(peer(1, 1), b"x");
    assert_eq!(world.client_sends(&client, &bytes), Verdict::Drop(DropReason::NoPermission));
    let verdict = world.peer_sends(relayed, peer(1, 1), b"x");
    assert_eq!(verdict, Verdict::Drop(DropReason::NoPermission));
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 0);
    assert!(world.sends(&client, peer(1, 1)) && world.hears(relayed, peer(1, 1)));
}
