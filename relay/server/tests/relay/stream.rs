//! TURN over TCP: rows of the conformance table on real sockets.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use relay_proto::attribute as attr;
use relay_proto::stun::Method;
use tempfile::TempDir;

use super::equipment::{metric, peer, slow_reader_loses_the_oldest, state};
use super::turn_client::{TurnClient, USER, channel_data, is_success};
use crate::{PATIENCE, Running, assert_refused, run};

const CHANNEL: u16 = 0x4000;

/// A relay whose clients and peers are on loopback, with one thread for datagrams, so that UDP and
/// TCP are always served by different ones.
fn relay(state: &TempDir) -> Running {
    let flags = ["--user", USER, "--allow-peer", "127.0.0.2/32", "--workers", "1"];
    Running::start(state.path(), &flags)
}

pub fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    match stream.read(&mut [0; 16]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// STR-01.
#[test]
fn message_may_come_byte_by_byte() {
    let state = state();
    let relay = relay(&state);
    let mut client = TurnClient::over_tcp(relay.turn);
    for byte in client.binding() {
        client.send(&[byte]);
    }
    assert!(is_success(&client.next().expect("answered")));
}

/// STR-02.
#[test]
fn coalesced_messages_are_all_served_and_answers_padded_with_zeros() {
    let state = state();
    let relay = relay(&state);
    let (socket, at) = peer();
    let mut client = TurnClient::over_tcp(relay.turn);
    let relayed = client.allocate();
    let together = [
        client.bind_request(CHANNEL, at),
        channel_data(CHANNEL, b"a"),
        channel_data(CHANNEL, b""),
        client.binding(),
        channel_data(CHANNEL, b"abcde"),
    ];
    client.send(&together.concat());
    assert!(is_success(&client.next().expect("bound")));
    assert!(is_success(&client.next().expect("answered")));
    for wanted in [&b"a"[..], b"", b"abcde"] {
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).expect("received");
        assert_eq!((&buffer[..length], from), (wanted, relayed));
    }
    for payload in [&b""[..], b"1", b"12", b"123", b"1234"] {
        socket.send_to(payload, relayed).expect("sent");
        assert_eq!(client.next(), Some(channel_data(CHANNEL, payload)));
    }
    let sum = |leg, direction| {
        let labels = format!("leg=\"{leg}\",direction=\"{direction}\"");
        let more = if leg == "client" { "tcp" } else { "udp" };
        let all = format!("{{{labels},transport=\"{more}\",family=\"ipv4\"}}");
        metric(&relay, &format!("relay_bytes_total{all}"))
    };
    assert_eq!((sum("peer", "rx"), sum("peer", "tx")), (10, 6));
    assert!(sum("client", "rx") > 24 && sum("client", "tx") > 28);
    assert_eq!(metric(&relay, "relay_allocations_total{transport=\"tcp\"}"), 1);
}

/// STR-03.
#[test]
fn end_of_the_stream_is_answered_to_the_last_and_frees_the_allocation() {
    let state = state();
    let relay = relay(&state);
    let mut client = TurnClient::over_tcp(relay.turn);
    client.allocate();
    assert_eq!(metric(&relay, "relay_allocations"), 1);
    let request = client.request(Method::Refresh, |w| w.attribute(attr::LIFETIME, &[0, 0, 2, 88]));
    client.send(&request);
    client.end();
    assert!(is_success(&client.next().expect("answered on the same connection")));
    assert_eq!(client.next(), None);
    assert_eq!(metric(&relay, "relay_allocations"), 0);
    assert_eq!(metric(&relay, "relay_allocations_closed_total{reason=\"disconnected\"}"), 1);
    assert_eq!(metric(&relay, "relay_conservation_errors_total"), 0);
}

/// STR-04.
#[test]
fn other_protocols_are_closed_at_once() {
    let state = state();
    let relay = relay(&state);
    for garbage in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"SSH-2.0-x\r\n", &[0x80; 20]] {
        let mut stream = TcpStream::connect(relay.turn).expect("connected");
        stream.write_all(garbage).expect("sent");
        assert!(is_closed(&mut stream), "{garbage:?}");
    }
    assert_eq!(metric(&relay, "relay_dropped_packets_total{reason=\"malformed\"}"), 3);
}

