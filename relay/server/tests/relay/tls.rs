//! TURN over TLS: rows of the conformance table on real sockets, and certificates that change.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::{AlertDescription, ProtocolVersion};
use tempfile::TempDir;

use super::equipment::{metric, peer, slow_reader_loses_the_oldest, state};
use super::stream::is_closed;
use super::tls_client::{Options, Pair, client_hello, client_on, connect, handshake, over_tls};
use super::turn_client::{TurnClient, USER, channel_data, is_success};
use crate::{PATIENCE, Running, assert_refused, run};

const CHANNEL: u16 = 0x4000;

/// A relay with a certificate of its own.
fn relay(state: &TempDir) -> (Running, Pair) {
    let (pair, _) = Pair::make(state.path());
    let mut flags = vec!["--user", USER, "--allow-peer", "127.0.0.2/32", "--workers", "1"];
    flags.extend(pair.flags());
    (Running::start(state.path(), &flags), pair)
}

fn tls_at(relay: &Running) -> std::net::SocketAddr {
    relay.tls.expect("TLS is served")
}

/// Waits until a condition holds that the relay brings about by itself.
fn until(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "it never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// STR-09.
#[test]
fn turn_is_selected_when_a_client_offers_it() {
    let state = state();
    let (relay, _) = relay(&state);
    for alpn in [&["stun.turn"][..], &["h2", "stun.turn"]] {
        let stream = TcpStream::connect(tls_at(&relay)).expect("connected");
        let stream = handshake(stream, Options { alpn, ..Options::default() }).expect("accepted");
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"stun.turn"[..]));
        let (mut client, _) = client_on(stream);
        client.allocate();
    }
}

/// STR-10.
#[test]
fn client_that_offers_no_protocol_is_accepted_with_either_version() {
    let state = state();
    let (relay, _) = relay(&state);
    for (only_1_2, wanted) in [(false, ProtocolVersion::TLSv1_3), (true, ProtocolVersion::TLSv1_2)]
    {
        let stream = TcpStream::connect(tls_at(&relay)).expect("connected");
        let options = Options { only_1_2, ..Options::default() };
        let stream = handshake(stream, options).expect("accepted");
        assert_eq!(stream.conn.alpn_protocol(), None);
        assert_eq!(stream.conn.protocol_version(), Some(wanted));
        let (mut client, _) = client_on(stream);
        client.allocate();
    }
}

/// STR-11.
#[test]
fn other_protocols_alone_are_refused_by_their_alert() {
    let state = state();
    let (relay, _) = relay(&state);
    for alpn in [&["stun.nat-discovery"][..], &["h2", "http/1.1"]] {
        let stream = TcpStream::connect(tls_at(&relay)).expect("connected");
        let refused = handshake(stream, Options { alpn, ..Options::default() });
        let error = refused.expect_err("refused");
        let alert = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let wanted = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
        assert_eq!(alert, Some(&wanted), "{error}");
    }
    assert_eq!(metric(&relay, "relay_dropped_packets_total{reason=\"malformed\"}"), 2);
}

#[test]
fn every_port_for_streams_serves_both_and_tells_them_apart() {
    let state = state();
    let (relay, _) = relay(&state);
    for at in [relay.turn, tls_at(&relay)] {
        let mut plain = TurnClient::over_tcp(at);
        let (mut tls, _) = over_tls(at);
        let (plain_at, tls_at) = (plain.allocate(), tls.allocate());
        plain.bind(CHANNEL, tls_at);
        tls.bind(CHANNEL, plain_at);
        plain.send(&channel_data(CHANNEL, b"in the clear"));
        assert_eq!(tls.next(), Some(channel_data(CHANNEL, b"in the clear")));
        tls.send(&channel_data(CHANNEL, b"inside TLS"));
        assert_eq!(plain.next(), Some(channel_data(CHANNEL, b"inside TLS")));
    }
    for transport in ["tcp", "tls"] {
        let name = format!("relay_allocations_total{{transport=\"{transport}\"}}");
        assert_eq!(metric(&relay, &name), 2);
    }
}

