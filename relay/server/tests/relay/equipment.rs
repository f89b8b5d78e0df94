//! What tests on real sockets share: a state directory, peers, metrics.

use std::net::{SocketAddr, TcpStream, UdpSocket};

use tempfile::TempDir;

use super::turn_client::{TurnClient, channel_data};
use crate::{PATIENCE, Running};

/// A peer's address that is not the relay's: there, a port of the relay's range is only reached in
/// process, and the kernel may choose one.
pub const PEER: &str = "127.0.0.2:0";

pub fn state() -> TempDir {
    TempDir::new().expect("directory")
}

/// A peer at [`PEER`].
pub fn peer() -> (UdpSocket, SocketAddr) {
    peer_at(PEER)
}

pub fn peer_at(address: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(address).expect("bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let address = socket.local_addr().expect("address");
    (socket, address)
}

/// One figure of the metrics page; the name has its labels.
pub fn metric(relay: &Running, name: &str) -> u64 {
    let page = relay.get("/metrics", "localhost");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().expect("number")
}

/// Packets refused for a reason.
pub fn dropped(relay: &Running, reason: &str) -> u64 {
    metric(relay, &format!("relay_dropped_packets_total{{reason=\"{reason}\"}}"))
}

/// A client with a small buffer that reads nothing while its peer sends, and then all: it gets the
/// newest, in order, and never half a message.
pub fn slow_reader_loses_the_oldest(
    relay: &Running,
    at: SocketAddr,
    client_on: impl FnOnce(TcpStream) -> TurnClient,
) {
    let stream = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let stream = stream.expect("socket");
    stream.set_recv_buffer_size(16 << 10).expect("small");
    stream.connect(&at.into()).expect("connected");
    let mut client = client_on(stream.into());
    let (socket, peer) = peer();
    let relayed = client.allocate();
    client.bind(0x4000, peer);
    let mut number = 0u32;
    let mut send = || {
        number += 1;
        let payload = [&number.to_be_bytes()[..], &[7; 995]].concat();
        socket.send_to(&payload, relayed).expect("sent");
        number
    };
    for _ in 0..200 {
        for _ in 0..64 {
            send();
        }
        if dropped(relay, "tcp_backlog") > 0 {
            break;
        }
    }
    assert!(dropped(relay, "tcp_backlog") > 0);
    let last = send();
    let (mut seen, mut count) = (0, 0);
    while seen < last {
        let message = client.next().expect("open");
        assert_eq!(message.len(), channel_data(0x4000, &[7; 999]).len());
        let number = u32::from_be_bytes(message[4..8].try_into().expect("four bytes"));
        assert!(number > seen, "in order");
        (seen, count) = (number, count + 1);
    }
    assert!(count < last, "something was dropped");
    client.end();
    assert_eq!(client.next(), None);
    assert_eq!(metric(relay, "relay_conservation_errors_total"), 0);
}
