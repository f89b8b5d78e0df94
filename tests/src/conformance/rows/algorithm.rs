//! AUT-14 to AUT-20: how passwords become keys, and keys protect messages.

use base64ct::{Base64, Encoding as _};

use super::auth::challenged;
use crate::Outcome;
use crate::conformance::attr;
use crate::conformance::message::{Draft, Session};
use crate::conformance::probe::Probe;
use crate::conformance::server::Setup::{Open, Tls};
use crate::conformance::server::USER;
use crate::conformance::site::{Family, TLS_PORT, TURN_PORT};
use crate::conformance::stream::Stream;
use crate::conformance::trial::Trial;
use crate::conformance::verdict::{Answer, Verdict};

/// Begins every nonce that says which features the server has (RFC 8489 §9.2).
const COOKIE: &[u8] = b"obMatJos2";
/// SHA-256, then MD5, without parameters (RFC 8489 §18.5).
const ALGORITHMS: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];
const SHA256: [u8; 4] = [0, 2, 0, 0];
const MD5: [u8; 4] = [0, 1, 0, 0];

pub const PROBES: &[Probe] = &[
    Probe::wire(
        "AUT-14",
        "8489 §9.2.1, §14.11",
        "Allocate without integrity over TCP",
        "401 with nonce cookie and PASSWORD-ALGORITHMS",
        Open,
        |trial| Ok(offers(&tcp(trial)?.ask(&Draft::allocate())?)),
    ),
    Probe::wire(
        "AUT-14",
        "8489 §9.2.1, §14.11",
        "Allocate without integrity over TLS",
        "401 with nonce cookie and PASSWORD-ALGORITHMS",
        Tls,
        |trial| {
            let (to, user) = (Family::V4.relay(TLS_PORT), trial.user());
            let mut stream = Stream::tls(to, None, user, trial.record.clone())?;
            Ok(offers(&stream.ask(&Draft::allocate())?))
        },
    ),
    Probe::wire(
        "AUT-15",
        "8489 §9.2, §18.1",
        "form of that nonce",
        "obMatJos2 + 4 Base64 characters, bit 0 (password algorithms) set",
        Open,
        |trial| {
            let challenge = tcp(trial)?.login()?;
            let nonce = challenge.attribute(attr::NONCE).unwrap_or_default().to_vec();
            Ok(Verdict::of(
                features(&nonce).is_some_and(|bits| bits & 1 == 1),
                feature_words(&nonce),
            ))
        },
    ),
    Probe::wire(
        "AUT-15",
        "8489 §9.2.4, §14.11",
        "438 over TCP: nonce of another connection",
        "438 with SHA-256 first, then MD5",
        Open,
        |trial| {
            let (mut first, mut second) = (tcp(trial)?, tcp(trial)?);
            first.login()?;
            second.session = first.session.clone();
            let algorithms = offered(&first.session, &ALGORITHMS, Some(&MD5));
            let answer = second.ask(&algorithms.integrity(&first.session.key()))?;
            let lists = answer.reply().and_then(|it| it.attribute(attr::PASSWORD_ALGORITHMS));
            let right = lists == Some(&ALGORITHMS);
            let stale = challenged(&answer, &[438]);
            Ok(Verdict { passed: stale.passed && right, ..stale })
        },
    ),
    Probe::wire(
        "AUT-15",
        "8489 §9.2.4, §14.4",
        "USERHASH of a static user instead of USERNAME",
        "success",
        Open,
        |trial| {
            let mut stream = tcp(trial)?;
            stream.login()?;
            (stream.session.username, stream.session.password) = (USER.0.into(), USER.1.into());
            let Session { realm, nonce, .. } = &stream.session;
            let draft = Draft::allocate()
                .with(attr::USERHASH, &stream.session.user_hash())
                .with(attr::REALM, realm.as_bytes())
                .with(attr::NONCE, nonce)
                .with(attr::PASSWORD_ALGORITHMS, &ALGORITHMS)
                .with(attr::PASSWORD_ALGORITHM, &SHA256)
                .integrity_sha256(&stream.session.key_sha256(), 32);
            Ok(stream.ask(&draft)?.success())
        },
    ),
    Probe::wire(
        "AUT-16",
        "8489 §9.2.4",
        "new nonce, but neither PASSWORD-ALGORITHM nor -ALGORITHMS",
        "success, MESSAGE-INTEGRITY with the MD5 key",
        Open,
        |trial| {
            let mut stream = tcp(trial)?;
            stream.login()?;
            let answer = stream.request(Draft::allocate())?;
            Ok(answer.success_if(|reply| reply.attribute(attr::MESSAGE_INTEGRITY).is_some()))
        },
    ),
    Probe::wire(
        "AUT-16",
        "8489 §9.2.4, §9.2.5",
        "SHA-256 chosen from the list",
        "success, MESSAGE-INTEGRITY-SHA256 with the SHA-256 key",
        Open,
        |trial| {
            let sha256 = attr::MESSAGE_INTEGRITY_SHA256;
            let answer = chosen(trial, &ALGORITHMS, Some(&SHA256))?;
            Ok(answer.success_if(|reply| reply.attribute(sha256).is_some()))
        },
    ),
    Probe::wire(
        "AUT-17",
        "8489 §9.2.1",
        "list edited on the way: MD5 alone",
        "400",
        Open,
        |trial| Ok(chosen(trial, &MD5, Some(&MD5))?.error(&[400])),
    ),
    Probe::wire(
        "AUT-17",
        "8489 §9.2.4",
        "list right, no PASSWORD-ALGORITHM",
        "400",
        Open,
        |trial| Ok(chosen(trial, &ALGORITHMS, None)?.error(&[400])),
    ),
    Probe::wire(
        "AUT-17",
        "8489 §9.2.4",
        "PASSWORD-ALGORITHM that is not in the list",
        "400",
        Open,
        |trial| Ok(chosen(trial, &ALGORITHMS, Some(&[0, 9, 0, 0]))?.error(&[400])),
    ),
    Probe::wire(
        "AUT-18",
        "8489 §14.6",
        "MESSAGE-INTEGRITY-SHA256 of 16, 20, 32 bytes",
        "success",
        Open,
        |trial| truncated(trial, &[16, 20, 32], |answer| answer.success()),
    ),
    Probe::wire(
        "AUT-18",
        "8489 §14.6",
        "MESSAGE-INTEGRITY-SHA256 of 12, 15, 17, 36 bytes",
        "400 or 401",
        Open,
        |trial| truncated(trial, &[12, 15, 17, 36], |answer| answer.error(&[400, 401])),
    ),
    Probe::wire(
        "AUT-19",
        "8489 §9.2.4, §14.6",
        "right MESSAGE-INTEGRITY, wrong MESSAGE-INTEGRITY-SHA256",
        "401",
        Open,
        |trial| {
            let mut client = trial.client()?;
            client.login()?;
            let draft = Draft::allocate().signed(&client.session);
            let wrong = draft.with(attr::MESSAGE_INTEGRITY_SHA256, &[7; 32]);
            Ok(client.ask(&wrong)?.error(&[401]))
        },
    ),
    Probe::wire(
        "AUT-19",
        "8489 §9.2.4, §14.6",
        "wrong MESSAGE-INTEGRITY, right MESSAGE-INTEGRITY-SHA256",
        "success",
        Open,
        |trial| {
            let mut client = trial.client()?;
            client.login()?;
            let named = Draft::allocate().named(&client.session);
            let wrong = named.with(attr::MESSAGE_INTEGRITY, &[7; 20]);
            let draft = wrong.integrity_sha256(&client.session.key(), 32);
            Ok(client.ask(&draft)?.success())
        },
    ),
    Probe::wire(
        "AUT-20",
        "8489 §14.6",
        "MESSAGE-INTEGRITY followed by a valid MESSAGE-INTEGRITY-SHA256",
        "success, no 420",
        Open,
        |trial| {
            let mut client = trial.client()?;
            client.login()?;
            let draft = Draft::allocate().signed(&client.session);
            Ok(client.ask(&draft.integrity_sha256(&client.session.key(), 32))?.success())
        },
    ),
];

