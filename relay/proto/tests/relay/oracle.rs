//! The codecs of the independent `stun` and `turn` crates must read what we write, and the
//! reverse.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use relay_proto::address::ChannelNumber;
use relay_proto::attribute as attr;
use relay_proto::channel_data;
use relay_proto::credential;
use relay_proto::stun::{Class, Message, Method, Writer};
use stun::attributes::{
    ATTR_DATA, ATTR_LIFETIME, ATTR_NONCE, ATTR_RESERVATION_TOKEN, ATTR_XOR_PEER_ADDRESS,
    ATTR_XOR_RELAYED_ADDRESS, AttrType,
};
use stun::error_code::ErrorCodeAttribute;
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{Getter as _, Message as Theirs, MessageType, Setter as _};
use stun::xoraddr::XorMappedAddress;
use turn::proto::chandata::ChannelData;

use super::world::{Client, World, peer, rendered};

const NAMES: [&str; 3] = ["1700000000:ana", "castling", "password"];

fn any_method() -> impl Strategy<Value = Method> {
    prop::sample::select(vec![
        Method::Binding,
        Method::Allocate,
        Method::Refresh,
        Method::Send,
        Method::Data,
        Method::CreatePermission,
        Method::ChannelBind,
    ])
}

fn any_class() -> impl Strategy<Value = Class> {
    prop::sample::select(vec![Class::Request, Class::Indication, Class::Success, Class::Error])
}

/// Types that neither side treats in its own way; 0x8020 is XOR-MAPPED-ADDRESS to the oracle.
fn any_attributes() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    let special =
        [attr::MESSAGE_INTEGRITY, attr::MESSAGE_INTEGRITY_SHA256, attr::FINGERPRINT, 0x8020];
    let kind = any::<u16>().prop_filter("special", move |kind| !special.contains(kind));
    vec((kind, vec(any::<u8>(), 0..70)), 0..12)
}

