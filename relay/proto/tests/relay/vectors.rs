//! The test vectors of RFC 5769 and RFC 8489 (FRM-15), as bytes and as what they mean.

use hmac::{Hmac, KeyInit as _, Mac as _};
use relay_proto::algorithm::{Integrity, PasswordAlgorithm, user_hash};
use relay_proto::attribute as attr;
use relay_proto::credential::{self, LongTermKey};
use relay_proto::stun::{Class, Message, Method, Writer};
use sha2::Sha256;

use super::world::addr;

const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
/// User name and realm of the samples with a long-term credential.
const MATRIX: (&str, &str) = ("\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}", "example.org");
const SOFTWARE: u16 = 0x8022;
const PRIORITY: u16 = 0x0024;
const ICE_CONTROLLED: u16 = 0x8029;
/// Transaction id of the first three.
const ID: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

/// §2.1: request with a short-term credential.
const REQUEST: &str = "
    000100582112a442b7e7a701bc34d686fa87dfae
    802200105354554e207465737420636c69656e74
    002400046e0001ff
    80290008932ff9b151263b36
    000600096576746a3a68367659202020
    000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
    80280004e57a3bcf";

/// §2.2: response over IPv4.
const RESPONSE_V4: &str = "
    0101003c2112a442b7e7a701bc34d686fa87dfae
    8022000b7465737420766563746f7220
    002000080001a147e112a643
    000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7
    80280004c07d4c96";

/// §2.3: response over IPv6.
const RESPONSE_V6: &str = "
    010100482112a442b7e7a701bc34d686fa87dfae
    8022000b7465737420766563746f7220
    002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9
    00080014a382954e4be67bf11784c97c8292c275bfe3ed41
    80280004c8fb0b4c";

/// §2.4: request with a long-term credential.
const LONG_TERM: &str = "
    000100602112a44278ad3433c6ad72c029da412e
    00060012e3839ee38388e383aae38383e382afe382b90000
    0015001c662f2f3439396b39353464364f4c33346f4c39465354767936347341
    0014000b6578616d706c652e6f726700
    00080014f67024656dd64a3e02b8e0712e85c9a28ca89666";

/// RFC 8489 B.1, as its erratum mends it: with PASSWORD-ALGORITHM, and a header that counts right.
const SHA256_AND_USERHASH: &str = "
    000100902112a44278ad3433c6ad72c029da412e
    001e00204a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704
    001500296f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c39465354767936347341000000
    0014000b6578616d706c652e6f726700
    001d000400020000
    001c0020b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65";

/// The HMAC of RFC 8489 B.1 as printed, where the header says 156 and the message is 136 long.
const SHA256_AS_PRINTED: &str = "e4686c8f0edeb59013e07090010a93efccbccc544c0a45d9f830aa6d6f735a01";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte")).collect()
}

#[test]
fn sample_request_is_read_and_verified() {
    let bytes = bytes(REQUEST);
    let message = Message::parse(&bytes).expect("whole, with a good FINGERPRINT");
    assert_eq!((message.method, message.class), (Some(Method::Binding), Class::Request));
    assert_eq!(message.transaction_id(), ID);
    let attributes: Vec<_> = message.attributes().collect();
    let wanted: [(u16, &[u8]); 4] = [
        (SOFTWARE, b"STUN test client"),
        (PRIORITY, &0x6e00_01ffu32.to_be_bytes()),
        (ICE_CONTROLLED, &0x932f_f9b1_5126_3b36u64.to_be_bytes()),
        (attr::USERNAME, b"evtj:h6vY"),
    ];
    assert_eq!(attributes, wanted, "padding of 0x20 is no part of the value");
    assert!(message.verify(PASSWORD));
    assert!(!message.verify(b"VOkJxbRl1RmTxUk/WvJxBT"));
}

