//! What the generator sends, and how it knows its packets again.
//!
//! ```text
//!  payload:  'C' 'b'  run (16 bits)  window (32 bits)  zeros …
//! ```
//!
//! `run` tells late packets of the probe before from those of this one; `window` says in which
//! slice of send time the packet left.

use std::net::SocketAddrV4;

/// Bytes of the stamp at the start of a payload.
const STAMP_LEN: usize = 8;
const MAGIC: [u8; 2] = *b"Cb";
/// STUN's header, in bytes (RFC 8489 §5).
const HEADER_LEN: usize = 20;
/// `0x2112A442`, which also masks addresses (RFC 8489 §5).
const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
/// Send indication (RFC 8656 §11.1).
const SEND: [u8; 2] = [0x00, 0x16];
/// Attribute types of RFC 8656 §18.
const XOR_PEER_ADDRESS: [u8; 2] = [0x00, 0x12];
const DATA: [u8; 2] = [0x00, 0x13];

/// How a payload is wrapped between client and relay.
#[derive(Clone, Copy, Debug)]
pub enum Wrap {
    /// Not at all: from a peer.
    Bare,
    /// As ChannelData on this channel (RFC 8656 §12.4).
    Channel(u16),
    /// As a Send indication to this peer.
    Indication(SocketAddrV4),
}

/// One flow's train of equal datagrams, stamped anew for every window.
#[derive(Clone, Debug)]
pub struct Train {
    bytes: Vec<u8>,
    datagram_len: usize,
    stamp_at: usize,
    stamp: [u8; STAMP_LEN],
}

impl Train {
    /// `count` datagrams with `payload_len` bytes of payload each, at least the stamp's eight.
    #[must_use]
    pub fn new(wrap: Wrap, payload_len: u16, count: usize) -> Self {
        assert!(usize::from(payload_len) >= STAMP_LEN, "room for the stamp");
        let length = payload_len.to_be_bytes();
        let mut bytes = Vec::new();
        match wrap {
            Wrap::Bare => {}
            Wrap::Channel(number) => {
                bytes.extend(number.to_be_bytes());
                bytes.extend(length);
            }
            Wrap::Indication(peer) => {
                let padded = payload_len.next_multiple_of(4);
                bytes.extend(SEND);
                bytes.extend((12 + 4 + padded).to_be_bytes());
                bytes.extend(COOKIE);
                bytes.extend([0x5A; 12]); // transaction id: an indication has no answer
                bytes.extend(XOR_PEER_ADDRESS);
                bytes.extend([0, 8, 0, 1]); // length, reserved, IPv4
                let port = peer.port().to_be_bytes();
                bytes.extend([port[0] ^ COOKIE[0], port[1] ^ COOKIE[1]]);
                let octets = peer.ip().octets();
                bytes.extend(octets.iter().zip(COOKIE).map(|(octet, mask)| octet ^ mask));
                bytes.extend(DATA);
                bytes.extend(length);
            }
        }
        let stamp_at = bytes.len();
        let payload_end = stamp_at + usize::from(payload_len);
        bytes.resize(payload_end, 0);
        if let Wrap::Indication(_) = wrap {
            bytes.resize(payload_end.next_multiple_of(4), 0);
        }
        let datagram_len = bytes.len();
        Self { bytes: bytes.repeat(count), datagram_len, stamp_at, stamp: [0; STAMP_LEN] }
    }

    /// Length of one datagram, in bytes.
    #[must_use]
    pub const fn datagram_len(&self) -> usize {
        self.datagram_len
    }

    /// The datagrams, one behind the other, as they leave in `window` of `run`.
    pub fn stamped(&mut self, run: u16, window: u32) -> &[u8] {
        let mut stamp = [0; STAMP_LEN];
        stamp[..2].copy_from_slice(&MAGIC);
        stamp[2..4].copy_from_slice(&run.to_be_bytes());
        stamp[4..].copy_from_slice(&window.to_be_bytes());
        if stamp != self.stamp {
            self.stamp = stamp;
            for datagram in self.bytes.chunks_mut(self.datagram_len) {
                datagram[self.stamp_at..][..STAMP_LEN].copy_from_slice(&stamp);
            }
        }
        &self.bytes
    }
}

