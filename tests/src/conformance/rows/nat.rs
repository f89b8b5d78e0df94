//! NAT and ICE: what clients learn about their way, and how they try it.

use std::time::Duration;

use super::allocate::unknown;
use super::relayed::{came, homeward};
use crate::Outcome;
use crate::conformance::attr;
use crate::conformance::client::{Client, Incoming, indication};
use crate::conformance::message::{BINDING, Draft, channel_data};
use crate::conformance::probe::Probe;
use crate::conformance::server::Setup::Open;
use crate::conformance::site::{Family, NAT_CONE, NAT_SYMMETRIC, STUN_PORT, TURN_PORT};
use crate::conformance::stream::Stream;
use crate::conformance::trial::{Trial, receive};
use crate::conformance::verdict::Verdict;

/// Checks of ICE-03, and the pace of ICE (RFC 8445 §14).
const CHECKS: u8 = 100;
const PACE: Duration = Duration::from_millis(5);

pub const PROBES: &[Probe] = &[
    Probe::wire(
        "NAT-01",
        "5780 §4.3",
        "Binding to the second port (3479)",
        "success from port 3479, exact mapped address",
        Open,
        |trial| {
            let client = trial.client_to(Family::V4.relay(STUN_PORT))?;
            let (own, answer) = (client.address()?, client.ask(&Draft::request(BINDING))?);
            Ok(answer.success_if(|it| it.address(attr::XOR_MAPPED_ADDRESS) == Some(own)))
        },
    ),
    Probe::wire(
        "NAT-02",
        "5780 §4.3",
        "one client socket, both ports, behind an endpoint-independent and a symmetric NAT",
        "equal; different mapped ports",
        Open,
        behind_nats,
    ),
    Probe::wire(
        "NAT-03",
        "hardening",
        "Allocate and ChannelData to the second port",
        "silent",
        Open,
        |trial| {
            let client = trial.client_to(Family::V4.relay(STUN_PORT))?;
            if client.ask(&Draft::request(BINDING)).is_err() {
                return Ok(Verdict::of(true, "silent, like all of this port"));
            }
            let data = Draft::request(BINDING);
            let data = data.edited(|bytes| *bytes = channel_data(0x4000, &[0; 20]));
            Ok(client.ask(&Draft::allocate())?.silent().and(client.ask(&data)?.silent()))
        },
    ),
    Probe::wire(
        "NAT-04",
        "5780 §7.2",
        "CHANGE-REQUEST 0x0003: other address and port",
        "420 with list, to the source only",
        Open,
        |trial| discovery(trial, attr::CHANGE_REQUEST, &[0, 0, 0, 6]),
    ),
    Probe::wire(
        "NAT-04",
        "5780 §7.5",
        "RESPONSE-PORT 0x0027",
        "420 with list, to the source only",
        Open,
        |trial| discovery(trial, attr::RESPONSE_PORT, &[0x23, 0x28, 0, 0]),
    ),
    Probe::wire(
        "NAT-04",
        "5780 §7.6",
        "PADDING 0x0026",
        "420 with list, to the source only",
        Open,
        |trial| discovery(trial, attr::PADDING, &[0; 64]),
    ),
    Probe::wire(
        "ICE-01",
        "8445 §5.1.1.2",
        "Allocate reply during gathering, over UDP and TCP",
        "exact XOR-MAPPED-ADDRESS",
        Open,
        |trial| {
            let mut client = trial.client()?;
            let (own, granted) = (client.address()?, client.allocate()?);
            let udp = granted.address(attr::XOR_MAPPED_ADDRESS) == Some(own);
            let (from, to) = ((own.ip(), 0).into(), Family::V4.relay(TURN_PORT));
            let mut stream = Stream::connect(from, to, trial.user(), trial.record.clone())?;
            stream.login()?;
            let (own, answer) = (stream.address()?, stream.request(Draft::allocate())?);
            let mapped = answer.reply().and_then(|it| it.address(attr::XOR_MAPPED_ADDRESS));
            Ok(answer.success_if(|_| udp && mapped == Some(own)))
        },
    ),
    Probe::wire(
        "ICE-02",
        "8445 §7",
        "connectivity check at a relayed port",
        "forwarded untouched",
        Open,
        |trial| {
            let (client, peer, witness) = (trial.allocated()?, trial.peer()?, trial.peer()?);
            client.permit(peer.address)?;
            let check = Draft::request(BINDING)
                .with(attr::USERNAME, b"left:right")
                .with(attr::PRIORITY, &[0x6E, 0, 1, 0xFF])
                .with(attr::ICE_CONTROLLING, &[7; 8])
                .integrity(b"a password of ICE")
                .fingerprint();
            let got = homeward(&client, &peer, check.bytes(), &witness)?;
            Ok(came(got, &Incoming::Data(peer.address, check.bytes().to_vec())))
        },
    ),
    Probe::wire(
        "ICE-03",
        "8445 §14",
        "100 checks in 500 ms (Ta = 5 ms) as Send indications",
        "all arrive",
        Open,
        |trial| {
            let (client, peer) = (trial.allocated()?, trial.peer()?);
            client.permit(peer.address)?;
            for number in 0..CHECKS {
                let check = Draft::request(BINDING).with(attr::PRIORITY, &[number; 4]);
                client.send(indication(peer.address, check.bytes()).bytes())?;
                // The row names the pace.
                std::thread::sleep(PACE);
            }
            let wait = Duration::from_millis(100);
            let mut arrived = 0;
            while arrived < CHECKS && peer.next(wait)?.is_some() {
                arrived += 1;
            }
            Ok(Verdict::of(arrived == CHECKS, format_args!("{arrived} of {CHECKS} arrive")))
        },
    ),
];