#[test]
fn tls_is_no_protocol_of_a_relay_without_a_certificate() {
    let state = state();
    let relay = Running::start(state.path(), &[]);
    let stream = TcpStream::connect(relay.turn).expect("connected");
    let error = handshake(stream, Options::default()).expect_err("refused");
    let closed = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
    assert!(closed.contains(&error.kind()), "{error}");
}

/// STR-01 inside TLS.
#[test]
fn message_inside_tls_may_come_byte_by_byte() {
    let state = state();
    let (relay, _) = relay(&state);
    // Each byte is a record; then each byte of a record is a segment.
    let (mut client, _) = over_tls(tls_at(&relay));
    for byte in client.binding() {
        client.send(&[byte]);
    }
    assert!(is_success(&client.next().expect("answered")));
    let stream = TcpStream::connect(tls_at(&relay)).expect("connected");
    let stream = handshake(stream, Options { drips: true, ..Options::default() });
    let (mut client, _) = client_on(stream.expect("accepted"));
    client.allocate();
}

/// Some clients take a record for a message, `turnutils_uclient` among them.
#[test]
fn answers_that_leave_together_are_records_of_their_own() {
    /// Header, content type and tag (RFC 8446 §5.2).
    const RECORD_OVERHEAD: u64 = 5 + 1 + 16;
    const ANSWER: u64 = 32;
    let state = state();
    let (relay, _) = relay(&state);
    let (mut client, carried) = over_tls(tls_at(&relay));
    let (_, before) = carried.bytes();
    let together = [client.binding(), client.binding(), client.binding()].concat();
    client.send(&together);
    for _ in 0..3 {
        assert!(is_success(&client.next().expect("answered")));
    }
    let (_, after) = carried.bytes();
    assert_eq!(after - before, 3 * (ANSWER + RECORD_OVERHEAD));
}

/// STR-03, STR-04 inside TLS.
#[test]
fn tls_stream_ends_with_a_goodbye_and_so_does_its_allocation() {
    let state = state();
    let (relay, _) = relay(&state);
    let (mut client, _) = over_tls(tls_at(&relay));
    client.allocate();
    assert_eq!(metric(&relay, "relay_allocations"), 1);
    let request = client.binding();
    client.send(&request);
    client.end();
    assert!(is_success(&client.next().expect("answered after the end")));
    assert_eq!(client.next(), None);
    assert_eq!(metric(&relay, "relay_allocations"), 0);
    let mut stream = connect(tls_at(&relay));
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    assert_eq!(stream.read(&mut [0; 16]).expect("a goodbye"), 0);
}

/// STR-05, STR-06 before and inside the handshake: five seconds are all there is, and whoever
/// waits takes a stranger's place.
#[test]
fn handshake_that_stalls_is_closed_and_counts_among_strangers() {
    let state = state();
    let (relay, _) = relay(&state);
    let connect = || TcpStream::connect(tls_at(&relay)).expect("connected");
    let mut waiting: Vec<_> = (0..32).map(|_| connect()).collect();
    for (number, stream) in waiting.iter_mut().enumerate() {
        // The beginning of a record of 512 bytes.
        let begun = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3][..number % 12];
        stream.write_all(begun).expect("sent");
    }
    assert!(is_closed(&mut connect()), "one too many");
    for stream in &mut waiting {
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        // A goodbye, if any.
        let ended = stream.read_to_end(&mut Vec::new());
        let reset = |error: std::io::Error| error.kind() == ErrorKind::ConnectionReset;
        assert!(ended.is_ok() || ended.is_err_and(reset));
    }
    let (mut client, _) = over_tls(tls_at(&relay));
    client.allocate();
}

