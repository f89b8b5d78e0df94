//! Where a simulation takes place: addresses, users, settings, and what may be reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use relay_proto::auth::{Credentials, ExpiryMode};
use relay_proto::policy::{PeerPolicy, RelayIp};
use relay_proto::shape::Rate;
use relay_proto::{Keys, Now, Settings};

use crate::wire::{addr, peer};

pub const REALM: &str = "castling";
/// The first mints, all verify.
pub const SECRETS: [&[u8]; 2] = [b"the secret of tomorrow", b"a secret for tests only"];
/// What relayed ports are bound to, and what clients are told.
pub const LOCAL_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
pub const EXTERNAL_IP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub const RELAY_IP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
pub const LISTENER_PORT: u16 = 3478;
pub const STUN_PORT: u16 = 3479;
pub const RELAY_PORT_MIN: u16 = 49_152;
/// Where both clocks start.
pub const START: Now = Now { mono_ms: 5_001_234, unix_s: 1_800_000_000 };

/// What differs from one simulation to the next.
#[derive(Clone, Debug)]
pub struct Rules {
    pub permissions_max: usize,
    pub channels_max: usize,
    pub session_s_max: Option<u32>,
    pub expiry_mode: ExpiryMode,
    pub rfc5766_channels: bool,
    pub strict_channels: bool,
    pub bps_max: Option<u64>,
    /// Relayed ports, and how many of them one user may have.
    pub pool: u16,
    pub quota: usize,
}

impl Rules {
    /// What the relay is built from; `is_narrow` is a policy that has come to forbid some peers.
    pub fn settings(&self, is_narrow: bool) -> Settings {
        let network = |text: &str| text.parse().expect("network");
        Settings {
            credentials: Credentials::new(
                REALM.to_owned(),
                SECRETS.map(<[u8]>::to_vec).to_vec(),
                [("static".to_owned(), "pass word".to_owned())].into(),
            ),
            policy: PeerPolicy {
                relay_ips: vec![
                    RelayIp { local: LOCAL_IP.into(), external: EXTERNAL_IP.into() },
                    RelayIp { local: RELAY_IP_V6.into(), external: RELAY_IP_V6.into() },
                ],
                relay_ports: RELAY_PORT_MIN..=65_535,
                service_ports: vec![LISTENER_PORT, STUN_PORT],
                own_ips: vec![LOCAL_IP.into(), RELAY_IP_V6.into()],
                allow: vec![network("198.51.100.0/24"), network("2001:db8:9::/48")],
                deny: [&["198.51.100.250"][..], if is_narrow { &NARROWED } else { &[] }]
                    .concat()
                    .into_iter()
                    .map(network)
                    .collect(),
            },
            permissions_max: self.permissions_max,
            channels_max: self.channels_max,
            expiry_mode: self.expiry_mode,
            session_s_max: self.session_s_max,
            rfc5766_channels: self.rfc5766_channels,
            strict_channels: self.strict_channels,
            rate_max: self.bps_max.and_then(Rate::from_bps),
        }
    }
}

/// Peers that a narrower policy forbids.
const NARROWED: [&str; 2] = ["198.51.100.2", "2001:db8:9::2"];

/// Entropy of the so many-th boot.
pub fn keys(boot: u8) -> Keys {
    Keys { nonce: [boot; 32], seed: [7; 32] }
}

/// What may be done with a peer, said once more for the addresses that occur.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    Peer,
    OwnRelay,
    Denied,
}

pub fn reach(peer: SocketAddr, is_narrow: bool) -> Reach {
    let port = peer.port();
    if port == 0 || port == LISTENER_PORT && is_own(peer.ip()) {
        return Reach::Denied;
    }
    if is_own(peer.ip()) {
        return if port >= RELAY_PORT_MIN { Reach::OwnRelay } else { Reach::Denied };
    }
    match peer.ip() {
        IpAddr::V4(v4) => match v4.octets() {
            [198, 51, 100, 250] => Reach::Denied,
            [198, 51, 100, 2] if is_narrow => Reach::Denied,
            [198, 51, 100, _] => Reach::Peer,
            [0 | 10 | 127 | 224..=255, ..]
            | [169, 254, ..]
            | [192, 168, ..]
            | [172, 16..=31, ..]
            | [100, 64..=127, ..]
            | [203, 0, 113, _]
            | [192, 0, 0 | 2, _]
            | [198, 18 | 19, ..] => Reach::Denied,
            _ => Reach::Peer,
        },
        IpAddr::V6(v6) => match v6.segments() {
            [0x2001, 0xdb8, 9, 0, 0, 0, 0, 2] if is_narrow => Reach::Denied,
            [0x2001, 0xdb8, 9, ..] => Reach::Peer,
            [0x2001, 0xdb8 | 0..=0x1ff, ..] | [0x2002 | 0x3fff, ..] => Reach::Denied,
            [0x2000..=0x3fff, ..] => Reach::Peer,
            _ => Reach::Denied,
        },
    }
}

pub fn is_own(at: IpAddr) -> bool {
    match at {
        IpAddr::V4(v4) => v4 == LOCAL_IP || v4 == EXTERNAL_IP,
        IpAddr::V6(v6) => v6 == RELAY_IP_V6,
    }
}

/// The form that clients are told.
pub fn canonical(peer: SocketAddr) -> SocketAddr {
    let is_local = peer.ip() == IpAddr::V4(LOCAL_IP);
    if is_local { SocketAddr::new(EXTERNAL_IP.into(), peer.port()) } else { peer }
}

/// Peers that a request may name: reachable ones first, then those that never are.
pub static PEERS: LazyLock<Vec<SocketAddr>> = LazyLock::new(|| {
    let mut all = vec![peer(1, 9_001), peer(1, 9_002), peer(2, 9_001), peer(3, 9_001)];
    all.extend(["[2001:db8:9::1]:9001", "8.8.8.8:53", "[2001:4860::8]:53"].map(addr));
    all.extend(FORBIDDEN.map(addr));
    all
});

/// The first few once more, for who has an IPv6 address.
pub static PEERS_V6: LazyLock<[SocketAddr; 3]> = LazyLock::new(|| {
    ["[2001:db8:9::1]:9001", "[2001:db8:9::1]:9002", "[2001:db8:9::2]:9001"].map(addr)
});

const FORBIDDEN: [&str; 12] = [
    "127.0.0.1:53",
    "10.0.0.1:80",
    "169.254.169.254:80",
    "198.51.100.250:9001",
    "203.0.113.1:22",
    "203.0.113.1:3478",
    "10.0.0.5:3479",
    "224.0.0.1:5000",
    "[::ffff:127.0.0.1]:53",
    "[64:ff9b::7f00:1]:53",
    "[fe80::1]:53",
    "[2002:7f00:1::1]:53",
];
