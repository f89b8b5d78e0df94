//! AUT-01 to AUT-13: who may ask.

use crate::Outcome;
use crate::conformance::attr;
use crate::conformance::client::Client;
use crate::conformance::message::{CHANNEL_BIND, CREATE_PERMISSION, Draft, REFRESH, Session};
use crate::conformance::probe::Probe;
use crate::conformance::reply::Reply;
use crate::conformance::server::Setup::Open;
use crate::conformance::trial::{Trial, credential, password};
use crate::conformance::verdict::{Answer, Verdict};

pub const PROBES: &[Probe] = &[
    Probe::wire(
        "AUT-01",
        "8489 §9.2.4; 8656 §7.2",
        "Allocate without integrity",
        "401 + REALM + NONCE",
        Open,
        |trial| Ok(challenged(&trial.client()?.ask(&Draft::allocate())?, &[401])),
    ),
    Probe::wire(
        "AUT-02",
        "8656 §7.2; hardening",
        "bare 20-byte Allocate",
        "400, 401 or silent, at most 2 × the request",
        Open,
        |trial| {
            let answer =
                trial.client()?.ask(&Draft::request(crate::conformance::message::ALLOCATE))?;
            let length = answer.reply().map_or(0, |reply| reply.bytes.len());
            let good = answer.silent_or(&[400, 401]);
            Ok(Verdict::of(good.passed && length <= 40, format_args!("{}, {length} B", good.said)))
        },
    ),
    Probe::wire("AUT-03", "8489 §9.2.4", "integrity, but no REALM", "400", Open, |trial| {
        without(trial, attr::REALM)
    }),
    Probe::wire("AUT-04", "8489 §9.2.4", "integrity, but no NONCE", "400", Open, |trial| {
        without(trial, attr::NONCE)
    }),
    Probe::wire("AUT-05", "8489 §9.2.4", "wrong password", "401", Open, |trial| {
        let mut client = trial.client()?;
        client.login()?;
        client.session.password = "a guess".to_owned();
        Ok(challenged(&client.request(Draft::allocate())?, &[401]))
    }),
    Probe::wire(
        "AUT-06",
        "REST form",
        "user name without a time, HMAC right",
        "401",
        Open,
        |trial| {
            let mut client = trial.client()?;
            client.login()?;
            client.session.username = "ana".to_owned();
            client.session.password = password("ana");
            Ok(client.request(Draft::allocate())?.error(&[401]))
        },
    ),
    Probe::wire(
        "AUT-07",
        "8489 §14.5",
        "LIFETIME 700 before, 3000 behind MESSAGE-INTEGRITY",
        "700 granted",
        Open,
        |trial| {
            let mut client = trial.client()?;
            client.login()?;
            let draft = Draft::allocate().lifetime(700).signed(&client.session).lifetime(3000);
            Ok(granted(&client.ask(&draft)?, 700))
        },
    ),
    Probe::wire(
        "AUT-07",
        "8489 §14.5",
        "LIFETIME 3000 behind MESSAGE-INTEGRITY alone",
        "600 granted",
        Open,
        |trial| {
            let mut client = trial.client()?;
            client.login()?;
            Ok(granted(
                &client.ask(&Draft::allocate().signed(&client.session).lifetime(3000))?,
                600,
            ))
        },
    ),
    Probe::wire(
        "AUT-08",
        "8656 §5; 8489 §9.2.4",
        "NONCE that was given to another port",
        "438",
        Open,
        |trial| {
            let mut first = trial.client()?;
            first.login()?;
            let at = (first.address()?.ip(), 0).into();
            let second = trial.client_at(at, first.session.clone())?;
            Ok(challenged(&second.request(Draft::allocate())?, &[438]))
        },
    ),
    Probe::wire(
        "AUT-09",
        "8656 §5",
        "Allocate of another valid user on the same 5-tuple",
        "441",
        Open,
        |trial| {
            let client = trial.allocated()?;
            let other = other_user(trial, &client);
            Ok(client.ask(&Draft::allocate().signed(&other))?.error(&[441]))
        },
    ),
    Probe::wire("AUT-10", "8656 §5", "Refresh of another user", "441", Open, |trial| {
        stolen(trial, Draft::request(REFRESH))
    }),
    Probe::wire("AUT-10", "8656 §5", "CreatePermission of another user", "441", Open, |trial| {
        stolen(trial, Draft::request(CREATE_PERMISSION).peer(trial.peer()?.address))
    }),
    Probe::wire("AUT-10", "8656 §5", "ChannelBind of another user", "441", Open, |trial| {
        stolen(trial, Draft::request(CHANNEL_BIND).channel(0x4000).peer(trial.peer()?.address))
    }),
    Probe::wire(
        "AUT-11",
        "8489 §14.5",
        "MESSAGE-INTEGRITY of 10 bytes",
        "400, 401 or silent",
        Open,
        |trial| {
            let mut client = trial.client()?;
            client.login()?;
            let named = Draft::allocate().named(&client.session);
            Ok(client.ask(&named.with(attr::MESSAGE_INTEGRITY, &[7; 10]))?.silent_or(&[400, 401]))
        },
    ),
    Probe::wire(
        "AUT-12",
        "8489 §14.3",
        "USERNAME of 611 bytes",
        "400, 401 or silent",
        Open,
        |trial| {
            let mut client = trial.client()?;
            client.login()?;
            let long = credential(&"n".repeat(600));
            client.session.username = long.username;
            client.session.password = long.password;
            Ok(client.request(Draft::allocate())?.silent_or(&[400, 401]))
        },
    ),
    Probe::wire("AUT-13", "8489 §14.3", "USERNAME of 509 bytes", "400", Open, |trial| {
        let mut client = trial.client()?;
        client.login()?;
        let spare = 509 - credential("").username.len();
        let long = credential(&"n".repeat(spare));
        (client.session.username, client.session.password) = (long.username, long.password);
        Ok(client.request(Draft::allocate())?.error(&[400]))
    }),
    Probe::wire("AUT-13", "8489 §14.9", "REALM of 764 bytes", "400", Open, |trial| {
        let mut client = trial.client()?;
        client.login()?;
        client.session.realm = "r".repeat(764);
        Ok(client.request(Draft::allocate())?.error(&[400]))
    }),
    Probe::wire("AUT-13", "8489 §14.10", "NONCE of 764 bytes", "400", Open, |trial| {
        let mut client = trial.client()?;
        client.login()?;
        client.session.nonce = vec![b'n'; 764];
        Ok(client.request(Draft::allocate())?.error(&[400]))
    }),
];

