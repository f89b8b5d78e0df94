//! Clients on a byte stream: any split is the same stream, padding, and its end.

use proptest::collection::vec;
use proptest::prelude::*;
use relay_proto::framing::{self, Broken, Trust};
use relay_proto::relay::Closed;
use relay_proto::stun::{Class, Method};
use relay_proto::{ClientAddr, DropReason, Transport, Verdict};

use super::world::{Client, World, channel_data, client_addr, peer, rendered};

fn on_stream(port: u16) -> ClientAddr {
    ClientAddr { transport: Transport::Tcp, ..client_addr(port) }
}

fn client(world: &mut World, port: u16) -> Client {
    let known = world.client(port, "ana");
    let mut client = Client { addr: on_stream(port), ..known };
    world.renew_nonce(&mut client);
    client
}

/// ChannelData as on streams (RFC 8656 §12.5).
fn padded(number: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = channel_data(number, payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// All messages of a stream that comes in these pieces, and how it ends.
fn messages(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Result<(), Broken>) {
    let (mut held, mut found) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match framing::split_first(&held, Trust::Client) {
                Ok(Some((message, rest))) => {
                    let rest = rest.to_vec();
                    found.push(message.to_vec());
                    held = rest;
                }
                Ok(None) => break,
                Err(broken) => return (found, Err(broken)),
            }
        }
    }
    (found, Ok(()))
}

/// The bytes cut at the given places.
fn cut<'a>(bytes: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = places.iter().map(|at| at % (bytes.len() + 1)).collect();
    places.sort_unstable();
    let (mut pieces, mut from) = (Vec::new(), 0);
    for at in places {
        pieces.push(&bytes[from..at]);
        from = at;
    }
    pieces.push(&bytes[from..]);
    pieces
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let data = (0x4000u16..0x8000, vec(any::<u8>(), 0..80)).prop_map(|(n, p)| padded(n, &p));
    let stun = (any::<[u8; 12]>(), vec(any::<[u8; 4]>(), 0..20)).prop_map(|(id, words)| {
        let length = u16::try_from(words.len() * 4).expect("short");
        let header = [&[0, 1][..], &length.to_be_bytes(), &[0x21, 0x12, 0xA4, 0x42], &id];
        [header.concat(), words.concat()].concat()
    });
    prop_oneof![data, stun]
}

proptest! {
    /// I-19, STR-01, STR-02.
    #[test]
    fn any_split_of_a_stream_gives_its_messages(
        sent in vec(any_message(), 0..12),
        places in vec(any::<usize>(), 0..12),
    ) {
        let stream = sent.concat();
        prop_assert_eq!(messages(&cut(&stream, &places)), (sent.clone(), Ok(())));
        let bytes: Vec<_> = stream.chunks(1).collect();
        prop_assert_eq!(messages(&bytes), (sent, Ok(())));
    }

    /// Whatever the bytes are, their split does not change what they mean.
    #[test]
    fn any_split_of_any_bytes_is_broken_at_the_same_place(
        sent in vec(any_message(), 0..3),
        garbage in vec(any::<u8>(), 0..40),
        places in vec(any::<usize>(), 0..8),
    ) {
        let stream = [sent.concat(), garbage].concat();
        prop_assert_eq!(messages(&cut(&stream, &places)), messages(&[&stream]));
    }
}

/// I-19, STR-02: padded towards a stream, never towards a datagram's client.
#[test]
fn channel_data_to_a_stream_is_padded_with_zeros() {
    let mut world = World::new();
    let client = client(&mut world, 1);
    let at = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    for length in 0..9 {
        let payload = vec![7; length];
        let verdict = world.peer_sends(at, peer(1, 1), &payload);
        assert_eq!(rendered(&verdict), padded(0x4000, &payload));
        let up = padded(0x4000, &payload);
        let verdict = world.client_sends(&client, &up);
        assert!(matches!(verdict, Verdict::ToPeer { payload: sent, .. } if sent == payload));
    }
    let traffic = world.relay.snapshot(world.now).traffic;
    let [udp, tcp, _] = traffic.client;
    assert!(tcp.rx[0].packets > 9 && tcp.tx[0].packets > 9);
    assert_eq!(udp.tx[0].packets, 1, "the challenge of the client's first nonce");
}

