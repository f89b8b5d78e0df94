//! Refresh, and how allocations end.

use relay_proto::attribute as attr;
use relay_proto::auth::ExpiryMode;
use relay_proto::relay::{Closed, TICK_EXPIRIES_MAX};
use relay_proto::stun::{Class, Method, Writer};
use relay_proto::{DropReason, More, Verdict};

use super::world::{Client, REALM, World, channel_data, peer};

/// REF-01, and PRM-02 with its likes.
#[test]
fn without_an_allocation_everything_is_a_mismatch() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    assert_eq!(world.refresh(&client, 600).code(), 437);
    assert_eq!(world.refresh(&client, 0).code(), 437);
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 437);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 437);
}

/// REF-02.
#[test]
fn lifetime_zero_closes_at_once() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    let reply = world.refresh(&client, 0);
    assert_eq!((reply.code(), reply.lifetime_s()), (0, Some(0)));
    assert_eq!(world.closed, [relayed.id]);
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 437);
    assert!(!world.hears(relayed, peer(1, 1)));
    let data = channel_data(0x4000, b"x");
    assert_eq!(world.client_sends(&client, &data), Verdict::Drop(DropReason::NoAllocation));
    let after = world.relay.snapshot(world.now);
    assert_eq!((after.allocations, after.permissions, after.channels), (0, 0, 0));
    assert_eq!(after.allocations_closed[Closed::Released as usize], 1);
}

/// A Refresh that gives back, as its client sends it and the network repeats it.
fn goodbye(world: &mut World, client: &Client) -> Vec<u8> {
    world.request(client, Method::Refresh, |w| w.attribute(attr::LIFETIME, &[0; 4]))
}

/// I-12.
#[test]
fn repeated_goodbye_gets_the_same_answer_for_forty_seconds() {
    let mut world = World::new();
    let client = world.client_until(1, "ana", world.now.unix_s + 10);
    world.allocate(&client);
    world.pass_ms(11_000);
    let bytes = goodbye(&mut world, &client);
    let first = world.reply(client.addr, &bytes);
    assert_eq!((first.code(), first.lifetime_s()), (0, Some(0)), "its credential's end is nothing");
    world.pass_ms(39_999);
    world.tick();
    assert_eq!(world.reply(client.addr, &bytes), first);
    assert_eq!(world.closed.len(), 1);
    world.pass_ms(1);
    assert_eq!(world.reply(client.addr, &bytes).code(), 401, "a stranger by now");
    let renewed = world.client(1, "ana");
    assert_eq!(world.refresh(&renewed, 0).code(), 437, "another transaction, nothing to give back");
}

/// I-12: at most one change of state.
#[test]
fn repeated_goodbye_spares_the_next_allocation() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    let bytes = goodbye(&mut world, &client);
    let first = world.reply(client.addr, &bytes);
    let next = world.allocate(&client);
    assert_eq!(world.reply(client.addr, &bytes), first);
    assert!(!world.closed.contains(&next.id));
    assert_eq!(world.refresh(&client, 600).code(), 0);
    let second = goodbye(&mut world, &client);
    assert_eq!(world.reply(client.addr, &second).code(), 0);
    assert!(world.closed.contains(&next.id), "its own goodbye counts");
    assert_eq!(world.reply(client.addr, &bytes).code(), 437, "one goodbye is remembered a client");
}

/// A late copy of the whole exchange, or a client that does not draw its transaction ids, may come
/// back with the very same bytes: what they open, they close.
#[test]
fn repeated_exchange_leaves_nothing_open() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let hello = world.request(&client, Method::Allocate, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
    });
    let bye = goodbye(&mut world, &client);
    for round in 1..=3 {
        assert_eq!(world.reply(client.addr, &hello).code(), 0);
        for _ in 0..2 {
            let reply = world.reply(client.addr, &bye);
            assert_eq!((reply.code(), reply.lifetime_s()), (0, Some(0)));
            assert_eq!(world.closed.len(), round);
        }
    }
}

/// I-12, where the other address lives on.
#[test]
fn repeated_goodbye_to_one_address_gets_the_same_answer() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let both = world
        .ask_allocate(&client, |w| w.attribute(attr::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]));
    assert_eq!(both.code(), 0);
    let bytes = world.request(&client, Method::Refresh, |w| {
        w.attribute(attr::LIFETIME, &[0; 4])
            .attribute(attr::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0])
    });
    let first = world.reply(client.addr, &bytes);
    assert_eq!((first.code(), first.lifetime_s()), (0, Some(0)));
    assert_eq!(world.reply(client.addr, &bytes), first);
    assert_eq!(world.refresh(&client, 600).code(), 0, "IPv4 lives on");
}

