//! What the operator changes while calls go on: settings, kicks, draining.

use std::collections::BTreeMap;

use relay_proto::auth::{AuthFailure, Credentials};
use relay_proto::credential;
use relay_proto::policy::Cidr;
use relay_proto::relay::Closed;
use relay_proto::stun::Method;
use relay_proto::{Alternates, DropReason, Settings, Verdict, Who, attribute as attr};

use super::world::*;

/// The settings of every world, changed.
fn changed(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = settings();
    change(&mut settings);
    settings
}

fn network(text: &str) -> Cidr {
    text.parse().expect("network")
}

fn user(name: &str) -> Who {
    Who::User(name.to_owned())
}

fn dropped(world: &World, reason: DropReason) -> u64 {
    world.relay.snapshot(world.now).traffic.dropped[reason.index()]
}

/// PRM-10.
#[test]
fn narrowed_policy_stops_the_next_packet_of_permissions_and_channels_both_ways() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    let [bound, permitted, other] = [peer(1, 1), peer(2, 2), peer(99, 1)];
    assert_eq!(world.bind(&client, 0x4000, bound), 0);
    assert_eq!(world.permit(&client, &[permitted, other]), 0);
    let data = channel_data(0x4000, b"payload");
    let narrow = changed(|it| it.policy.deny = vec![network("198.51.100.0/28")]);
    for (settings, is_open) in [(settings(), true), (narrow, false), (settings(), true)] {
        world.relay.configure(settings);
        for _ in 0..2 {
            let through = matches!(world.client_sends(&client, &data), Verdict::ToPeer { .. });
            assert_eq!(through, is_open, "channel, towards the peer");
            assert_eq!(world.hears(relayed, bound), is_open, "channel, from the peer");
            assert_eq!(world.sends(&client, permitted), is_open, "permission, towards the peer");
            assert_eq!(world.hears(relayed, permitted), is_open, "permission, from the peer");
            assert!(world.sends(&client, other) && world.hears(relayed, other), "another network");
        }
    }
    assert_eq!(dropped(&world, DropReason::PeerDenied), 8, "each with its reason");
    assert_eq!(world.relay.snapshot(world.now).conservation_errors, 0);
}

#[test]
fn address_that_becomes_the_hosts_own_is_no_peer_any_more() {
    let mut world = World::with(|it| it.policy.allow = vec![]);
    let client = world.client(1, "ana");
    world.allocate(&client);
    let public = addr("9.9.9.9:5000");
    assert_eq!(world.permit(&client, &[public]), 0);
    assert!(world.sends(&client, public));
    world.relay.configure(changed(|it| {
        it.policy.allow = vec![];
        it.policy.own_ips.push(public.ip());
    }));
    assert!(!world.sends(&client, public));
    assert_eq!(world.permit(&client, &[public]), 403);
}

#[test]
fn new_settings_that_change_no_peer_leave_every_path_open() {
    let mut world = World::new();
    let [ana, ben] = [(1, "ana"), (2, "ben")].map(|(port, user)| world.client(port, user));
    let at = [&ana, &ben].map(|client| world.allocate(client));
    assert_eq!(world.bind(&ana, 0x4000, at[1].addr.0), 0);
    assert_eq!(world.permit(&ben, &[at[0].addr.0]), 0);
    world.relay.configure(changed(|it| it.policy.deny = vec![network("192.0.2.0/24")]));
    let data = channel_data(0x4000, b"payload");
    let Verdict::Hairpin { from, to, payload, .. } = world.client_sends(&ana, &data) else {
        panic!("still another allocation of this server");
    };
    let verdict = world.relay.from_relay(world.now, from, to, payload);
    assert!(matches!(verdict, Verdict::ToClient { .. }), "{verdict:?}");
}

#[test]
fn removed_secret_or_user_ends_new_allocations_only() {
    let mut world = World::new();
    let rest = world.client(1, "ana");
    let (name, password) = STATIC_USER;
    let fixed = world.client_at(client_addr(2), name, password);
    for client in [&rest, &fixed] {
        world.allocate(client);
    }
    world.relay.configure(changed(|it| {
        let secrets = it.credentials.secrets[..1].to_vec();
        it.credentials = Credentials::new(REALM.to_owned(), secrets, BTreeMap::new());
    }));
    for client in [&rest, &fixed] {
        assert_eq!(world.refresh(client, 600).code(), 0);
        assert_eq!(world.permit(client, &[peer(1, 1)]), 0);
        assert!(world.sends(client, peer(1, 1)));
    }
    let late = [world.client(3, "ana"), world.client_at(client_addr(4), name, password)];
    for client in &late {
        assert_eq!(world.ask_allocate(client, |w| w).code(), 401);
    }
    world.relay.configure(settings());
    for client in &late {
        assert_eq!(world.ask_allocate(client, |w| w).code(), 0);
    }
}