fn tcp(trial: &Trial<'_>) -> Outcome<Stream> {
    let from = (trial.client()?.address()?.ip(), 0).into();
    Stream::connect(from, Family::V4.relay(TURN_PORT), trial.user(), trial.record.clone())
}

/// A 401 that offers SHA-256.
fn offers(answer: &Answer) -> Verdict {
    let reply = answer.reply();
    let nonce = reply.and_then(|reply| reply.attribute(attr::NONCE)).unwrap_or_default();
    let list = reply.and_then(|reply| reply.attribute(attr::PASSWORD_ALGORITHMS));
    let verdict = challenged(answer, &[401]);
    let passed = verdict.passed && features(nonce).is_some() && list == Some(&ALGORITHMS);
    let words = match list {
        None => "no PASSWORD-ALGORITHMS",
        Some(list) if list == ALGORITHMS => "SHA-256, MD5",
        Some(_) => "another list",
    };
    Verdict::of(passed, format_args!("{}, {}, {words}", verdict.said, feature_words(nonce)))
}

/// The two feature bits of a nonce with the cookie, the first being bit 0.
fn features(nonce: &[u8]) -> Option<u8> {
    let text = nonce.strip_prefix(COOKIE)?.get(..4)?;
    let mut bits = [0; 3];
    Base64::decode(text, &mut bits).ok()?;
    Some(bits[0] >> 7 | (bits[0] >> 5 & 2))
}

fn feature_words(nonce: &[u8]) -> String {
    match features(nonce) {
        None => "no cookie".to_owned(),
        Some(bits) => format!("cookie, feature bits {bits:02b}"),
    }
}

fn offered(session: &Session, list: &[u8], choice: Option<&[u8]>) -> Draft {
    let draft = Draft::allocate().named(session).with(attr::PASSWORD_ALGORITHMS, list);
    choice.into_iter().fold(draft, |draft, choice| draft.with(attr::PASSWORD_ALGORITHM, choice))
}

/// Over TCP, answers a challenge with this list and this choice, signed by it.
fn chosen(trial: &Trial<'_>, list: &[u8], choice: Option<&[u8]>) -> Outcome<Answer> {
    let mut stream = tcp(trial)?;
    stream.login()?;
    let session = stream.session.clone();
    let draft = offered(&session, list, choice);
    stream.ask(&if choice == Some(&SHA256) {
        draft.integrity_sha256(&session.key_sha256(), 32)
    } else {
        draft.integrity(&session.key())
    })
}

fn truncated(
    trial: &Trial<'_>,
    lengths: &[usize],
    judge: fn(&Answer) -> Verdict,
) -> Outcome<Verdict> {
    let parts: Outcome<Vec<_>> = lengths
        .iter()
        .map(|length| {
            let mut client = trial.client()?;
            client.login()?;
            let named = Draft::allocate().named(&client.session);
            let answer = client.ask(&named.integrity_sha256(&client.session.key(), *length))?;
            let verdict = judge(&answer);
            Ok(Verdict::of(verdict.passed, format_args!("{length}: {}", verdict.said)))
        })
        .collect();
    Ok(Verdict::all(parts?))
}
