//! The algorithms of RFC 8489: keys and integrity by SHA-256, hashed names, and that nobody on the
//! way can take them out of an offer.

use relay_proto::algorithm::{Integrity, PASSWORD_ALGORITHMS, PasswordAlgorithm, user_hash};
use relay_proto::attribute as attr;
use relay_proto::auth::AuthFailure;
use relay_proto::credential;
use relay_proto::stun::{Class, Method, TransactionId, Writer};
use relay_proto::{ClientAddr, PortFailure, Transport};

use super::world::{
    Client, Ports, REALM, Reply, SECRET, START, STATIC_USER, World, client_addr, peer,
};

const SHA256: [u8; 4] = [0, 2, 0, 0];
const MD5: [u8; 4] = [0, 1, 0, 0];
/// What a client that knows RFC 8489 adds to its requests.
const NAMED: [(u16, &[u8]); 2] =
    [(attr::PASSWORD_ALGORITHMS, &PASSWORD_ALGORITHMS), (attr::PASSWORD_ALGORITHM, &SHA256)];
const REFRESH_ATTRIBUTES: [(u16, &[u8]); 1] = [(attr::LIFETIME, &[0, 0, 4, 0])];

fn over(transport: Transport, port: u16) -> ClientAddr {
    ClientAddr { transport, ..client_addr(port) }
}

/// A client with a REST credential, and its password.
fn member(world: &mut World, addr: ClientAddr, user: &str) -> (Client, String) {
    let made = credential::mint(SECRET, user, START.unix_s + 3600);
    (world.client_at(addr, &made.username, &made.password), made.password)
}

fn key(algorithm: PasswordAlgorithm, username: &str, password: &str) -> Vec<u8> {
    algorithm.key(username, REALM, password).as_bytes().to_vec()
}

/// A request of `client`, whoever it says it is, with `attributes` and what `sign` adds.
fn request(
    world: &mut World,
    client: &Client,
    method: Method,
    who: (u16, &[u8]),
    attributes: &[(u16, &[u8])],
    sign: impl FnOnce(Writer<'_>) -> Writer<'_>,
) -> Vec<u8> {
    world.message(method, Class::Request, |w| {
        let w = w
            .attribute(who.0, who.1)
            .attribute(attr::REALM, REALM.as_bytes())
            .attribute(attr::NONCE, &client.nonce);
        sign(attributes.iter().fold(w, |w, (kind, value)| w.attribute(*kind, value)))
    })
}

fn ask(
    world: &mut World,
    client: &Client,
    method: Method,
    attributes: &[(u16, &[u8])],
    sign: impl FnOnce(Writer<'_>) -> Writer<'_>,
) -> Reply {
    let who = (attr::USERNAME, client.username.as_bytes());
    let bytes = request(world, client, method, who, attributes, sign);
    world.reply(client.addr, &bytes)
}

/// As [`ask`], with SHA-256 for everything and the offer returned; the reply must be signed so.
fn ask_sha256(
    world: &mut World,
    client: &Client,
    password: &str,
    method: Method,
    attributes: &[(u16, &[u8])],
) -> Reply {
    let key = key(PasswordAlgorithm::Sha256, &client.username, password);
    let attributes = [attributes, &NAMED].concat();
    let reply = ask(world, client, method, &attributes, |w| w.integrity_sha256(&key));
    assert!(is_signed(&reply, Integrity::Sha256, &key), "{reply:?}");
    reply
}

/// Signed with this key, by this attribute and no other.
fn is_signed(reply: &Reply, by: Integrity, key: &[u8]) -> bool {
    let message = reply.message();
    let is_only = message.has_sha1() == (by == Integrity::Sha1);
    message.protection() == Some(by) && is_only && message.verify(key)
}

fn xored(id: TransactionId, peer: std::net::SocketAddr) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out, Method::Binding, Class::Request, id)
        .xor_address(attr::XOR_PEER_ADDRESS, peer)
        .finish();
    out[24..].to_vec()
}

