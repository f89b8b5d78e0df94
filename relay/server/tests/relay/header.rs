//! The IP header on both sides of the relay, and what the network says about a payload.

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::sockopt::{
    IpRecvTos, Ipv4RecvTtl, Ipv4Tos, Ipv6RecvHopLimit, Ipv6RecvTClass, Ipv6TClass,
};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use relay_proto::attribute as attr;
use relay_proto::stun::{Message, Method};
use tempfile::TempDir;

use super::equipment::{peer_at, state};
use super::turn_client::{TurnClient, USER, channel_data};
use crate::Running;

const CHANNEL: u16 = 0x4000;
/// Expedited forwarding (RFC 3246), with the ECN bits of a congested path.
const URGENT: i32 = 46 << 2 | 3;
const URGENT_WITHOUT_ECN: i32 = 46 << 2;
/// The kernel's own TTL for what it sends.
const TTL: i32 = 64;

fn relay(state: &TempDir, listen: &str, ports: (&str, &str), more: &[&str]) -> Running {
    let (first, last) = ports;
    let flags = ["--listen", listen, "--user", USER, "--min-port", first, "--max-port", last];
    let peers = ["127.0.0.2/32", "::1/128"].map(|peer| ["--allow-peer", peer]);
    let peers = [&["--relay-ip", "::1"], peers.as_flattened()].concat();
    Running::start(state.path(), &[&flags[..], &peers, more].concat())
}

/// Makes a socket say what IP headers come, and mark what it sends as urgent.
fn urgent(socket: &UdpSocket) {
    if socket.local_addr().expect("address").is_ipv4() {
        setsockopt(socket, IpRecvTos, &true).expect("set");
        setsockopt(socket, Ipv4RecvTtl, &true).expect("set");
        setsockopt(socket, Ipv4Tos, &URGENT).expect("set");
    } else {
        setsockopt(socket, Ipv6RecvTClass, &true).expect("set");
        setsockopt(socket, Ipv6RecvHopLimit, &true).expect("set");
        setsockopt(socket, Ipv6TClass, &URGENT).expect("set");
    }
}

fn peer(at: &str) -> (UdpSocket, SocketAddr) {
    let (socket, address) = peer_at(at);
    urgent(&socket);
    (socket, address)
}

/// Traffic class and TTL of the next datagram.
fn header(socket: &UdpSocket) -> (i32, i32) {
    let mut buffer = [0; 2048];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let mut control = nix::cmsg_space!(i32, i32);
    let flags = MsgFlags::empty();
    let fd = socket.as_raw_fd();
    let message =
        recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut control), flags).expect("received");
    let (mut class, mut ttl) = (None, None);
    for part in message.cmsgs().expect("whole") {
        match part {
            ControlMessageOwned::Ipv4Tos(tos) => class = Some(i32::from(tos)),
            ControlMessageOwned::Ipv6TClass(tos) => class = Some(tos),
            ControlMessageOwned::Ipv4Ttl(hops) | ControlMessageOwned::Ipv6HopLimit(hops) => {
                ttl = Some(hops);
            }
            _ => {}
        }
    }
    (class.expect("class"), ttl.expect("TTL"))
}

/// What reaches peer and client when both send urgently.
fn both_ways(relay: &Running, at: &str, family: u8) -> [(i32, i32); 2] {
    let mut client = TurnClient::over_udp(relay.turn);
    urgent(client.udp());
    let (peer, address) = peer(at);
    let asked = client
        .try_allocate_with(|w| w.attribute(attr::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]));
    let relayed = asked.expect("allocated")[0];
    client.bind(CHANNEL, address);
    client.send(&channel_data(CHANNEL, b"x"));
    let there = header(&peer);
    peer.send_to(b"y", relayed).expect("sent");
    [there, header(client.udp())]
}

/// DAT-16: a TTL of its own, and neither DSCP nor ECN of the other side.
#[test]
fn header_is_the_relays_own() {
    let state = state();
    for (listen, ports) in [("127.0.0.1:0", ("21300", "21309")), ("[::1]:0", ("21310", "21319"))] {
        let relay = relay(&state, listen, ports, &[]);
        for (at, family) in [("127.0.0.2:0", 1), ("[::1]:0", 2)] {
            assert_eq!(both_ways(&relay, at, family), [(0, TTL); 2], "{listen} {at}");
        }
    }
}

