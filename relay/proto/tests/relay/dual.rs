//! One allocation with a relayed address of each family (RFC 8656 §7.2, §8.2).

use std::net::SocketAddr;

use relay_proto::request::PortWish;
use relay_proto::stun::Method;
use relay_proto::{DropReason, Family, PortFailure, RelayAddr, Verdict, attribute as attr};

use super::world::{
    Client, EXTERNAL_IP, Ports, RELAY_IP_V6, Random, Relayed, Reply, World, addr, channel_data, ip,
    peer, rendered,
};

const PEER_V6: &str = "[2001:db8:9::7]:1000";
const BOTH: &[u8] = &[2, 0, 0, 0];

fn peers() -> [SocketAddr; 2] {
    [peer(1, 1), addr(PEER_V6)]
}

/// Every relayed address of an answer, in its order.
fn relayed(reply: &Reply) -> Vec<SocketAddr> {
    let message = reply.message();
    let values = message.attributes().filter(|(kind, _)| *kind == attr::XOR_RELAYED_ADDRESS);
    values.map(|(_, value)| message.unxor(value).expect("address")).collect()
}

fn ask_both(world: &mut World, client: &Client) -> Reply {
    world.ask_allocate(client, |w| w.attribute(attr::ADDITIONAL_ADDRESS_FAMILY, BOTH))
}

fn allocate_both(world: &mut World, client: &Client) -> [Relayed; 2] {
    let reply = ask_both(world, client);
    assert_eq!(reply.code(), 0);
    let found = relayed(&reply);
    let id = world.last_opened().id;
    [found[0], found[1]].map(|address| Relayed { id, addr: RelayAddr(address) })
}

fn refresh_one(world: &mut World, client: &Client, family: u8, lifetime_s: u32) -> Reply {
    world.ask(client, Method::Refresh, |w| {
        w.attribute(attr::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])
            .attribute(attr::LIFETIME, &lifetime_s.to_be_bytes())
    })
}

/// ALC-20: one allocation, charged once, with two ports.
#[test]
fn both_families_are_given_to_who_asks_for_both() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let reply = ask_both(&mut world, &client);
    let found = relayed(&reply);
    assert_eq!(
        found.iter().map(SocketAddr::ip).collect::<Vec<_>>(),
        [ip(EXTERNAL_IP), ip(RELAY_IP_V6)]
    );
    assert_eq!(reply.attribute(attr::ADDRESS_ERROR_CODE), None);
    let asked: Vec<_> = world.opened.iter().map(|it| (it.id, it.family, it.is_second)).collect();
    let id = world.last_opened().id;
    assert_eq!(asked, [(id, Family::V4, false), (id, Family::V6, true)]);
    let after = world.relay.snapshot(world.now);
    assert_eq!((after.allocations, after.allocations_opened), (1, [1, 0, 0]));
}

#[test]
fn each_peer_is_reached_from_the_address_of_its_family() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let [four, _] = allocate_both(&mut world, &client);
    assert_eq!(world.permit(&client, &peers()), 0);
    for (number, peer) in [0x4000, 0x4001].into_iter().zip(peers()) {
        assert!(world.sends(&client, peer) && world.hears(four, peer), "{peer}");
        assert_eq!(world.bind(&client, number, peer), 0);
        let data = channel_data(number, b"x");
        assert!(
            matches!(world.client_sends(&client, &data), Verdict::ToPeer { to, .. } if to.0 == peer)
        );
        assert_eq!(rendered(&world.peer_sends(four, peer, b"x")), data);
    }
    let [v4, v6] = world.relay.snapshot(world.now).traffic.peer.tx.map(|count| count.packets);
    assert_eq!((v4, v6), (2, 2));
}