/// STR-05, STR-06.
#[test]
fn who_says_nothing_that_is_whole_is_closed_and_who_allocates_is_not() {
    let state = state();
    let relay = relay(&state);
    let connect = || TcpStream::connect(relay.turn).expect("connected");
    let (mut silent, mut halting, mut dripping) = (connect(), connect(), connect());
    let mut client = TurnClient::over_tcp(relay.turn);
    client.allocate();
    // The header of a message that would be 1,020 bytes long.
    let header = [0, 1, 0x03, 0xE8, 0x21, 0x12, 0xA4, 0x42];
    halting.write_all(&header).expect("sent");
    // The answer that never comes paces the drops.
    dripping.set_read_timeout(Some(Duration::from_millis(500))).expect("timeout");
    let mut drops = header.into_iter().chain(std::iter::repeat(0));
    let ended = loop {
        let sent = dripping.write_all(&[drops.next().expect("endless")]);
        match dripping.read(&mut [0; 16]) {
            Ok(0) => break true,
            Err(error) if error.kind() == ErrorKind::WouldBlock && sent.is_ok() => {}
            Err(error) => break error.kind() != ErrorKind::WouldBlock,
            Ok(_) => break false,
        }
    };
    assert!(ended, "a drip keeps no connection");
    assert!(is_closed(&mut silent));
    assert!(is_closed(&mut halting));
    let request = client.binding();
    client.send(&request);
    assert!(is_success(&client.next().expect("still there")));
}

/// A school is one address: whoever is one too many waits for its turn.
#[test]
fn one_address_has_32_places_without_an_allocation_and_others_wait_for_them() {
    let state = state();
    let relay = relay(&state);
    let mut here: Vec<_> = (0..32).map(|_| TurnClient::over_tcp(relay.turn)).collect();
    // Each has its place once it is answered.
    for client in &mut here {
        let request = client.binding();
        client.send(&request);
        assert!(is_success(&client.next().expect("answered")));
    }
    let mut late = TurnClient::over_tcp(relay.turn);
    let request = late.binding();
    late.send(&request);
    let mut waiting: Vec<_> =
        (1..128).map(|_| TcpStream::connect(relay.turn).expect("accepted")).collect();
    let mut many = TcpStream::connect(relay.turn).expect("the kernel accepts");
    assert!(is_closed(&mut many), "more than may wait");
    for stream in &mut waiting {
        stream.set_nonblocking(true).expect("a setting");
        let kind = stream.read(&mut [0; 16]).expect_err("it waits").kind();
        assert_eq!(kind, ErrorKind::WouldBlock);
    }
    // Whoever allocates leaves its place to the first that waits.
    here[31].allocate();
    assert!(is_success(&late.next().expect("answered")));
}

#[test]
fn clients_of_both_transports_reach_each_other_in_process() {
    let state = state();
    let relay = relay(&state);
    let (over_tcp, over_udp) =
        (|| TurnClient::over_tcp(relay.turn), || TurnClient::over_udp(relay.turn));
    for (mut one, mut other) in
        [(over_tcp(), over_udp()), (over_udp(), over_tcp()), (over_tcp(), over_tcp())]
    {
        let (at, other_at) = (one.allocate(), other.allocate());
        one.bind(CHANNEL, other_at);
        other.bind(CHANNEL + 1, at);
        for round in 0..50u8 {
            let payload = vec![round; 4 * usize::from(round)];
            one.send(&channel_data(CHANNEL, &payload));
            assert_eq!(other.next(), Some(channel_data(CHANNEL + 1, &payload)));
            other.send(&channel_data(CHANNEL + 1, &payload));
            assert_eq!(one.next(), Some(channel_data(CHANNEL, &payload)));
        }
    }
    assert_eq!(metric(&relay, "relay_hairpin_packets_total"), 3 * 100);
    assert_eq!(metric(&relay, "relay_conservation_errors_total"), 0);
}

#[test]
fn slow_reader_loses_the_oldest_media_and_keeps_its_framing() {
    let state = state();
    let relay = relay(&state);
    slow_reader_loses_the_oldest(&relay, relay.turn, TurnClient::on);
}

#[test]
fn busy_tcp_port_is_refused() {
    let state = state();
    let other = TcpListener::bind("127.0.0.1:0").expect("bound");
    let taken = other.local_addr().expect("address").to_string();
    let wanted = format!("listen: {taken}: another program uses this port");
    assert_refused(&run(state.path(), &["--listen", &taken]), &wanted);
}
