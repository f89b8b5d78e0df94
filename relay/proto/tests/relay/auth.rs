//! Who is believed: challenges, credentials, nonces and owners.

use relay_proto::ClientAddr;
use relay_proto::attribute as attr;
use relay_proto::credential;
use relay_proto::stun::{Class, Method};

use super::world::{Client, REALM, SECRET, START, STATIC_USER, World, client_addr, peer};

const METHODS: [Method; 4] =
    [Method::Allocate, Method::Refresh, Method::CreatePermission, Method::ChannelBind];

fn forged(client: &Client) -> Client {
    Client { key: [0xEE; 16], ..client.clone() }
}

/// AUT-01, AUT-02.
#[test]
fn request_without_integrity_is_challenged_or_too_short_to_be() {
    let mut world = World::new();
    for method in METHODS {
        let bare = world.message(method, Class::Request, |w| w);
        let reply = world.reply(client_addr(1), &bare);
        assert_eq!((reply.code(), reply.bytes.len()), (400, 28));

        let asked = world.message(method, Class::Request, |w| w.attribute(attr::LIFETIME, &[0; 4]));
        let reply = world.reply(client_addr(1), &asked);
        assert_eq!((reply.code(), asked.len(), reply.bytes.len()), (401, 28, 56));
        assert_eq!(reply.attribute(attr::REALM).as_deref(), Some(REALM.as_bytes()));
        assert_eq!(reply.attribute(attr::NONCE).map(|nonce| nonce.len()), Some(12));
        assert!(reply.message().integrity().is_none(), "there is no key to sign with");
    }
}

/// AUT-03, AUT-04, and USERNAME.
#[test]
fn integrity_without_its_companions_is_a_bad_request() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let companions = [
        (attr::USERNAME, client.username.as_bytes()),
        (attr::REALM, REALM.as_bytes()),
        (attr::NONCE, &client.nonce),
    ];
    for (missing, _) in companions {
        let bytes = world.message(Method::Allocate, Class::Request, |w| {
            let present = companions.iter().filter(|(kind, _)| *kind != missing);
            present.fold(w, |w, (kind, value)| w.attribute(*kind, value)).integrity(&client.key)
        });
        assert_eq!(world.reply(client.addr, &bytes).code(), 400, "{missing:#06x}");
    }
}

/// AUT-05, AUT-06.
#[test]
fn wrong_passwords_and_unknown_users_are_refused() {
    let mut world = World::new();
    let right = world.client(1, "ana");
    let hmac = |username: &str| {
        credential::long_term_key(username, REALM, &credential::password(SECRET, username))
    };
    let other_secret = credential::mint(b"another secret", "ana", START.unix_s + 3600);
    let cases = [
        ("wrong password", right.username.as_str(), [7; 16]),
        ("no timestamp", "ana", hmac("ana")),
        ("no user", "1900000000:", hmac("1900000000:")),
        ("signed timestamp", "+1900000000:ana", hmac("+1900000000:ana")),
        (
            "another secret",
            &other_secret.username,
            credential::long_term_key(&other_secret.username, REALM, &other_secret.password),
        ),
        ("wrong static password", STATIC_USER.0, [7; 16]),
        ("static user under the REST secret", STATIC_USER.0, hmac(STATIC_USER.0)),
    ];
    for (what, username, key) in cases {
        let client = Client { username: username.to_owned(), key, ..right.clone() };
        assert_eq!(world.ask_allocate(&client, |w| w).code(), 401, "{what}");
    }
    assert!(world.opened.is_empty());
    assert_eq!(world.ask_allocate(&right, |w| w).code(), 0);
}

#[test]
fn every_secret_and_every_static_user_is_believed() {
    let mut world = World::new();
    let made = credential::mint(b"the secret of tomorrow", "ben", START.unix_s + 60);
    let early = world.client_at(client_addr(1), &made.username, &made.password);
    assert_eq!(world.ask_allocate(&early, |w| w).code(), 0);
    let fixed = world.client_at(client_addr(2), STATIC_USER.0, STATIC_USER.1);
    assert_eq!(world.ask_allocate(&fixed, |w| w).code(), 0);
    let users: Vec<&str> = world.opened.iter().map(|port| port.user.as_str()).collect();
    assert_eq!(users, ["ben", "static"], "quotas go by the name without its expiry");
    let clients: Vec<_> = world.opened.iter().map(|port| port.client).collect();
    assert_eq!(clients, [early.addr, fixed.addr], "and by where it asks from");
}

