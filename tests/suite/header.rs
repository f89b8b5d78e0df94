//! What routers do to a payload: fragments where DF is 0, errors where the client asked for DF.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use e2e::lab::{Lab, Network, WAN};
use e2e::namespace::Namespace;
use e2e::report::skip;
use e2e::turn_client::Allocation;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use relay_proto::attribute as attr;
use relay_proto::stun::{Class, Message, Method, Writer};

use crate::laboratory_turn;
use crate::relay::{Relay, Subject, TURN, mint};

/// Bytes that the narrow link takes, as on a path through a tunnel.
const MTU: u32 = 1280;
/// A payload that does not fit it, and one that does.
const LONG: usize = 1300;
const SHORT: usize = 1200;
/// Payloads that reach the relay together: alike, so that they would leave as one.
const BURST: u8 = 8;

/// DAT-15, DAT-16: a router on the way, then the relay's own link, is too narrow.
#[test]
fn too_long_payload_is_fragmented_or_reported_as_the_client_asks() {
    let Some(_turn) = laboratory_turn("narrow path") else { return };
    let program = match Subject::Castling.program() {
        Ok(program) => program,
        Err(reason) => return skip("narrow path", &reason),
    };
    let lab = Lab::build(&[Network::Public, Network::Cone]).expect("laboratory");
    let relay = Relay::start(&lab, Subject::Castling, &program).expect("relay");
    let socket = lab.client(0).udp((Lab::public_address(0), 0).into()).expect("client socket");
    let wire = socket.try_clone().expect("descriptor");
    let mut client = Allocation::open(socket, TURN, mint("ana")).expect("allocation");
    client.permit((Lab::public_address(1), 0).into()).expect("permission");
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let peer = lab.client(1).udp(any).expect("peer socket");
    // Opens the peer's NAT, and says under which address it is known.
    peer.send_to(b"hello", client.relayed()).expect("sent");
    let (at, hello) = next(&wire, attr::DATA);
    assert_eq!(hello, b"hello");

    narrow(lab.router(1).expect("the peer's router"), "lan0");
    exchange(&wire, &peer, at);
    let dropped = |reason| {
        let metrics = relay.metrics().expect("ours");
        metrics.sum("relay_dropped_packets_total", &[("reason", reason)]).unwrap_or_default()
    };
    assert_eq!(dropped("too_big"), 0.0, "a router dropped it, not the relay");

    narrow(lab.client(0), WAN);
    narrow(lab.server(), WAN);
    exchange(&wire, &peer, at);
    assert_eq!(dropped("too_big"), 1.0);

    let pause = Pause::begin(relay.id());
    (0..BURST).for_each(|number| send(&wire, at, &[number; LONG], false));
    (0..BURST).for_each(|number| send(&wire, at, &[number; LONG], true));
    drop(pause);
    for number in 0..BURST {
        let mut buffer = [0; 2048];
        let (length, _) = peer.recv_from(&mut buffer).expect("received");
        assert_eq!(buffer[..length], [number; LONG]);
    }
    for _ in 0..BURST {
        assert_eq!(next(&wire, attr::ICMP).0, at);
    }
    assert_eq!(dropped("too_big"), 1.0 + f64::from(BURST));
    let errors = relay.metrics().expect("ours").sum("relay_conservation_errors_total", &[]);
    assert_eq!(errors.unwrap_or_default(), 0.0);
}

/// Keeps a process from running, so that it finds all that was sent meanwhile at once.
struct Pause(Pid);

impl Pause {
    fn begin(id: u32) -> Self {
        let pid = Pid::from_raw(id.cast_signed());
        kill(pid, Signal::SIGSTOP).expect("stopped");
        Self(pid)
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        // A process that is gone needs no waking.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

fn narrow(namespace: &Namespace, device: &str) {
    namespace.ip(&format!("link set {device} mtu {MTU}")).expect("narrower");
}

/// Without DF everything arrives, the first of all included; with it the long payload comes back as
/// an error.
fn exchange(client: &UdpSocket, peer: &UdpSocket, at: SocketAddr) {
    let arrives = |payload: &[u8], whole| {
        send(client, at, payload, whole);
        let mut buffer = [0; 2048];
        let (length, _) = peer.recv_from(&mut buffer).expect("received");
        assert_eq!(&buffer[..length], payload);
    };
    arrives(&[1; LONG], false);
    send(client, at, &[2; LONG], true);
    let (about, icmp) = next(client, attr::ICMP);
    assert_eq!(about, at);
    let [m0, m1, m2, m3] = MTU.to_be_bytes();
    assert_eq!(icmp, [0, 0, 3 << 1, 4, m0, m1, m2, m3], "fragmentation needed");
    arrives(&[3; LONG], false);
    arrives(&[4; SHORT], true);
    arrives(&[5; SHORT], false);
}

fn send(client: &UdpSocket, to: SocketAddr, payload: &[u8], whole: bool) {
    let mut bytes = Vec::new();
    let w = Writer::new(&mut bytes, Method::Send, Class::Indication, *b"a narrow way");
    let w = w.xor_address(attr::XOR_PEER_ADDRESS, to).attribute(attr::DATA, payload);
    if whole { w.attribute(attr::DONT_FRAGMENT, &[]) } else { w }.finish();
    client.send_to(&bytes, TURN).expect("sent");
}

/// Peer and attribute of the next Data indication.
fn next(client: &UdpSocket, kind: u16) -> (SocketAddr, Vec<u8>) {
    let mut buffer = [0; 2048];
    let (length, _) = client.recv_from(&mut buffer).expect("told");
    let message = Message::parse(&buffer[..length]).expect("STUN");
    assert_eq!((message.method, message.class), (Some(Method::Data), Class::Indication));
    let peer = message.attribute(attr::XOR_PEER_ADDRESS).and_then(|value| message.unxor(value));
    let value = message.attribute(kind).unwrap_or_else(|| panic!("no {kind:#06x}"));
    (peer.expect("peer"), value.to_vec())
}
