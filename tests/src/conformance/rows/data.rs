//! DAT-01 to DAT-13: payload in both directions.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::relayed::{arrived, came, dropped, homeward, outward};
use crate::Outcome;
use crate::conformance::attr;
use crate::conformance::client::{Client, Incoming, indication};
use crate::conformance::message::{CHANNEL_BIND, Class, Draft, IPV4, IPV6, SEND, channel_data};
use crate::conformance::probe::Probe;
use crate::conformance::server::Setup::Open;
use crate::conformance::site::{Family, RELAY, TURN_PORT};
use crate::conformance::trial::{Peer, Trial};
use crate::conformance::verdict::Verdict;

const CHANNEL: u16 = 0x4000;
/// Larger than any datagram with a Data indication's framing: 65,507 - 36 bytes fit.
const TOO_LONG: usize = 65_480;

pub const PROBES: &[Probe] = &[
    Probe::wire(
        "DAT-01",
        "8656 §11.2",
        "Send with permission",
        "arrives, source = relayed address",
        Open,
        |trial| {
            let (client, peer) = permitted(trial)?;
            client.send_to(peer.address, b"hello")?;
            let (payload, from) = peer.hear()?;
            let right = from == client.relayed()?;
            let said = if right { "arrives" } else { "arrives from elsewhere" };
            Ok(Verdict::of(right && payload == b"hello", said))
        },
    ),
    Probe::wire(
        "DAT-01",
        "8656 §7, §11.2",
        "IPv4 client, IPv6 peer: Send and the answer",
        "arrives; Data indication",
        Open,
        |trial| across(trial, Family::V4, &IPV6, trial.peer_v6()?),
    ),
    Probe::wire(
        "DAT-01",
        "8656 §7, §11.2",
        "IPv6 client, IPv4 peer: Send and the answer",
        "arrives; Data indication",
        Open,
        |trial| across(trial, Family::V6, &IPV4, trial.peer()?),
    ),
    Probe::wire(
        "DAT-02",
        "8656 §11.3",
        "datagram from a peer without permission",
        "dropped",
        Open,
        |trial| {
            let (client, witness) = permitted(trial)?;
            Ok(dropped(&homeward(&client, &stranger()?, b"let me in", &witness)?))
        },
    ),
    Probe::wire(
        "DAT-03",
        "8656 §12.5-12.7",
        "ChannelData both ways",
        "exact payload; peer data uses the channel",
        Open,
        |trial| {
            let (client, peer, witness) = bound(trial)?;
            let out = outward(&client, &channel_data(CHANNEL, b"there"), &peer, &witness)?;
            let back = homeward(&client, &peer, b"back", &witness)?;
            let wanted = Incoming::Channel(CHANNEL, b"back".to_vec());
            Ok(arrived(out, b"there").and(came(back, &wanted)))
        },
    ),
    Probe::wire(
        "DAT-04",
        "8656 §12.5",
        "channel bound, client uses Send",
        "arrives; answers come as ChannelData",
        Open,
        |trial| {
            let (client, peer, witness) = bound(trial)?;
            let stimulus = indication(peer.address, b"there");
            let out = outward(&client, stimulus.bytes(), &peer, &witness)?;
            let back = homeward(&client, &peer, b"back", &witness)?;
            let wanted = Incoming::Channel(CHANNEL, b"back".to_vec());
            Ok(arrived(out, b"there").and(came(back, &wanted)))
        },
    ),
    Probe::wire(
        "DAT-05",
        "8656 §12.6",
        "ChannelData, number not bound",
        "dropped",
        Open,
        |trial| {
            let (client, peer, witness) = bound(trial)?;
            let stimulus = channel_data(CHANNEL + 1, b"x");
            Ok(dropped(&outward(&client, &stimulus, &peer, &witness)?))
        },
    ),
    Probe::wire(
        "DAT-06",
        "8656 §12.6",
        "ChannelData of length 0",
        "empty UDP datagram",
        Open,
        |trial| {
            let (client, peer, witness) = bound(trial)?;
            Ok(arrived(outward(&client, &channel_data(CHANNEL, b""), &peer, &witness)?, b""))
        },
    ),
    Probe::wire(
        "DAT-07",
        "8656 §11.2",
        "Send with empty DATA",
        "empty UDP datagram",
        Open,
        |trial| {
            let (client, witness) = permitted(trial)?;
            let peer = trial.peer()?;
            let stimulus = indication(peer.address, b"");
            Ok(arrived(outward(&client, stimulus.bytes(), &peer, &witness)?, b""))
        },
    ),
    Probe::wire("DAT-08", "8656 §11.2", "Send without DATA", "dropped", Open, |trial| {
        let (client, witness) = permitted(trial)?;
        let peer = trial.peer()?;
        let stimulus = Draft::new(SEND, Class::Indication).peer(peer.address);
        Ok(dropped(&outward(&client, stimulus.bytes(), &peer, &witness)?))
    }),
    Probe::wire(
        "DAT-08",
        "8656 §11.2",
        "Send without XOR-PEER-ADDRESS",
        "dropped",
        Open,
        |trial| {
            let (client, witness) = permitted(trial)?;
            let peer = trial.peer()?;
            let stimulus = Draft::new(SEND, Class::Indication).with(attr::DATA, b"x");
            Ok(dropped(&outward(&client, stimulus.bytes(), &peer, &witness)?))
        },
    ),
    Probe::wire(
        "DAT-08",
        "8656 §11.2; 8489 §14",
        "Send with two XOR-PEER-ADDRESS",
        "the first one wins",
        Open,
        |trial| {
            let (client, witness) = permitted(trial)?;
            let (first, second) = (trial.peer()?, trial.peer()?);
            let draft = Draft::new(SEND, Class::Indication).peer(first.address);
            let stimulus = draft.peer(second.address).with(attr::DATA, b"x");
            let got = outward(&client, stimulus.bytes(), &first, &witness)?;
            let other = second.next(Duration::from_millis(20))?;
            Ok(arrived(got, b"x").and(dropped(&other)))
        },
    ),
    Probe::wire(
        "DAT-09",
        "8656 §12.4",
        "padded ChannelData over UDP",
        "padding not relayed",
        Open,
        |trial| {
            let (client, peer, witness) = bound(trial)?;
            let padded = [channel_data(CHANNEL, b"five!"), vec![0; 3]].concat();
            Ok(arrived(outward(&client, &padded, &peer, &witness)?, b"five!"))
        },
    ),
    Probe::wire(
        "DAT-10",
        "8656 §11.3",
        "zero-length peer datagram",
        "Data indication with empty DATA",
        Open,
        |trial| {
            let (client, witness) = permitted(trial)?;
            let peer = trial.peer()?;
            let got = homeward(&client, &peer, b"", &witness)?;
            Ok(came(got, &Incoming::Data(peer.address, Vec::new())))
        },
    ),
    Probe::wire(
        "DAT-10",
        "8656 §11.3",
        "peer datagram that does not fit with its framing",
        "dropped and counted",
        Open,
        |trial| {
            let (client, witness) = permitted(trial)?;
            let before = trial.dropped("too_big")?;
            let got = homeward(&client, &trial.peer()?, &vec![7; TOO_LONG], &witness)?;
            let counted = trial.dropped("too_big")? == before + 1;
            let counts = trial.server.metrics(trial.site)?.is_some();
            let verdict = dropped(&got);
            Ok(Verdict { passed: verdict.passed && (counted || !counts), ..verdict })
        },
    ),
    Probe::wire(
        "DAT-11",
        "8656 §12.7",
        "same IP, other port, while a channel is bound",
        "Data indication",
        Open,
        |trial| {
            let (client, _peer, witness) = bound(trial)?;
            let other = trial.peer()?;
            let got = homeward(&client, &other, b"x", &witness)?;
            Ok(came(got, &Incoming::Data(other.address, b"x".to_vec())))
        },
    ),
    Probe::wire(
        "DAT-12",
        "8656 §12.7",
        "STUN request from a peer at the relayed port",
        "forwarded, never answered",
        Open,
        |trial| {
            let (client, witness) = permitted(trial)?;
            let peer = trial.peer()?;
            let draft = Draft::request(crate::conformance::message::BINDING);
            let got = homeward(&client, &peer, draft.bytes(), &witness)?;
            let forwarded = came(got, &Incoming::Data(peer.address, draft.bytes().to_vec()));
            let answered = peer.next(Duration::from_millis(20))?.is_some();
            Ok(Verdict { passed: forwarded.passed && !answered, ..forwarded })
        },
    ),
    Probe::wire(
        "DAT-13",
        "8656 §21.1",
        "permission and channel between two allocations of this server",
        "delivered once, both ways",
        Open,
        between_allocations,
    ),
    Probe::wire(
        "DAT-13",
        "8656 §21.1",
        "ChannelBind to the server's own :3478 and :22",
        "403, 403",
        Open,
        |trial| {
            let client = trial.allocated()?;
            let ask = |number, port| {
                let draft = Draft::request(CHANNEL_BIND).channel(number);
                client.request(draft.peer((RELAY, port).into()))
            };
            Ok(ask(0x4000, 3478)?.error(&[403]).and(ask(0x4001, 22)?.error(&[403])))
        },
    ),
    Probe::wire(
        "DAT-13",
        "8656 §21.1",
        "ChannelBind to the allocation's own relayed address",
        "403",
        Open,
        |trial| {
            let client = trial.allocated()?;
            let draft = Draft::request(CHANNEL_BIND).channel(CHANNEL).peer(client.relayed()?);
            Ok(client.request(draft)?.error(&[403]))
        },
    ),
];

