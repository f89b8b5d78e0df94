//! Addresses by their role: a client's, a peer's and our own relayed one are different types.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A TURN client as this server sees it: the 5-tuple of RFC 8656 §2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientAddr {
    /// The client's address, or its NAT's.
    pub remote: SocketAddr,
    /// Our address that it wrote to; `None` where the listener has only one.
    pub local: Option<IpAddr>,
    /// Number of the listening socket among those of its transport, given by the edge.
    pub listener: u16,
    /// What lies between the client and the listener.
    pub transport: Transport,
}

/// How a client reaches the relay (RFC 8656 §3.1). Peers are always reached over UDP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A byte stream: messages are framed, and ChannelData is padded (RFC 8656 §12.5).
    Tcp,
    /// A byte stream inside TLS.
    Tls,
}

impl Transport {
    /// All of them, in the order of [`Transport::index`].
    pub const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    /// The label in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// Position in a table by transport.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl std::hash::Hash for ClientAddr {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // Two words are enough to tell clients apart; equality looks at everything.
        let (high, low) = match self.remote.ip() {
            IpAddr::V4(ip) => (0, u64::from(ip.to_bits())),
            IpAddr::V6(ip) => {
                let [high, low] = halves(ip.to_bits());
                (high, low)
            }
        };
        state.write_u64(high ^ (u64::from(self.remote.port()) << 16));
        state.write_u64(low);
    }
}

fn halves(bits: u128) -> [u64; 2] {
    // Truncation is the point: the low half, after the high one.
    #[allow(clippy::cast_possible_truncation)]
    [(bits >> 64) as u64, bits as u64]
}

/// A peer's transport address, as a client names it in XOR-PEER-ADDRESS (RFC 8656 §2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerAddr(pub SocketAddr);

/// A relayed transport address in the form that clients are told (RFC 8656 §2).
///
/// Behind 1:1 NAT this is the external address, not the one the socket is bound to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RelayAddr(pub SocketAddr);

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order of [`Family::index`].
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(ip: &IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    /// Position in a table by family.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Bytes of the IP and UDP headers of one datagram (RFC 791, RFC 8200, RFC 768).
    #[must_use]
    pub const fn udp_header_bytes(self) -> u64 {
        match self {
            Self::V4 => 20 + 8,
            Self::V6 => 40 + 8,
        }
    }
}

/// A channel number: 0x4000 to 0x4FFF (RFC 8656 §12), for old clients to 0x7FFF (RFC 5766 §11).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// A number that a client may bind; `None` outside the range.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        match number {
            0x4000..=0x4FFF => Some(Self(number)),
            _ => None,
        }
    }

    /// A number that RFC 5766 allowed: RFC 8656 has given 0x5000 to 0x7FFF away.
    #[must_use]
    pub const fn new_rfc5766(number: u16) -> Option<Self> {
        match number {
            0x4000..=0x7FFF => Some(Self(number)),
            _ => None,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn value(self) -> u16 {
        self.0
    }
}

/// Names an allocation for as long as it lives; a stale id finds nothing.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct AllocationId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl AllocationId {
    /// The id as one word, for an epoll token.
    #[must_use]
    pub fn token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The id that [`AllocationId::token`] made.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // the two halves of the word
    pub const fn from_token(token: u64) -> Self {
        Self { index: token as u32, generation: (token >> 32) as u32 }
    }

    /// Position in a table of allocations; re-used after the allocation's end.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

impl fmt::Display for AllocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_numbers_end_at_0x4fff() {
        assert!(ChannelNumber::new(0x3FFF).is_none());
        assert!(ChannelNumber::new(0x4000).is_some());
        assert!(ChannelNumber::new(0x4FFF).is_some());
        assert!(ChannelNumber::new(0x5000).is_none());
    }

    #[test]
    fn allocation_id_survives_its_token() {
        let id = AllocationId { index: 7, generation: u32::MAX };
        assert_eq!(AllocationId::from_token(id.token()), id);
    }
}
