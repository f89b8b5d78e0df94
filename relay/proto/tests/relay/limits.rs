//! Bit rates, strict channels, and who gives way when a quota is full.

use relay_proto::relay::Closed;
use relay_proto::replace::SILENCE_S;
use relay_proto::shape::Rate;
use relay_proto::stun::{Class, Method};
use relay_proto::{DropReason, PortFailure, Verdict};

use super::world::{Client, Ports, Relayed, World, channel_data, peer};

const NUMBER: u16 = 0x4000;

fn bound(change: impl FnOnce(&mut relay_proto::Settings)) -> (World, Client, Relayed) {
    let mut world = World::with(change);
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, NUMBER, peer(1, 1)), 0);
    (world, client, relayed)
}

fn passes(world: &mut World, client: &Client, relayed: Relayed) -> (bool, bool) {
    let data = channel_data(NUMBER, b"payload");
    let out = matches!(world.client_sends(client, &data), Verdict::ToPeer { .. });
    (out, world.hears(relayed, peer(1, 1)))
}

#[test]
fn each_way_of_an_allocation_has_its_rate_and_every_drop_is_counted() {
    // 1,000 bytes take a millisecond.
    let (mut world, client, relayed) =
        bound(|settings| settings.rate_max = Rate::from_bps(8_000_000));
    let payload = [7; 1_000];
    let data = channel_data(NUMBER, &payload);
    let (mut out, mut back) = (0, 0);
    for ms in 0..2_000 {
        world.pass_ms(1);
        // Out at twice the rate, back at nine tenths of it.
        for _ in 0..2 {
            out += u32::from(matches!(world.client_sends(&client, &data), Verdict::ToPeer { .. }));
        }
        if ms % 10 != 0 {
            let verdict = world.peer_sends(relayed, peer(1, 1), &payload);
            back += u32::from(matches!(verdict, Verdict::ToClient { .. }));
        }
    }
    assert!((2_499..=2_502).contains(&out), "two seconds and half a second's burst: {out}");
    assert_eq!(back, 1_800, "the way that keeps within its rate loses nothing");
    let counted = world.relay.snapshot(world.now);
    assert_eq!(counted.traffic.dropped[DropReason::Shaped.index()], u64::from(4_000 - out));
    world.refresh(&client, 0);
    assert_eq!(world.relay.snapshot(world.now).conservation_errors, 0);
}

#[test]
fn another_allocation_has_a_rate_of_its_own() {
    let (mut world, client, _) = bound(|settings| settings.rate_max = Rate::from_bps(8));
    let other = world.client(2, "ana");
    world.allocate(&other);
    assert_eq!(world.bind(&other, NUMBER, peer(1, 1)), 0);
    let data = channel_data(NUMBER, b"payload");
    let passes = |verdict: Verdict<'_>| matches!(verdict, Verdict::ToPeer { .. });
    assert!(passes(world.client_sends(&client, &data)));
    assert_eq!(world.client_sends(&client, &data), Verdict::Drop(DropReason::Shaped));
    assert!(passes(world.client_sends(&other, &data)));
}

/// CHN-12, strict.
#[test]
fn strict_channel_needs_a_live_permission_both_ways() {
    let (mut world, mut client, relayed) = bound(|settings| settings.strict_channels = true);
    world.pass_ms(299_999);
    assert_eq!(passes(&mut world, &client, relayed), (true, true));
    world.pass_ms(1);
    assert_eq!(passes(&mut world, &client, relayed), (false, false));
    let dropped = world.relay.snapshot(world.now).traffic.dropped;
    assert_eq!(dropped[DropReason::NoPermission.index()], 2);
    world.renew_nonce(&mut client);
    assert_eq!(world.permit(&client, &[peer(1, 9)]), 0);
    assert_eq!(passes(&mut world, &client, relayed), (true, true));
}

/// CHN-13, strict.
#[test]
fn strict_number_and_peer_are_free_five_minutes_after_their_end() {
    let (mut world, mut client, _) = bound(|settings| settings.strict_channels = true);
    assert_eq!(world.refresh(&client, 3_600).code(), 0);
    world.pass_ms(899_999);
    world.renew_nonce(&mut client);
    assert_eq!(world.bind(&client, NUMBER, peer(1, 2)), 400);
    assert_eq!(world.bind(&client, NUMBER + 1, peer(1, 1)), 400);
    world.pass_ms(1);
    assert_eq!(world.bind(&client, NUMBER, peer(1, 2)), 0);
    assert_eq!(world.bind(&client, NUMBER + 1, peer(1, 1)), 0);
}

