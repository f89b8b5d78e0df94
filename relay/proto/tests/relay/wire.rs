//! What crosses the wire in tests: addresses, datagrams, replies, and chance.

use std::net::{IpAddr, SocketAddr};

use relay_proto::attribute as attr;
use relay_proto::stun::{Class, Message};
use relay_proto::{ClientAddr, Transport, Verdict};

/// Every code that this server may send (RFC 8656 §19, RFC 8489 §18.3).
const CODES: [u16; 13] = [300, 400, 401, 403, 420, 437, 438, 440, 441, 442, 443, 486, 508];

/// One datagram that the relay sent to a client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    pub to: ClientAddr,
    pub bytes: Vec<u8>,
}

impl Reply {
    pub fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).expect("our replies are whole")
    }

    /// 0 for success; an error must have a code of ours and no reason phrase.
    pub fn code(&self) -> u16 {
        let message = self.message();
        match (message.class, message.attribute(attr::ERROR_CODE)) {
            (Class::Success, None) => 0,
            (Class::Error, Some(&[0, 0, class, number])) => {
                let code = u16::from(class) * 100 + u16::from(number);
                assert!(number < 100 && CODES.contains(&code), "{code} is no code of ours");
                code
            }
            other => panic!("neither success nor error: {other:?}"),
        }
    }

    pub fn address(&self, kind: u16) -> Option<SocketAddr> {
        let message = self.message();
        message.attribute(kind).and_then(|value| message.unxor(value))
    }

    pub fn attribute(&self, kind: u16) -> Option<Vec<u8>> {
        self.message().attribute(kind).map(<[u8]>::to_vec)
    }

    pub fn lifetime_s(&self) -> Option<u32> {
        self.message().attribute(attr::LIFETIME).and_then(attr::lifetime)
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().expect("address and port")
}

pub fn peer(last: u8, port: u16) -> SocketAddr {
    ([198, 51, 100, last], port).into()
}

pub fn client_addr(port: u16) -> ClientAddr {
    ClientAddr {
        remote: ([192, 0, 2, 1], port).into(),
        local: None,
        listener: 0,
        transport: Transport::Udp,
    }
}

pub fn client_addr_v6(port: u16) -> ClientAddr {
    ClientAddr {
        remote: SocketAddr::new(ip("2001:db8:2::1"), port),
        local: None,
        listener: 0,
        transport: Transport::Udp,
    }
}

/// ChannelData as on UDP, without padding.
pub fn channel_data(number: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a datagram");
    [&number.to_be_bytes(), &length.to_be_bytes(), payload].concat()
}

/// The datagram that a verdict sends to a client.
pub fn rendered(verdict: &Verdict<'_>) -> Vec<u8> {
    match verdict {
        Verdict::ToClient { head, payload, pad, .. } => {
            [head.as_bytes(), payload, &[0; 3][..usize::from(*pad)]].concat()
        }
        other => panic!("nothing for a client: {other:?}"),
    }
}

/// Numbers that look random and are the same on every run (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}
