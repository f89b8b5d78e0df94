//! Errors of the network about a datagram that a relayed port has sent, passed on to its client
//! (RFC 8656 §11.5).

use std::net::SocketAddr;

use crate::Now;
use crate::address::{AllocationId, Family, PeerAddr};
use crate::allocation::Allocation;
use crate::attribute as attr;
use crate::relay::Relay;
use crate::standing::Rules;
use crate::stun::{Class, Method, Writer};

/// Most errors that one client is told in a second: they cost nothing to whoever forges them.
pub const ICMP_PER_S_MAX: u8 = 10;

/// What an ICMP message said (RFC 792, RFC 4443).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IcmpError {
    /// Its type; what it means depends on the peer's family.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The next link's MTU in bytes, if the datagram was too long for it.
    pub mtu: u32,
}

impl IcmpError {
    /// Type and code of "fragmentation needed" (RFC 792, RFC 1191 §4).
    pub const TOO_LONG_V4: (u8, u8) = (3, 4);
    /// Type of "packet too big" (RFC 4443 §3.2).
    const TOO_BIG_V6: u8 = 2;

    /// Whether clients are told of this type: unreachable, time exceeded, and too big.
    fn concerns(self, family: Family) -> bool {
        match family {
            Family::V4 => matches!(self.kind, 3 | 11),
            Family::V6 => matches!(self.kind, 1..=3),
        }
    }

    /// The ICMP attribute's value (RFC 8656 §18.13).
    ///
    /// ```text
    /// +-------------------------------+-------------+-----------------+
    /// |  reserved (16 bits)           |  type (7)   |  code (9)       |
    /// +-------------------------------+-------------+-----------------+
    /// |  MTU if the datagram was too long, else 0                     |
    /// ```
    fn value(self, family: Family) -> [u8; 8] {
        let [k, c] = (u16::from(self.kind) << 9 | u16::from(self.code)).to_be_bytes();
        let is_too_long = match family {
            Family::V4 => (self.kind, self.code) == Self::TOO_LONG_V4,
            Family::V6 => self.kind == Self::TOO_BIG_V6,
        };
        let [m0, m1, m2, m3] = if is_too_long { self.mtu } else { 0 }.to_be_bytes();
        [0, 0, k, c, m0, m1, m2, m3]
    }
}

/// What became of an error; the word is the metric's label.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IcmpFate {
    /// Its client was told.
    Told,
    /// It was about no permitted peer, or of a type that clients are not told of.
    Ignored,
    /// Its client had been told of enough in that second.
    RateLimited,
}

impl IcmpFate {
    /// Every fate, in the order of [`IcmpFate::index`].
    pub const ALL: [Self; 3] = [Self::Told, Self::Ignored, Self::RateLimited];

    /// The label in `relay_icmp_errors_total{fate}`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Ignored => "ignored",
            Self::RateLimited => "rate_limited",
        }
    }

    /// Position in a table by fate.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// How many errors were passed on in the current second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ration {
    second: u32,
    used: u8,
}

impl Ration {
    fn take(&mut self, now: Now) -> bool {
        if self.second != now.second() {
            *self = Self { second: now.second(), used: 0 };
        }
        let is_left = self.used < ICMP_PER_S_MAX;
        self.used += u8::from(is_left);
        is_left
    }
}

impl Relay {
    /// The network gave a datagram for `peer` back; drain the effects. Whoever sent the ICMP
    /// message need not have a permission, the peer must (RFC 8656 §11.5).
    pub fn icmp(&mut self, now: Now, at: AllocationId, peer: PeerAddr, error: IcmpError) {
        let (peer, family) = (peer.0, Family::of(&peer.0.ip()));
        let fate = match self.permitted_by(now, at, peer) {
            Some(allocation) if error.concerns(family) => {
                if allocation.icmp.take(now) {
                    IcmpFate::Told
                } else {
                    IcmpFate::RateLimited
                }
            }
            _ => IcmpFate::Ignored,
        };
        self.counters.icmp_errors[fate.index()] += 1;
        let Some(allocation) = self.table.by_id(at).filter(|_| fate == IcmpFate::Told) else {
            return;
        };
        let to = allocation.client;
        let id = self.indication_id();
        let mut bytes = self.buffers.pop().unwrap_or_default();
        Writer::new(&mut bytes, Method::Data, Class::Indication, id)
            .xor_address(attr::XOR_PEER_ADDRESS, peer)
            .attribute(attr::ICMP, &error.value(family))
            .finish();
        self.reply(to, bytes);
    }

    /// The allocation, if it lives and lets this peer through.
    fn permitted_by(
        &mut self,
        now: Now,
        at: AllocationId,
        peer: SocketAddr,
    ) -> Option<&mut Allocation> {
        let rules = Rules::of(&self.settings, self.generation);
        let allocation = self.table.by_id(at)?;
        let is_open = allocation.is_live(now) && allocation.serves(now, Family::of(&peer.ip()));
        let is_permitted = is_open && allocation.permission(now, peer.ip(), rules).is_ok();
        is_permitted.then_some(allocation)
    }
}