/// AUT-14, AUT-15.
#[test]
fn challenge_over_a_stream_offers_algorithms() {
    for transport in Transport::ALL.into_iter().filter(|it| *it != Transport::Udp) {
        let mut world = World::new();
        let (client, _) = member(&mut world, over(transport, 1), "ana");
        let bare = world.message(Method::Allocate, Class::Request, |w| {
            w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        });
        let stale = Client { nonce: b"obMatJos2gAAAAAAAAAAAAAAA".to_vec(), ..client.clone() };
        let wrong = Client { key: [7; 16], ..client.clone() };
        let replies = [
            (401, world.reply(client.addr, &bare)),
            (401, world.refresh(&wrong, 600)),
            (438, world.refresh(&stale, 600)),
        ];
        for (code, reply) in replies {
            assert_eq!(reply.code(), code);
            let nonce = reply.attribute(attr::NONCE).expect("a nonce");
            assert_eq!((&nonce[..13], nonce.len()), (&b"obMatJos2gAAA"[..], 25));
            let offer = reply.attribute(attr::PASSWORD_ALGORITHMS);
            assert_eq!(offer.as_deref(), Some(&[0, 2, 0, 0, 0, 1, 0, 0][..]), "SHA-256 first");
        }
        let short = world.message(Method::Allocate, Class::Request, |w| w);
        let refused = world.reply(client.addr, &short);
        assert_eq!((refused.code(), refused.attribute(attr::PASSWORD_ALGORITHMS)), (400, None));
    }
}

/// Over UDP there is no room for an offer in a reply of twice the request.
#[test]
fn challenge_over_udp_offers_nothing() {
    let mut world = World::new();
    let (client, _) = member(&mut world, client_addr(1), "ana");
    let stale = Client { nonce: b"AAAAAAAAAAAA".to_vec(), ..client.clone() };
    let reply = world.refresh(&stale, 600);
    assert_eq!((reply.code(), reply.attribute(attr::PASSWORD_ALGORITHMS)), (438, None));
    assert_eq!(reply.attribute(attr::NONCE).map(|nonce| nonce.len()), Some(12));
    assert_eq!(client.nonce.len(), 12);
}

/// AUT-16: as every browser does.
#[test]
fn request_that_names_no_algorithm_means_md5() {
    let mut world = World::new();
    let (client, _) = member(&mut world, over(Transport::Tcp, 1), "ana");
    let reply = world.ask_allocate(&client, |w| w);
    assert_eq!(reply.code(), 0);
    assert!(is_signed(&reply, Integrity::Sha1, &client.key));
}

#[test]
fn sha256_serves_every_method_over_every_transport() {
    for transport in Transport::ALL {
        let mut world = World::new();
        let (client, password) = member(&mut world, over(transport, 1), "ana");
        let mut ask = |method, attributes: &[(u16, &[u8])]| {
            ask_sha256(&mut world, &client, &password, method, attributes).code()
        };
        let allocate: [(u16, &[u8]); 1] = [(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])];
        assert_eq!(ask(Method::Refresh, &[]), 437);
        assert_eq!(ask(Method::Allocate, &[]), 400);
        assert_eq!(ask(Method::Allocate, &allocate), 0);
        assert_eq!(ask(Method::Allocate, &allocate), 437);
        assert_eq!(ask(Method::Refresh, &[(0x7F01, &[])]), 420);
        assert_eq!(ask(Method::Refresh, &[]), 0);
        let mut bind = |method, number: &[u8]| {
            let id = world.transaction_id();
            let peer = xored(id, peer(1, 1));
            let key = key(PasswordAlgorithm::Sha256, &client.username, &password);
            let mut bytes = Vec::new();
            Writer::new(&mut bytes, method, Class::Request, id)
                .attribute(attr::CHANNEL_NUMBER, number)
                .attribute(attr::XOR_PEER_ADDRESS, &peer)
                .attribute(attr::USERNAME, client.username.as_bytes())
                .attribute(attr::REALM, REALM.as_bytes())
                .attribute(attr::NONCE, &client.nonce)
                .attribute(attr::PASSWORD_ALGORITHMS, &PASSWORD_ALGORITHMS)
                .attribute(attr::PASSWORD_ALGORITHM, &SHA256)
                .integrity_sha256(&key)
                .fingerprint()
                .finish();
            let reply = world.reply(client.addr, &bytes);
            assert!(is_signed(&reply, Integrity::Sha256, &key));
            reply.code()
        };
        assert_eq!(bind(Method::CreatePermission, &[0x40, 0, 0, 0]), 0);
        assert_eq!(bind(Method::ChannelBind, &[0x40, 0, 0, 0]), 0);
        let after = world.relay.snapshot(world.now);
        assert_eq!((after.allocations, after.permissions, after.channels), (1, 1, 1));
    }
}

