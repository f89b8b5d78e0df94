//! Replies to sources that have proved nothing: how many, to whom, and what is shed first.

use relay_proto::attribute as attr;
use relay_proto::credential;
use relay_proto::limit::{GUESS_SILENCE_MS, GUESSES_MAX, UNKNOWN_BURST};
use relay_proto::stun::{Class, Method};
use relay_proto::{ClientAddr, DropReason};

use super::world::{Client, REALM, Reply, SECRET, World, client_addr, ip};

/// People in a class behind one address, and the links that each of them opens.
const PEOPLE: u16 = 30;
const LINKS: u16 = 7;
/// From a request to the next one that needs its answer.
const ROUND_TRIP_MS: u64 = 100;
/// When a client asks again at first (RFC 8489 §6.2.1).
const RETRANSMISSION_MS: u64 = 500;

fn binding(world: &mut World, from: ClientAddr) -> Option<Reply> {
    let bytes = world.message(Method::Binding, Class::Request, |w| w);
    world.replies(from, &bytes).pop()
}

/// The nonce that a first Allocate brings, if it is answered.
fn nonce(world: &mut World, from: ClientAddr) -> Option<Vec<u8>> {
    let bytes = world.message(Method::Allocate, Class::Request, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[attr::TRANSPORT_UDP, 0, 0, 0])
    });
    let reply = world.replies(from, &bytes).pop()?;
    assert_eq!(reply.code(), 401);
    reply.attribute(attr::NONCE)
}

/// Asks until there is no answer.
fn exhaust(world: &mut World, from: ClientAddr) {
    assert!((0..2_000).any(|_| nonce(world, from).is_none()), "a budget has an end");
}

fn allocate(world: &mut World, addr: ClientAddr, nonce: Vec<u8>) {
    let user = format!("class.{}", addr.remote.port() / LINKS);
    let made = credential::mint(SECRET, &user, world.now.unix_s + 60);
    let key = credential::long_term_key(&made.username, REALM, &made.password);
    let client = Client { addr, username: made.username, key, nonce };
    assert_eq!(world.ask_allocate(&client, |w| w).code(), 0);
}

fn rate_limited(world: &World) -> u64 {
    world.relay.snapshot(world.now).traffic.dropped[DropReason::RateLimited.index()]
}

/// The address of each link's socket: one NAT, a port each.
fn class() -> impl Iterator<Item = ClientAddr> {
    (0..PEOPLE * LINKS).map(|link| client_addr(1_000 + link))
}

/// Nobody has a valid request behind them yet, and nobody is kept waiting.
#[test]
fn class_that_joins_within_a_second_never_meets_the_budget() {
    let mut world = World::new();
    let mut waiting = std::collections::VecDeque::new();
    let arrivals: Vec<_> = class().collect();
    let mut arrivals = (0..).step_by(1_000 / arrivals.len()).zip(arrivals).peekable();
    let mut opened = 0;
    for at_ms in 0..1_000 + ROUND_TRIP_MS {
        while let Some((_, from)) = arrivals.next_if(|(due_ms, _)| *due_ms <= at_ms) {
            assert!(binding(&mut world, from).is_some());
            let nonce = nonce(&mut world, from).expect("a challenge");
            waiting.push_back((at_ms + ROUND_TRIP_MS, from, nonce));
        }
        while let Some((_, from, nonce)) = waiting.pop_front_if(|(due_ms, ..)| *due_ms <= at_ms) {
            allocate(&mut world, from, nonce);
            opened += 1;
        }
        world.pass_ms(1);
    }
    assert_eq!((opened, rate_limited(&world)), (PEOPLE * LINKS, 0));
}