/// DAT-16 with `--preserve-dscp`: in both directions and across families, ECN apart.
#[test]
fn dscp_is_preserved_where_that_is_asked_for() {
    let state = state();
    for (listen, ports) in [("127.0.0.1:0", ("21320", "21329")), ("[::]:0", ("21330", "21339"))] {
        let relay = relay(&state, listen, ports, &["--preserve-dscp"]);
        for (at, family) in [("127.0.0.2:0", 1), ("[::1]:0", 2)] {
            let both = both_ways(&relay, at, family);
            assert_eq!(both, [(URGENT_WITHOUT_ECN, TTL); 2], "{listen} {at}");
        }
    }
}

/// The same from one client to another through their allocations, whatever threads serve them.
#[test]
fn dscp_is_preserved_in_process() {
    let state = state();
    for (workers, ports) in [("1", ("21340", "21349")), ("4", ("21350", "21359"))] {
        let more = ["--preserve-dscp", "--workers", workers];
        let relay = relay(&state, "127.0.0.1:0", ports, &more);
        let mut clients = [(); 4].map(|()| TurnClient::over_udp(relay.turn));
        clients.iter().for_each(|client| urgent(client.udp()));
        let relayed = clients.each_mut().map(TurnClient::allocate);
        for (from, to) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
            clients[from].bind(CHANNEL, relayed[to]);
            clients[to].permit(relayed[from]);
            clients[from].send(&channel_data(CHANNEL, b"x"));
            assert_eq!(header(clients[to].udp()), (URGENT_WITHOUT_ECN, TTL));
        }
    }
}

/// DAT-17: a stream has no DSCP per message, so its payloads have none.
#[test]
fn streams_have_the_default_dscp() {
    let state = state();
    let relay = relay(&state, "127.0.0.1:0", ("21360", "21369"), &["--preserve-dscp"]);
    let mut client = TurnClient::over_tcp(relay.turn);
    let (peer, address) = peer("127.0.0.2:0");
    let relayed = client.allocate();
    client.bind(CHANNEL, address);
    client.send(&channel_data(CHANNEL, b"x"));
    assert_eq!(header(&peer), (0, TTL));
    peer.send_to(b"y", relayed).expect("sent");
    assert_eq!(client.next(), Some(channel_data(CHANNEL, b"y")));
}

/// DAT-14, DAT-15: over UDP and TCP, for both families of peer; the call goes on.
#[test]
fn unreachable_peer_is_reported_and_harms_nobody() {
    let state = state();
    let relay = relay(&state, "127.0.0.1:0", ("21370", "21389"), &[]);
    let cases = [("127.0.0.2:0", 1, [0, 0, 6, 3]), ("[::1]:0", 2, [0, 0, 2, 4])];
    for (at, family, value) in cases {
        for mut client in [TurnClient::over_udp(relay.turn), TurnClient::over_tcp(relay.turn)] {
            let asked = client.try_allocate_with(|w| {
                w.attribute(attr::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])
            });
            let relayed = asked.expect("allocated")[0];
            let (peer, there) = peer(at);
            let nobody = UdpSocket::bind(at).and_then(|it| it.local_addr()).expect("address");
            client.bind(CHANNEL, there);
            client.permit(nobody);
            for round in 0..5u8 {
                client.indicate(nobody, b"x", false);
                let told = client.next().expect("told");
                let told = Message::parse(&told).expect("STUN");
                assert_eq!(told.method, Some(Method::Data));
                let peer_address = told.attribute(attr::XOR_PEER_ADDRESS).expect("peer");
                assert_eq!(told.unxor(peer_address), Some(nobody));
                let icmp = told.attribute(attr::ICMP).expect("ICMP");
                assert_eq!(icmp, [&value[..], &[0; 4]].concat());
                // The next datagrams of the same port pass, both ways.
                client.indicate(nobody, b"x", false);
                client.send(&channel_data(CHANNEL, &[round; 4]));
                let mut buffer = [0; 16];
                let (length, from) = peer.recv_from(&mut buffer).expect("received");
                assert_eq!((&buffer[..length], from), (&[round; 4][..], relayed));
                let told = client.next().expect("told again");
                assert!(Message::parse(&told).expect("STUN").attribute(attr::ICMP).is_some());
                peer.send_to(&[round; 4], relayed).expect("sent");
                assert_eq!(client.next(), Some(channel_data(CHANNEL, &[round; 4])));
            }
        }
    }
    let page = relay.get("/metrics", "localhost");
    assert!(page.contains("relay_dropped_packets_total{reason=\"send_error\"} 0\n"), "{page}");
    assert!(page.contains("relay_conservation_errors_total 0\n"), "{page}");
}
