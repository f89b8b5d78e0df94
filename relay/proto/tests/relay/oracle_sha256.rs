//! SHA-256, the nonce's cookie and hashed names against the independent `stun-proto` crate: its
//! codec, and its client, which is challenged, chooses and answers by itself.

use proptest::collection::vec;
use proptest::prelude::*;
use relay_proto::algorithm::{Integrity, PasswordAlgorithm, user_hash};
use relay_proto::attribute as attr;
use relay_proto::credential;
use relay_proto::stun::{Class, Message, Method, Writer};
use relay_proto::{ClientAddr, Transport};
use stun_proto::auth::{Feature, LongTermClientAuth, LongTermClientValidation};
use stun_proto::types::attribute::{AttributeType, RawAttribute, Userhash};
use stun_proto::types::message::{
    IntegrityAlgorithm, LongTermCredentials, LongTermKeyCredentials, Message as Theirs,
    MessageClass, MessageType, MessageWriteVec, Method as TheirMethod, TransactionId,
};
use stun_proto::types::prelude::{MessageWrite as _, MessageWriteExt as _};

use super::world::{REALM, Reply, SECRET, STATIC_USER, World, client_addr};

const NAMES: [&str; 3] = ["1700000000:ana", "castling", "password"];

fn their_key() -> stun_proto::types::message::IntegrityKey {
    let [username, realm, password] = NAMES.map(str::to_owned);
    LongTermKeyCredentials::new(username, password, realm).make_key(IntegrityAlgorithm::Sha256)
}

fn our_key() -> Vec<u8> {
    let [username, realm, password] = NAMES;
    PasswordAlgorithm::Sha256.key(username, realm, password).as_bytes().to_vec()
}

fn their_request(method: Method, id: [u8; 12]) -> MessageWriteVec {
    let kind =
        MessageType::from_class_method(MessageClass::Request, TheirMethod::new(method as u16));
    let id = id.iter().fold(0, |id, byte| id << 8 | u128::from(*byte));
    Theirs::builder(kind, TransactionId::from(id), MessageWriteVec::new())
}

fn any_attributes() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    let special = [attr::MESSAGE_INTEGRITY, attr::MESSAGE_INTEGRITY_SHA256, attr::FINGERPRINT];
    let kind = any::<u16>().prop_filter("special", move |kind| !special.contains(kind));
    // They refuse to write an attribute twice.
    vec((kind, vec(any::<u8>(), 0..70)), 0..8).prop_map(|mut all| {
        all.sort();
        all.dedup_by_key(|(kind, _)| *kind);
        all
    })
}

proptest! {
    #[test]
    fn they_verify_what_we_sign_with_sha256(id: [u8; 12], attributes in any_attributes()) {
        let mut bytes = Vec::new();
        let writer = Writer::new(&mut bytes, Method::Allocate, Class::Request, id);
        let filled = attributes.iter().fold(writer, |w, (kind, value)| w.attribute(*kind, value));
        filled.integrity_sha256(&our_key()).fingerprint().finish();
        let theirs = Theirs::from_bytes(&bytes).expect("they can read it");
        let verified = theirs.validate_integrity_with_key(&their_key());
        prop_assert_eq!(verified.ok(), Some(IntegrityAlgorithm::Sha256));
    }

    #[test]
    fn we_verify_what_they_sign_with_sha256(id: [u8; 12], attributes in any_attributes()) {
        let mut theirs = their_request(Method::Refresh, id);
        for (kind, value) in &attributes {
            let raw = RawAttribute::new(AttributeType::new(*kind), value);
            theirs.add_attribute(&raw).expect("they can write it");
        }
        let signed = theirs.add_message_integrity_with_key(&their_key(), IntegrityAlgorithm::Sha256);
        signed.and_then(|()| theirs.add_fingerprint()).expect("they can sign it");
        let bytes = theirs.finish();
        let ours = Message::parse(&bytes).expect("whole, with a good FINGERPRINT");
        prop_assert_eq!(ours.transaction_id(), id);
        prop_assert_eq!(ours.protection(), Some(Integrity::Sha256));
        prop_assert!(ours.verify(&our_key()));
        prop_assert!(!ours.verify(&[0; 32]));
        let read: Vec<_> = ours.attributes().map(|(kind, value)| (kind, value.to_vec())).collect();
        prop_assert_eq!(read, attributes);
    }

    #[test]
    fn names_have_the_same_hash_to_both(username: String, realm: String) {
        prop_assert_eq!(user_hash(&username, &realm), Userhash::compute(&username, &realm));
    }
}

