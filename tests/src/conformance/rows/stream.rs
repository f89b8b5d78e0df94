//! STR: TCP and TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::refresh::is_bound;
use crate::Outcome;
use crate::conformance::attr;
use crate::conformance::client::{Incoming, indication};
use crate::conformance::message::{
    ALLOCATE, BINDING, CHANNEL_BIND, CONNECT, CONNECTION_BIND, CREATE_PERMISSION, Draft,
    channel_data,
};
use crate::conformance::probe::Probe;
use crate::conformance::server::Setup::{Open, Tls};
use crate::conformance::site::{Family, RELAY, RELAY_PRIVATE, TLS_PORT, TURN_PORT};
use crate::conformance::stream::{Stream, handshake};
use crate::conformance::trial::Trial;
use crate::conformance::verdict::{Answer, Verdict};
use crate::process::until;

/// A connection that says nothing whole is closed after 5 s; this is more than any delay here.
const CLOSED_WAIT: Duration = Duration::from_secs(8);
const CHANNEL: u16 = 0x4000;
/// TCP in REQUESTED-TRANSPORT (RFC 6062 §5.1).
const TCP: [u8; 4] = [6, 0, 0, 0];

pub const PROBES: &[Probe] = &[
    Probe::wire("STR-01", "8489 §6.2.2", "STUN over TCP byte by byte", "success", Open, |trial| {
        let mut stream = tcp(trial)?;
        let draft = Draft::request(BINDING);
        let own = stream.address()?;
        draft.bytes().iter().try_for_each(|byte| stream.send(&[*byte]))?;
        let answer = stream.answer_to(&draft)?;
        let mapped = answer.reply().and_then(|reply| reply.address(attr::XOR_MAPPED_ADDRESS));
        Ok(answer.success_if(|_| mapped == Some(own)))
    }),
    Probe::wire(
        "STR-02",
        "8656 §12.4-12.5",
        "padded ChannelData and STUN in one write",
        "all parsed",
        Open,
        |trial| {
            let (mut stream, peer) = bound(trial)?;
            let draft = Draft::request(BINDING);
            let first = [channel_data(CHANNEL, b"one"), vec![0]].concat();
            let second = [channel_data(CHANNEL, b"second"), vec![0; 2]].concat();
            stream.send(&[&first, draft.bytes(), &second].concat())?;
            let answer = stream.answer_to(&draft)?.success();
            let both = peer.hear()?.0 == b"one" && peer.hear()?.0 == b"second";
            Ok(Verdict { passed: answer.passed && both, ..answer })
        },
    ),
    Probe::wire(
        "STR-02",
        "8656 §12.5",
        "peer data of 5 bytes on a channel, towards TCP",
        "ChannelData padded to 4 with zeros",
        Open,
        |trial| {
            let (mut stream, peer) = bound(trial)?;
            stream.send(&[channel_data(CHANNEL, b"hello"), vec![0; 3]].concat())?;
            let (_, relayed) = peer.hear()?;
            peer.send(relayed, b"five!")?;
            peer.send(relayed, b"four")?;
            let (first, bytes) = stream.hear()?;
            let (second, _) = stream.hear()?;
            let wanted = |text: &[u8]| Incoming::Channel(CHANNEL, text.to_vec());
            let parsed = first == wanted(b"five!") && second == wanted(b"four");
            let zeros = bytes.get(9..) == Some(&[0; 3]);
            let said = match (parsed, zeros) {
                (true, true) => "padded",
                (true, false) => "padded, not with zeros",
                (false, _) => "not padded",
            };
            Ok(Verdict::of(parsed && zeros, said))
        },
    ),
    Probe::wire(
        "STR-03",
        "8489 §6.2.2",
        "request, then FIN",
        "answer on the same connection, then closed",
        Open,
        |trial| {
            let mut stream = tcp(trial)?;
            let draft = Draft::request(BINDING);
            stream.send(draft.bytes())?;
            stream.finish()?;
            let answer = stream.answer_to(&draft)?.success();
            Ok(answer.and(closed(&mut stream, CLOSED_WAIT)))
        },
    ),
    Probe::wire(
        "STR-03",
        "8656 §5",
        "FIN of a client with an allocation",
        "allocation freed",
        Open,
        |trial| {
            let mut stream = tcp(trial)?;
            let port = stream.allocate()?.port();
            stream.finish()?;
            let free = || matches!(is_bound(trial, port), Ok(false)).then_some(());
            let freed = until(CLOSED_WAIT, free).is_some();
            Ok(Verdict::of(freed, if freed { "freed" } else { "still bound" }))
        },
    ),
    Probe::wire("STR-04", "hardening", "HTTP on the TURN port", "closed", Open, |trial| {
        let mut stream = tcp(trial)?;
        stream.send(b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n")?;
        Ok(closed(&mut stream, Duration::from_secs(3)))
    }),
    Probe::wire(
        "STR-05",
        "hardening",
        "connects, sends nothing",
        "closed after 5 s",
        Open,
        |trial| Ok(closed(&mut tcp(trial)?, CLOSED_WAIT)),
    ),
    Probe::wire(
        "STR-06",
        "hardening",
        "header of a large message, then silence; another at 1 byte a second",
        "closed 5 s after accept, both",
        Open,
        |trial| {
            let (mut silent, mut slow) = (tcp(trial)?, tcp(trial)?);
            silent.send(&[0, 3, 0x05, 0x00, 0x21, 0x12, 0xA4, 0x42])?;
            let draft = Draft::allocate();
            let mut bytes = draft.bytes().iter();
            let drips = (0..CLOSED_WAIT.as_secs()).any(|_| {
                // The row names the pace. A connection that is closed takes no more.
                let sent = bytes.next().is_some_and(|byte| slow.send(&[*byte]).is_ok());
                !sent || slow.closes_within(Duration::from_secs(1))
            });
            let slow = Verdict::of(drips, if drips { "closed" } else { "open" });
            Ok(closed(&mut silent, Duration::from_millis(100)).and(slow))
        },
    ),
    Probe::wire(
        "STR-07",
        "6062 §4-5",
        "Connect and ConnectionBind over UDP",
        "400 or silent",
        Open,
        |trial| {
            let client = trial.allocated()?;
            let connect = Draft::request(CONNECT).peer(trial.peer()?.address);
            let bind = Draft::request(CONNECTION_BIND).with(attr::CONNECTION_ID, &[1; 4]);
            let first = client.request(connect)?.silent_or(&[400]);
            Ok(first.and(client.request(bind)?.silent_or(&[400])))
        },
    ),
    Probe::wire(
        "STR-07",
        "6062 §4-5",
        "Connect and ConnectionBind over TCP",
        "400 or silent",
        Open,
        |trial| {
            let mut stream = tcp(trial)?;
            stream.allocate()?;
            let connect = Draft::request(CONNECT).peer(trial.peer()?.address);
            let first = stream.request(connect)?.silent_or(&[400]);
            let mut stream = tcp(trial)?;
            stream.login()?;
            let bind = Draft::request(CONNECTION_BIND).with(attr::CONNECTION_ID, &[1; 4]);
            Ok(first.and(stream.request(bind)?.silent_or(&[400])))
        },
    ),
    Probe::wire(
        "STR-08",
        "6062 §5.2",
        "TCP allocation, then Connect to special-use addresses",
        "442 at Allocate, or 403 each",
        Open,
        tcp_allocation,
    ),
    Probe::wire("STR-09", "7443 §3", "TLS with ALPN stun.turn", "selected", Tls, |_| {
        let text = handshake(Family::V4.relay(TLS_PORT), "stun.turn")?;
        let selected = text.contains("ALPN protocol: stun.turn");
        Ok(Verdict::of(selected, if selected { "selected" } else { "not selected" }))
    }),
    Probe::wire("STR-09", "7443 §3", "the same, then TURN over it", "success", Tls, |trial| {
        Ok(over_tls(trial, Some("stun.turn"))?.success())
    }),
    Probe::wire("STR-10", "7443", "TLS without ALPN, then TURN over it", "success", Tls, |trial| {
        Ok(over_tls(trial, None)?.success())
    }),
    Probe::wire(
        "STR-11",
        "7301 §3.2",
        "only unknown protocols offered: h2, http/1.1",
        "alert no_application_protocol",
        Tls,
        |_| alert("h2,http/1.1"),
    ),
    Probe::wire(
        "STR-11",
        "7301 §3.2; 7443 §3",
        "only stun.nat-discovery offered",
        "alert no_application_protocol",
        Tls,
        |_| alert("stun.nat-discovery"),
    ),
];

fn tcp(trial: &Trial<'_>) -> Outcome<Stream> {
    let from = (trial.client()?.address()?.ip(), 0).into();
    Stream::connect(from, Family::V4.relay(TURN_PORT), trial.user(), trial.record.clone())
}

fn bound(trial: &Trial<'_>) -> Outcome<(Stream, crate::conformance::trial::Peer)> {
    let (mut stream, peer) = (tcp(trial)?, trial.peer()?);
    stream.allocate()?;
    let draft = Draft::request(CHANNEL_BIND).channel(CHANNEL).peer(peer.address);
    stream.request(draft)?.succeeded("ChannelBind")?;
    Ok((stream, peer))
}

fn closed(stream: &mut Stream, wait: Duration) -> Verdict {
    let closed = stream.closes_within(wait);
    Verdict::of(closed, if closed { "closed" } else { "open" })
}

fn over_tls(trial: &Trial<'_>, protocols: Option<&str>) -> Outcome<Answer> {
    let to = Family::V4.relay(TLS_PORT);
    let mut stream = Stream::tls(to, protocols, trial.user(), trial.record.clone())?;
    stream.allocate()?;
    let peer = trial.peer()?;
    let permit = Draft::request(CREATE_PERMISSION).peer(peer.address);
    let answer = stream.request(permit)?;
    stream.send(indication(peer.address, b"through TLS").bytes())?;
    let (payload, _) = peer.hear()?;
    if payload != b"through TLS" {
        return Ok(Answer::Strange(payload));
    }
    Ok(answer)
}

fn alert(protocols: &str) -> Outcome<Verdict> {
    let text = handshake(Family::V4.relay(TLS_PORT), protocols)?;
    let alerted = text.contains("no application protocol");
    Ok(Verdict::of(alerted, if alerted { "alert" } else { "accepted" }))
}

fn tcp_allocation(trial: &Trial<'_>) -> Outcome<Verdict> {
    let mut stream = tcp(trial)?;
    stream.login()?;
    let draft = Draft::request(ALLOCATE).with(attr::REQUESTED_TRANSPORT, &TCP);
    let answer = stream.request(draft)?;
    if answer.reply().is_none_or(|reply| reply.code().is_some()) {
        return Ok(answer.error(&[442]));
    }
    let peers = [
        Ipv4Addr::LOCALHOST,
        RELAY_PRIVATE,
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::UNSPECIFIED,
        RELAY,
    ];
    let verdicts: Outcome<Vec<_>> = peers
        .iter()
        .map(|ip| {
            let peer = SocketAddr::from((*ip, 22));
            Ok(stream.request(Draft::request(CONNECT).peer(peer))?.error(&[403]))
        })
        .collect();
    Ok(Verdict::all(verdicts?))
}