/// The worst case: all first requests of all links before a single answer is back. A burst's
/// worth is answered at once; the first that authenticates makes the address known, so every
/// other link needs one retransmission and no more.
#[test]
fn class_that_joins_in_one_instant_is_in_after_one_retransmission() {
    let mut world = World::new();
    let mut late_bindings = Vec::new();
    let mut challenged = Vec::new();
    let mut late = Vec::new();
    for from in class() {
        if binding(&mut world, from).is_none() {
            late_bindings.push(from);
        }
        match nonce(&mut world, from) {
            Some(nonce) => challenged.push((from, nonce)),
            None => late.push(from),
        }
    }
    assert!(!challenged.is_empty() && !late.is_empty());
    world.pass_ms(ROUND_TRIP_MS);
    challenged.into_iter().for_each(|(from, nonce)| allocate(&mut world, from, nonce));
    world.pass_ms(RETRANSMISSION_MS - ROUND_TRIP_MS);
    for from in late_bindings {
        assert!(binding(&mut world, from).is_some());
    }
    for from in late {
        let nonce = nonce(&mut world, from).expect("the address is known now");
        allocate(&mut world, from, nonce);
    }
    assert_eq!(world.opened.len(), usize::from(PEOPLE * LINKS));
}

/// I-14: whoever is named as the source of a flood gets a trickle.
#[test]
fn flood_with_a_forged_source_reflects_ten_replies_a_second() {
    let mut world = World::new();
    let mut replies = 0;
    for sent in 0..60_000u16 {
        let from =
            ClientAddr { remote: (ip("192.0.2.77"), 1 + sent % 999).into(), ..client_addr(1) };
        let got = if sent % 2 == 0 {
            binding(&mut world, from).is_some()
        } else {
            nonce(&mut world, from).is_some()
        };
        replies += u64::from(got);
        world.pass_ms(1);
    }
    assert_eq!(replies, UNKNOWN_BURST + 10 * 60 - 1, "60 s, the burst included");
    assert_eq!(rate_limited(&world), 60_000 - replies);
}

#[test]
fn second_port_draws_on_the_same_budget() {
    let mut world = World::new();
    let mut asked = 0..2_000;
    assert!(asked.any(|_| binding(&mut world, client_addr(1)).is_none()), "there is an end");
    let bytes = world.message(Method::Binding, Class::Request, |w| w);
    let other = ClientAddr { listener: 1, ..client_addr(2) };
    let verdict = world.relay.from_stun_client(world.now, other, &bytes);
    assert_eq!(verdict, relay_proto::Verdict::Drop(DropReason::RateLimited));
    assert!(nonce(&mut world, client_addr(2)).is_some(), "a challenge has a share of its own");
}

#[test]
fn valid_requests_are_answered_whatever_the_flood() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    exhaust(&mut world, client_addr(2));
    world.allocate(&client);
    exhaust(&mut world, client_addr(2));
    for _ in 0..2_000 {
        assert_eq!(world.refresh(&client, 600).code(), 0);
    }
    let stranger = world.permit(&Client { addr: client.addr, ..client.clone() }, &[]);
    assert_eq!(stranger, 400, "errors that are signed too");
}

/// Silence for whoever guesses; the class behind the same address works on and lets others in.
#[test]
fn guessed_passwords_meet_silence_and_valid_ones_an_answer() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    let guesser = Client { key: [7; 16], ..client.clone() };
    let guess = |world: &mut World| {
        let bytes = world.request(&guesser, Method::Refresh, |w| w);
        world.replies(guesser.addr, &bytes).pop()
    };
    for _ in 0..GUESSES_MAX {
        assert_eq!(guess(&mut world).expect("an answer").code(), 401);
    }
    assert_eq!(guess(&mut world), None);
    assert_eq!(world.refresh(&client, 600).code(), 0);
    let other = world.client(2, "ben");
    world.allocate(&other);
    world.pass_ms(GUESS_SILENCE_MS - 1);
    assert_eq!(guess(&mut world), None);
    world.pass_ms(1);
    assert_eq!(guess(&mut world).expect("an answer").code(), 401);
    let after = world.relay.snapshot(world.now);
    assert_eq!(after.auth_failures.iter().sum::<u64>(), u64::from(GUESSES_MAX) + 3, "all counted");
    assert_eq!(rate_limited(&world), 2);
}
