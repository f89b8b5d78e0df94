//! Datagrams of strangers with forged sources, as fast as wanted, and what comes back.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use serde_json::Value;

use crate::bench::cpu;
use crate::lab::WAN;
use crate::namespace::Namespace;
use crate::{Failure, Outcome};

/// Datagrams per second: enough to drown a relay that keeps something of each, and few enough for
/// one of two cores, which the relay and its calls need as well.
pub const RATE: u32 = 25_000;
/// Most datagrams between two looks at the clock.
const BURST_MAX: u64 = 256;
/// Time between two bursts.
const PAUSE: Duration = Duration::from_micros(500);
const IPV4_HEADER_LEN: usize = 20;
const UDP_HEADER_LEN: usize = 8;
/// `0x2112A442` (RFC 8489 §5).
const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// What a stranger sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Binding: 20 bytes, the cheapest question with an answer.
    Binding,
    /// Allocate without any attribute: 20 bytes.
    BareAllocate,
    /// Allocate as a client begins, with REQUESTED-TRANSPORT alone: 28 bytes.
    Allocate,
    /// Allocate with user, realm, nonce and an integrity that nobody's key made.
    ForgedIntegrity,
    /// ChannelData where there is no allocation.
    ChannelData,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Binding,
        Self::BareAllocate,
        Self::Allocate,
        Self::ForgedIntegrity,
        Self::ChannelData,
    ];

    /// What tables call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Binding => "Binding",
            Self::BareAllocate => "bare Allocate",
            Self::Allocate => "Allocate without credentials",
            Self::ForgedIntegrity => "Allocate, forged integrity",
            Self::ChannelData => "ChannelData, no allocation",
        }
    }

    /// The datagram numbered `number`: transaction ids and forged values differ.
    #[must_use]
    pub fn datagram(self, number: u32) -> Vec<u8> {
        let stamp = number.to_be_bytes();
        match self {
            Self::Binding => stun(0x0001, stamp, &[]),
            Self::BareAllocate => stun(0x0003, stamp, &[]),
            Self::Allocate => stun(0x0003, stamp, &[(0x0019, &[17, 0, 0, 0])]),
            Self::ForgedIntegrity => {
                let user = format!("4000000000:guest{number:08x}");
                let nonce = format!("nonce{number:07x}");
                let mac: Vec<u8> = stamp.repeat(5);
                let attributes: [(u16, &[u8]); 5] = [
                    (0x0019, &[17, 0, 0, 0]),
                    (0x0006, user.as_bytes()),
                    (0x0014, b"castling"),
                    (0x0015, nonce.as_bytes()),
                    (0x0008, &mac),
                ];
                stun(0x0003, stamp, &attributes)
            }
            Self::ChannelData => [&[0x40, 0, 0, 100][..], &stamp.repeat(25)].concat(),
        }
    }
}

