//! Every byte is counted once, and what was not sent is not counted as sent.

use relay_proto::stun::{Class, Method};
use relay_proto::traffic::Count;
use relay_proto::{ClientAddr, DropReason, Family, PeerAddr, Snapshot, Verdict};

use super::world::{
    Client, Random, Relayed, Reply, World, channel_data, client_addr_v6, peer, rendered,
};

fn count(packets: u64, bytes: usize) -> Count {
    Count { packets, bytes: bytes as u64 }
}

/// Two clients of each family that reach peers by a channel and by indications, and each other.
struct Classroom {
    world: World,
    clients: Vec<(Client, Relayed)>,
}

fn classroom() -> Classroom {
    let mut world = World::new();
    let mut clients = Vec::new();
    for port in 1..=4u16 {
        let made = world.client(port, "ana");
        let client = if port.is_multiple_of(2) {
            let credential =
                relay_proto::credential::mint(super::world::SECRET, "ana", 1_900_000_000);
            world.client_at(client_addr_v6(port), &credential.username, &credential.password)
        } else {
            made
        };
        let relayed = world.allocate(&client);
        clients.push((client, relayed));
    }
    let addresses: Vec<_> = clients.iter().map(|(_, relayed)| relayed.addr.0).collect();
    for (client, relayed) in &clients {
        assert_eq!(world.bind(client, 0x4000, peer(1, 1)), 0);
        assert_eq!(world.permit(client, &[peer(2, 2)]), 0);
        for (number, address) in (0x4001..).zip(&addresses) {
            let code = world.bind(client, number, *address);
            assert_eq!(code, if *address == relayed.addr.0 { 403 } else { 0 });
        }
    }
    Classroom { world, clients }
}

/// I-8: the relay's counters against a tally kept from the outside.
#[test]
fn counters_equal_what_crossed_the_sockets() {
    let Classroom { mut world, clients } = classroom();
    let before = world.relay.snapshot(world.now);
    let mut random = Random(8);
    let mut tally = before.traffic;
    let family = |client: ClientAddr| Family::of(&client.remote.ip()).index();
    let add = |to: &mut Count, bytes: usize| to.merge(count(1, bytes));
    for _ in 0..20_000 {
        // Slowly enough for the budget of replies to Binding.
        world.pass_ms(1);
        let (client, relayed) = random.pick(&clients).clone();
        let payload = vec![random.byte(); random.below(1300)];
        let from_peer = *random.pick(&[peer(1, 1), peer(2, 2), peer(3, 3)]);
        let bytes = match random.below(6) {
            0 => channel_data(0x4000 + u16::from(random.byte() % 6), &payload),
            1 => world.indication(from_peer, &payload),
            2 => payload.clone(),
            3 => {
                let bytes = world.message(Method::Binding, Class::Request, |w| w);
                let Reply { bytes: answer, .. } = world.reply(client.addr, &bytes);
                add(&mut tally.client[0].rx[family(client.addr)], bytes.len());
                add(&mut tally.client[0].tx[family(client.addr)], answer.len());
                continue;
            }
            _ => {
                add(&mut tally.peer.rx[0], payload.len());
                match world.peer_sends(relayed, from_peer, &payload) {
                    Verdict::Drop(reason) => tally.dropped[reason.index()] += 1,
                    verdict => {
                        let length = rendered(&verdict).len();
                        add(&mut tally.client[0].tx[family(client.addr)], length);
                    }
                }
                continue;
            }
        };
        add(&mut tally.client[0].rx[family(client.addr)], bytes.len());
        match world.client_sends(&client, &bytes) {
            Verdict::ToPeer { payload, .. } => add(&mut tally.peer.tx[0], payload.len()),
            Verdict::Drop(reason) => tally.dropped[reason.index()] += 1,
            Verdict::Hairpin { from, to, payload, .. } => {
                match world.relay.from_relay(world.now, from, to, payload) {
                    Verdict::Drop(reason) => tally.dropped[reason.index()] += 1,
                    verdict => {
                        let Verdict::ToClient { to, .. } = &verdict else { panic!("{verdict:?}") };
                        let length = rendered(&verdict).len();
                        add(&mut tally.client[0].tx[family(*to)], length);
                        add(&mut tally.hairpin, payload.len());
                    }
                }
            }
            Verdict::Control => {}
            other => panic!("{other:?}"),
        }
        for Reply { to, bytes } in world.drain() {
            add(&mut tally.client[0].tx[family(to)], bytes.len());
        }
    }
    assert_eq!(world.relay.snapshot(world.now).traffic, tally);
    assert!(tally.hairpin.packets > 100 && tally.peer.tx[0].packets > 100, "all was exercised");

    for (client, _) in &clients {
        assert_eq!(world.refresh(client, 0).code(), 0);
    }
    let after = world.relay.snapshot(world.now);
    assert_eq!(after.conservation_errors, 0);
    assert_eq!((after.allocations, after.permissions, after.channels), (0, 0, 0), "I-9");
}