/// I-3, I-12: whoever repeats it must have been able to sign it.
#[test]
fn goodbye_of_somebody_else_is_no_copy() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    let bytes = goodbye(&mut world, &client);
    assert_eq!(world.reply(client.addr, &bytes).code(), 0);
    let mut forged = bytes.clone();
    *forged.last_mut().expect("not empty") ^= 1;
    assert_eq!(world.reply(client.addr, &forged).code(), 401);
    let id = bytes[8..20].try_into().expect("12 bytes");
    let ben = world.client(1, "ben");
    for (client, lifetime_s, code) in [(&ben, 0u32, 437), (&client, 600, 437), (&client, 0, 0)] {
        let mut request = Vec::new();
        Writer::new(&mut request, Method::Refresh, Class::Request, id)
            .attribute(attr::LIFETIME, &lifetime_s.to_be_bytes())
            .attribute(attr::USERNAME, client.username.as_bytes())
            .attribute(attr::REALM, REALM.as_bytes())
            .attribute(attr::NONCE, &client.nonce)
            .integrity(&client.key)
            .finish();
        assert_eq!(world.reply(client.addr, &request).code(), code);
    }
}

/// REF-03.
#[test]
fn another_family_is_a_mismatch() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    for (family, code) in [(1, 0), (2, 443), (3, 443)] {
        let reply = world.ask(&client, Method::Refresh, |w| {
            w.attribute(attr::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])
        });
        assert_eq!(reply.code(), code, "family {family}");
    }
}

/// REF-04.
#[test]
fn refresh_grants_within_the_same_bounds() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    for (asked, granted) in [(1, 600), (1200, 1200), (3600, 3600), (!0, 3600)] {
        assert_eq!(world.refresh(&client, asked).lifetime_s(), Some(granted), "{asked}");
    }
    let reply = world.ask(&client, Method::Refresh, |w| w);
    assert_eq!(reply.lifetime_s(), Some(600), "without LIFETIME");
    let reply = world.ask(&client, Method::Refresh, |w| w.attribute(attr::LIFETIME, &[0]));
    assert_eq!(reply.code(), 400);
}

#[test]
fn allocation_ends_with_its_lifetime_even_before_a_tick() {
    let mut world = World::new();
    let mut client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    world.pass_ms(299_999);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    world.pass_ms(300_000);
    assert!(world.hears(relayed, peer(1, 1)), "1 ms before its end");
    world.pass_ms(1);
    assert!(!world.hears(relayed, peer(1, 1)));
    let data = channel_data(0x4000, b"x");
    assert_eq!(world.client_sends(&client, &data), Verdict::Drop(DropReason::Expired));
    assert!(!world.sends(&client, peer(1, 1)));
    world.renew_nonce(&mut client);
    assert_eq!(world.refresh(&client, 600).code(), 437);
    assert_eq!(world.closed, [relayed.id]);
    world.tick();
    assert_eq!(world.closed, [relayed.id], "once");
}

#[test]
fn expired_allocation_makes_room_for_the_next_of_its_client() {
    let mut world = World::new();
    let mut client = world.client(1, "ana");
    let old = world.allocate(&client);
    world.pass_ms(600_000);
    world.renew_nonce(&mut client);
    let new = world.allocate(&client);
    assert_ne!(old.addr, new.addr);
    assert_eq!(world.closed, [old.id]);
    let after = world.relay.snapshot(world.now);
    assert_eq!((after.allocations, after.allocations_opened), (1, [2, 0, 0]));
    assert_eq!(after.allocations_closed[Closed::Expired as usize], 1);
}

/// I-20: a bounded number a call, and nothing is forgotten.
#[test]
fn tick_ends_what_is_due_in_bounded_steps() {
    let mut world = World::new();
    let count = 2 * TICK_EXPIRIES_MAX + 1;
    for port in 1..=count {
        let client = world.client(u16::try_from(port).expect("a port"), "ana");
        world.allocate(&client);
    }
    world.pass_ms(599_999);
    assert_eq!(world.relay.tick(world.now), More::No);
    world.pass_ms(1);
    let mut rounds = 1;
    while world.relay.tick(world.now) == More::Yes {
        rounds += 1;
        assert!(rounds <= 4, "129 expiries take three calls");
    }
    assert_eq!(world.drain(), []);
    assert_eq!(world.closed.len(), count);
    let after = world.relay.snapshot(world.now);
    assert_eq!(after.allocations, 0);
    assert_eq!(after.allocations_closed[Closed::Expired as usize], count as u64);
}

