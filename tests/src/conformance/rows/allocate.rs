//! ALC: Allocate.

use std::net::SocketAddr;
use std::time::Duration;

use super::auth::granted;
use crate::Outcome;
use crate::conformance::attr;
use crate::conformance::client::Client;
use crate::conformance::message::{Draft, IPV4, IPV6, REFRESH};
use crate::conformance::probe::Probe;
use crate::conformance::server::Setup::{Drain, Ipv4Only, OnePort, Open, Quota};
use crate::conformance::server::{ALTERNATE, QUOTA};
use crate::conformance::site::{Family, TURN_PORT};
use crate::conformance::trial::Trial;
use crate::conformance::verdict::{Answer, Verdict};
use crate::process::until;

const PROTO: &str = "relay/proto/tests/relay/allocate.rs";
/// EVEN-PORT with and without its R bit.
const EVEN_AND_NEXT: [u8; 1] = [0x80];
const EVEN: [u8; 1] = [0];
/// Steps between ports drawn in a row that a random draw would hardly ever take so often.
const NEAR_STEPS_MAX: usize = 2;
/// Longer than a port is kept for its token (RFC 8656 §7.2).
const RESERVATION: Duration = Duration::from_secs(31);
/// How long an allocation that was given back may still count.
const GIVE_BACK_WAIT: Duration = Duration::from_secs(5);