/// The reply to Allocate is made when the port is open, long after its request is gone.
#[test]
fn late_replies_to_allocate_are_signed_as_it_was() {
    let mut world = World::new();
    let (client, password) = member(&mut world, client_addr(1), "ana");
    let key = key(PasswordAlgorithm::Sha256, &client.username, &password);
    let who = (attr::USERNAME, client.username.as_bytes());
    let wanted: (u16, &[u8]) = (attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let attributes = [&[wanted], &NAMED[..]].concat();
    world.ports = Ports::Fail(PortFailure::Quota);
    let bytes = request(&mut world, &client, Method::Allocate, who, &attributes, |w| {
        w.integrity_sha256(&key)
    });
    let refused = world.reply(client.addr, &bytes);
    assert_eq!(refused.code(), 486);
    assert!(is_signed(&refused, Integrity::Sha256, &key));
    world.ports = Ports::Open;
    let first = world.reply(client.addr, &bytes);
    assert_eq!(first.code(), 0);
    assert!(is_signed(&first, Integrity::Sha256, &key));
    assert_eq!(world.reply(client.addr, &bytes), first, "and so is a repetition");
}

/// What happened to the offer, what is left of it, and what the client chose.
type Case<'a> = (&'a str, Option<&'a [u8]>, &'a [u8]);

/// AUT-17.
#[test]
fn offer_that_does_not_come_back_whole_is_refused() {
    let mut world = World::new();
    let (client, password) = member(&mut world, over(Transport::Tcp, 1), "ana");
    let mut ask = |offer: Option<&[u8]>, named: Option<&[u8]>| {
        let algorithm = named.and_then(attr::password_algorithm).unwrap_or_default();
        let key = key(algorithm, &client.username, &password);
        let offer = offer.map(|offer| (attr::PASSWORD_ALGORITHMS, offer));
        let named = named.map(|named| (attr::PASSWORD_ALGORITHM, named));
        let attributes: Vec<_> = offer.into_iter().chain(named).collect();
        let reply =
            ask(&mut world, &client, Method::Refresh, &attributes, |w| w.integrity_sha256(&key));
        assert_eq!(is_signed(&reply, Integrity::Sha256, &key), reply.code() == 437);
        reply.code()
    };
    let whole: &[u8] = &PASSWORD_ALGORITHMS;
    let cases: [Case<'_>; 9] = [
        ("only MD5 was left", Some(&MD5), &MD5),
        ("only SHA-256 was left", Some(&SHA256), &SHA256),
        ("the order was changed", Some(&[0, 1, 0, 0, 0, 2, 0, 0]), &MD5),
        ("one was added", Some(&[0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0]), &SHA256),
        ("nothing was left", Some(&[]), &MD5),
        ("no offer", None, &SHA256),
        ("a choice that was not offered", Some(whole), &[0, 3, 0, 0]),
        ("a choice with parameters", Some(whole), &[0, 2, 0, 4, 0, 0, 0, 0]),
        ("a choice whose parameters are cut off", Some(whole), &[0, 2, 0, 4]),
    ];
    for (what, offer, named) in cases {
        assert_eq!(ask(offer, Some(named)), 400, "{what}");
    }
    assert_eq!(ask(Some(whole), None), 400, "no choice");
    for either in [&SHA256, &MD5] {
        assert_eq!(ask(Some(whole), Some(either)), 437);
    }
}