/// I-12: no answer before both ports are answered for, and the same one to a retransmission.
#[test]
fn answer_waits_for_both_ports() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.ports = Ports::Wait;
    let bytes = world.request(&client, Method::Allocate, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
            .attribute(attr::ADDITIONAL_ADDRESS_FAMILY, BOTH)
    });
    let [four, six] = [ip(EXTERNAL_IP), ip(RELAY_IP_V6)].map(|ip| SocketAddr::new(ip, 50_000));
    assert_eq!(world.replies(client.addr, &bytes), []);
    let id = world.opened[0].id;
    world.relay.port_opened(id, RelayAddr(four));
    assert_eq!(world.drain(), []);
    assert_eq!(world.replies(client.addr, &bytes), [], "nor to its retransmission");
    assert_eq!(world.opened.len(), 2, "each port is asked for once");
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 437, "nothing to use yet");
    world.relay.port_opened(id, RelayAddr(six));
    let replies = world.drain();
    let [reply] = &replies[..] else { panic!("one reply, not {replies:?}") };
    assert_eq!(relayed(reply), [four, six]);
    assert_eq!(world.reply(client.addr, &bytes), *reply);
}

/// ALC-19: success with one address, and why there is no other.
#[test]
fn family_that_cannot_be_had_is_named_beside_the_other() {
    let cases = [
        (Family::V6, PortFailure::Family, [2, 0, 4, 40], EXTERNAL_IP),
        (Family::V6, PortFailure::Capacity, [2, 0, 5, 8], EXTERNAL_IP),
        (Family::V4, PortFailure::Family, [1, 0, 4, 40], RELAY_IP_V6),
        (Family::V4, PortFailure::Capacity, [1, 0, 5, 8], RELAY_IP_V6),
    ];
    for (missing, why, value, there) in cases {
        let mut world = World::new();
        let client = world.client(1, "ana");
        world.ports = Ports::FailOf(missing, why);
        let bytes = world.request(&client, Method::Allocate, |w| {
            w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
                .attribute(attr::ADDITIONAL_ADDRESS_FAMILY, BOTH)
        });
        let reply = world.reply(client.addr, &bytes);
        assert_eq!(reply.code(), 0);
        assert_eq!(relayed(&reply).iter().map(SocketAddr::ip).collect::<Vec<_>>(), [ip(there)]);
        assert_eq!(reply.attribute(attr::ADDRESS_ERROR_CODE), Some(value.to_vec()));
        assert_eq!(world.reply(client.addr, &bytes), reply, "retransmission");
        let codes = peers().map(|peer| world.permit(&client, &[peer]));
        let wanted = if missing == Family::V6 { [0, 443] } else { [443, 0] };
        assert_eq!(codes, wanted, "{missing:?}");
        // Quota is charged with the first port that there is.
        let charged = world.opened.iter().find(|it| it.relayed.is_some()).expect("one");
        assert!(!charged.is_second);
        assert_eq!(world.refresh(&client, 0).code(), 0);
        assert_eq!(world.closed.len(), 1);
    }
}

#[test]
fn without_any_family_there_is_an_error_and_nothing_else() {
    for (why, code, ports) in [
        (PortFailure::Quota, 486, 1),
        (PortFailure::Capacity, 508, 2),
        (PortFailure::Family, 440, 2),
    ] {
        let mut world = World::new();
        let client = world.client(1, "ana");
        world.ports = Ports::Fail(why);
        let reply = ask_both(&mut world, &client);
        assert_eq!(reply.code(), code);
        assert_eq!(world.opened.len(), ports, "a used up quota is no better for the other family");
        assert_eq!(world.relay.snapshot(world.now).allocations, 0);
        assert!(world.closed.is_empty());
    }
}

#[test]
fn even_port_is_even_in_both_families() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let reply = world.ask_allocate(&client, |w| {
        w.attribute(attr::ADDITIONAL_ADDRESS_FAMILY, BOTH).attribute(attr::EVEN_PORT, &[0])
    });
    assert_eq!(reply.code(), 0);
    assert!(world.opened.iter().all(|it| it.wish == PortWish::Even) && world.opened.len() == 2);
}