#[test]
fn expired_credential_opens_nothing() {
    let mut world = World::new();
    let client = world.client_until(1, "ana", START.unix_s + 10);
    world.pass_ms(10_000);
    assert_eq!(world.refresh(&client, 600).code(), 437, "the last second still counts");
    world.pass_ms(1_000);
    assert_eq!(world.ask_allocate(&client, |w| w).code(), 401);
    assert!(world.opened.is_empty());
}

#[test]
fn allocation_outlives_its_credential() {
    let mut world = World::new();
    let client = world.client_until(1, "ana", START.unix_s + 10);
    world.allocate(&client);
    world.pass_ms(300_000);
    assert_eq!(world.refresh(&client, 600).code(), 0);
    assert_eq!(world.permit(&client, &[peer(1, 1)]), 0);
    assert_eq!(world.refresh(&forged(&client), 600).code(), 401, "the key is still needed");
    assert_eq!(world.refresh(&client, 0).code(), 0);
    assert_eq!(world.ask_allocate(&client, |w| w).code(), 401, "but there is no second one");
}

#[test]
fn renewed_credential_is_the_same_user() {
    let mut world = World::new();
    let old = world.client_until(1, "ana", START.unix_s + 10);
    world.allocate(&old);
    world.pass_ms(300_000);
    let renewed = world.client(1, "ana");
    assert_ne!(old.username, renewed.username);
    assert_eq!(world.refresh(&renewed, 600).code(), 0);
    assert_eq!(world.refresh(&old, 600).code(), 0, "the first one still signs for it");
}

/// AUT-07: what stands behind the integrity was written by whoever passed it on.
#[test]
fn attributes_behind_the_integrity_are_ignored() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let bytes = world.message(Method::Allocate, Class::Request, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
            .attribute(attr::LIFETIME, &700u32.to_be_bytes())
            .attribute(attr::USERNAME, client.username.as_bytes())
            .attribute(attr::REALM, REALM.as_bytes())
            .attribute(attr::NONCE, &client.nonce)
            .integrity(&client.key)
            .attribute(attr::LIFETIME, &3000u32.to_be_bytes())
            .attribute(0x7F01, &[])
    });
    let reply = world.reply(client.addr, &bytes);
    assert_eq!((reply.code(), reply.lifetime_s()), (0, Some(700)));
}

/// The first integrity ends what was signed; one behind it is somebody else's.
#[test]
fn first_integrity_decides() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    for (first, second, code) in [(client.key, [0; 16], 437), ([0; 16], client.key, 401)] {
        let bytes = world.message(Method::Refresh, Class::Request, |w| {
            w.attribute(attr::USERNAME, client.username.as_bytes())
                .attribute(attr::REALM, REALM.as_bytes())
                .attribute(attr::NONCE, &client.nonce)
                .integrity(&first)
                .integrity(&second)
        });
        assert_eq!(world.reply(client.addr, &bytes).code(), code);
    }
}

/// AUT-08: a nonce is good for the source it was given to.
#[test]
fn nonce_of_another_source_is_stale() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let moved = Client { addr: client_addr(2), ..client.clone() };
    assert_eq!(world.ask_allocate(&moved, |w| w).code(), 438);
    let listener = ClientAddr { listener: 1, ..client.addr };
    let elsewhere = Client { addr: listener, ..client.clone() };
    assert_eq!(world.ask_allocate(&elsewhere, |w| w).code(), 438);
    assert_eq!(world.ask_allocate(&client, |w| w).code(), 0);
}

/// I-16: ten minutes, and one slot of five seconds at most.
#[test]
fn nonce_ages_and_a_438_brings_the_next() {
    let mut world = World::new();
    let mut client = world.client(1, "ana");
    world.allocate(&client);
    world.pass_ms(599_000);
    assert_eq!(world.refresh(&client, 3600).code(), 0);
    world.pass_ms(6_001);
    let reply = world.refresh(&client, 3600);
    assert_eq!(reply.code(), 438);
    let wrong = world.refresh(&forged(&client), 3600);
    assert_eq!(wrong.code(), 401, "integrity is judged before the nonce");
    client.nonce = reply.attribute(attr::NONCE).expect("a new one");
    assert_eq!(world.refresh(&client, 3600).code(), 0);
}