/// Whoever takes the cookie away too has made another nonce, which was never given out.
#[test]
fn nonce_without_its_cookie_is_stale() {
    let mut world = World::new();
    let (client, _) = member(&mut world, over(Transport::Tcp, 1), "ana");
    let stripped = Client { nonce: client.nonce[13..].to_vec(), ..client.clone() };
    assert_eq!(world.refresh(&stripped, 600).code(), 438);
    let featureless = [b"obMatJos2AAAA", &client.nonce[13..]].concat();
    assert_eq!(world.refresh(&Client { nonce: featureless, ..client.clone() }, 600).code(), 438);
    assert_eq!(world.refresh(&client, 600).code(), 437);
}

/// Over UDP there was no offer to return, and naming an algorithm is enough.
#[test]
fn algorithm_may_be_named_without_an_offer() {
    let mut world = World::new();
    let (client, password) = member(&mut world, client_addr(1), "ana");
    let key = key(PasswordAlgorithm::Sha256, &client.username, &password);
    let mut code = |attributes: &[(u16, &[u8])]| {
        ask(&mut world, &client, Method::Refresh, attributes, |w| w.integrity_sha256(&key)).code()
    };
    assert_eq!(code(&[(attr::PASSWORD_ALGORITHM, &SHA256)]), 437);
    assert_eq!(code(&NAMED), 437);
    assert_eq!(code(&[(attr::PASSWORD_ALGORITHM, &MD5)]), 401, "the key is another");
    assert_eq!(code(&[]), 401, "and so it is where none is named");
    assert_eq!(code(&[(attr::PASSWORD_ALGORITHM, &[0, 3, 0, 0])]), 400);
    assert_eq!(code(&[(attr::PASSWORD_ALGORITHM, &[0, 2])]), 400);
}

/// Key and integrity are chosen apart; nobody is answered with what it did not use.
#[test]
fn reply_is_signed_as_its_request_was() {
    let mut world = World::new();
    let (client, password) = member(&mut world, over(Transport::Tcp, 1), "ana");
    let offered = |named| [NAMED[0], (attr::PASSWORD_ALGORITHM, named)];
    let cases: [(Option<&[u8]>, PasswordAlgorithm, Integrity); 6] = [
        (None, PasswordAlgorithm::Md5, Integrity::Sha1),
        (None, PasswordAlgorithm::Md5, Integrity::Sha256),
        (Some(&MD5), PasswordAlgorithm::Md5, Integrity::Sha1),
        (Some(&MD5), PasswordAlgorithm::Md5, Integrity::Sha256),
        (Some(&SHA256), PasswordAlgorithm::Sha256, Integrity::Sha1),
        (Some(&SHA256), PasswordAlgorithm::Sha256, Integrity::Sha256),
    ];
    for (named, algorithm, by) in cases {
        let key = key(algorithm, &client.username, &password);
        let attributes = named.map_or(Vec::new(), |named| offered(named).to_vec());
        let reply = ask(&mut world, &client, Method::Refresh, &attributes, |w| match by {
            Integrity::Sha1 => w.integrity(&key),
            Integrity::Sha256 => w.integrity_sha256(&key),
        });
        assert_eq!(reply.code(), 437);
        assert!(is_signed(&reply, by, &key), "{named:?} {algorithm:?} {by:?}");
    }
}