/// REF-03, RFC 8656 §8.1: giving one back takes its peers and nobody else's.
#[test]
fn one_family_may_be_given_back() {
    for (family, gone, kept) in [(1, 0, 1), (2, 1, 0)] {
        let mut world = World::new();
        let client = world.client(1, "ana");
        let both = allocate_both(&mut world, &client);
        for (number, peer) in [0x4000, 0x4001].into_iter().zip(peers()) {
            assert_eq!(world.bind(&client, number, peer), 0);
        }
        let reply = refresh_one(&mut world, &client, family, 0);
        assert_eq!((reply.code(), reply.lifetime_s()), (0, Some(0)));
        assert_eq!(world.closed, [both[0].id], "one port");
        let (gone, kept) = (peers()[gone], peers()[kept]);
        assert!(!world.sends(&client, gone) && !world.hears(both[0], gone));
        assert!(world.sends(&client, kept) && world.hears(both[0], kept));
        assert_eq!(world.permit(&client, &[gone]), 443);
        assert_eq!(refresh_one(&mut world, &client, family, 600).code(), 443);
        let after = world.relay.snapshot(world.now);
        assert_eq!((after.allocations, after.permissions, after.channels), (1, 1, 1));
        assert_eq!(refresh_one(&mut world, &client, 3 - family, 0).code(), 0);
        assert_eq!(world.closed.len(), 2, "the last one ends the allocation");
        assert_eq!(world.refresh(&client, 600).code(), 437);
        assert_eq!(world.relay.snapshot(world.now).conservation_errors, 0);
    }
}

/// RFC 8656 §5, §8.2: each address has a time of its own, checked when it is used.
#[test]
fn families_are_refreshed_apart_or_together() {
    for (family, gone, kept) in [(1, 1, 0), (2, 0, 1)] {
        let mut world = World::new();
        let mut client = world.client(1, "ana");
        let both = allocate_both(&mut world, &client);
        world.pass_ms(500_000);
        for (number, peer) in [0x4000, 0x4001].into_iter().zip(peers()) {
            assert_eq!(world.bind(&client, number, peer), 0);
        }
        assert_eq!(refresh_one(&mut world, &client, family, 600).lifetime_s(), Some(600));
        world.pass_ms(99_999);
        let (gone, kept) = (peers()[gone], peers()[kept]);
        assert!(world.sends(&client, gone) && world.hears(both[0], gone));
        world.pass_ms(1);
        // No tick has been yet.
        assert!(world.sends(&client, kept) && world.hears(both[0], kept));
        let bytes = world.indication(gone, b"x");
        assert_eq!(world.client_sends(&client, &bytes), Verdict::Drop(DropReason::Expired));
        let data = channel_data(if gone.is_ipv4() { 0x4000 } else { 0x4001 }, b"x");
        assert_eq!(world.client_sends(&client, &data), Verdict::Drop(DropReason::Expired));
        let verdict = world.peer_sends(both[0], gone, b"x");
        assert_eq!(verdict, Verdict::Drop(DropReason::Expired));
        let after = world.relay.snapshot(world.now);
        assert_eq!((after.allocations, after.permissions, after.channels), (1, 1, 1));
        // Whatever comes first, a request or a tick: what has ended does not come back.
        if family == 1 {
            world.renew_nonce(&mut client);
            assert_eq!(world.refresh(&client, 600).code(), 0);
        } else {
            world.tick();
        }
        assert_eq!(world.closed, [both[0].id]);
        assert_eq!(world.permit(&client, &[gone]), 443);
        world.pass_ms(600_000);
        world.tick();
        assert_eq!(world.closed.len(), 2);
        assert_eq!(world.relay.snapshot(world.now).allocations, 0);
    }
}

#[test]
fn both_end_together_if_nobody_refreshes() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    allocate_both(&mut world, &client);
    assert_eq!(world.refresh(&client, 900).code(), 0);
    world.pass_ms(899_999);
    world.tick();
    assert!(world.closed.is_empty(), "a refresh of no family is one of all");
    world.pass_ms(1);
    world.tick();
    assert_eq!(world.closed.len(), 2, "each port is closed once");
    let after = world.relay.snapshot(world.now);
    assert_eq!((after.allocations, after.allocations_opened), (0, [1, 0, 0]));
    assert_eq!(after.allocations_closed.iter().sum::<u64>(), 1);
}