/// The window in which a received datagram of `run` was sent: bare, ChannelData or a Data
/// indication. `None` for anything else.
#[must_use]
pub fn window(datagram: &[u8], run: u16) -> Option<u32> {
    // A bare payload begins with 'C', which is 0x43: as ChannelData it would have a number that
    // this benchmark never binds.
    let payload = match datagram {
        [0x43, b'b', ..] => datagram,
        [0x40..=0x4F, _, _, _, payload @ ..] => payload,
        _ => data_attribute(datagram)?,
    };
    let stamp: &[u8; STAMP_LEN] = payload.first_chunk()?;
    let [m0, m1, r0, r1, w0, w1, w2, w3] = *stamp;
    let ours = [m0, m1] == MAGIC && u16::from_be_bytes([r0, r1]) == run;
    ours.then(|| u32::from_be_bytes([w0, w1, w2, w3]))
}

/// The value of the DATA attribute, wherever it stands.
fn data_attribute(message: &[u8]) -> Option<&[u8]> {
    let mut rest = message.get(HEADER_LEN..)?;
    while let [t0, t1, l0, l1, value @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if [*t0, *t1] == DATA {
            return value.get(..length);
        }
        rest = value.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use stun::message::{Getter as _, Message};
    use turn::proto::chandata::ChannelData;
    use turn::proto::data::Data;
    use turn::proto::peeraddr::PeerAddress;

    use super::*;

    const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 2), 40_001);

    #[test]
    fn an_independent_decoder_reads_what_is_sent() {
        let mut train = Train::new(Wrap::Channel(0x4007), 101, 1);
        let mut data = ChannelData { raw: train.stamped(3, 9).to_vec(), ..ChannelData::default() };
        data.decode().unwrap();
        assert_eq!((data.number.0, data.data.len()), (0x4007, 101));

        let mut train = Train::new(Wrap::Indication(PEER), 101, 1);
        let mut message = Message { raw: train.stamped(3, 9).to_vec(), ..Message::new() };
        message.decode().unwrap();
        let (mut peer, mut data) = (PeerAddress::default(), Data::default());
        peer.get_from(&message).unwrap();
        data.get_from(&message).unwrap();
        assert_eq!(SocketAddr::new(peer.ip, peer.port), PEER.into());
        assert_eq!(data.0.len(), 101);
        assert_eq!(message.typ.to_string(), "Send indication");
    }

    #[test]
    fn stamps_are_read_in_every_wrapping() {
        // Seen from the receiver, a Send and a Data indication differ in their type only.
        for wrap in [Wrap::Bare, Wrap::Channel(0x4000), Wrap::Indication(PEER)] {
            let mut train = Train::new(wrap, 100, 1);
            let bytes = train.stamped(7, 70_000);
            assert_eq!(window(bytes, 7), Some(70_000), "{wrap:?}");
            assert_eq!(window(bytes, 8), None, "{wrap:?} of another run");
            for end in 0..bytes.len() {
                let cut = window(&bytes[..end], 7);
                assert!(cut.is_none() || cut == Some(70_000), "{wrap:?} cut to {end}");
            }
        }
    }

    #[test]
    fn every_datagram_of_a_train_is_stamped() {
        let mut train = Train::new(Wrap::Channel(0x4000), 100, 8);
        for stamp in [1, 1, 2] {
            let length = train.datagram_len();
            let bytes = train.stamped(7, stamp);
            assert_eq!(bytes.len(), 8 * length);
            assert!(bytes.chunks(length).all(|one| window(one, 7) == Some(stamp)));
        }
    }
}