pub const PROBES: &[Probe] = &[
    Probe::wire(
        "ALC-01",
        "8656 §7.2; 8489 §14.5",
        "valid Allocate",
        "XOR-RELAYED-ADDRESS, LIFETIME 600, exact XOR-MAPPED-ADDRESS, valid integrity",
        Open,
        |trial| {
            let client = ready(trial)?;
            let (own, answer) = (client.address()?, client.request(Draft::allocate())?);
            let complete = answer.reply().is_some_and(|reply| {
                reply.address(attr::XOR_RELAYED_ADDRESS).is_some()
                    && reply.address(attr::XOR_MAPPED_ADDRESS) == Some(own)
            });
            let lifetime = granted(&answer, 600);
            Ok(Verdict { passed: lifetime.passed && complete, ..lifetime })
        },
    ),
    Probe::wire("ALC-02", "8656 §7.2", "REQUESTED-TRANSPORT of length 1", "400", Open, |trial| {
        let draft = Draft::request(crate::conformance::message::ALLOCATE)
            .with(attr::REQUESTED_TRANSPORT, &[17]);
        Ok(ready(trial)?.request(draft)?.error(&[400]))
    }),
    Probe::wire("ALC-03", "8656 §7.2", "REQUESTED-TRANSPORT 132 (SCTP)", "442", Open, |trial| {
        let draft = Draft::request(crate::conformance::message::ALLOCATE)
            .with(attr::REQUESTED_TRANSPORT, &[132, 0, 0, 0]);
        Ok(ready(trial)?.request(draft)?.error(&[442]))
    }),
    Probe::wire("ALC-04", "8656 §7.2", "REQUESTED-ADDRESS-FAMILY 3", "440 or 400", Open, |trial| {
        let with = [(attr::REQUESTED_ADDRESS_FAMILY, &[3, 0, 0, 0][..])];
        Ok(asked(trial, &with)?.error(&[440, 400]))
    }),
    Probe::wire("ALC-05", "8656 §7.2", "RESERVATION-TOKEN with EVEN-PORT", "400", Open, |trial| {
        let with = [(attr::RESERVATION_TOKEN, &[7; 8][..]), (attr::EVEN_PORT, &EVEN[..])];
        Ok(asked(trial, &with)?.error(&[400]))
    }),
    Probe::wire("ALC-06", "8656 §7.2", "unknown RESERVATION-TOKEN", "508", Open, |trial| {
        Ok(asked(trial, &[(attr::RESERVATION_TOKEN, &[7; 8])])?.error(&[508]))
    }),
    Probe::wire(
        "ALC-07",
        "8656 §7.2",
        "REQUESTED- with ADDITIONAL-ADDRESS-FAMILY",
        "400",
        Open,
        |trial| {
            let with = [
                (attr::REQUESTED_ADDRESS_FAMILY, &IPV4[..]),
                (attr::ADDITIONAL_ADDRESS_FAMILY, &IPV6[..]),
            ];
            Ok(asked(trial, &with)?.error(&[400]))
        },
    ),
    Probe::wire(
        "ALC-08",
        "8656 §7.2",
        "ADDITIONAL-ADDRESS-FAMILY with EVEN-PORT R=1",
        "400",
        Open,
        |trial| {
            let with =
                [(attr::EVEN_PORT, &EVEN_AND_NEXT[..]), (attr::ADDITIONAL_ADDRESS_FAMILY, &IPV6)];
            Ok(asked(trial, &with)?.error(&[400]))
        },
    ),
    Probe::wire(
        "ALC-09",
        "8656 §7.2",
        "second Allocate, new transaction id, same 5-tuple",
        "437",
        Open,
        |trial| Ok(trial.allocated()?.request(Draft::allocate())?.error(&[437])),
    ),
    Probe::wire(
        "ALC-09",
        "8656 §7.2; 8489 §6.3.1",
        "the same Allocate again, byte by byte",
        "the same success",
        Open,
        |trial| {
            let client = ready(trial)?;
            let draft = Draft::allocate().signed(&client.session);
            let first = client.ask(&draft)?.succeeded("Allocate")?;
            Ok(client.ask(&draft)?.success_if(|second| second.bytes == first.bytes))
        },
    ),
    Probe::wire("ALC-10", "8656 §7.2", "LIFETIME 10", "600 granted", Open, |trial| {
        Ok(granted(&asked(trial, &[(attr::LIFETIME, &10_u32.to_be_bytes())])?, 600))
    }),
    Probe::wire(
        "ALC-11",
        "8656 §7.2",
        "LIFETIME 0xFFFFFFFF",
        "3600, 1800 or 600 granted",
        Open,
        |trial| {
            let answer = asked(trial, &[(attr::LIFETIME, &[0xFF; 4])])?;
            Ok(at_most_an_hour(&answer))
        },
    ),
    Probe::wire(
        "ALC-12",
        "8656 §7.2, §18.7",
        "EVEN-PORT R=0",
        "even port, or 508",
        Open,
        |trial| Ok(even(&asked(trial, &[(attr::EVEN_PORT, &EVEN)])?)),
    ),
    Probe::wire(
        "ALC-13",
        "8656 §7.2, §18.7, §18.10",
        "EVEN-PORT R=1, then its RESERVATION-TOKEN",
        "port pair n, n+1, or 508",
        Open,
        |trial| {
            let Some((first, token)) = reserved(trial)? else {
                return Ok(Verdict::of(true, "508"));
            };
            let next = SocketAddr::new(first.1.ip(), first.1.port() + 1);
            let answer = same_user(trial, &first.0)?.request(tokened(&token))?;
            let relayed = answer.reply().and_then(|it| it.address(attr::XOR_RELAYED_ADDRESS));
            Ok(answer.success_if(|_| relayed == Some(next)))
        },
    ),
    Probe::wire(
        "ALC-14",
        "8656 §7.2, §18.10",
        "RESERVATION-TOKEN used a second time",
        "508",
        Open,
        |trial| {
            let Some((first, token)) = reserved(trial)? else {
                return Ok(Verdict::of(false, "no token"));
            };
            let second = same_user(trial, &first.0)?;
            second.request(tokened(&token))?.succeeded("Allocate with the token")?;
            Ok(same_user(trial, &first.0)?.request(tokened(&token))?.error(&[508]))
        },
    ),
    Probe::wire(
        "ALC-14",
        "8656 §7.2, §18.10",
        "RESERVATION-TOKEN of another user",
        "508",
        Open,
        |trial| {
            let Some((_first, token)) = reserved(trial)? else {
                return Ok(Verdict::of(false, "no token"));
            };
            Ok(ready(trial)?.request(tokened(&token))?.error(&[508]))
        },
    ),
    Probe::slow(
        "ALC-14",
        "8656 §7.2, §18.10",
        "RESERVATION-TOKEN after 31 s",
        "508",
        |trial| {
            let Some((first, token)) = reserved(trial)? else {
                return Ok(Verdict::of(false, "no token"));
            };
            std::thread::sleep(RESERVATION);
            Ok(same_user(trial, &first.0)?.request(tokened(&token))?.error(&[508]))
        },
        None,
    ),
    Probe::wire(
        "ALC-15",
        "8656 §7.2",
        "EVEN-PORT when only an odd port is free",
        "508",
        OnePort,
        |trial| Ok(asked(trial, &[(attr::EVEN_PORT, &EVEN)])?.error(&[508])),
    ),
    Probe::wire(
        "ALC-16",
        "8656 §18.7",
        "EVEN-PORT with all reserved bits set",
        "even port: the bits are ignored",
        Open,
        |trial| Ok(even(&asked(trial, &[(attr::EVEN_PORT, &[0x7F])])?)),
    ),
    Probe::wire(
        "ALC-17",
        "8489 §6.3.1, §14.13",
        "unknown comprehension-required attribute, authenticated",
        "420 with list",
        Open,
        |trial| Ok(unknown(&asked(trial, &[(attr::NOBODYS, &[0; 4])])?, attr::NOBODYS)),
    ),
    Probe::wire(
        "ALC-18",
        "8656 §7.2; 6056",
        "12 allocations in a row",
        "ports not in sequence",
        Open,
        |trial| {
            let clients: Outcome<Vec<Client>> = (0..12).map(|_| trial.allocated()).collect();
            let ports: Vec<_> =
                clients?.iter().filter_map(|it| it.relayed).map(|it| it.port()).collect();
            let steps = ports.windows(2).map(|two| two[0].abs_diff(two[1]));
            let near = steps.filter(|step| *step <= 2).count();
            let passed = ports.len() == 12 && near <= NEAR_STEPS_MAX;
            Ok(Verdict::of(passed, format_args!("{near} of 11 steps are 2 or less")))
        },
    ),
    Probe::wire(
        "ALC-19",
        "8656 §7.2, §18.12",
        "ADDITIONAL-ADDRESS-FAMILY IPv6, host relays IPv4 only",
        "success with IPv4 and ADDRESS-ERROR-CODE 440",
        Ipv4Only,
        |trial| {
            let answer = asked(trial, &[(attr::ADDITIONAL_ADDRESS_FAMILY, &IPV6)])?;
            let error = answer.reply().and_then(|it| it.attribute(attr::ADDRESS_ERROR_CODE));
            let right =
                error.is_some_and(|it| it.len() >= 4 && [it[0], it[2] & 7, it[3]] == [2, 4, 40]);
            let families = families(&answer);
            let verdict = answer.success_if(|_| right && families == "IPv4");
            let error =
                if error.is_some() { "ADDRESS-ERROR-CODE" } else { "no ADDRESS-ERROR-CODE" };
            Ok(Verdict::of(verdict.passed, format_args!("{}, {families}, {error}", verdict.said)))
        },
    ),
    Probe::wire(
        "ALC-20",
        "8656 §7.2",
        "ADDITIONAL-ADDRESS-FAMILY IPv6, host relays both",
        "two XOR-RELAYED-ADDRESS",
        Open,
        |trial| {
            let answer = asked(trial, &[(attr::ADDITIONAL_ADDRESS_FAMILY, &IPV6)])?;
            let families = families(&answer);
            let verdict = answer.success_if(|_| families == "IPv4 + IPv6");
            Ok(Verdict::of(verdict.passed, format_args!("{}, {families}", verdict.said)))
        },
    ),
    Probe::wire(
        "ALC-21",
        "8656 §7.2",
        "one allocation more than the user's quota, and its retransmission",
        "486, 486; one fits again after another is given back",
        Quota,
        |trial| {
            let first = trial.allocated()?;
            for _ in 1..QUOTA {
                same_user(trial, &first)?.request(Draft::allocate())?.succeeded("Allocate")?;
            }
            let client = same_user(trial, &first)?;
            let draft = Draft::allocate().signed(&client.session);
            let refused = [client.ask(&draft)?.error(&[486]), client.ask(&draft)?.error(&[486])];
            first.request(Draft::request(REFRESH).lifetime(0))?.succeeded("Refresh")?;
            // Some servers give back later; that is another row's matter.
            let again = until(GIVE_BACK_WAIT, || {
                client.request(Draft::allocate()).ok().filter(|it| it.success().passed)
            });
            let again = again.map_or(Verdict::of(false, "none fits"), |it| it.success());
            Ok(Verdict::all(refused).and(again))
        },
    ),
    Probe::wire("ALC-22", "8656 §7.2", "Allocate when no port is free", "508", OnePort, |trial| {
        let _only = trial.allocated()?;
        Ok(asked(trial, &[])?.error(&[508]))
    }),
    Probe::wire(
        "ALC-23",
        "8656 §5",
        "NAT rebinding: same user, new source port",
        "success",
        Open,
        |trial| {
            let first = trial.allocated()?;
            let at = (first.address()?.ip(), 0).into();
            let mut second = trial.client_at(at, first.session.clone())?;
            second.login()?;
            Ok(second.request(Draft::allocate())?.success())
        },
    ),
    Probe::wire(
        "ALC-24",
        "8489 §14.15; 8656 §7.2",
        "server draining: Allocate without integrity, then authenticated",
        "401, then 300 + ALTERNATE-SERVER",
        Drain,
        |trial| {
            // Without one it would end at once.
            let _held = trial.allocated();
            trial.server.drain(trial.site)?;
            let mut client = trial.client()?;
            let stranger = client.ask(&Draft::allocate())?.error(&[401]);
            if !stranger.passed {
                return Ok(stranger);
            }
            client.login()?;
            let answer = client.request(Draft::allocate())?;
            let elsewhere = answer.reply().and_then(|it| it.attribute(attr::ALTERNATE_SERVER));
            // Not masked, unlike other addresses.
            let port = ALTERNATE.port().to_be_bytes();
            let right = elsewhere.is_some_and(|it| {
                it.len() == 8 && it[1] == 1 && it[2..4] == port && it[4..] == [198, 51, 100, 9]
            });
            let sent = answer.error(&[300]);
            Ok(stranger.and(Verdict { passed: sent.passed && right, ..sent }))
        },
    ),
    Probe::wire(
        "ALC-24",
        "8489 §14.15; 8656 §7.2",
        "server draining, with no alternate of the client's family",
        "508",
        Drain,
        |trial| {
            let _held = trial.allocated();
            trial.server.drain(trial.site)?;
            let mut client = trial.client_to(Family::V6.relay(TURN_PORT))?;
            client.login()?;
            Ok(client.request(Draft::allocate())?.error(&[508]))
        },
    ),
    Probe::wire("ALC-25", "7635", "ACCESS-TOKEN in Allocate", "420", Open, |trial| {
        Ok(unknown(&asked(trial, &[(attr::ACCESS_TOKEN, &[0; 16])])?, attr::ACCESS_TOKEN))
    }),
    Probe::test(
        "ALC-23",
        "8656 §5",
        "the allocation that a rebinding left behind",
        "ends by its timer, or is replaced",
        (PROTO, "rebound_client_gets_a_new_allocation_and_the_old_one_ends"),
    ),
];