/// Whatever a handshake begins with, the relay ends its side and lives.
#[test]
fn mutated_handshakes_harm_nobody() {
    let state = state();
    let (relay, _) = relay(&state);
    let (mut client, _) = over_tls(tls_at(&relay));
    client.allocate();
    let hello = client_hello();
    let mut seed = 0x2545_F491_4F6C_DD1Du64;
    let mut draw = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).expect("small")
    };
    for _ in 0..300 {
        let mut bytes = hello.clone();
        for _ in 0..=draw(6) {
            // The first byte stays, or it would be no TLS.
            let at = 1 + draw(bytes.len() - 1);
            bytes[at] ^= 1 << draw(8);
        }
        if draw(3) == 0 {
            bytes.truncate(1 + draw(bytes.len() - 1));
        }
        let mut stream = TcpStream::connect(tls_at(&relay)).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.write_all(&bytes).expect("sent");
        // It may be closed already.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let ended = stream.read_to_end(&mut Vec::new());
        let reset = |error: std::io::Error| error.kind() == ErrorKind::ConnectionReset;
        assert!(ended.is_ok() || ended.is_err_and(reset));
    }
    let request = client.binding();
    client.send(&request);
    assert!(is_success(&client.next().expect("still there")));
    assert_eq!(metric(&relay, "relay_allocations"), 1);
}

/// What the relay counts is what the socket carries, TLS's own bytes included.
#[test]
fn million_bytes_pass_both_ways_and_are_counted_to_the_byte() {
    const MESSAGES: u32 = 1_000;
    /// As many as fit the buffer of a peer's socket.
    const BATCH: u32 = 50;
    let state = state();
    let (relay, _) = relay(&state);
    let (socket, at) = peer();
    let (mut client, carried) = over_tls(tls_at(&relay));
    let relayed = client.allocate();
    client.bind(CHANNEL, at);
    let payload = |number: u32| {
        let mut payload = vec![number as u8; 1_000];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        payload
    };
    let mut buffer = [0; 2_000];
    for first in (0..MESSAGES).step_by(BATCH as usize) {
        let batch = first..first + BATCH;
        let messages = batch.clone().map(|number| channel_data(CHANNEL, &payload(number)));
        client.send(&messages.collect::<Vec<_>>().concat());
        for number in batch.clone() {
            let (length, from) = socket.recv_from(&mut buffer).expect("received");
            assert_eq!((&buffer[..length], from), (&payload(number)[..], relayed));
        }
        for number in batch.clone() {
            socket.send_to(&payload(number), relayed).expect("sent");
        }
        for number in batch {
            assert_eq!(client.next(), Some(channel_data(CHANNEL, &payload(number))));
        }
    }
    let counted = |name: &str, direction: &str| {
        let labels = "transport=\"tls\",family=\"ipv4\"";
        metric(&relay, &format!("{name}{{leg=\"client\",direction=\"{direction}\",{labels}}}"))
    };
    let (sent, received) = carried.bytes();
    assert!(sent > 1_004_000 && received > 1_004_000);
    let bytes = |direction| counted("relay_bytes_total", direction);
    assert_eq!((bytes("rx"), bytes("tx")), (sent, received));
    // A challenge, an answer and a channel are three messages.
    let packets = |direction| counted("relay_packets_total", direction);
    assert_eq!((packets("rx"), packets("tx")), (1_003, 1_003));
    client.end();
    assert_eq!(client.next(), None);
    let (sent, received) = carried.bytes();
    until(|| (bytes("rx"), bytes("tx")) == (sent, received));
    assert_eq!(metric(&relay, "relay_conservation_errors_total"), 0);
}

/// As over TCP: what waits is dropped before it is encrypted, a message at a time.
#[test]
fn slow_reader_inside_tls_loses_the_oldest_media_and_keeps_its_framing() {
    let state = state();
    let (relay, _) = relay(&state);
    slow_reader_loses_the_oldest(&relay, tls_at(&relay), |stream| {
        client_on(handshake(stream, Options::default()).expect("accepted")).0
    });
}