#[test]
fn refreshed_allocation_outlives_its_first_deadline() {
    let mut world = World::new();
    let mut client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    for _ in 0..10 {
        world.pass_ms(500_000);
        world.renew_nonce(&mut client);
        assert_eq!(world.refresh(&client, 600).code(), 0);
        world.tick();
        assert!(world.closed.is_empty());
    }
    world.pass_ms(600_000);
    world.tick();
    assert_eq!(world.closed, [relayed.id]);
}

/// I-17.
#[test]
fn wall_clock_jumps_move_no_lifetime() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    for unix_s in [0, u64::MAX] {
        world.now.unix_s = unix_s;
        world.tick();
        assert!(world.hears(relayed, peer(1, 1)));
        assert_eq!(world.refresh(&client, 600).code(), 0);
    }
    assert!(world.closed.is_empty());
}

/// I-5: a refresh may bring the end nearer, and port and quota must not wait for the old one.
#[test]
fn shortened_allocation_ends_at_its_new_time() {
    let mut world = World::new();
    let mut client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    for _ in 0..3 {
        assert_eq!(world.refresh(&client, 3600).code(), 0);
        world.pass_ms(590_000);
        world.tick();
        world.renew_nonce(&mut client);
        assert_eq!(world.refresh(&client, 600).code(), 0);
    }
    world.pass_ms(599_999);
    world.tick();
    assert!(world.closed.is_empty());
    world.pass_ms(1);
    world.tick();
    assert_eq!(world.closed, [relayed.id]);
}

#[test]
fn session_ends_however_often_it_is_refreshed() {
    let mut world = World::with(|settings| settings.session_s_max = Some(4_000));
    let client = world.client_until(1, "ana", world_end());
    let reply = world.ask_allocate(&client, |w| w.attribute(attr::LIFETIME, &[0xFF; 4]));
    assert_eq!((reply.code(), reply.lifetime_s()), (0, Some(3_600)));
    let mut renewed = client.clone();
    for (pause_s, left_s) in [(1_000, 3_000), (2_500, 500), (499, 1)] {
        world.pass_ms(pause_s * 1_000);
        world.renew_nonce(&mut renewed);
        let reply = world.refresh(&renewed, 3_600);
        assert_eq!((reply.code(), reply.lifetime_s()), (0, Some(left_s)));
    }
    world.pass_ms(999);
    world.tick();
    assert_eq!(world.closed, [], "not before its time");
    world.pass_ms(1);
    assert_eq!(world.refresh(&renewed, 600).code(), 437);
    world.tick();
    assert_eq!(world.closed.len(), 1);
    world.allocate(&renewed);
}

#[test]
fn session_shorter_than_a_lifetime_cuts_what_allocate_grants() {
    let mut world = World::with(|settings| settings.session_s_max = Some(900));
    let client = world.client(1, "ana");
    let reply = world.ask_allocate(&client, |w| w.attribute(attr::LIFETIME, &[0xFF; 4]));
    assert_eq!((reply.code(), reply.lifetime_s()), (0, Some(900)));
}

/// The default is in `allocation_outlives_its_credential`.
#[test]
fn expiry_ends_refreshes_where_the_mode_says_so() {
    let mut world = World::with(|settings| settings.expiry_mode = ExpiryMode::Refresh);
    let expires = world.now.unix_s + 10;
    let client = world.client_until(1, "ana", expires);
    let relayed = world.allocate(&client);
    world.pass_ms(10_000);
    assert_eq!(world.refresh(&client, 600).code(), 0, "the last second still counts");
    world.pass_ms(1_000);
    assert_eq!(world.refresh(&client, 600).code(), 401);
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 0, "until its lifetime is over");
    let renewed = world.client(1, "ana");
    assert_eq!(world.refresh(&renewed, 600).code(), 0, "a new credential goes on");
    assert_eq!(world.refresh(&client, 0).code(), 0, "and giving back is always possible");
    assert_eq!(world.closed, [relayed.id]);
}

/// Later than any test lasts, in Unix seconds.
fn world_end() -> u64 {
    2_000_000_000
}
