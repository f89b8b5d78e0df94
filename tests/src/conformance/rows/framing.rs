//! FRM: what is a message, and Binding.

use std::io::{Read as _, Write as _};
use std::net::SocketAddrV4;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::Outcome;
use crate::conformance::attr;
use crate::conformance::client::Client;
use crate::conformance::message::{
    ALLOCATE, BINDING, CREATE_PERMISSION, Class, Draft, SEND, channel_data,
};
use crate::conformance::probe::Probe;
use crate::conformance::reply::Reply;
use crate::conformance::server::Setup::Open;
use crate::conformance::site::{Family, RELAY, TURN_PORT};
use crate::conformance::trial::{Trial, receive};
use crate::conformance::verdict::{Answer, Verdict};

/// Datagrams of FRM-17, and how many of a hundred are cut short.
const MUTANTS: usize = 8_000;
const CUT_PERCENT: usize = 30;
/// The same mutations in every run.
const SEED: u64 = 17;
/// So many mutants are sent before what came back is thrown away.
const MUTANTS_AT_ONCE: usize = 200;
const HEADER_UDP: usize = 8;

pub const PROBES: &[Probe] = &[
    Probe::wire(
        "FRM-01",
        "8489 §6.3, §14.2",
        "Binding request over IPv4",
        "success, exact XOR-MAPPED-ADDRESS, at most 2 × the request",
        Open,
        |trial| mapped(&trial.client()?, 40),
    ),
    Probe::wire(
        "FRM-01",
        "8489 §6.3, §14.2",
        "Binding request over IPv6",
        "success, exact XOR-MAPPED-ADDRESS and nothing else (44 B)",
        Open,
        |trial| mapped(&trial.client_to(Family::V6.relay(TURN_PORT))?, 44),
    ),
    Probe::wire(
        "FRM-02",
        "8489 §6.3.1, §14.13",
        "Binding with an unknown comprehension-required attribute",
        "420, UNKNOWN-ATTRIBUTES lists it",
        Open,
        |trial| {
            let answer = trial.client()?.ask(&binding().with(attr::NOBODYS, &[0; 4]))?;
            let listed = answer.reply().is_some_and(|reply| reply.unknown() == [attr::NOBODYS]);
            Ok(Verdict { passed: answer.error(&[420]).passed && listed, ..answer.error(&[420]) })
        },
    ),
    Probe::wire("FRM-03", "8489 §5, §11", "magic cookie wrong", "silent", Open, |trial| {
        Ok(edited(trial, |bytes| bytes[4] ^= 1)?.silent())
    }),
    Probe::wire(
        "FRM-04",
        "8489 §5",
        "header length 3, with 3 bytes behind the header",
        "silent",
        Open,
        |trial| {
            let odd = |bytes: &mut Vec<u8>| {
                bytes[3] = 3;
                bytes.extend([0; 3]);
            };
            Ok(edited(trial, odd)?.silent())
        },
    ),
    Probe::wire(
        "FRM-05",
        "8489 §5",
        "datagram 4 bytes longer than the header says",
        "silent or 400",
        Open,
        |trial| Ok(edited(trial, |bytes| bytes.extend([0; 4]))?.silent_or(&[400])),
    ),
    Probe::wire(
        "FRM-06",
        "8489 §14",
        "attribute length overruns the message",
        "silent or 400",
        Open,
        |trial| {
            let draft = binding().with(0x8022, b"soft").edited(|bytes| bytes[23] = 200);
            Ok(trial.client()?.ask(&draft)?.silent_or(&[400]))
        },
    ),
    Probe::wire("FRM-07", "8489 §7", "good FINGERPRINT", "success", Open, |trial| {
        Ok(trial.client()?.ask(&binding().fingerprint())?.success())
    }),
    Probe::wire("FRM-08", "8489 §6.3.2", "Binding indication", "silent", Open, |trial| {
        Ok(trial.client()?.ask(&Draft::new(BINDING, Class::Indication))?.silent())
    }),
    Probe::wire(
        "FRM-09",
        "8489 §6.3.4",
        "unsolicited error response, unsolicited success",
        "silent, silent",
        Open,
        |trial| {
            let error = Draft::new(BINDING, Class::Error).with(attr::ERROR_CODE, &[0, 0, 4, 0]);
            let success = Draft::new(ALLOCATE, Class::Success);
            silence(trial, &[error, success], &[])
        },
    ),
    Probe::wire(
        "FRM-10",
        "8489 §6.3",
        "request of an unknown method",
        "silent, 400 or 401",
        Open,
        |trial| silence(trial, &[Draft::request(0x0FF)], &[400, 401]),
    ),
    Probe::wire(
        "FRM-11",
        "8489 §5",
        "first two bits 10 and 11; 01 on an unbound channel",
        "silent",
        Open,
        |trial| {
            let first = |byte: u8| binding().edited(|bytes| bytes[0] = byte);
            let channel = binding().edited(|bytes| *bytes = channel_data(0x4001, &[0; 20]));
            silence(trial, &[first(0x80), first(0xC0), channel], &[])
        },
    ),
    Probe::wire(
        "FRM-12",
        "8489 §5, §6.3",
        "Send request",
        "silent or 400, never acted on",
        Open,
        |trial| {
            let mut client = trial.client()?;
            client.allocate()?;
            let peer = trial.peer()?;
            client.permit(peer.address)?;
            let draft = Draft::request(SEND).peer(peer.address).with(attr::DATA, b"x");
            let answer = client.request(draft)?.silent_or(&[400]);
            let acted = peer.next(Duration::from_millis(20))?.is_some();
            Ok(Verdict::of(answer.passed && !acted, answer.said))
        },
    ),
    Probe::wire(
        "FRM-12",
        "8489 §5, §6.3",
        "Allocate indication, well signed",
        "silent or 400, never acted on",
        Open,
        |trial| {
            let mut client = trial.client()?;
            client.login()?;
            let draft = Draft::new(ALLOCATE, Class::Indication)
                .with(attr::REQUESTED_TRANSPORT, &crate::conformance::message::UDP);
            let answer = client.request(draft)?.silent_or(&[400]);
            let none =
                client.request(Draft::request(CREATE_PERMISSION).peer(trial.peer()?.address))?;
            // Whatever the server calls it: there is no allocation.
            Ok(Verdict { passed: answer.passed && none.code().is_some(), ..answer })
        },
    ),
    Probe::wire(
        "FRM-14",
        "8489 §11",
        "RFC 3489 Binding, 16 bytes of transaction id without a cookie",
        "discarded",
        Open,
        |trial| Ok(edited(trial, |bytes| bytes[4..8].copy_from_slice(&[9; 4]))?.silent()),
    ),
    Probe::test(
        "FRM-15",
        "5769; 8489 App. B",
        "the RFCs' sample messages",
        "byte-exact both ways",
        ("relay/proto/tests/relay/vectors.rs", "sample_long_term_request_is_written_byte_for_byte"),
    ),
    Probe::wire(
        "FRM-16",
        "hardening",
        "Binding request from source port 0",
        "dropped, no log line",
        Open,
        |trial| spoofed(trial, 0),
    ),
    Probe::wire(
        "FRM-16",
        "hardening",
        "Binding request from the server's own listening socket",
        "dropped, no log line",
        Open,
        |trial| trial.site.server.within(|| spoofed_by_itself(trial)),
    ),
    Probe::wire(
        "FRM-17",
        "hardening",
        "8,000 mutated packets: 1 to 6 bytes flipped, 30 % cut short, four valid seeds",
        "alive, next Binding answered",
        Open,
        mutants,
    ),
];