/// F17: the old connection lives on, the next one gets the new certificate.
#[test]
fn certificate_is_replaced_under_a_live_connection() {
    let state = state();
    let (relay, pair) = relay(&state);
    let served = || {
        let stream = connect(tls_at(&relay));
        let chain = stream.conn.peer_certificates().expect("a certificate");
        chain.first().expect("the server's").clone().into_owned()
    };
    let (mut client, _) = over_tls(tls_at(&relay));
    client.allocate();
    let old = served();
    let new = pair.renew();
    assert_ne!(new, old);
    until(|| served() == new);
    let request = client.binding();
    client.send(&request);
    assert!(is_success(&client.next().expect("still there")));
    assert_eq!(metric(&relay, "relay_allocations"), 1);
    assert_eq!(metric(&relay, "relay_tls_reload_failures_total"), 0);

    // A broken one changes nothing but a counter, and is forgotten when it is mended.
    fs::write(&pair.certificate, "no certificate\n").expect("written");
    until(|| metric(&relay, "relay_tls_reload_failures_total") == 1);
    assert_eq!(served(), new);
    // What does not fit its key is broken, too.
    let other = TempDir::new().expect("directory");
    let (other, _) = Pair::make(other.path());
    fs::copy(&other.certificate, &pair.certificate).expect("copied");
    until(|| metric(&relay, "relay_tls_reload_failures_total") == 2);
    assert_eq!(served(), new);
    let mended = pair.renew();
    until(|| served() == mended);
    assert_eq!(metric(&relay, "relay_tls_reload_failures_total"), 2);
    let request = client.binding();
    client.send(&request);
    assert!(is_success(&client.next().expect("still there")));
}

/// A reload takes everything or nothing, the certificate included.
#[test]
fn reload_reads_the_certificate_and_is_refused_with_a_broken_one() {
    let state = state();
    let (relay, pair) = relay(&state);
    let served = || {
        let chain = connect(tls_at(&relay)).conn.peer_certificates().expect("some").to_vec();
        chain.first().expect("the server's").clone().into_owned()
    };
    let reload = || relay.request("POST", "/api/v1/reload", "localhost");
    let new = pair.renew();
    assert!(reload().starts_with("HTTP/1.1 200"));
    assert_eq!(served(), new);
    fs::write(&pair.certificate, "no certificate\n").expect("written");
    let answer = reload();
    assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
    assert!(answer.contains("it holds no PEM certificate"), "{answer}");
    assert_eq!(served(), new);
}

#[test]
fn certificate_says_in_metrics_how_long_it_is_valid() {
    let state = state();
    let (relay, _) = relay(&state);
    let page = relay.get("/metrics", "localhost");
    let of = |end: &str| {
        let name = format!("relay_tls_certificate_{end}_timestamp_seconds ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.expect("a gauge").parse::<f64>().expect("a number")
    };
    assert!(of("start") < of("expiry"));
}

#[test]
fn certificate_that_cannot_be_used_is_a_start_up_error() {
    let state = state();
    let (pair, _) = Pair::make(state.path());
    let other = TempDir::new().expect("directory");
    let (other, _) = Pair::make(other.path());
    let garbage = state.path().join("garbage");
    fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .expect("written");
    let [certificate, key, other_key, garbage] =
        [&pair.certificate, &pair.key, &other.key, &garbage]
            .map(|path| path.to_str().expect("text"));
    let both = |certificate, key| vec!["--tls-cert", certificate, "--tls-key", key];
    for (flags, wanted) in [
        (both("/nowhere.pem", key), "castling-relay: tls-cert: /nowhere.pem: No such file"),
        (both(certificate, "/nowhere.pem"), "castling-relay: tls-key: /nowhere.pem: No such file"),
        (both(key, key), "it holds no PEM certificate"),
        (both(certificate, certificate), "it holds no PEM private key"),
        (both(garbage, key), "tls-cert: "),
        (both(certificate, other_key), "it is not the key of the certificate"),
        (vec!["--tls-cert", certificate], "--tls-key is needed too"),
        (vec!["--tls-key", key], "--tls-cert is needed too"),
        (vec!["--listen-tls", "127.0.0.1:0"], "--tls-cert and --tls-key are needed"),
    ] {
        assert_refused(&run(state.path(), &flags), wanted);
    }
}