/// A challenged client.
fn ready(trial: &Trial<'_>) -> Outcome<Client> {
    let mut client = trial.client()?;
    client.login()?;
    Ok(client)
}

/// Allocate of a new user with these attributes as well.
fn asked(trial: &Trial<'_>, with: &[(u16, &[u8])]) -> Outcome<Answer> {
    let add = |draft: Draft, (kind, value): &(u16, &[u8])| draft.with(*kind, value);
    ready(trial)?.request(with.iter().fold(Draft::allocate(), add))
}

/// A challenged client of the same user elsewhere.
fn same_user(trial: &Trial<'_>, other: &Client) -> Outcome<Client> {
    let mut client = trial.client()?;
    client.session = other.session.clone();
    client.login()?;
    Ok(client)
}

/// A success whose lifetime is one of those that RFC 8656 §7.2 recommends.
pub fn at_most_an_hour(answer: &Answer) -> Verdict {
    let lifetime = answer.reply().and_then(|reply| reply.lifetime());
    let verdict = answer.success_if(|_| lifetime.is_some_and(|it| [600, 1800, 3600].contains(&it)));
    Verdict::of(verdict.passed, format_args!("{} {}", verdict.said, lifetime.unwrap_or_default()))
}

/// 420 that lists this attribute alone.
pub fn unknown(answer: &Answer, kind: u16) -> Verdict {
    let listed = answer.reply().is_some_and(|reply| reply.unknown() == [kind]);
    let verdict = answer.error(&[420]);
    Verdict { passed: verdict.passed && listed, ..verdict }
}