/// An allocation, and a peer that it permits.
pub fn permitted(trial: &Trial<'_>) -> Outcome<(Client, Peer)> {
    let (client, peer) = (trial.allocated()?, trial.peer()?);
    client.permit(peer.address)?;
    Ok((client, peer))
}

/// An allocation, a peer on a channel, and another that is permitted.
fn bound(trial: &Trial<'_>) -> Outcome<(Client, Peer, Peer)> {
    let (client, witness) = permitted(trial)?;
    let peer = trial.peer()?;
    client.bind(CHANNEL, peer.address)?;
    Ok((client, peer, witness))
}

/// Payload both ways between a client of one family and a peer of the other.
fn across(trial: &Trial<'_>, client: Family, relayed: &[u8], peer: Peer) -> Outcome<Verdict> {
    let mut client = trial.client_to(client.relay(TURN_PORT))?;
    client.allocate_with(Draft::allocate().with(attr::REQUESTED_ADDRESS_FAMILY, relayed))?;
    let witness = Peer::at((peer.ip(), 0).into())?;
    client.permit(peer.address)?;
    let stimulus = indication(peer.address, b"there");
    let out = outward(&client, stimulus.bytes(), &peer, &witness)?;
    let back = homeward(&client, &peer, b"back", &witness)?;
    let wanted = Incoming::Data(peer.address, b"back".to_vec());
    Ok(arrived(out, b"there").and(came(back, &wanted)))
}

/// A peer at an address that nobody permits.
fn stranger() -> Outcome<Peer> {
    Peer::at((Ipv4Addr::new(198, 51, 100, 2), 0).into())
}

fn between_allocations(trial: &Trial<'_>) -> Outcome<Verdict> {
    let (left, right) = (trial.allocated()?, trial.allocated()?);
    left.permit(right.relayed()?)?;
    right.bind(CHANNEL, left.relayed()?)?;
    left.send_to(right.relayed()?, b"there")?;
    let there = Some(right.hear()?);
    right.send(&channel_data(CHANNEL, b"back"))?;
    let back = Some(left.hear()?);
    let wait = Duration::from_millis(20);
    let again = left.next(wait)?.is_some() || right.next(wait)?.is_some();
    let there = came(there, &Incoming::Channel(CHANNEL, b"there".to_vec()));
    let back = came(back, &Incoming::Data(right.relayed()?, b"back".to_vec()));
    let both = there.and(back);
    Ok(Verdict { passed: both.passed && !again, ..both })
}
