//! Clients behind a proxy that says whom a connection is from (PROXY protocol, version 2).

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use relay_proto::attribute as attr;
use relay_proto::stun::Message;
use tempfile::TempDir;

use super::equipment::{metric, state};
use super::stream::is_closed;
use super::tls_client::{Options, Pair, client_on, handshake};
use super::turn_client::{TurnClient, USER, is_success};
use crate::Running;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A relay that believes proxies on loopback.
fn relay(state: &TempDir) -> Running {
    let (pair, _) = Pair::make(state.path());
    let mut flags = vec!["--user", USER, "--trusted-proxy", "127.0.0.0/8", "--workers", "1"];
    flags.extend(pair.flags());
    Running::start(state.path(), &flags)
}

fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short");
    [SIGNATURE, &[command, family], &length.to_be_bytes(), rest].concat()
}

/// The header for a client at this address.
fn proxied(client: SocketAddr, extensions: &[u8]) -> Vec<u8> {
    let (family, addresses) = match client.ip() {
        IpAddr::V4(ip) => (0x11, [ip.octets(), Ipv4Addr::new(192, 0, 2, 7).octets()].concat()),
        IpAddr::V6(ip) => (0x21, [ip.octets(), Ipv6Addr::LOCALHOST.octets()].concat()),
    };
    let ports = [client.port().to_be_bytes(), 443u16.to_be_bytes()].concat();
    header(0x21, family, &[&addresses, &ports, extensions].concat())
}

fn connect(to: SocketAddr, header: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("connected");
    stream.write_all(header).expect("sent");
    stream
}

fn mapped(client: &mut TurnClient) -> SocketAddr {
    let request = client.binding();
    client.send(&request);
    let answer = client.next().expect("answered");
    assert!(is_success(&answer));
    let answer = Message::parse(&answer).expect("STUN");
    answer.unxor(answer.attribute(attr::XOR_MAPPED_ADDRESS).expect("address")).expect("address")
}

#[test]
fn client_is_who_the_proxy_says_in_the_clear_and_inside_tls() {
    let state = state();
    let relay = relay(&state);
    for at in ["203.0.113.9:1234", "[2001:db8::9]:4321"] {
        let at = at.parse().expect("address");
        // An extension of a kind that nobody knows.
        let header = proxied(at, b"\xE5\0\x02ab");
        let mut plain = TurnClient::on(connect(relay.turn, &header));
        assert_eq!(mapped(&mut plain), at);
        plain.allocate();
        let stream = connect(relay.tls.expect("TLS"), &header);
        let stream = handshake(stream, Options::default()).expect("accepted");
        let (mut tls, _) = client_on(stream);
        assert_eq!(mapped(&mut tls), at);
        tls.allocate();
    }
    let page = relay.get("/metrics", "localhost");
    for (transport, family) in [("tcp", "ipv4"), ("tcp", "ipv6"), ("tls", "ipv4"), ("tls", "ipv6")]
    {
        let labels = format!("transport=\"{transport}\",family=\"{family}\"");
        let line = format!("relay_packets_total{{leg=\"client\",direction=\"rx\",{labels}}} 3\n");
        assert!(page.contains(&line), "{line} {page}");
    }
}

#[test]
fn header_may_come_byte_by_byte_and_the_first_message_with_its_end() {
    let state = state();
    let relay = relay(&state);
    let at = "203.0.113.9:1234".parse().expect("address");
    let mut stream = TcpStream::connect(relay.turn).expect("connected");
    stream.set_nodelay(true).expect("no delay");
    let header = proxied(at, &[]);
    let (last, first) = header.split_last().expect("not empty");
    first.iter().for_each(|byte| stream.write_all(&[*byte]).expect("sent"));
    let mut client = TurnClient::on(stream);
    let together = [&[*last][..], &client.binding()].concat();
    client.send(&together);
    assert!(is_success(&client.next().expect("answered")));
}

#[test]
fn proxy_may_ask_for_itself() {
    let state = state();
    let relay = relay(&state);
    for header in [header(0x20, 0, &[]), header(0x20, 0x11, &[9; 12]), header(0x21, 0, b"other")] {
        let stream = connect(relay.turn, &header);
        let own = stream.local_addr().expect("address");
        assert_eq!(mapped(&mut TurnClient::on(stream)), own);
    }
}

#[test]
fn trusted_source_without_a_good_header_is_closed() {
    let state = state();
    let relay = relay(&state);
    let at = "203.0.113.9:1234".parse().expect("address");
    let mut datagrams = proxied(at, &[]);
    datagrams[13] = 0x12;
    let binding = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat();
    let bad = [
        &binding[..],
        b"PROXY TCP4 203.0.113.9 192.0.2.7 1234 443\r\n",
        &[0x16, 3, 1, 2, 0],
        &datagrams,
        &header(0x21, 0x11, &[0; 11]),
        &[SIGNATURE, &[0x21, 0x11, 0xFF, 0xFF]].concat(),
    ];
    for bytes in bad {
        assert!(is_closed(&mut connect(relay.turn, bytes)), "{bytes:?}");
    }
    let malformed = "relay_dropped_packets_total{reason=\"malformed\"}";
    assert_eq!(metric(&relay, malformed), bad.len() as u64);
}

#[test]
fn header_of_anybody_else_is_no_header() {
    let state = state();
    let relay = Running::start(state.path(), &["--trusted-proxy", "192.0.2.0/24"]);
    let at = "203.0.113.9:1234".parse().expect("address");
    assert!(is_closed(&mut connect(relay.turn, &proxied(at, &[]))));
    let mut client = TurnClient::over_tcp(relay.turn);
    assert!(mapped(&mut client).ip().is_loopback());
}

/// Places for strangers are given out by client, not by proxy.
#[test]
fn clients_of_one_proxy_have_places_of_their_own() {
    let state = state();
    let relay = relay(&state);
    let header = |last: u8, port: u16| proxied(([203, 0, 113, last], port).into(), &[]);
    let from = |last, port| TurnClient::on(connect(relay.turn, &header(last, port)));
    let mut others: Vec<_> = (1..=40).map(|last| from(last, 1000)).collect();
    let answered = |client: &mut TurnClient| assert!(!mapped(client).ip().is_loopback());
    others.iter_mut().for_each(answered);
    let mut one: Vec<_> = (1..=32).map(|port| from(100, port)).collect();
    one.iter_mut().for_each(answered);
    let together = [header(100, 33), one[0].binding()].concat();
    assert!(is_closed(&mut connect(relay.turn, &together)), "one too many");
}
