//! The STUN codec: against itself, and against the `stun` crate.

use relay_proto::algorithm::Integrity;
use relay_proto::attribute as attr;
use relay_proto::request::{self, Allocate, Refresh};
use relay_proto::stun as ours;
use relay_proto::stun::{Class, HEADER_LEN, Message, Method, TransactionId, Writer};
use stun::integrity::MessageIntegrity;
use stun::message::Message as Theirs;

use super::input::{Input, mended};

const KEY: [u8; 16] = *b"key for fuzzing.";

pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let kind = input.byte();
    let bytes = &mended(input.0, kind)[..];
    let _ = ours::looks_like_stun(bytes);
    let theirs = read_by_them(bytes);
    let Ok(message) = Message::parse(bytes) else {
        if let Some(theirs) = theirs {
            assert!(is_refused_for_cause(bytes, &theirs), "only they read it: {theirs}");
        }
        return;
    };
    let theirs = theirs.expect("what we read, they read");
    assert_eq!(theirs.transaction_id.0, message.transaction_id());
    assert_eq!(message.size(), bytes.len());
    let attributes: Vec<_> = message.attributes().collect();
    let shown = theirs.attributes.0.iter().map(|it| (it.typ.value(), &it.value[..]));
    // They show what follows the integrity too, and call 0x8020 by its later name.
    let renamed =
        |(kind, value)| (if kind == 0x8020 { attr::XOR_MAPPED_ADDRESS } else { kind }, value);
    assert!(attributes.iter().copied().map(renamed).eq(shown.take(attributes.len())));
    read_everything(&message, &attributes);
    if let Some(method) = message.method {
        write_again(method, message.class, message.transaction_id(), &attributes);
    }
}

/// Every reader of attributes meets every value.
fn read_everything(message: &Message<'_>, attributes: &[(u16, &[u8])]) {
    for (kind, value) in attributes {
        let first = attributes.iter().find(|(other, _)| other == kind).expect("itself at least");
        assert_eq!(message.attribute(*kind), Some(first.1));
        if let Some(address) = message.unxor(value) {
            let length = if address.is_ipv4() { 8 } else { 20 };
            assert_eq!(value.len(), length);
        }
        let _ = attr::channel_number(value);
    }
    if let Ok(asked) = Allocate::parse(message) {
        assert!((600..=3600).contains(&asked.lifetime_s));
        assert!(asked.token.is_none() || asked.even_port.is_none());
    }
    if let Ok(asked) = Refresh::parse(message) {
        assert!(asked.lifetime_s == 0 || (600..=3600).contains(&asked.lifetime_s));
    }
    if let Ok(peers) = request::permission_peers(message) {
        assert!(!peers.is_empty() && peers.len() <= message.size() / 12);
    }
    for rfc5766 in [false, true] {
        if let Ok((number, _)) = request::channel_bind(message, rfc5766) {
            assert!(number.value() < if rfc5766 { 0x8000 } else { 0x5000 });
        }
    }
    let _ = request::check_understood(message);
    let _ = message.integrity();
    assert!(!message.verify(b"a key that no input was signed with"));
}

/// What was read, written and signed by us, is read and believed by both.
fn write_again(method: Method, class: Class, id: TransactionId, attributes: &[(u16, &[u8])]) {
    let mut out = Vec::new();
    let writer = Writer::new(&mut out, method, class, id);
    let filled = attributes.iter().fold(writer, |w, (kind, value)| w.attribute(*kind, value));
    // The 24 and 8 bytes of what comes behind must find room.
    if attributes.iter().map(|(_, value)| value.len().next_multiple_of(4) + 4).sum::<usize>()
        > 65_000
    {
        return;
    }
    filled.integrity(&KEY).fingerprint().finish();
    let message = Message::parse(&out).expect("ours are whole");
    assert_eq!((message.method, message.class), (Some(method), class));
    assert_eq!(message.transaction_id(), id);
    assert!(message.attributes().eq(attributes.iter().copied()));
    assert!(message.protection() == Some(Integrity::Sha1) && message.verify(&KEY));
    let mut theirs = read_by_them(&out).expect("they read what we write");
    assert!(MessageIntegrity(KEY.to_vec()).check(&mut theirs).is_ok());

    let writer = Writer::new(&mut out, method, class, id);
    let filled = attributes.iter().fold(writer, |w, (kind, value)| w.attribute(*kind, value));
    filled.integrity(b"another key").integrity_sha256(&KEY).fingerprint().finish();
    let message = Message::parse(&out).expect("ours are whole");
    assert!(message.attributes().eq(attributes.iter().copied()));
    assert!(message.protection() == Some(Integrity::Sha256) && message.verify(&KEY), "AUT-19");
    assert!(!message.verify(b"another key"));
    // One bit of it changed, and nobody believes it.
    out[HEADER_LEN - 1] ^= 1;
    assert!(Message::parse(&out).is_err(), "FINGERPRINT covers everything");
}

fn read_by_them(bytes: &[u8]) -> Option<Theirs> {
    let mut message = Theirs::new();
    message.unmarshal_binary(bytes).is_ok().then_some(message)
}

/// Where we are the stricter: RFC 8489 §5 (first bits, length), §14 (padding), §14.7 (FINGERPRINT).
fn is_refused_for_cause(bytes: &[u8], theirs: &Theirs) -> bool {
    let has_other_top_bits = bytes[0] & 0xC0 != 0;
    let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    let has_other_length = length % 4 != 0 || length + HEADER_LEN != bytes.len();
    let last = theirs.attributes.0.last();
    has_other_top_bits
        || has_other_length
        || last.is_some_and(|it| it.typ.value() == attr::FINGERPRINT)
}
