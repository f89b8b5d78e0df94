//! Bursts of equal datagrams: the kernel may carry them as one, and nobody must notice.

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::sockopt::{Ipv4Tos, Ipv6TClass, UdpGroSegment, UdpGsoSegment};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use tempfile::TempDir;

use super::equipment::{metric, peer, state};
use super::turn_client::{TurnClient, USER, channel_data};
use crate::Running;

const CHANNEL: u16 = 0x4000;
/// Expedited forwarding (RFC 3246): one more control message beside the others.
const URGENT: i32 = 46 << 2;
/// Payloads of a burst: equal ones, and a shorter one at its end.
const PAYLOADS: usize = 40;
const LENGTH: usize = 600;
const LAST_LENGTH: usize = 76;

fn relay(state: &TempDir, listen: &str) -> Running {
    let flags = ["--user", USER, "--allow-peer", "127.0.0.0/8", "--workers", "1"];
    Running::start(state.path(), &[&flags[..], &["--listen", listen, "--preserve-dscp"]].concat())
}

fn client(relay: &Running) -> TurnClient {
    let ip: IpAddr = match relay.turn {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    TurnClient::over_udp((ip, relay.turn.port()).into())
}

fn payloads() -> Vec<Vec<u8>> {
    let length = |number| if number + 1 < PAYLOADS { LENGTH } else { LAST_LENGTH };
    let payload = |number| (0..length(number)).map(|at| (number * 7 + at) as u8).collect();
    (0..PAYLOADS).map(payload).collect()
}

fn framed() -> Vec<Vec<u8>> {
    payloads().iter().map(|payload| channel_data(CHANNEL, payload)).collect()
}

/// Makes the kernel cut what the socket sends, as urgent datagrams, and hand over what it receives
/// uncut.
fn carry_trains(socket: &UdpSocket, length: usize) {
    setsockopt(socket, UdpGsoSegment, &(length as i32)).expect("set");
    setsockopt(socket, UdpGroSegment, &true).expect("set");
    if socket.local_addr().expect("address").is_ipv4() {
        setsockopt(socket, Ipv4Tos, &URGENT).expect("set");
    } else {
        setsockopt(socket, Ipv6TClass, &URGENT).expect("set");
    }
}

/// The datagrams of the next train.
fn train(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut buffer = [0; 65_536];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let mut control = nix::cmsg_space!(i32);
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::empty(),
    );
    let message = message.expect("received");
    let length = message.bytes;
    let segment = message.cmsgs().expect("whole").find_map(|part| match part {
        ControlMessageOwned::UdpGroSegments(segment) => usize::try_from(segment).ok(),
        _ => None,
    });
    buffer[..length].chunks(segment.unwrap_or(length)).map(<[u8]>::to_vec).collect()
}

#[test]
fn burst_passes_both_ways_as_it_was() {
    for listen in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
        let state = state();
        let relay = relay(&state, listen);
        let mut client = client(&relay);
        let (peer, address) = peer();
        let relayed = client.allocate();
        client.bind(CHANNEL, address);
        carry_trains(client.udp(), LENGTH + 4);
        carry_trains(&peer, LENGTH);
        client.send(&framed().concat());
        assert!(train(&peer) == payloads(), "{listen}: to the peer");
        peer.send_to(&payloads().concat(), relayed).expect("sent");
        assert!(train(client.udp()) == framed(), "{listen}: to the client");
        let bytes = (PAYLOADS - 1) * LENGTH + LAST_LENGTH;
        for direction in ["rx", "tx"] {
            let labels = format!("direction=\"{direction}\",transport=\"udp\",family=\"ipv4\"");
            let count = |name| metric(&relay, &format!("{name}{{leg=\"peer\",{labels}}}"));
            assert_eq!(count("relay_packets_total"), PAYLOADS as u64);
            assert_eq!(count("relay_bytes_total"), bytes as u64);
        }
    }
}

#[test]
fn burst_between_two_allocations_stays_one() {
    let state = state();
    let relay = relay(&state, "127.0.0.1:0");
    let (mut one, mut other) = (client(&relay), client(&relay));
    let (one_at, other_at) = (one.allocate(), other.allocate());
    one.bind(CHANNEL, other_at);
    other.bind(CHANNEL, one_at);
    carry_trains(one.udp(), LENGTH + 4);
    carry_trains(other.udp(), LENGTH + 4);
    one.send(&framed().concat());
    assert!(train(other.udp()) == framed());
    assert_eq!(metric(&relay, "relay_hairpin_packets_total"), PAYLOADS as u64);
}

#[test]
fn two_flows_in_one_burst_leave_as_two() {
    let state = state();
    let relay = relay(&state, "127.0.0.1:0");
    let mut one = client(&relay);
    let one_at = one.allocate();
    let others = [CHANNEL, CHANNEL + 1].map(|channel| {
        let mut other = client(&relay);
        let other_at = other.allocate();
        one.bind(channel, other_at);
        other.bind(CHANNEL, one_at);
        carry_trains(other.udp(), LENGTH + 4);
        other
    });
    carry_trains(one.udp(), LENGTH + 4);
    // By turns, in one message to the relay.
    let numbered = payloads().into_iter().enumerate();
    let burst = numbered.map(|(at, payload)| channel_data(CHANNEL + at as u16 % 2, &payload));
    one.send(&burst.collect::<Vec<_>>().concat());
    for (nth, other) in others.iter().enumerate() {
        let mine: Vec<_> = framed().into_iter().skip(nth).step_by(2).collect();
        assert!(train(other.udp()) == mine, "{nth}");
    }
}