/// The error must say how to do better (RFC 8489 §9.2.4).
pub fn challenged(answer: &Answer, codes: &[u16]) -> Verdict {
    let complete = answer.reply().is_some_and(|reply| {
        [attr::REALM, attr::NONCE].iter().all(|kind| reply.attribute(*kind).is_some())
    });
    let verdict = answer.error(codes);
    Verdict { passed: verdict.passed && complete, ..verdict }
}

/// A success that grants exactly this lifetime.
pub fn granted(answer: &Answer, lifetime_s: u32) -> Verdict {
    let found = answer.reply().and_then(Reply::lifetime);
    let verdict = answer.success_if(|_| found == Some(lifetime_s));
    match found {
        Some(found) => Verdict::of(verdict.passed, format_args!("{} {found}", verdict.said)),
        None => verdict,
    }
}

fn without(trial: &Trial<'_>, left_out: u16) -> Outcome<Verdict> {
    let mut client = trial.client()?;
    client.login()?;
    let Session { username, realm, nonce, .. } = &client.session;
    let parts = [
        (attr::USERNAME, username.as_bytes()),
        (attr::REALM, realm.as_bytes()),
        (attr::NONCE, nonce),
    ];
    let parts = parts.into_iter().filter(|(kind, _)| *kind != left_out);
    let draft = parts.fold(Draft::allocate(), |draft, (kind, value)| draft.with(kind, value));
    Ok(client.ask(&draft.integrity(&client.session.key()))?.error(&[400]))
}

fn other_user(trial: &Trial<'_>, client: &Client) -> Session {
    let Session { realm, nonce, .. } = client.session.clone();
    Session { realm, nonce, ..trial.user() }
}

fn stolen(trial: &Trial<'_>, draft: Draft) -> Outcome<Verdict> {
    let client = trial.allocated()?;
    let other = other_user(trial, &client);
    Ok(client.ask(&draft.signed(&other))?.error(&[441]))
}