/// RFC 8656 §12: within the five minutes the same pair may come back.
#[test]
fn strict_quarantine_is_for_others_than_the_pair() {
    let (mut world, mut client, relayed) = bound(|settings| settings.strict_channels = true);
    assert_eq!(world.refresh(&client, 3_600).code(), 0);
    world.pass_ms(660_000);
    assert_eq!(passes(&mut world, &client, relayed), (false, false));
    world.renew_nonce(&mut client);
    assert_eq!(world.bind(&client, NUMBER, peer(1, 1)), 0);
    assert_eq!(passes(&mut world, &client, relayed), (true, true));
    assert_eq!(world.relay.snapshot(world.now).channels, 1);
}

#[test]
fn strict_quarantine_takes_no_place_of_a_live_channel() {
    let (mut world, mut client, _) = bound(|settings| {
        settings.strict_channels = true;
        settings.channels_max = 1;
    });
    assert_eq!(world.refresh(&client, 3_600).code(), 0);
    assert_eq!(world.bind(&client, NUMBER + 1, peer(2, 1)), 508);
    world.pass_ms(600_000);
    world.renew_nonce(&mut client);
    assert_eq!(world.bind(&client, NUMBER + 1, peer(2, 1)), 0);
    assert_eq!(world.bind(&client, NUMBER, peer(1, 1)), 508, "back, but there is no room");
}

/// ALC-23: behind a NAT that gave it another port, a client has room though its quota is full of
/// what it left behind.
#[test]
fn silent_allocation_gives_way_to_its_user_when_the_quota_is_full() {
    let mut world = World::new();
    // Silent for longer than anybody, but another's.
    let other = world.client(3, "ben");
    world.allocate(&other);
    world.pass_ms(1_000);
    let ghosts = [1, 2].map(|port| world.client(port, "ana"));
    let ids = [0, 1].map(|at: usize| world.allocate(&ghosts[at]).id);
    world.pass_ms(1_000);
    assert_eq!(world.refresh(&ghosts[0], 600).code(), 0, "heard of later than its twin");
    world.pass_ms(u64::from(SILENCE_S) * 1_000);
    let back = world.client(4, "ana");
    world.ports = Ports::FailOnce(PortFailure::Quota);
    world.allocate(&back);
    assert_eq!(world.closed, [ids[1]], "the one that was silent for longest, and only that");
    let closed = world.relay.snapshot(world.now).allocations_closed;
    assert_eq!(closed[Closed::Replaced as usize], 1);
    assert_eq!(world.refresh(&ghosts[0], 600).code(), 0);
    assert_eq!(world.refresh(&ghosts[1], 600).code(), 437);
    assert_eq!(world.refresh(&other, 600).code(), 0);
}

#[test]
fn nobody_who_is_heard_of_gives_way_and_nobody_twice() {
    let mut world = World::new();
    let clients = [1, 2].map(|port| world.client(port, "ana"));
    clients.iter().for_each(|client| {
        world.allocate(client);
    });
    world.pass_ms(u64::from(SILENCE_S) * 1_000 - 1_000);
    let third = world.client(3, "ana");
    world.ports = Ports::Fail(PortFailure::Quota);
    assert_eq!(world.ask_allocate(&third, |w| w).code(), 486);
    assert_eq!(world.closed, []);
    world.pass_ms(1_000);
    // The quota that is full is another's: no use in giving up more than one.
    assert_eq!(world.ask_allocate(&third, |w| w).code(), 486);
    assert_eq!(world.closed.len(), 1);
    // Anything that the client sends is heard.
    world.pass_ms(u64::from(SILENCE_S) * 1_000);
    let left = clients.iter().find(|client| {
        let keeps_open = world.message(Method::Send, Class::Indication, |w| w);
        let data = channel_data(NUMBER, b"x");
        let _ = world.client_sends(client, &keeps_open);
        world.client_sends(client, &data) == Verdict::Drop(DropReason::NoChannel)
    });
    assert!(left.is_some());
    assert_eq!(world.ask_allocate(&third, |w| w).code(), 486);
    assert_eq!(world.closed.len(), 1);
}

/// F11: A→B→A without a loop of errors.
#[test]
fn client_that_comes_back_to_its_old_port_goes_on_there() {
    let mut world = World::new();
    let first = world.client(1, "ana");
    let relayed = world.allocate(&first);
    let second = world.client(2, "ana");
    world.allocate(&second);
    assert_eq!(world.refresh(&first, 600).code(), 0);
    assert_eq!(world.permit(&first, &[peer(1, 1)]), 0);
    assert!(world.hears(relayed, peer(1, 1)));
    assert_eq!(world.refresh(&second, 0).code(), 0);
    assert_eq!(world.refresh(&first, 600).code(), 0);
}