/// A STUN message whose values need no padding but zeros (RFC 8489 §5, §14).
fn stun(kind: u16, stamp: [u8; 4], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in attributes {
        body.extend(kind.to_be_bytes());
        body.extend(length(value.len()));
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    [&kind.to_be_bytes()[..], &length(body.len()), &COOKIE, &stamp.repeat(3), &body].concat()
}

/// Where forged datagrams pretend to come from. All of it is in 10.0.0.0/8, which leads nowhere in
/// a laboratory.
#[derive(Clone, Copy, Debug)]
pub enum Sources {
    /// Each from another /24: no prefix is asked to wait.
    Everywhere,
    /// All from one /24, whose owner is to be hit by the replies.
    OneVictim,
}

impl Sources {
    fn address(self, number: u32) -> Ipv4Addr {
        let spread = number.wrapping_mul(0x9E37_79B1);
        match self {
            // An odd factor permutes the middle 16 bits: 65,536 datagrams, as many prefixes.
            Self::Everywhere => {
                Ipv4Addr::from_bits(0x0A00_0000 | (number.wrapping_mul(0x9E3B) & 0xFFFF) << 8 | 7)
            }
            Self::OneVictim => Ipv4Addr::from_bits(0x0A01_0200 | spread >> 24),
        }
    }
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Datagrams that left.
    pub datagrams: u64,
    /// How long it took.
    pub time: Duration,
}

/// Sends `count` datagrams of `kind` to `target` from inside `namespace`, at [`RATE`].
///
/// # Errors
/// No raw socket, or the kernel refuses a datagram.
pub fn send(
    namespace: &Namespace,
    target: SocketAddrV4,
    kind: Kind,
    sources: Sources,
    count: u32,
) -> Outcome<Sent> {
    namespace.within(|| {
        cpu::be_elsewhere();
        let socket = raw_socket()?;
        let to = SockaddrIn::from(target);
        let start = Instant::now();
        let mut number = 0;
        while number < count {
            let due = start.elapsed().as_micros() as u64 * u64::from(RATE) / 1_000_000;
            let burst = due.saturating_sub(u64::from(number)).min(BURST_MAX);
            for _ in 0..burst.min(u64::from(count - number)) {
                let packet =
                    packet(sources.address(number), target, &kind.datagram(number), number);
                sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty()).map_err(refused)?;
                number += 1;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(Sent { datagrams: number.into(), time: start.elapsed() })
    })
}

fn raw_socket() -> Outcome<OwnedFd> {
    // Of this protocol the kernel takes packets with their IP header, which it completes.
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw).map_err(refused)
}

fn refused(error: nix::Error) -> Failure {
    Failure::new(format!("raw socket: {error}"))
}

/// IPv4 and UDP headers in front of a payload. Length and header checksum of IPv4 are the kernel's
/// to fill in; a UDP checksum of 0 says that there is none (RFC 768).
fn packet(from: Ipv4Addr, to: SocketAddrV4, payload: &[u8], number: u32) -> Vec<u8> {
    let port = 1_024 + u16::try_from(number % 60_000).expect("a remainder");
    let mut bytes = Vec::with_capacity(IPV4_HEADER_LEN + UDP_HEADER_LEN + payload.len());
    bytes.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.ip().octets());
    bytes.extend(port.to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    bytes.extend(length(UDP_HEADER_LEN + payload.len()));
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

fn length(of: usize) -> [u8; 2] {
    u16::try_from(of).expect("datagrams of a flood are short").to_be_bytes()
}

/// Replies to forged sources, by the length of their UDP payload in bytes.
pub type Replies = BTreeMap<u64, u64>;

/// Starts to count, in the kernel, what leaves `server` for forged sources.
///
/// # Errors
/// nftables refuses.
pub fn watch(server: &Namespace) -> Outcome<()> {
    server.nft(&format!(
        "table ip flood {{
           set lengths {{ typeof udp length; size 1024; flags dynamic; counter; }}
           chain outgoing {{ type filter hook postrouting priority srcnat;
             oifname {WAN} ip daddr 10.0.0.0/8 meta l4proto udp add @lengths {{ udp length }}; }}
         }}"
    ))
}

/// What left since [`watch`] or the call before; counting begins anew.
///
/// # Errors
/// [`watch`] was not called.
pub fn replies(server: &Namespace) -> Outcome<Replies> {
    let text = server.run("nft", &["-j", "list", "set", "ip", "flood", "lengths"])?;
    server.run("nft", &["flush", "set", "ip", "flood", "lengths"])?;
    let json: Value =
        serde_json::from_str(&text).map_err(|error| Failure::new(format!("{error} in {text}")))?;
    let set = json["nftables"].as_array().into_iter().flatten().find_map(|it| it.get("set"));
    let elements = set.and_then(|set| set["elem"].as_array()).into_iter().flatten();
    elements
        .map(|element| {
            let element = &element["elem"];
            let found = element["val"].as_u64().zip(element["counter"]["packets"].as_u64());
            let (length, packets) =
                found.ok_or_else(|| Failure::new(format!("no counter in {element}")))?;
            Ok((length - UDP_HEADER_LEN as u64, packets))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn requests_are_as_long_as_the_tables_say() {
        let lengths = Kind::ALL.map(|kind| kind.datagram(7).len());
        assert_eq!(lengths, [20, 20, 28, 108, 104]);
    }

    #[test]
    fn sources_are_as_many_prefixes_as_datagrams_or_one() {
        let prefixes = |sources: Sources| {
            let all = (0..60_000).map(|number| sources.address(number).to_bits() >> 8);
            all.collect::<BTreeSet<_>>().len()
        };
        assert_eq!(prefixes(Sources::Everywhere), 60_000);
        assert_eq!(prefixes(Sources::OneVictim), 1);
    }
}