/// 28 bytes of IPv4 and UDP headers a packet, 48 of IPv6.
#[test]
fn wire_bytes_are_payload_and_headers() {
    let mut world = World::new();
    let bytes = world.message(Method::Binding, Class::Request, |w| w);
    world.reply(super::world::client_addr(1), &bytes);
    assert_eq!(world.relay.snapshot(world.now).traffic.wire_bytes(), (20 + 28, 32 + 28));
    world.reply(client_addr_v6(1), &bytes);
    let both = world.relay.snapshot(world.now).traffic;
    assert_eq!(both.wire_bytes(), (48 + 20 + 48, 60 + 44 + 48));
    let mut twice = both;
    twice.merge(&both);
    assert_eq!(twice.wire_bytes(), (2 * 116, 2 * 152));
}

#[test]
fn unsent_packets_move_from_sent_to_dropped() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    let before = world.relay.snapshot(world.now).traffic;

    world.client_sends(&client, &channel_data(0x4000, b"12345"));
    world.relay.unsent_to_peer(relayed.id, PeerAddr(peer(1, 1)), 5, DropReason::SendError);
    // One in a channel, one in a Data indication with a byte of padding.
    for from in [peer(1, 1), peer(1, 2)] {
        let verdict = world.peer_sends(relayed, from, b"123");
        let Verdict::ToClient { via, to, head, payload, pad } = verdict else {
            panic!("{verdict:?}")
        };
        let framing = head.as_bytes().len() + usize::from(pad);
        world.relay.unsent_to_client(via, to, framing, payload.len(), DropReason::SocketBuffer);
    }
    let bytes = world.message(Method::Binding, Class::Request, |w| w);
    let reply = world.reply(client.addr, &bytes);
    world.relay.unsent_reply(client.addr, reply.bytes.len(), DropReason::SocketBuffer);

    let after = world.relay.snapshot(world.now).traffic;
    assert_eq!((after.client[0].tx, after.peer.tx), (before.client[0].tx, before.peer.tx));
    let mut received = before.client[0].rx;
    received[0].merge(count(2, 9 + 20));
    assert_eq!(after.client[0].rx, received, "what was received stays received");
    let dropped =
        |reason: DropReason| after.dropped[reason.index()] - before.dropped[reason.index()];
    assert_eq!((dropped(DropReason::SendError), dropped(DropReason::SocketBuffer)), (1, 3));
    assert_eq!(world.refresh(&client, 0).code(), 0);
    assert_eq!(world.relay.snapshot(world.now).conservation_errors, 0);
    world.relay.unsent_to_peer(relayed.id, PeerAddr(peer(1, 1)), 0, DropReason::SendError);
}

#[test]
fn hairpin_without_a_taker_is_dropped_once() {
    let mut world = World::new();
    let [ana, ben] = [1, 2].map(|port| world.client(port, "ana"));
    let (ana_at, ben_at) = (world.allocate(&ana), world.allocate(&ben));
    assert_eq!(world.bind(&ana, 0x4000, ben_at.addr.0), 0);
    world.client_sends(&ana, &channel_data(0x4000, b"12345"));
    world.relay.unsent_to_relay(ana_at.id, 5, DropReason::RingFull);
    assert_eq!(world.refresh(&ana, 0).code(), 0);
    let after = world.relay.snapshot(world.now);
    assert_eq!(after.traffic.dropped[DropReason::RingFull.index()], 1);
    assert_eq!((after.traffic.hairpin, after.conservation_errors), (Count::default(), 0));
}