fn binding() -> Draft {
    Draft::request(BINDING)
}

fn edited(trial: &Trial<'_>, edit: impl FnOnce(&mut Vec<u8>)) -> Outcome<Answer> {
    trial.client()?.ask(&binding().edited(edit))
}

/// None of the drafts gets an answer but with one of `codes`.
fn silence(trial: &Trial<'_>, drafts: &[Draft], codes: &[u16]) -> Outcome<Verdict> {
    let parts: Outcome<Vec<_>> =
        drafts.iter().map(|draft| Ok(trial.client()?.ask(draft)?.silent_or(codes))).collect();
    Ok(Verdict::all(parts?))
}

fn mapped(client: &Client, reply_len_max: usize) -> Outcome<Verdict> {
    let (own, answer) = (client.address()?, client.ask(&binding())?);
    let found = answer.reply().and_then(|reply| reply.address(attr::XOR_MAPPED_ADDRESS));
    let length = answer.reply().map_or(0, |reply| reply.bytes.len());
    let good = answer.success_if(|_| found == Some(own) && length <= reply_len_max);
    Ok(Verdict::of(good.passed, format_args!("{}, {length} B", good.said)))
}

/// Sends a Binding request that claims to be from `port` and listens for any answer to it.
fn spoofed(trial: &Trial<'_>, port: u16) -> Outcome<Verdict> {
    let client = trial.client()?;
    let from = client.address()?.ip();
    let mut raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
    raw.bind(&std::net::SocketAddr::new(from, 0).into())?;
    raw.connect(&SocketAddrV4::new(RELAY, 0).into())?;
    let log = trial.server.log().len();
    let draft = binding();
    raw.write_all(&udp(port, draft.bytes()))?;
    unanswered(trial, &client, &mut raw, &draft, log)
}