/// DAT-13 in both families: in process, and never to itself.
#[test]
fn two_families_of_two_allocations_meet_in_process() {
    let mut world = World::new();
    let [ana, ben] = [(1, "ana"), (2, "ben")].map(|(port, user)| world.client(port, user));
    let ana_at = allocate_both(&mut world, &ana);
    let ben_at = allocate_both(&mut world, &ben);
    assert_eq!(world.permit(&ana, &ben_at.map(|at| at.addr.0)), 0);
    assert_eq!(world.permit(&ben, &ana_at.map(|at| at.addr.0)), 0);
    for (mine, theirs) in ana_at.into_iter().zip(ben_at) {
        let bytes = world.indication(theirs.addr.0, b"x");
        let verdict = world.client_sends(&ana, &bytes);
        let Verdict::Hairpin { from, to, payload, .. } = verdict else { panic!("{verdict:?}") };
        assert_eq!((from, to), (mine.addr, theirs.addr));
        let verdict = world.relay.from_relay(world.now, from, to, payload);
        assert!(matches!(verdict, Verdict::ToClient { to, .. } if to == ben.addr));
        let bytes = world.indication(mine.addr.0, b"x");
        assert_eq!(world.client_sends(&ana, &bytes), Verdict::Drop(DropReason::PeerDenied));
        assert_eq!(world.bind(&ana, 0x4000, mine.addr.0), 403, "itself");
    }
    assert_eq!(refresh_one(&mut world, &ben, 2, 0).code(), 0);
    let verdict = world.relay.from_relay(world.now, ana_at[1].addr, ben_at[1].addr, b"x");
    assert_eq!(verdict, Verdict::Drop(DropReason::RelayPortClosed));
    let verdict = world.relay.from_relay(world.now, ana_at[0].addr, ben_at[0].addr, b"x");
    assert!(matches!(verdict, Verdict::ToClient { .. }));
}

/// The next allocation in the same place answers to neither address of the one before.
#[test]
fn addresses_of_a_closed_allocation_mean_nobody() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let old = allocate_both(&mut world, &client);
    assert_eq!(world.refresh(&client, 0).code(), 0);
    let new = world.allocate(&client);
    assert_eq!(new.id.index(), old[0].id.index());
    for at in old {
        let from = RelayAddr(SocketAddr::new(at.addr.0.ip(), 60_000));
        let verdict = world.relay.from_relay(world.now, from, at.addr, b"x");
        assert_eq!(verdict, Verdict::Drop(DropReason::RelayPortClosed), "{at:?}");
    }
}

/// K: a link is a peer, whichever family it has; one that is given back carries no more.
#[test]
fn links_of_both_families_are_counted() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let [at, _] = allocate_both(&mut world, &client);
    assert_eq!(world.permit(&client, &peers()), 0);
    for peer in peers() {
        assert!(world.sends(&client, peer) && world.hears(at, peer));
    }
    assert_eq!(world.relay.snapshot(world.now).links_one_sided, 2);
    assert_eq!(refresh_one(&mut world, &client, 1, 0).code(), 0);
    assert_eq!(world.relay.snapshot(world.now).links_one_sided, 1);
}

/// An edge that opens the second port when the allocation is over has it closed again.
#[test]
fn second_port_that_opens_too_late_is_closed_again() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.ports = Ports::Wait;
    let bytes = world.request(&client, Method::Allocate, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
            .attribute(attr::ADDITIONAL_ADDRESS_FAMILY, BOTH)
    });
    assert_eq!(world.replies(client.addr, &bytes), []);
    let id = world.opened[0].id;
    world.relay.port_opened(id, RelayAddr(SocketAddr::new(ip(EXTERNAL_IP), 50_000)));
    assert_eq!(world.drain(), []);
    world.relay.client_closed(client.addr);
    assert_eq!(world.drain(), []);
    assert_eq!(world.closed, [id]);
    world.relay.port_opened(id, RelayAddr(SocketAddr::new(ip(RELAY_IP_V6), 50_000)));
    assert_eq!(world.drain(), []);
    assert_eq!(world.closed, [id, id]);
    let after = world.relay.snapshot(world.now);
    assert_eq!((after.allocations_opened, after.allocations_closed), ([0; 3], [0; 5]));
}