/// TLS changes nothing about what it carries.
#[test]
fn channel_data_inside_tls_is_padded_and_counted_apart() {
    let mut world = World::new();
    let on_tls = ClientAddr { transport: Transport::Tls, ..client_addr(1) };
    let mut client = Client { addr: on_tls, ..client(&mut world, 1) };
    world.renew_nonce(&mut client);
    let at = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    let before = world.relay.snapshot(world.now).traffic;
    let verdict = world.peer_sends(at, peer(1, 1), &[7; 5]);
    assert_eq!(rendered(&verdict), padded(0x4000, &[7; 5]));
    world.relay.stream_overhead(on_tls, 29, 22);
    let after = world.relay.snapshot(world.now).traffic;
    let ([_, tcp, tls], [_, tcp_before, tls_before]) = (after.client, before.client);
    assert_eq!(tcp, tcp_before);
    assert_eq!(tls.tx[0].packets - tls_before.tx[0].packets, 1);
    assert_eq!(tls.tx[0].bytes - tls_before.tx[0].bytes, 12 + 22);
    assert_eq!(tls.rx[0].packets, tls_before.rx[0].packets, "records are no messages");
    assert_eq!(tls.rx[0].bytes - tls_before.rx[0].bytes, 29);
    // The peer's datagram came with 28 bytes of headers.
    let (rx, tx) = (after.wire_bytes().0 - before.wire_bytes().0, after.wire_bytes().1);
    assert_eq!((rx, tx - before.wire_bytes().1), (29 + 5 + 28, 12 + 22));
}

/// STR-03.
#[test]
fn end_of_a_stream_ends_its_allocation_and_no_other() {
    let mut world = World::new();
    let gone = client(&mut world, 1);
    let at = world.allocate(&gone);
    let kept = world.client(1, "ana");
    world.allocate(&kept);
    assert!(world.relay.has_allocation(world.now, gone.addr));
    world.relay.client_closed(gone.addr);
    assert_eq!(world.drain(), []);
    assert_eq!(world.closed, [at.id]);
    assert!(!world.relay.has_allocation(world.now, gone.addr));
    assert!(world.relay.has_allocation(world.now, kept.addr));
    let after = world.relay.snapshot(world.now);
    assert_eq!((after.allocations, after.allocations_opened), (1, [1, 1, 0]));
    assert_eq!(after.allocations_closed[Closed::Disconnected as usize], 1);
    // Once is enough, and so is nothing to close.
    world.relay.client_closed(gone.addr);
    world.relay.client_closed(on_stream(9));
    assert_eq!(world.relay.snapshot(world.now).allocations_closed.iter().sum::<u64>(), 1);
}

#[test]
fn nonce_of_one_transport_is_stale_on_another() {
    let mut world = World::new();
    let mut client = world.client(1, "ana");
    for transport in [Transport::Tcp, Transport::Tls] {
        client.addr = ClientAddr { transport, ..client.addr };
        assert_eq!(world.ask_allocate(&client, |w| w).code(), 438);
    }
}

#[test]
fn broken_stream_is_counted_as_one_malformed_message() {
    let mut world = World::new();
    world.relay.stream_broken(on_stream(1), b"GET / HTTP/1.1\r\n");
    let traffic = world.relay.snapshot(world.now).traffic;
    assert_eq!((traffic.client[1].rx[0].packets, traffic.client[1].rx[0].bytes), (1, 16));
    assert_eq!(traffic.dropped[DropReason::Malformed.index()], 1);
    // Of a stream the relay knows its bytes, and not what they were wrapped in.
    assert_eq!(traffic.wire_bytes(), (16, 0));
    let bytes = world.message(Method::Binding, Class::Request, |w| w);
    assert_eq!(world.reply(on_stream(1), &bytes).to, on_stream(1));
}