/// As [`spoofed`], from the relay's host: its own address and port.
fn spoofed_by_itself(trial: &Trial<'_>) -> Outcome<Verdict> {
    let mut raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
    raw.bind(&SocketAddrV4::new(RELAY, 0).into())?;
    raw.connect(&SocketAddrV4::new(RELAY, 0).into())?;
    let log = trial.server.log().len();
    let draft = binding();
    raw.write_all(&udp(TURN_PORT, draft.bytes()))?;
    let client = trial.client_at((RELAY, 0).into(), trial.user())?;
    unanswered(trial, &client, &mut raw, &draft, log)
}

/// Waits for the answer to another request, and looks for one to `draft` before it.
fn unanswered(
    trial: &Trial<'_>,
    client: &Client,
    raw: &mut Socket,
    draft: &Draft,
    log: usize,
) -> Outcome<Verdict> {
    client.ask(&binding())?.succeeded("Binding")?;
    raw.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut packet = vec![0; 2_048];
    let mut answered = false;
    while let Ok(length) = raw.read(&mut packet) {
        // A raw socket gets the IP header, 20 bytes without options, and UDP's.
        let stun = packet[..length].get(20 + HEADER_UDP..).unwrap_or_default();
        let reply = Reply::read(stun).filter(|reply| reply.class != Class::Request);
        answered |= reply.is_some_and(|reply| reply.id() == &draft.bytes()[8..20]);
    }
    // Other servers report sessions that have ended, which is no answer to this packet.
    let news = trial.server.log().split_off(log);
    let about_it = news.contains(&client.address()?.ip().to_string());
    let counts = trial.server.metrics(trial.site)?.is_some();
    let silent_log = !about_it && (news.is_empty() || !counts);
    let said = match (answered, silent_log) {
        (true, _) => "answered",
        (false, true) => "silent",
        (false, false) => "silent, logged",
    };
    Ok(Verdict::of(!answered && silent_log, said))
}

/// A UDP packet to the listener without checksum, which IPv4 allows.
fn udp(from: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER_UDP + payload.len()).expect("short");
    [&from.to_be_bytes()[..], &TURN_PORT.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload]
        .concat()
}

fn mutants(trial: &Trial<'_>) -> Outcome<Verdict> {
    let mut client = trial.allocated()?;
    let peer = trial.peer()?;
    let listening = client.socket().try_clone()?;
    let session = client.session.clone();
    let seeds = [
        binding().fingerprint(),
        Draft::allocate().signed(&session),
        Draft::request(CREATE_PERMISSION).peer(peer.address).signed(&session),
        Draft::new(SEND, Class::Indication).peer(peer.address).with(attr::DATA, b"payload"),
    ];
    let mut state = SEED;
    let mut draw = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits") % below
    };
    for number in 0..MUTANTS {
        let mut bytes = seeds[number % seeds.len()].bytes().to_vec();
        if draw(100) < CUT_PERCENT {
            bytes.truncate(draw(bytes.len()) + 1);
        }
        for _ in 0..=draw(6) {
            let (at, bit) = (draw(bytes.len()), draw(8));
            bytes[at] ^= 1 << bit;
        }
        client.send(&bytes)?;
        if number % MUTANTS_AT_ONCE == MUTANTS_AT_ONCE - 1 {
            while receive(&listening, Duration::from_millis(1))?.is_some() {}
        }
    }
    client = trial.client()?;
    let alive = client.ask(&binding())?.success();
    let still = trial.allocated().is_ok();
    Ok(Verdict::of(alive.passed && still, if still { "alive" } else { "no allocation after it" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spoofed_packets_are_udp() {
        let packet = udp(0, &[7; 20]);
        assert_eq!(packet[..8], [0, 0, 0x0D, 0x96, 0, 28, 0, 0]);
    }
}