#[test]
fn lowered_cap_takes_nothing_and_refuses_more() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    assert_eq!(world.permit(&client, &[peer(1, 1), peer(2, 1)]), 0);
    world.relay.configure(changed(|it| it.permissions_max = 1));
    assert!(world.sends(&client, peer(1, 1)) && world.sends(&client, peer(2, 1)));
    assert_eq!(world.permit(&client, &[peer(1, 1), peer(2, 1)]), 0, "what is there is refreshed");
    assert_eq!(world.permit(&client, &[peer(3, 1)]), 508);
}

/// I-22.
#[test]
fn kicked_user_is_cut_off_at_once_and_nobody_else() {
    let mut world = World::new();
    let [ana, again, ben] = [(1, "maths.ana"), (2, "maths.ana"), (3, "maths.ben")]
        .map(|(port, user)| world.client(port, user));
    let at = [&ana, &again, &ben].map(|client| world.allocate(client));
    for client in [&ana, &again, &ben] {
        assert_eq!(world.bind(client, 0x4000, peer(1, 1)), 0);
    }
    let until = world.now.unix_s + 60;
    let kicked = world.relay.kick(world.now, &user("maths.ana"), until);
    assert_eq!(kicked.clients, [ana.addr, again.addr]);
    assert_eq!(world.drain(), []);
    assert_eq!(world.closed, [at[0].id, at[1].id]);
    let data = channel_data(0x4000, b"payload");
    for (client, relayed) in [(&ana, at[0]), (&again, at[1])] {
        let refused = Verdict::Drop(DropReason::NoAllocation);
        assert_eq!(world.client_sends(client, &data), refused);
        assert_eq!(world.peer_sends(relayed, peer(1, 1), b"payload"), refused);
        assert_eq!(world.refresh(client, 600).code(), 401);
        assert_eq!(world.ask_allocate(client, |w| w).code(), 401);
    }
    assert!(matches!(world.client_sends(&ben, &data), Verdict::ToPeer { .. }));
    assert!(world.hears(at[2], peer(1, 1)));
    let after = world.relay.snapshot(world.now);
    assert_eq!(after.allocations_closed[Closed::Kicked as usize], 2);
    assert_eq!(after.auth_failures[AuthFailure::Revoked.index()], 4);
}

#[test]
fn kicked_room_is_everybody_in_it_and_whoever_joins_it() {
    let mut world = World::new();
    let [ana, ben, cleo] = [(1, "school/maths.ana"), (2, "school/maths.ben"), (3, "school/art.c")]
        .map(|(port, user)| world.client(port, user));
    for client in [&ana, &ben, &cleo] {
        world.allocate(client);
    }
    let who = Who::Room("school/maths".to_owned());
    let kicked = world.relay.kick(world.now, &who, world.now.unix_s + 60);
    assert_eq!(kicked.clients.len(), 2);
    let dora = world.client(4, "school/maths.dora");
    assert_eq!(world.ask_allocate(&dora, |w| w).code(), 401);
    assert_eq!(world.refresh(&cleo, 600).code(), 0);
}

#[test]
fn revocation_lasts_as_long_as_the_credential_that_was_in_use() {
    let mut world = World::new();
    let expires = world.now.unix_s + 7_200;
    let client = world.client_until(1, "ana", expires);
    world.allocate(&client);
    let kicked = world.relay.kick(world.now, &user("ana"), world.now.unix_s + 60);
    assert_eq!(kicked.until, expires);
    world.drain();
    world.pass_ms(7_200_000);
    let renewed = world.client(2, "ana");
    assert_eq!(world.ask_allocate(&renewed, |w| w).code(), 401, "its last second");
    world.pass_ms(1_000);
    assert_eq!(world.ask_allocate(&renewed, |w| w).code(), 0);
}