/// AUT-09, AUT-10.
#[test]
fn another_user_may_not_touch_the_allocation() {
    let mut world = World::new();
    let ana = world.client(1, "ana");
    world.allocate(&ana);
    let ben = world.client(1, "ben");
    assert_eq!(world.ask_allocate(&ben, |w| w).code(), 441);
    assert_eq!(world.refresh(&ben, 0).code(), 441);
    assert_eq!(world.permit(&ben, &[peer(1, 1)]), 441);
    assert_eq!(world.bind(&ben, 0x4000, peer(1, 1)), 441);
    let after = world.relay.snapshot(world.now);
    assert_eq!((after.allocations, after.permissions, after.channels), (1, 0, 0));
}

/// AUT-11.
#[test]
fn integrity_of_another_length_is_a_bad_request() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    for length in [0, 10, 16, 19, 21, 32] {
        let bytes = world.message(Method::Allocate, Class::Request, |w| {
            w.attribute(attr::USERNAME, client.username.as_bytes())
                .attribute(attr::REALM, REALM.as_bytes())
                .attribute(attr::NONCE, &client.nonce)
                .attribute(attr::MESSAGE_INTEGRITY, &vec![0; length])
        });
        assert_eq!(world.reply(client.addr, &bytes).code(), 400, "{length}");
    }
}

/// AUT-12, AUT-13: judged before any key is derived.
#[test]
fn overlong_names_are_bad_requests() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let cases = [
        (attr::USERNAME, 508, 401),
        (attr::USERNAME, 509, 400),
        (attr::USERNAME, 611, 400),
        (attr::REALM, 763, 401),
        (attr::REALM, 764, 400),
        (attr::NONCE, 763, 438),
        (attr::NONCE, 764, 400),
    ];
    for (long, length, code) in cases {
        let filler = vec![b'a'; length];
        let value = |kind, usual: &[u8]| if kind == long { filler.clone() } else { usual.to_vec() };
        let key = if long == attr::REALM { [0; 16] } else { client.key };
        let bytes = world.message(Method::Allocate, Class::Request, |w| {
            w.attribute(attr::USERNAME, &value(attr::USERNAME, client.username.as_bytes()))
                .attribute(attr::REALM, &value(attr::REALM, REALM.as_bytes()))
                .attribute(attr::NONCE, &value(attr::NONCE, &client.nonce))
                .integrity(&key)
        });
        assert_eq!(world.reply(client.addr, &bytes).code(), code, "{long:#06x} of {length}");
    }
    assert_eq!(world.relay.snapshot(world.now).allocations, 0);
}

#[test]
fn failures_are_counted_by_their_kind() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let old = world.client_until(1, "ana", START.unix_s - 1);
    let strange = Client { username: "nobody".to_owned(), ..client.clone() };
    let stale = Client { nonce: b"AAAAAAAAAAAA".to_vec(), ..client.clone() };
    for wrong in [&old, &forged(&client), &stale, &strange] {
        assert_ne!(world.ask_allocate(wrong, |w| w).code(), 0);
    }
    let after = world.relay.snapshot(world.now);
    assert_eq!(after.auth_failures, [1, 1, 1, 1, 0]);
    assert_eq!(after.requests.get(&(Method::Allocate, 401)), Some(&3));
    assert_eq!(after.requests.get(&(Method::Allocate, 438)), Some(&1));
}

/// I-3: even an allocation that is over is not a stranger's to end.
#[test]
fn forged_requests_change_nothing() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    world.allocate(&client);
    world.pass_ms(600_000);
    let before = world.relay.snapshot(world.now);
    for method in METHODS {
        let reply = world.ask(&forged(&client), method, |w| w);
        assert_eq!(reply.code(), 401);
        let bare = world.message(method, Class::Request, |w| w);
        assert_eq!(world.reply(client.addr, &bare).code(), 400);
    }
    assert!(world.closed.is_empty());
    let after = world.relay.snapshot(world.now);
    assert_eq!(
        (before.allocations, before.allocations_closed),
        (after.allocations, after.allocations_closed)
    );
}

/// Whatever is logged by mistake, it is no secret.
#[test]
fn secrets_are_not_printed() {
    let text = format!("{:?}", super::world::settings());
    let secret = format!("{SECRET:?}");
    assert!(text.contains(REALM), "{text}");
    for hidden in [STATIC_USER.1, secret.as_str()] {
        assert!(!text.contains(hidden), "{text}");
    }
}