/// The addresses of one client as naively as can be: when each ends.
#[derive(Default)]
struct Ends([Option<u64>; 2]);

impl Ends {
    fn drop_ended(&mut self, now_ms: u64) {
        self.0.iter_mut().for_each(|it| *it = it.filter(|ends_ms| now_ms < *ends_ms));
    }

    fn is_empty(&self) -> bool {
        self.0 == [None, None]
    }

    /// The code that a Refresh of one family, or of both, is answered with.
    fn refresh(&mut self, now_ms: u64, only: Option<usize>, lifetime_s: u64) -> u16 {
        if self.is_empty() {
            return 437;
        }
        if only.is_some_and(|family| self.0[family].is_none()) {
            return 443;
        }
        let ends_ms = (lifetime_s != 0).then(|| now_ms + lifetime_s.max(600) * 1000);
        for (family, end) in self.0.iter_mut().enumerate() {
            if end.is_some() && only.is_none_or(|only| only == family) {
                *end = ends_ms;
            }
        }
        0
    }
}

/// I-6, I-9 over random lives: ports come and go with their addresses, each once.
#[test]
fn ports_of_two_families_are_conserved() {
    const PAUSES_MS: [u64; 6] = [1, 59_999, 299_999, 300_000, 599_999, 600_001];
    let mut lived = [0; 3];
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut world = World::new();
        let mut client = world.client_until(1, "ana", world.now.unix_s + 1_000_000_000);
        let mut ends = Ends::default();
        for step in 0..200 {
            let what = format!("seed {seed}, step {step}");
            let now_ms = world.now.mono_ms;
            ends.drop_ended(now_ms);
            world.renew_nonce(&mut client);
            match random.below(6) {
                0 => {
                    let missing = *random.pick(&[None, Some(0), Some(1)]);
                    world.ports = missing.map_or(Ports::Open, |at: usize| {
                        Ports::FailOf(Family::ALL[at], PortFailure::Capacity)
                    });
                    let code = ask_both(&mut world, &client).code();
                    assert_eq!(code, if ends.is_empty() { 0 } else { 437 }, "{what}");
                    if code == 0 {
                        ends.0 = [Some(now_ms + 600_000); 2];
                        missing.into_iter().for_each(|at| ends.0[at] = None);
                    }
                }
                1 | 2 => {
                    let lifetime_s = *random.pick(&[0, 600, 900, 3600]);
                    let only = *random.pick(&[None, Some(0), Some(1), Some(0), Some(1)]);
                    let wanted = ends.refresh(now_ms, only, lifetime_s.into());
                    let reply = match only {
                        Some(at) => {
                            let family = u8::try_from(at + 1).expect("1 or 2");
                            refresh_one(&mut world, &client, family, lifetime_s)
                        }
                        None => world.refresh(&client, lifetime_s),
                    };
                    assert_eq!(reply.code(), wanted, "{what}");
                }
                3 => {
                    let codes = peers().map(|peer| world.permit(&client, &[peer]));
                    let wanted = ends.0.map(|end| if end.is_some() { 0 } else { 443 });
                    assert_eq!(codes, if ends.is_empty() { [437; 2] } else { wanted }, "{what}");
                    let reached = peers().map(|peer| world.sends(&client, peer));
                    assert_eq!(reached, ends.0.map(|end| end.is_some()), "{what}");
                }
                4 => {
                    world.tick();
                    let opened = world.opened.iter().filter(|it| it.relayed.is_some()).count();
                    let open = ends.0.iter().flatten().count();
                    assert_eq!(opened - world.closed.len(), open, "{what}");
                    let allocations = world.relay.snapshot(world.now).allocations;
                    assert_eq!(allocations, u64::from(!ends.is_empty()), "{what}");
                    lived[open] += 1;
                }
                _ => world.pass_ms(*random.pick(&PAUSES_MS)),
            }
        }
        assert_eq!(world.relay.snapshot(world.now).conservation_errors, 0);
    }
    assert!(lived.iter().all(|count| *count > 100), "too little of something: {lived:?}");
}