#[test]
fn static_user_is_revoked_for_the_time_that_was_given() {
    let mut world = World::new();
    let (name, password) = STATIC_USER;
    let client = world.client_at(client_addr(1), name, password);
    let kicked = world.relay.kick(world.now, &user(name), world.now.unix_s + 60);
    assert_eq!((kicked.clients.len(), kicked.until), (0, world.now.unix_s + 60));
    assert_eq!(world.ask_allocate(&client, |w| w).code(), 401);
    world.pass_ms(61_000);
    assert_eq!(world.ask_allocate(&client, |w| w).code(), 0);
}

#[test]
fn port_that_opens_after_the_kick_is_closed_again() {
    let mut world = World::new();
    world.ports = Ports::Wait;
    let client = world.client(1, "ana");
    let request = world.request(&client, Method::Allocate, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[attr::TRANSPORT_UDP, 0, 0, 0])
    });
    assert_eq!(world.replies(client.addr, &request), []);
    let id = world.opened[0].id;
    world.relay.kick(world.now, &user("ana"), world.now.unix_s + 60);
    assert_eq!((world.drain(), world.closed.len()), (vec![], 0));
    world.relay.port_opened(id, relay_proto::RelayAddr(addr("203.0.113.1:50001")));
    assert_eq!(world.drain(), []);
    assert_eq!(world.closed, [id]);
}

/// ALC-24.
#[test]
fn draining_relay_names_the_alternate_of_the_clients_family() {
    let mut world = World::new();
    let alternate = "203.0.113.77:3478".parse().expect("address");
    world.relay.drain(Alternates { v4: Some(alternate), v6: None });
    let four = world.client(1, "ana");
    let reply = world.ask_allocate(&four, |w| w);
    assert_eq!(reply.code(), 300);
    let server = reply.attribute(attr::ALTERNATE_SERVER).expect("an alternate");
    assert_eq!(server, [0, 1, 0x0D, 0x96, 203, 0, 113, 77]);
    let six = client_addr_v6(1);
    let made = credential::mint(SECRET, "ben", world.now.unix_s + 60);
    let six = world.client_at(six, &made.username, &made.password);
    let reply = world.ask_allocate(&six, |w| w);
    assert_eq!((reply.code(), reply.attribute(attr::ALTERNATE_SERVER)), (508, None));
    let alternate = "[2001:db8::77]:3478".parse().expect("address");
    world.relay.drain(Alternates { v4: None, v6: Some(alternate) });
    let reply = world.ask_allocate(&six, |w| w);
    assert_eq!(reply.code(), 300);
    let server = reply.attribute(attr::ALTERNATE_SERVER).expect("an alternate");
    assert_eq!(server[..8], [0, 2, 0x0D, 0x96, 0x20, 0x01, 0x0D, 0xB8]);
    assert_eq!((server.len(), server[19]), (20, 0x77));
    assert_eq!(world.ask_allocate(&four, |w| w).code(), 508);
    assert_eq!(world.opened.len(), 0);
}

/// ALC-24.
#[test]
fn stranger_is_never_told_of_an_alternate() {
    let mut world = World::new();
    let alternate = "203.0.113.77:3478".parse().expect("address");
    world.relay.drain(Alternates { v4: Some(alternate), v6: None });
    let mut client = world.client(1, "ana");
    client.key = [0; 16];
    let reply = world.ask_allocate(&client, |w| w);
    assert_eq!((reply.code(), reply.attribute(attr::ALTERNATE_SERVER)), (401, None));
}

#[test]
fn what_lives_goes_on_while_the_relay_drains() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let first = world.request(&client, Method::Allocate, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[attr::TRANSPORT_UDP, 0, 0, 0])
    });
    assert_eq!(world.reply(client.addr, &first).code(), 0);
    let relayed = world.last_opened();
    world.relay.drain(Alternates::default());
    assert_eq!(world.reply(client.addr, &first).code(), 0, "a retransmission has its answer");
    assert_eq!(world.refresh(&client, 600).code(), 0);
    assert_eq!(world.permit(&client, &[peer(2, 1)]), 0);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    let data = channel_data(0x4000, b"payload");
    assert!(matches!(world.client_sends(&client, &data), Verdict::ToPeer { .. }));
    assert!(world.hears(relayed, peer(2, 1)));
    assert_eq!(world.refresh(&client, 0).code(), 0);
    assert_eq!(world.ask_allocate(&client, |w| w).code(), 508);
}