fn links(world: &World) -> (u64, u64, u64) {
    let Snapshot { links_one_sided, link_ends_two_sided, allocations_carrying, .. } =
        world.relay.snapshot(world.now);
    (links_one_sided, link_ends_two_sided, allocations_carrying)
}

#[test]
fn link_counts_while_payload_goes_both_ways() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    assert_eq!(world.permit(&client, &[peer(2, 2)]), 0);
    world.client_sends(&client, &channel_data(0x4000, b"media"));
    assert_eq!(links(&world), (0, 0, 0), "one direction is no link");
    assert!(world.hears(relayed, peer(1, 1)));
    assert_eq!(links(&world), (1, 0, 1));
    assert!(world.sends(&client, peer(2, 2)) && world.hears(relayed, peer(2, 2)));
    assert_eq!(links(&world), (2, 0, 1));
    assert_eq!(world.bind(&client, 0x4001, peer(2, 2)), 0);
    assert_eq!(links(&world), (2, 0, 1), "a peer that gets a channel is the same link");
    world.client_sends(&client, &channel_data(0x4001, b"media"));
    assert!(world.hears(relayed, peer(2, 2)));
    assert_eq!(links(&world), (2, 0, 1), "also when the channel carries");
    world.pass_ms(9_000);
    assert_eq!(links(&world), (2, 0, 1));
    world.pass_ms(3_000);
    assert_eq!(links(&world), (0, 0, 0), "after ten quiet seconds");
}

/// A check is no payload, in either direction and in either form, so it makes no half of a link.
#[test]
fn checks_of_ice_make_no_link() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    let check = world.message(Method::Binding, Class::Request, |w| w.fingerprint());
    for (out, back) in [(&check[..], &b"media"[..]), (b"media", &check), (&check, &check)] {
        world.client_sends(&client, &channel_data(0x4000, out));
        let bytes = world.indication(peer(1, 2), out);
        world.client_sends(&client, &bytes);
        for from in [peer(1, 1), peer(1, 2)] {
            let verdict = world.peer_sends(relayed, from, back);
            assert!(matches!(verdict, Verdict::ToClient { .. }), "{verdict:?}");
        }
        assert_eq!(links(&world), (0, 0, 0));
        world.pass_ms(11_000);
    }
}

#[test]
fn link_between_two_allocations_has_two_ends() {
    let mut world = World::new();
    let [ana, ben] = [1, 2].map(|port| world.client(port, "ana"));
    let (ana_at, ben_at) = (world.allocate(&ana), world.allocate(&ben));
    assert_eq!(world.bind(&ana, 0x4000, ben_at.addr.0), 0);
    assert_eq!(world.permit(&ben, &[ana_at.addr.0]), 0);
    let to_ben = channel_data(0x4000, b"media");
    let to_ana = world.indication(ana_at.addr.0, b"media");
    for (client, bytes) in [(&ana, &to_ben), (&ben, &to_ana)] {
        let verdict = world.client_sends(client, bytes);
        let Verdict::Hairpin { from, to, payload, .. } = verdict else { panic!("{verdict:?}") };
        let verdict = world.relay.from_relay(world.now, from, to, payload);
        assert!(matches!(verdict, Verdict::ToClient { .. }), "{verdict:?}");
    }
    assert_eq!(links(&world), (0, 2, 2));
}

/// Workers read their clocks apart, so a snapshot may be asked for with an older time.
#[test]
fn snapshot_of_an_earlier_moment_is_harmless() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    world.client_sends(&client, &channel_data(0x4000, b"media"));
    assert!(world.hears(relayed, peer(1, 1)));
    world.now.mono_ms -= 5_000;
    assert_eq!(links(&world), (1, 0, 1));
}

#[test]
fn peer_whose_channel_ended_is_still_one_link() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.refresh(&client, 3600).code(), 0);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    world.pass_ms(595_000);
    world.client_sends(&client, &channel_data(0x4000, b"media"));
    assert!(world.hears(relayed, peer(1, 1)));
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 0);
    world.pass_ms(6_000);
    assert!(world.sends(&client, peer(1, 1)) && world.hears(relayed, peer(1, 1)));
    assert_eq!(links(&world), (1, 0, 1));
}