fn written(
    method: Method,
    class: Class,
    id: [u8; 12],
    attributes: &[(u16, Vec<u8>)],
    finish: impl FnOnce(Writer<'_>) -> Writer<'_>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let writer = Writer::new(&mut out, method, class, id);
    let filled = attributes.iter().fold(writer, |w, (kind, value)| w.attribute(*kind, value));
    finish(filled).finish();
    out
}

fn their_type(method: Method, class: Class) -> MessageType {
    let class = match class {
        Class::Request => stun::message::CLASS_REQUEST,
        Class::Indication => stun::message::CLASS_INDICATION,
        Class::Success => stun::message::CLASS_SUCCESS_RESPONSE,
        Class::Error => stun::message::CLASS_ERROR_RESPONSE,
    };
    let method = match method {
        Method::Binding => stun::message::METHOD_BINDING,
        Method::Allocate => stun::message::METHOD_ALLOCATE,
        Method::Refresh => stun::message::METHOD_REFRESH,
        Method::Send => stun::message::METHOD_SEND,
        Method::Data => stun::message::METHOD_DATA,
        Method::CreatePermission => stun::message::METHOD_CREATE_PERMISSION,
        Method::ChannelBind => stun::message::METHOD_CHANNEL_BIND,
    };
    MessageType::new(method, class)
}

fn their_message(method: Method, class: Class, id: [u8; 12]) -> Theirs {
    let mut message = Theirs::new();
    message.typ = their_type(method, class);
    message.transaction_id.0 = id;
    message.write_header();
    message
}

fn read_by_them(bytes: &[u8]) -> Theirs {
    let mut message = Theirs::new();
    message.unmarshal_binary(bytes).expect("they can read it");
    message
}

fn their_attributes(message: &Theirs) -> Vec<(u16, Vec<u8>)> {
    message.attributes.0.iter().map(|it| (it.typ.value(), it.value.clone())).collect()
}

fn our_attributes(message: &Message<'_>) -> Vec<(u16, Vec<u8>)> {
    message.attributes().map(|(kind, value)| (kind, value.to_vec())).collect()
}

fn their_integrity() -> MessageIntegrity {
    let [username, realm, password] = NAMES.map(str::to_owned);
    MessageIntegrity::new_long_term_integrity(username, realm, password)
}

fn our_key() -> credential::LongTermKey {
    let [username, realm, password] = NAMES;
    credential::long_term_key(username, realm, password)
}

proptest! {
    #[test]
    fn they_read_what_we_write(
        method in any_method(),
        class in any_class(),
        id: [u8; 12],
        attributes in any_attributes(),
    ) {
        let bytes = written(method, class, id, &attributes, |w| w);
        let theirs = read_by_them(&bytes);
        prop_assert_eq!(theirs.typ, their_type(method, class));
        prop_assert_eq!(theirs.transaction_id.0, id);
        prop_assert_eq!(their_attributes(&theirs), attributes);
    }

    #[test]
    fn we_read_what_they_write(
        method in any_method(),
        class in any_class(),
        id: [u8; 12],
        attributes in any_attributes(),
    ) {
        let mut theirs = their_message(method, class, id);
        for (kind, value) in &attributes {
            theirs.add(AttrType(*kind), value);
        }
        let bytes = theirs.marshal_binary().expect("they can write it");
        prop_assert_eq!(&bytes, &written(method, class, id, &attributes, |w| w));
        let ours = Message::parse(&bytes).expect("whole");
        prop_assert_eq!((ours.method, ours.class), (Some(method), class));
        prop_assert_eq!(ours.transaction_id(), id);
        prop_assert_eq!(our_attributes(&ours), attributes);
    }

    #[test]
    fn they_verify_what_we_sign(method in any_method(), id: [u8; 12], attributes in any_attributes()) {
        let bytes = written(method, Class::Request, id, &attributes, |w| {
            w.integrity(&our_key()).fingerprint()
        });
        let mut theirs = read_by_them(&bytes);
        prop_assert!(their_integrity().check(&mut theirs).is_ok());
        prop_assert!(FINGERPRINT.check(&theirs).is_ok());
    }

    #[test]
    fn we_verify_what_they_sign(method in any_method(), id: [u8; 12], attributes in any_attributes()) {
        let mut theirs = their_message(method, Class::Request, id);
        for (kind, value) in &attributes {
            theirs.add(AttrType(*kind), value);
        }
        their_integrity().add_to(&mut theirs).expect("they can sign it");
        FINGERPRINT.add_to(&mut theirs).expect("they can check-sum it");
        let bytes = theirs.marshal_binary().expect("they can write it");
        let ours = Message::parse(&bytes).expect("whole, with a good FINGERPRINT");
        prop_assert!(ours.verify(&our_key()));
        prop_assert!(!ours.verify(&[0; 16]));
        prop_assert_eq!(our_attributes(&ours), attributes);
    }

    #[test]
    fn addresses_are_the_same_to_both(address: SocketAddr, id: [u8; 12]) {
        let mut out = Vec::new();
        Writer::new(&mut out, Method::CreatePermission, Class::Request, id)
            .xor_address(attr::XOR_PEER_ADDRESS, address)
            .finish();
        let mut read = XorMappedAddress::default();
        read.get_from_as(&read_by_them(&out), ATTR_XOR_PEER_ADDRESS).expect("they can read it");
        prop_assert_eq!((read.ip, read.port), (address.ip(), address.port()));

        let mut theirs = their_message(Method::CreatePermission, Class::Request, id);
        let sent = XorMappedAddress { ip: address.ip(), port: address.port() };
        sent.add_to_as(&mut theirs, ATTR_XOR_PEER_ADDRESS).expect("they can write it");
        let ours = Message::parse(&theirs.raw).expect("whole");
        let value = ours.attribute(attr::XOR_PEER_ADDRESS).expect("present");
        prop_assert_eq!(ours.unxor(value).map(|it| (it.ip(), it.port())), Some((read.ip, read.port)));
    }

    #[test]
    fn channel_data_is_the_same_to_both(number in 0x4000u16..=0x4FFF, data in vec(any::<u8>(), 0..200)) {
        let channel = ChannelNumber::new(number).expect("in range");
        let length = u16::try_from(data.len()).expect("short");
        let bytes = [&channel_data::header(channel, length)[..], &data].concat();
        let mut theirs = ChannelData { raw: bytes.clone(), ..ChannelData::default() };
        prop_assert!(theirs.decode().is_ok());
        prop_assert_eq!((theirs.number.0, &theirs.data), (number, &data));
        theirs.encode();
        prop_assert!(theirs.raw.starts_with(&bytes));
        prop_assert_eq!(channel_data::parse(&theirs.raw), Some((channel, &data[..])), "padded");
    }

    /// Numbers about 0x4000, and lengths that are not the payload's.
    #[test]
    fn broken_channel_data_is_refused_by_both(mut bytes in vec(any::<u8>(), 0..40)) {
        if let Some(first) = bytes.first_mut() {
            *first = 0x3F + *first % 3;
        }
        let mut theirs = ChannelData { raw: bytes.clone(), ..ChannelData::default() };
        prop_assert_eq!(channel_data::parse(&bytes).is_some(), theirs.decode().is_ok());
    }
}

/// The known divergence: the oracle reports good integrity *and* shows the attribute that somebody
/// added behind it. RFC 8489 §14.5 has it ignored, as we do.
#[test]
fn only_the_oracle_shows_attributes_behind_the_integrity() {
    let lifetime = |seconds: u32| seconds.to_be_bytes();
    let bytes = written(Method::Refresh, Class::Request, [7; 12], &[], |w| {
        w.integrity(&our_key()).attribute(attr::LIFETIME, &lifetime(3000))
    });
    let mut theirs = read_by_them(&bytes);
    assert!(their_integrity().check(&mut theirs).is_ok());
    assert_eq!(theirs.get(ATTR_LIFETIME).expect("shown"), lifetime(3000));
    let ours = Message::parse(&bytes).expect("whole");
    assert!(ours.verify(&our_key()));
    assert_eq!(ours.attribute(attr::LIFETIME), None);
}

/// What the relay itself sends: a signed success, an error with its nonce, a Data indication.
#[test]
fn they_read_and_verify_what_the_relay_sends() {
    let mut world = World::new();
    let client = world.client(40_000, "ana");
    let reply = world.ask_allocate(&client, |w| w.attribute(attr::EVEN_PORT, &[0x80]));
    let mut theirs = read_by_them(&reply.bytes);
    assert_eq!(theirs.typ, their_type(Method::Allocate, Class::Success));
    assert!(MessageIntegrity(client.key.to_vec()).check(&mut theirs).is_ok());
    let mut relayed = XorMappedAddress::default();
    relayed.get_from_as(&theirs, ATTR_XOR_RELAYED_ADDRESS).expect("they can read it");
    let port = world.last_opened();
    assert_eq!((relayed.ip, relayed.port), (port.addr.0.ip(), port.addr.0.port()));
    assert_eq!(theirs.get(ATTR_RESERVATION_TOKEN).map(|token| token.len()).ok(), Some(8));

    let stale = Client { nonce: vec![b'A'; 12], ..client.clone() };
    let refused = read_by_them(&world.refresh(&stale, 600).bytes);
    let mut code = ErrorCodeAttribute::default();
    code.get_from(&refused).expect("they can read it");
    assert_eq!((code.code.0, code.reason.len()), (438, 0));
    assert_eq!(refused.get(ATTR_NONCE).map(|nonce| nonce.len()).ok(), Some(12));

    assert_eq!(world.permit(&client, &[peer(1, 7)]), 0);
    let data = read_by_them(&rendered(&world.peer_sends(port, peer(1, 7), b"odd")));
    assert_eq!(data.typ, their_type(Method::Data, Class::Indication));
    assert_eq!(data.get(ATTR_DATA).ok().as_deref(), Some(&b"odd"[..]));
    let mut from = XorMappedAddress::default();
    from.get_from_as(&data, ATTR_XOR_PEER_ADDRESS).expect("they can read it");
    assert_eq!((from.ip, from.port), (peer(1, 7).ip(), 7));
}