/// AUT-18.
#[test]
fn sha256_integrity_may_be_cut_to_half_its_length() {
    let mut world = World::new();
    let (client, password) = member(&mut world, over(Transport::Tcp, 1), "ana");
    let key = key(PasswordAlgorithm::Sha256, &client.username, &password);
    let who = (attr::USERNAME, client.username.as_bytes());
    for length in 0..=40usize {
        let padded = length.next_multiple_of(4);
        let mut bytes = request(&mut world, &client, Method::Refresh, who, &NAMED, |w| w);
        // What is signed counts the attribute as long as it is.
        let total = u16::try_from(bytes.len() - 20 + 4 + padded).expect("short");
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        let mac = hmac_sha256(&key, &bytes);
        bytes.extend([0x00, 0x1C, 0, u8::try_from(length).expect("short")]);
        let whole = bytes.len() + padded;
        bytes.extend(mac.iter().take(length));
        bytes.resize(whole, 0);
        let code = world.reply(client.addr, &bytes).code();
        let is_allowed = (16..=32).contains(&length) && length.is_multiple_of(4);
        assert_eq!(code, if is_allowed { 437 } else { 400 }, "{length} bytes");
    }
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    use hmac::{KeyInit as _, Mac as _};
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key).expect("any key");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// AUT-19, AUT-20.
#[test]
fn of_two_integrities_sha256_alone_decides() {
    let mut world = World::new();
    let (client, _) = member(&mut world, over(Transport::Tcp, 1), "ana");
    let (good, bad) = (client.key, [7; 16]);
    for (sha1, sha256, code) in [(good, good, 437), (bad, good, 437), (good, bad, 401)] {
        let reply = ask(&mut world, &client, Method::Refresh, &[], |w| {
            w.integrity(&sha1).integrity_sha256(&sha256).fingerprint()
        });
        assert_eq!(reply.code(), code);
        if code == 437 {
            assert!(is_signed(&reply, Integrity::Sha1, &good), "no algorithm was named");
        }
        let reply = ask(&mut world, &client, Method::Refresh, &[], |w| {
            w.integrity_sha256(&sha256).integrity(&sha1)
        });
        assert_eq!(reply.code(), code, "in whatever order");
    }
    let cut = ask(&mut world, &client, Method::Refresh, &[], |w| {
        w.integrity(&good).attribute(attr::MESSAGE_INTEGRITY_SHA256, &[0; 12])
    });
    assert_eq!(cut.code(), 400);
}