fn discovery(trial: &Trial<'_>, kind: u16, value: &[u8]) -> Outcome<Verdict> {
    let client = trial.client()?;
    // RESPONSE-PORT asks for this one.
    let other = trial.client_at((client.address()?.ip(), 9_000).into(), trial.user())?;
    let answer = client.ask(&Draft::request(BINDING).with(kind, value))?;
    let verdict = unknown(&answer, kind);
    let elsewhere = receive(other.socket(), Duration::from_millis(20))?.is_some();
    let said = if elsewhere { "answered elsewhere".to_owned() } else { verdict.said };
    Ok(Verdict::of(verdict.passed && !elsewhere, said))
}

fn behind_nats(trial: &Trial<'_>) -> Outcome<Verdict> {
    let [cone, symmetric] = [trial.client()?, trial.client()?];
    let [first, second] = [cone.address()?.ip(), symmetric.address()?.ip()];
    let world = &trial.site.world;
    world.nft(&format!(
        "table ip nats {{ chain out {{ type nat hook postrouting priority srcnat;
           ip saddr {first} snat to {NAT_CONE};
           ip saddr {second} meta l4proto udp snat to {NAT_SYMMETRIC}:10000-60000 fully-random; }}
         }}"
    ))?;
    let mapped = [equal(trial, &cone), equal(trial, &symmetric)];
    world.nft("delete table ip nats")?;
    let [Some(cone), Some(symmetric)] = [mapped[0].clone()?, mapped[1].clone()?] else {
        return Ok(Verdict::of(false, "no answer from both ports"));
    };
    let word = |equal| if equal { "equal" } else { "different" };
    let said = format!("{}; {}", word(cone), word(symmetric));
    Ok(Verdict::of(cone && !symmetric, said))
}

/// Whether both ports of the server see this client's socket at the same address.
fn equal(trial: &Trial<'_>, client: &Client) -> Outcome<Option<bool>> {
    let socket = client.socket();
    let mut seen = Vec::new();
    for port in [TURN_PORT, STUN_PORT] {
        let draft = Draft::request(BINDING);
        socket.send_to(draft.bytes(), Family::V4.relay(port))?;
        let Some((bytes, _)) = receive(socket, Duration::from_secs(1))? else { return Ok(None) };
        let reply = crate::conformance::reply::Reply::read(&bytes);
        trial.record.note_unverified(draft.bytes().len(), bytes.len(), false);
        seen.push(reply.and_then(|reply| reply.address(attr::XOR_MAPPED_ADDRESS)));
    }
    Ok((seen[0].is_some() && seen[1].is_some()).then(|| seen[0] == seen[1]))
}
