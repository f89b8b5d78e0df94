//! What holds for any bytes at all.

use proptest::collection::vec;
use proptest::prelude::*;
use relay_proto::attribute as attr;
use relay_proto::stun::{Class, Message, Method, Writer};
use relay_proto::{PeerAddr, RelayAddr, Snapshot, Verdict};

use super::world::{Client, Relayed, World, channel_data, client_addr, peer};

/// A relay with something of everything: a channel, a permission, an open neighbour, an
/// allocation that is over.
fn busy() -> (World, Client, Relayed) {
    let mut world = World::new();
    let gone = world.client(9, "gone");
    world.allocate(&gone);
    world.pass_ms(400_000);
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    let other = world.client(2, "ben");
    let neighbour = world.allocate(&other);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    assert_eq!(world.bind(&client, 0x4001, neighbour.addr.0), 0);
    assert_eq!(world.permit(&client, &[peer(2, 2)]), 0);
    world.pass_ms(200_000);
    (world, client, relayed)
}

/// All that is state: everything in a snapshot but what it counts.
fn state(of: &Snapshot) -> [u64; 5] {
    let (opened, closed) = (of.allocations_opened.iter(), of.allocations_closed.iter());
    [of.allocations, of.permissions, of.channels, opened.sum(), closed.sum()]
}

/// Something like STUN: known methods and attribute types, values of likely lengths.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let method = prop::sample::select(vec![0x001u16, 0x003, 0x004, 0x006, 0x007, 0x008, 0x009]);
    let class = prop::sample::select(vec![0x000u16, 0x010, 0x100, 0x110]);
    let kind = prop::sample::select(vec![
        attr::USERNAME,
        attr::USERHASH,
        attr::MESSAGE_INTEGRITY,
        attr::MESSAGE_INTEGRITY_SHA256,
        attr::PASSWORD_ALGORITHM,
        attr::PASSWORD_ALGORITHMS,
        attr::CHANNEL_NUMBER,
        attr::LIFETIME,
        attr::XOR_PEER_ADDRESS,
        attr::DATA,
        attr::REALM,
        attr::NONCE,
        attr::REQUESTED_ADDRESS_FAMILY,
        attr::EVEN_PORT,
        attr::REQUESTED_TRANSPORT,
        attr::RESERVATION_TOKEN,
        attr::ADDITIONAL_ADDRESS_FAMILY,
        attr::FINGERPRINT,
        0x7F01,
        0x8022,
    ]);
    let length = prop::sample::select(vec![0usize, 1, 2, 4, 8, 12, 20, 32, 509, 764]);
    let value = (length, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]);
    (method, class, vec((kind, value), 0..8), any::<[u8; 12]>()).prop_map(
        |(method, class, attributes, id)| {
            let mut out = Vec::new();
            let writer = Writer::new(&mut out, Method::Binding, Class::Request, id);
            attributes.iter().fold(writer, |w, (kind, value)| w.attribute(*kind, value)).finish();
            out[..2].copy_from_slice(&(method | class).to_be_bytes());
            out
        },
    )
}

fn any_datagram() -> impl Strategy<Value = Vec<u8>> {
    let data = (0x3FFFu16..0x5001, vec(any::<u8>(), 0..60), 0usize..70).prop_map(
        |(number, payload, length)| {
            let mut bytes = channel_data(number, &payload);
            bytes.resize(length.max(1), 0);
            bytes
        },
    );
    prop_oneof![vec(any::<u8>(), 0..200), any_message(), data]
}

proptest! {
    /// I-3 and I-13 for everybody who has no key, the client's own 5-tuple included.
    #[test]
    fn bytes_without_a_key_change_nothing(bytes in any_datagram(), port in 1u16..12) {
        let (mut world, _, relayed) = busy();
        let before = world.relay.snapshot(world.now);
        let from = client_addr(port);
        let verdict = world.relay.from_client(world.now, from, &bytes);
        if port != 1 {
            prop_assert!(matches!(verdict, Verdict::Control | Verdict::Drop(_)), "{:?}", verdict);
        }
        let replies = world.drain();
        prop_assert!(replies.len() <= 1);
        for reply in replies {
            prop_assert_eq!(reply.to, from);
            prop_assert!(reply.bytes.len() <= 2 * bytes.len());
        }
        let _ = world.relay.from_stun_client(world.now, from, &bytes);
        prop_assert!(world.drain().len() <= 1);
        let _ = world.peer_sends(relayed, peer(u8::try_from(port).expect("small"), 1), &bytes);
        let _ = world.relay.from_relay(world.now, RelayAddr(peer(1, 1)), relayed.addr, &bytes);
        prop_assert_eq!(world.drain(), []);
        let after = world.relay.snapshot(world.now);
        prop_assert_eq!(state(&before), state(&after));
        prop_assert!(world.closed.is_empty());
    }

    /// The same with a key of one's own making: all that is missing is the secret.
    #[test]
    fn forged_integrity_changes_nothing(bytes in any_message(), key: [u8; 16], port in 1u16..12) {
        let (mut world, client, _) = busy();
        let before = state(&world.relay.snapshot(world.now));
        let message = Message::parse(&bytes);
        let Ok(message) = message else { return Ok(()) };
        let Some(method) = message.method else { return Ok(()) };
        let forger = Client { addr: client_addr(port), key, ..client };
        let forged = world.request(&forger, method, |w| {
            let kept = message.attributes().filter(|(kind, _)| *kind != attr::MESSAGE_INTEGRITY);
            kept.fold(w, |w, (kind, value)| w.attribute(kind, value))
        });
        for reply in world.replies(forger.addr, &forged) {
            let refused = matches!(reply.code(), 400 | 401);
            prop_assert!(refused || method == Method::Binding, "{}", reply.code());
        }
        prop_assert_eq!(before, state(&world.relay.snapshot(world.now)));
    }

    /// Requests of a valid user with any content: an answer at most, and never a panic.
    #[test]
    fn signed_requests_of_any_content_are_survived(messages in vec(any_message(), 1..8)) {
        let (mut world, client, relayed) = busy();
        for bytes in messages {
            let Ok(message) = Message::parse(&bytes) else { continue };
            let Some(method) = message.method else { continue };
            let request = world.request(&client, method, |w| {
                let kept = message.attributes().filter(|(kind, _)| *kind != attr::MESSAGE_INTEGRITY);
                kept.fold(w, |w, (kind, value)| w.attribute(kind, value))
            });
            let replies = world.replies(client.addr, &request);
            prop_assert!(replies.len() <= 1);
            for reply in replies {
                reply.code();
            }
        }
        let _ = world.relay.from_peer(world.now, relayed.id, PeerAddr(peer(1, 1)), b"x");
        prop_assert_eq!(world.relay.snapshot(world.now).conservation_errors, 0);
    }

    /// A reader that takes something takes what its writer meant.
    #[test]
    fn what_is_read_can_be_written_again(bytes in any_message()) {
        let Ok(message) = Message::parse(&bytes) else { return Ok(()) };
        let Some(method) = message.method else { return Ok(()) };
        let mut again = Vec::new();
        let writer = Writer::new(&mut again, method, message.class, message.transaction_id());
        let attributes = message.attributes();
        attributes.fold(writer, |w, (kind, value)| w.attribute(kind, value)).finish();
        prop_assert_eq!(&again[20..], &bytes[20..again.len()]);
    }
}