fn even(answer: &Answer) -> Verdict {
    let relayed = answer.reply().and_then(|reply| reply.address(attr::XOR_RELAYED_ADDRESS));
    let is_even = relayed.is_some_and(|relayed| relayed.port() % 2 == 0);
    if answer.code() == Some(508) { answer.error(&[508]) } else { answer.success_if(|_| is_even) }
}

type Reserved = ((Client, SocketAddr), Vec<u8>);

/// An allocation with an even port, and the token for the next one; `None` after 508.
fn reserved(trial: &Trial<'_>) -> Outcome<Option<Reserved>> {
    let client = ready(trial)?;
    let answer = client.request(Draft::allocate().with(attr::EVEN_PORT, &EVEN_AND_NEXT))?;
    if answer.code() == Some(508) {
        return Ok(None);
    }
    let granted = answer.succeeded("Allocate with EVEN-PORT")?;
    let missing = || crate::Failure::new("success without port or token");
    let relayed = granted.address(attr::XOR_RELAYED_ADDRESS).ok_or_else(missing)?;
    let token = granted.attribute(attr::RESERVATION_TOKEN).ok_or_else(missing)?;
    Ok(Some(((client, relayed), token.to_vec())))
}

fn tokened(token: &[u8]) -> Draft {
    Draft::allocate().with(attr::RESERVATION_TOKEN, token)
}

fn families(answer: &Answer) -> String {
    let addresses =
        answer.reply().map(|reply| reply.addresses(attr::XOR_RELAYED_ADDRESS)).unwrap_or_default();
    let name = |address: &SocketAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
    addresses.iter().map(name).collect::<Vec<_>>().join(" + ")
}