/// AUT-07 for the other attribute, and for what stands between the two.
#[test]
fn attributes_behind_the_first_integrity_do_not_count() {
    let mut world = World::new();
    let (client, _) = member(&mut world, over(Transport::Tcp, 1), "ana");
    world.allocate(&client);
    fn late(w: Writer<'_>) -> Writer<'_> {
        w.attribute(attr::LIFETIME, &[0; 4]).attribute(0x7F01, &[])
    }
    let mut lifetime_s = |sign: &dyn Fn(Writer<'_>) -> Writer<'_>| {
        ask(&mut world, &client, Method::Refresh, &REFRESH_ATTRIBUTES, sign).lifetime_s()
    };
    let key = &client.key;
    assert_eq!(lifetime_s(&|w| late(w.integrity_sha256(key))), Some(1024));
    assert_eq!(lifetime_s(&|w| late(w.integrity(key)).integrity_sha256(key)), Some(1024));
    assert_eq!(lifetime_s(&|w| late(w.integrity_sha256(key)).integrity_sha256(key)), Some(1024));
    assert_eq!(
        lifetime_s(&|w| late(w.integrity_sha256(key)).attribute(attr::MESSAGE_INTEGRITY, &[0; 3])),
        Some(1024)
    );
}

#[test]
fn allocation_keeps_its_sha256_key_when_its_credential_ends() {
    let mut world = World::new();
    let made = credential::mint(SECRET, "ana", START.unix_s + 10);
    let client = world.client_at(client_addr(1), &made.username, &made.password);
    let ask = |world: &mut World, method, attributes: &[(u16, &[u8])]| {
        ask_sha256(world, &client, &made.password, method, attributes).code()
    };
    let allocate: [(u16, &[u8]); 1] = [(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])];
    assert_eq!(ask(&mut world, Method::Allocate, &allocate), 0);
    world.pass_ms(300_000);
    assert_eq!(ask(&mut world, Method::Refresh, &REFRESH_ATTRIBUTES), 0);
    assert_eq!(world.refresh(&client, 600).code(), 401, "an MD5 key was never its own");
}

#[test]
fn allocation_of_one_algorithm_may_be_refreshed_with_the_other() {
    let mut world = World::new();
    let (client, password) = member(&mut world, client_addr(1), "ana");
    world.allocate(&client);
    let refresh = &REFRESH_ATTRIBUTES;
    let reply = ask_sha256(&mut world, &client, &password, Method::Refresh, refresh);
    assert_eq!(reply.code(), 0);
    assert_eq!(world.refresh(&client, 600).code(), 0);
}

/// A static user's name can be hidden from the first request on.
#[test]
fn static_user_may_come_under_its_hash() {
    let mut world = World::new();
    let client = world.client_at(client_addr(1), STATIC_USER.0, STATIC_USER.1);
    let hash = user_hash(STATIC_USER.0, REALM);
    let wanted: (u16, &[u8]) = (attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let who: (u16, &[u8]) = (attr::USERHASH, &hash);
    let mut ask = |client: &Client| {
        let bytes = request(&mut world, client, Method::Allocate, who, &[wanted], |w| {
            w.integrity(&client.key)
        });
        world.reply(client.addr, &bytes)
    };
    assert_eq!(ask(&Client { key: [7; 16], ..client.clone() }).code(), 401);
    let reply = ask(&client);
    assert_eq!(reply.code(), 0);
    assert!(reply.message().verify(&client.key));
    assert_eq!(reply.attribute(attr::USERHASH), None);
    assert_eq!(world.opened.last().map(|port| port.user.as_str()), Some(STATIC_USER.0));
    assert_eq!(world.refresh(&client, 600).code(), 0, "and under its name as well");
}

/// The hash of a name that was never seen cannot be turned back; that of an owner can.
#[test]
fn rest_user_may_come_under_its_hash_once_it_has_an_allocation() {
    let mut world = World::new();
    let (ana, _) = member(&mut world, over(Transport::Tcp, 1), "ana");
    let (ben, _) = member(&mut world, over(Transport::Tcp, 2), "ben");
    let hidden = |world: &mut World, from: &Client, name: &str, realm: &str| {
        let hash = user_hash(name, realm);
        let who: (u16, &[u8]) = (attr::USERHASH, &hash);
        let bytes = request(world, from, Method::Refresh, who, &REFRESH_ATTRIBUTES, |w| {
            w.integrity(&from.key)
        });
        world.reply(from.addr, &bytes).code()
    };
    assert_eq!(hidden(&mut world, &ana, &ana.username, REALM), 401);
    world.allocate(&ana);
    world.allocate(&ben);
    assert_eq!(hidden(&mut world, &ana, &ana.username, REALM), 0);
    assert_eq!(hidden(&mut world, &ana, &ana.username, "elsewhere"), 401);
    assert_eq!(hidden(&mut world, &ana, &ben.username, REALM), 401, "another's name is unknown");
    let failures = world.relay.snapshot(world.now).auth_failures;
    assert_eq!(failures[AuthFailure::UnknownUser.index()], 3);
}

#[test]
fn exactly_one_name_is_wanted() {
    let mut world = World::new();
    let client = world.client_at(client_addr(1), STATIC_USER.0, STATIC_USER.1);
    let hash = user_hash(STATIC_USER.0, REALM);
    let cases: [&[(u16, &[u8])]; 3] = [
        &[(attr::USERNAME, STATIC_USER.0.as_bytes()), (attr::USERHASH, &hash)],
        &[(attr::USERHASH, &hash[..31])],
        &[],
    ];
    for names in cases {
        let bytes = world.message(Method::Refresh, Class::Request, |w| {
            let w = names.iter().fold(w, |w, (kind, value)| w.attribute(*kind, value));
            w.attribute(attr::REALM, REALM.as_bytes())
                .attribute(attr::NONCE, &client.nonce)
                .integrity(&client.key)
        });
        assert_eq!(world.reply(client.addr, &bytes).code(), 400);
    }
}

/// A client that is told of anonymity must use it, so it is promised only where it always works.
#[test]
fn anonymity_is_offered_where_every_user_is_known() {
    let mut world = World::with(|settings| settings.credentials.secrets.clear());
    let client = world.client_at(over(Transport::Tcp, 1), STATIC_USER.0, STATIC_USER.1);
    assert_eq!(&client.nonce[..13], b"obMatJos2wAAA");
    assert_eq!(world.refresh(&client, 600).code(), 437);
    let (rest, _) = member(&mut World::new(), over(Transport::Tcp, 1), "ana");
    assert_eq!(&rest.nonce[..13], b"obMatJos2gAAA");
}
