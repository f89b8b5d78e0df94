//! DAT-14 to DAT-17: what the network says to a relay, and what a relay says to it.

use std::io::Read as _;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::data::permitted;
use super::relayed::{arrived, outward};
use crate::conformance::attr;
use crate::conformance::client::{Client, indication};
use crate::conformance::message::{CREATE_PERMISSION, Class, DATA_METHOD, Draft, IPV6, SEND};
use crate::conformance::probe::Probe;
use crate::conformance::reply::Reply;
use crate::conformance::server::Setup::Open;
use crate::conformance::site::{Family, TURN_PORT};
use crate::conformance::stream::Stream;
use crate::conformance::trial::{ARRIVAL_WAIT, Peer, receive};
use crate::conformance::verdict::Verdict;
use crate::{Failure, Outcome};

/// Expedited forwarding, and the first ECN bit: what clients ask of their own network.
const CLIENT_TOS: u32 = 0xB9;

pub const PROBES: &[Probe] = &[
    Probe::wire(
        "DAT-14",
        "8656 §11.5",
        "ICMP port unreachable on the relayed socket",
        "allocation lives, next datagram passes",
        Open,
        |trial| {
            let (client, witness) = permitted(trial)?;
            let closed = trial.peer()?.address;
            for _ in 0..3 {
                client.send_to(closed, b"nobody")?;
            }
            let peer = trial.peer()?;
            let stimulus = indication(peer.address, b"somebody");
            Ok(arrived(outward(&client, stimulus.bytes(), &peer, &witness)?, b"somebody"))
        },
    ),
    Probe::wire(
        "DAT-15",
        "8656 §11.5",
        "ICMP type 3 for a packet of the allocation",
        "Data indication with XOR-PEER-ADDRESS and ICMP",
        Open,
        |trial| {
            let client = trial.allocated()?;
            let closed = trial.peer()?.address;
            client.permit(closed)?;
            // Type 3, code 3: nobody listens at this port any more.
            unreachable(&client, closed, [0x06, 0x03])
        },
    ),
    Probe::wire(
        "DAT-15",
        "8656 §11.5",
        "ICMPv6 type 1 for a packet of the allocation",
        "Data indication with XOR-PEER-ADDRESS and ICMP",
        Open,
        |trial| {
            let mut client = trial.client()?;
            let v6 = Draft::allocate().with(attr::REQUESTED_ADDRESS_FAMILY, &IPV6);
            client.allocate_with(v6)?;
            let closed = trial.peer_v6()?.address;
            client.permit(closed)?;
            // Type 1, code 4.
            unreachable(&client, closed, [0x02, 0x04])
        },
    ),
    Probe::wire(
        "DAT-16",
        "8656 §14",
        "TTL, DSCP, ECN, DF towards the peer; the client's own have DSCP and ECN set",
        "TTL 64, DSCP 0, ECN 0, DF 0",
        Open,
        |trial| {
            let (client, peer) = permitted(trial)?;
            SockRef::from(client.socket()).set_tos_v4(CLIENT_TOS)?;
            header(&peer, || client.send_to(peer.address, b"x"), false)
        },
    ),
    Probe::wire(
        "DAT-16",
        "8656 §11.2, §14",
        "Send with DONT-FRAGMENT",
        "arrives with DF 1",
        Open,
        |trial| {
            let (client, peer) = permitted(trial)?;
            let draft = Draft::new(SEND, Class::Indication).peer(peer.address);
            let draft = draft.with(attr::DONT_FRAGMENT, &[]).with(attr::DATA, b"x");
            header(&peer, || client.send(draft.bytes()), true)
        },
    ),
    Probe::wire(
        "DAT-17",
        "8656 §15, §16",
        "TCP client, UDP peer",
        "DSCP 0, ECN 0",
        Open,
        |trial| {
            let from = (trial.client()?.address()?.ip(), 0).into();
            let to = Family::V4.relay(TURN_PORT);
            let mut stream = Stream::connect(from, to, trial.user(), trial.record.clone())?;
            stream.allocate()?;
            let peer = trial.peer()?;
            let permit = Draft::request(CREATE_PERMISSION);
            stream.request(permit.peer(peer.address))?.succeeded("CreatePermission")?;
            header(&peer, || stream.send(indication(peer.address, b"x").bytes()), false)
        },
    ),
];

/// Sends to a closed port; `code` is the beginning of what the ICMP attribute must say.
fn unreachable(client: &Client, closed: SocketAddr, code: [u8; 2]) -> Outcome<Verdict> {
    client.send_to(closed, b"nobody")?;
    let Some((bytes, _)) = receive(client.socket(), ARRIVAL_WAIT)? else {
        return Ok(Verdict::of(false, "nothing"));
    };
    let reply = Reply::read(&bytes).ok_or_else(|| Failure::new("something that is not STUN"))?;
    let is_data = reply.method == DATA_METHOD && reply.class == Class::Indication;
    let peer = reply.address(attr::XOR_PEER_ADDRESS);
    // Two reserved bytes, then seven bits of type and nine of code (RFC 8656 §18.13).
    let icmp = reply.attribute(attr::ICMP).filter(|value| value.len() == 8);
    let right = icmp.is_some_and(|value| value[2..4] == code);
    let good = is_data && right && peer.map(|it| it.ip()) == Some(closed.ip());
    let said = if icmp.is_some() { "with ICMP" } else { "without ICMP" };
    Ok(Verdict::of(good && reply.faults.is_empty(), format_args!("{reply} {said}")))
}

/// What the IP header of the next datagram at `peer` says, which `send` brings about.
fn header(
    peer: &Peer,
    send: impl FnOnce() -> Outcome<()>,
    dont_fragment: bool,
) -> Outcome<Verdict> {
    let mut raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
    raw.bind(&SocketAddr::new(peer.ip(), 0).into())?;
    raw.set_read_timeout(Some(ARRIVAL_WAIT))?;
    send()?;
    peer.hear()?;
    let mut packet = [0; 2_048];
    loop {
        let length = raw.read(&mut packet)?;
        let port = packet[..length].get(22..24);
        // Other datagrams may be on their way to this address.
        if port != Some(&peer.address.port().to_be_bytes()) {
            continue;
        }
        let (tos, flags, ttl) = (packet[1], packet[6], packet[8]);
        let (dscp, ecn, df) = (tos >> 2, tos & 3, flags >> 6 & 1);
        let passed = [ttl, dscp, ecn, df] == [64, 0, 0, u8::from(dont_fragment)];
        return Ok(Verdict::of(passed, format_args!("TTL {ttl}, DSCP {dscp}, ECN {ecn}, DF {df}")));
    }
}