#[test]
fn sample_responses_tell_the_address() {
    let cases = [
        (RESPONSE_V4, "192.0.2.1:32853"),
        (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ];
    for (hex, address) in cases {
        let bytes = bytes(hex);
        let message = Message::parse(&bytes).expect("whole, with a good FINGERPRINT");
        assert_eq!((message.method, message.class), (Some(Method::Binding), Class::Success));
        assert_eq!(message.attribute(SOFTWARE), Some(&b"test vector"[..]));
        let value = message.attribute(attr::XOR_MAPPED_ADDRESS).expect("present");
        assert_eq!(message.unxor(value), Some(addr(address)));
        assert!(message.verify(PASSWORD));

        let mut ours = Vec::new();
        Writer::new(&mut ours, Method::Binding, Class::Success, ID)
            .xor_address(attr::XOR_MAPPED_ADDRESS, addr(address))
            .finish();
        assert_eq!(
            Message::parse(&ours).expect("whole").attribute(attr::XOR_MAPPED_ADDRESS),
            Some(value)
        );
    }
}

/// The only vector that is padded with zeros, as our writer does it, so it is equal to the byte.
#[test]
fn sample_long_term_request_is_written_byte_for_byte() {
    let wanted = bytes(LONG_TERM);
    let id = wanted[8..20].try_into().expect("12 bytes");
    let (username, realm) = MATRIX;
    let key: LongTermKey = credential::long_term_key(username, realm, "TheMatrIX");
    let mut ours = Vec::new();
    Writer::new(&mut ours, Method::Binding, Class::Request, id)
        .attribute(attr::USERNAME, username.as_bytes())
        .attribute(attr::NONCE, b"f//499k954d6OL34oL9FSTvy64sA")
        .attribute(attr::REALM, realm.as_bytes())
        .integrity(&key)
        .finish();
    assert_eq!(ours, wanted);
    assert!(Message::parse(&wanted).expect("whole").verify(&key));
}

/// Name and password before and behind the preparation of strings, which is the client's part.
#[test]
fn sample_request_with_sha256_and_userhash_is_written_byte_for_byte() {
    let wanted = bytes(SHA256_AND_USERHASH);
    let id = wanted[8..20].try_into().expect("12 bytes");
    let (username, realm) = MATRIX;
    let key = PasswordAlgorithm::Sha256.key(username, realm, "TheMatrIX");
    let unsigned = |out: &mut Vec<u8>, named: Option<&[u8]>, key: Option<&[u8]>| {
        let writer = Writer::new(out, Method::Binding, Class::Request, id)
            .attribute(attr::USERHASH, &user_hash(username, realm))
            .attribute(attr::NONCE, b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA")
            .attribute(attr::REALM, realm.as_bytes());
        let writer =
            named.into_iter().fold(writer, |w, it| w.attribute(attr::PASSWORD_ALGORITHM, it));
        key.into_iter().fold(writer, |w, key| w.integrity_sha256(key)).finish();
    };
    let mut ours = Vec::new();
    unsigned(&mut ours, Some(&[0, 2, 0, 0]), Some(key.as_bytes()));
    assert_eq!(ours, wanted);
    let message = Message::parse(&wanted).expect("whole");
    assert_eq!(message.protection(), Some(Integrity::Sha256));
    assert!(message.verify(key.as_bytes()));

    unsigned(&mut ours, None, None);
    ours[2..4].copy_from_slice(&156u16.to_be_bytes());
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any key");
    mac.update(&ours);
    assert_eq!(mac.finalize().into_bytes()[..], bytes(SHA256_AS_PRINTED));
}

/// The others are padded with blanks, which the HMAC and the CRC cover. Written with zeros they
/// have every byte in common but padding, and FINGERPRINT; the HMAC is the vector's own.
#[test]
fn other_samples_are_written_but_for_their_padding() {
    for hex in [REQUEST, RESPONSE_V4, RESPONSE_V6] {
        let wanted = bytes(hex);
        let message = Message::parse(&wanted).expect("whole");
        let method = message.method.expect("known");
        let mut ours = Vec::new();
        let writer = Writer::new(&mut ours, method, message.class, message.transaction_id());
        message
            .attributes()
            .fold(writer, |writer, (kind, value)| writer.attribute(kind, value))
            .attribute(attr::MESSAGE_INTEGRITY, message.integrity().expect("present"))
            .fingerprint()
            .finish();
        let without_crc = wanted.len() - 4;
        let differences: Vec<_> = (0..without_crc).filter(|at| ours[*at] != wanted[*at]).collect();
        assert!(differences.iter().all(|at| (ours[*at], wanted[*at]) == (0, 0x20)));
        assert!(matches!(differences.len(), 1 | 3), "{differences:?}");
        assert_eq!(ours.len(), wanted.len());
        let again = Message::parse(&ours).expect("our FINGERPRINT is good");
        assert!(again.attributes().eq(message.attributes()));
    }
}

#[test]
fn every_flipped_bit_of_a_sha256_sample_is_noticed() {
    let good = bytes(SHA256_AND_USERHASH);
    let (username, realm) = MATRIX;
    let key = PasswordAlgorithm::Sha256.key(username, realm, "TheMatrIX");
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let believed = Message::parse(&bad).is_ok_and(|message| message.verify(key.as_bytes()));
        assert!(!believed, "bit {bit}");
    }
}

#[test]
fn every_flipped_bit_of_a_signed_sample_is_noticed() {
    for hex in [REQUEST, RESPONSE_V4, RESPONSE_V6] {
        let good = bytes(hex);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let believed = Message::parse(&bad).is_ok_and(|message| message.verify(PASSWORD));
            // A FINGERPRINT that is no longer one is an optional attribute behind the integrity.
            let is_label = bit / 8 >= good.len() - 8 && bit / 8 < good.len() - 6;
            assert!(!believed || is_label, "bit {bit}");
        }
    }
}