/// Lets their client ask for an allocation until it is content; how it signed in the end.
fn allocated(world: &mut World, from: ClientAddr, client: &mut LongTermClientAuth) -> Reply {
    for _ in 0..3 {
        let mut request = their_request(Method::Allocate, world.transaction_id());
        let transport =
            RawAttribute::new(AttributeType::new(attr::REQUESTED_TRANSPORT), &[17, 0, 0, 0]);
        request.add_attribute(&transport).expect("they can write it");
        let bytes = client.sign_outgoing_message(request).expect("they can sign it").finish();
        let reply = world.reply(from, &bytes);
        let read = Theirs::from_bytes(&reply.bytes).expect("they can read it");
        match client.validate_incoming_message(&read).expect("they believe it") {
            LongTermClientValidation::ResendRequest(_) => {}
            LongTermClientValidation::Validated(_) => return reply,
        }
    }
    panic!("still not content");
}

fn their_client(
    (username, password): (&str, &str),
    supported: &[IntegrityAlgorithm],
) -> LongTermClientAuth {
    let mut client = LongTermClientAuth::new();
    client.set_credentials(LongTermCredentials::new(username.to_owned(), password.to_owned()));
    client.set_supported_integrity(supported[0]);
    supported.iter().for_each(|it| client.add_supported_integrity(*it));
    client
}

/// AUT-14 to AUT-17: it takes the first algorithm of the offer that it knows.
#[test]
fn their_client_is_content_with_what_it_knows() {
    use IntegrityAlgorithm::{Sha1, Sha256};
    let cases: [(Transport, &[IntegrityAlgorithm], Integrity); 5] = [
        (Transport::Udp, &[Sha1], Integrity::Sha1),
        (Transport::Udp, &[Sha1, Sha256], Integrity::Sha1),
        (Transport::Tcp, &[Sha1], Integrity::Sha1),
        (Transport::Tcp, &[Sha1, Sha256], Integrity::Sha256),
        (Transport::Tcp, &[Sha256], Integrity::Sha256),
    ];
    for (transport, supported, wanted) in cases {
        let mut world = World::new();
        let made = credential::mint(SECRET, "ana", world.now.unix_s + 60);
        let mut client = their_client((&made.username, &made.password), supported);
        let from = ClientAddr { transport, ..client_addr(1) };
        let reply = allocated(&mut world, from, &mut client);
        assert_eq!(reply.code(), 0, "{transport:?} {supported:?}");
        assert_eq!(reply.message().protection(), Some(wanted), "{transport:?} {supported:?}");
    }
}

/// Where all users are static, it hides its name by itself.
#[test]
fn their_client_stays_anonymous() {
    let mut world = World::with(|settings| settings.credentials.secrets.clear());
    let mut client = their_client(STATIC_USER, &[IntegrityAlgorithm::Sha256]);
    client.set_anonymous_username(Feature::Required);
    let from = ClientAddr { transport: Transport::Tcp, ..client_addr(1) };
    assert_eq!(allocated(&mut world, from, &mut client).code(), 0);
    assert_eq!(world.opened.last().map(|port| port.user.as_str()), Some(STATIC_USER.0));
    let request = their_request(Method::Refresh, world.transaction_id());
    let bytes = client.sign_outgoing_message(request).expect("they can sign it").finish();
    assert_eq!(world.reply(from, &bytes).code(), 0);
    let message = Message::parse(&bytes).expect("whole");
    assert_eq!(message.attribute(attr::USERNAME), None);
    let hash = user_hash(STATIC_USER.0, REALM);
    assert_eq!(message.attribute(attr::USERHASH), Some(&hash[..]));
}
