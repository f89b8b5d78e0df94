//! Which peers may be reached: a relay must not become a way into its host or network.
//!
//! One function judges every peer address, whoever asks. IPv6 forms that carry an IPv4 address
//! are judged by both.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::address::RelayAddr;

/// A network: an address prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cidr {
    ip: IpAddr,
    prefix: u8,
}

/// Text that is no network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CidrError {
    /// No address before the slash.
    Address,
    /// The prefix is no number, or longer than the address.
    Prefix,
    /// Bits are set behind the prefix.
    HostBits,
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "an IP address is needed, such as 203.0.113.0/24",
            Self::Prefix => "the prefix length must be at most 32 (IPv4) or 128 (IPv6)",
            Self::HostBits => "bits are set behind the prefix",
        })
    }
}

impl std::error::Error for CidrError {}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, len)| (ip, Some(len)));
        let ip: IpAddr = ip.parse().map_err(|_| CidrError::Address)?;
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(whole), str::parse).map_err(|_| CidrError::Prefix)?;
        if prefix > whole {
            return Err(CidrError::Prefix);
        }
        let cidr = Self { ip, prefix };
        if cidr.masked(ip) == bits(ip) { Ok(cidr) } else { Err(CidrError::HostBits) }
    }
}

impl Cidr {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self { ip: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    const fn v6(high: [u16; 3], prefix: u8) -> Self {
        let [a, b, c] = high;
        Self { ip: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), prefix }
    }

    /// Whether the address is in this network; never across families.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.ip.is_ipv4() == ip.is_ipv4() && self.masked(ip) == bits(self.ip)
    }

    fn is_host(&self, ip: IpAddr) -> bool {
        self.ip == ip && self.prefix == if ip.is_ipv4() { 32 } else { 128 }
    }

    fn masked(&self, ip: IpAddr) -> u128 {
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let host = width - u32::from(self.prefix);
        bits(ip).checked_shr(host).and_then(|net| net.checked_shl(host)).unwrap_or(0)
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// One address that relayed ports are opened on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RelayIp {
    /// What the sockets are bound to.
    pub local: IpAddr,
    /// What clients are told; differs behind 1:1 NAT.
    pub external: IpAddr,
}

/// The operator's rules and what the edge knows of its host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerPolicy {
    /// Where relayed ports are, one per family.
    pub relay_ips: Vec<RelayIp>,
    /// Where relayed ports may be.
    pub relay_ports: RangeInclusive<u16>,
    /// Ports of our own listeners, on whichever own address.
    pub service_ports: Vec<u16>,
    /// Every address of the host's interfaces.
    pub own_ips: Vec<IpAddr>,
    /// Opened by the operator.
    pub allow: Vec<Cidr>,
    /// Closed by the operator; stronger than `allow`.
    pub deny: Vec<Cidr>,
}

/// What may be done with a peer address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Judgement {
    /// Reached through the network.
    Peer,
    /// A relayed port of our own, in the form that clients are told: delivered in process.
    OwnRelay(RelayAddr),
    /// Refused.
    Denied,
}

impl PeerPolicy {
    /// Judges an address that a packet or a channel is for.
    #[must_use]
    pub fn judge(&self, peer: SocketAddr) -> Judgement {
        if peer.port() == 0 { Judgement::Denied } else { self.judge_address(peer) }
    }

    /// Judges an address that a permission is for: its port is ignored unless the address is our
    /// own, where 0 stands for any relayed port.
    #[must_use]
    pub fn permits(&self, peer: SocketAddr) -> bool {
        let port = if peer.port() == 0 { *self.relay_ports.start() } else { peer.port() };
        self.judge_address(SocketAddr::new(peer.ip(), port)) != Judgement::Denied
    }

    /// Whether a datagram that the kernel brought to a relayed socket claims to be from ourselves
    /// although what we send to ourselves is delivered in process.
    #[must_use]
    pub fn is_own_source(&self, ip: IpAddr) -> bool {
        self.own_relay(ip).is_some() && !self.host_route(ip)
    }

    /// Whether the address is one of our own.
    #[must_use]
    pub fn is_own(&self, ip: IpAddr) -> bool {
        self.own_relay(ip).is_some() || self.own_ips.contains(&ip)
    }

    /// Whether every port of a permitted address may be reached: it is not our own in any form.
    #[must_use]
    pub fn any_port(&self, ip: IpAddr) -> bool {
        !self.is_own(ip) && inner_forms(ip).into_iter().flatten().all(|it| !self.is_own(it.into()))
    }

    /// The one form of a peer that permissions, channels and relayed ports go by: our own relay
    /// address as clients are told it, unless a host route opened the named form as well.
    #[must_use]
    pub fn canonical(&self, peer: SocketAddr) -> SocketAddr {
        match self.own_relay(peer.ip()) {
            Some(relay) if !self.host_route(peer.ip()) => {
                SocketAddr::new(relay.external, peer.port())
            }
            _ => peer,
        }
    }

    fn judge_address(&self, peer: SocketAddr) -> Judgement {
        let mut judgement = self.judge_form(peer);
        for inner in inner_forms(peer.ip()).into_iter().flatten() {
            let inner = self.judge_form(SocketAddr::new(inner.into(), peer.port()));
            if inner != Judgement::Peer {
                judgement = Judgement::Denied;
            }
        }
        judgement
    }

    /// The rules, first match wins.
    fn judge_form(&self, peer: SocketAddr) -> Judgement {
        let (ip, port) = (peer.ip(), peer.port());
        let relay = self.own_relay(ip);
        let own = self.is_own(ip);
        if own && self.service_ports.contains(&port) {
            return Judgement::Denied;
        }
        if let Some(relay) = relay {
            if self.relay_ports.contains(&port) {
                return Judgement::OwnRelay(RelayAddr(SocketAddr::new(relay.external, port)));
            }
            return if self.host_route(ip) { Judgement::Peer } else { Judgement::Denied };
        }
        if self.deny.iter().any(|net| net.contains(ip)) {
            return Judgement::Denied;
        }
        if self.allow.iter().any(|net| net.contains(ip)) {
            return Judgement::Peer;
        }
        if own || is_special_use(ip) { Judgement::Denied } else { Judgement::Peer }
    }

    fn own_relay(&self, ip: IpAddr) -> Option<&RelayIp> {
        self.relay_ips.iter().find(|relay| relay.local == ip || relay.external == ip)
    }

    fn host_route(&self, ip: IpAddr) -> bool {
        self.allow.iter().any(|net| net.is_host(ip))
    }
}

/// Networks that no peer of a class is in: the IANA special-purpose registries (RFC 6890),
/// multicast, and one cloud's metadata host.
const SPECIAL_V4: [Cidr; 20] = [
    Cidr::v4(0, 0, 0, 0, 8),
    Cidr::v4(10, 0, 0, 0, 8),
    Cidr::v4(100, 64, 0, 0, 10),
    Cidr::v4(127, 0, 0, 0, 8),
    Cidr::v4(168, 63, 129, 16, 32),
    Cidr::v4(169, 254, 0, 0, 16),
    Cidr::v4(172, 16, 0, 0, 12),
    Cidr::v4(192, 0, 0, 0, 24),
    Cidr::v4(192, 0, 2, 0, 24),
    Cidr::v4(192, 31, 196, 0, 24),
    Cidr::v4(192, 52, 193, 0, 24),
    Cidr::v4(192, 88, 99, 0, 24),
    Cidr::v4(192, 168, 0, 0, 16),
    Cidr::v4(192, 175, 48, 0, 24),
    Cidr::v4(198, 18, 0, 0, 15),
    Cidr::v4(198, 51, 100, 0, 24),
    Cidr::v4(203, 0, 113, 0, 24),
    Cidr::v4(224, 0, 0, 0, 4),
    Cidr::v4(240, 0, 0, 0, 4),
    Cidr::v4(255, 255, 255, 255, 32),
];

/// Special networks inside the global unicast range, to which IPv6 peers are confined anyway.
const SPECIAL_V6: [Cidr; 5] = [
    Cidr::v6([0x2001, 0, 0], 23),
    Cidr::v6([0x2001, 0xdb8, 0], 32),
    Cidr::v6([0x2002, 0, 0], 16),
    Cidr::v6([0x2620, 0x4f, 0x8000], 48),
    Cidr::v6([0x3fff, 0, 0], 20),
];

const GLOBAL_UNICAST_V6: Cidr = Cidr::v6([0x2000, 0, 0], 3);
/// The well-known prefix of NAT64 (RFC 6052 §2.1); its inner address decides.
const NAT64: Cidr = Cidr::v6([0x64, 0xff9b, 0], 96);

fn is_special_use(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => SPECIAL_V4.iter().any(|net| net.contains(ip)),
        IpAddr::V6(_) => {
            !(GLOBAL_UNICAST_V6.contains(ip) || NAT64.contains(ip))
                || SPECIAL_V6.iter().any(|net| net.contains(ip))
        }
    }
}

/// The IPv4 addresses inside an IPv6 one, as far as it has a form that carries any.
fn inner_forms(ip: IpAddr) -> [Option<Ipv4Addr>; 2] {
    let IpAddr::V6(ip) = ip else { return [None, None] };
    // Loopback and the unspecified address lie in ::/96 and embed nothing (RFC 4291 §2.5.3).
    if ip.is_loopback() || ip.is_unspecified() {
        return [None, None];
    }
    let [s0, s1, s2, s3, s4, s5, s6, s7] = ip.segments();
    let v4 =
        |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match [s0, s1, s2, s3, s4, s5] {
        // Mapped, compatible (RFC 4291 §2.5.5), translated (RFC 2765 §2.1), NAT64 (RFC 6052 §2.1)
        [0, 0, 0, 0, 0, 0xffff | 0] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => {
            [v4(s6, s7), None]
        }
        // 6to4 (RFC 3056 §2)
        [0x2002, ..] => [v4(s1, s2), None],
        // Teredo (RFC 4380 §4): the server, and the client with its bits inverted
        [0x2001, 0, ..] => [v4(s2, s3), v4(!s6, !s7)],
        // ISATAP (RFC 5214 §6.1)
        [_, _, _, _, 0 | 0x200, 0x5efe] => [v4(s6, s7), None],
        _ => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> PeerPolicy {
        let ip: IpAddr = "8.8.4.4".parse().expect("address");
        PeerPolicy {
            relay_ips: vec![RelayIp { local: "10.0.0.5".parse().expect("address"), external: ip }],
            relay_ports: 49152..=65535,
            service_ports: vec![3478, 3479],
            own_ips: vec![
                "10.0.0.5".parse().expect("address"),
                "9.9.9.9".parse().expect("address"),
            ],
            allow: vec![],
            deny: vec![],
        }
    }

    fn peer(ip: &str, port: u16) -> SocketAddr {
        SocketAddr::new(ip.parse().expect("address"), port)
    }

    #[test]
    fn special_use_peers_are_refused() {
        let v4 = "0.0.0.0 0.1.2.3 127.0.0.1 127.255.1.2 10.0.0.1 172.16.0.1 192.168.1.1 \
                  169.254.169.254 100.64.0.1 192.0.0.1 198.18.0.1 224.0.0.1 239.1.2.3 240.0.0.1 \
                  255.255.255.255 203.0.113.7 168.63.129.16";
        let v6 = ":: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 \
                  ::ffff:0:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::1 2001:0:7f00:1::1 fe80::1 \
                  fc00::1 fd00:ec2::254 fec0::1 ff02::1 2001:db8::1 2606::5efe:10.0.0.1 \
                  64:ff9b:1::1 ::ffff:8.8.8.8 2606::200:5efe:127.0.0.1";
        for ip in v4.split_whitespace().chain(v6.split_whitespace()) {
            assert_eq!(policy().judge(peer(ip, 50000)), Judgement::Denied, "{ip}");
            assert!(!policy().permits(peer(ip, 0)), "{ip}");
        }
    }

    #[test]
    fn public_peers_are_allowed() {
        for ip in ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "2606::5efe:8.8.8.8"] {
            assert_eq!(policy().judge(peer(ip, 50000)), Judgement::Peer, "{ip}");
            assert!(policy().permits(peer(ip, 0)), "{ip}");
            assert_eq!(policy().judge(peer(ip, 0)), Judgement::Denied, "{ip} port 0");
        }
    }

    #[test]
    fn own_addresses_lead_to_relayed_ports_only() {
        let own = Judgement::OwnRelay(RelayAddr(peer("8.8.4.4", 50000)));
        for ip in ["8.8.4.4", "10.0.0.5"] {
            assert_eq!(policy().judge(peer(ip, 50000)), own, "{ip}");
            assert!(policy().permits(peer(ip, 0)));
            for port in [22, 80, 3478, 3479] {
                assert_eq!(policy().judge(peer(ip, port)), Judgement::Denied, "{ip}:{port}");
                assert!(!policy().permits(peer(ip, port)), "{ip}:{port}");
            }
        }
        assert_eq!(policy().judge(peer("9.9.9.9", 50000)), Judgement::Denied, "other own address");
        // NAT64 of our own address must not slip past the rule for our own address.
        assert_eq!(policy().judge(peer("64:ff9b::808:404", 50000)), Judgement::Denied);
    }

    #[test]
    fn service_ports_stay_closed_whatever_is_allowed() {
        let nets = ["8.8.4.4/32", "10.0.0.0/8", "9.9.9.9/32"];
        let allow = nets.map(|net| net.parse().expect("network")).to_vec();
        let policy = PeerPolicy { allow, ..policy() };
        for ip in ["8.8.4.4", "10.0.0.5", "9.9.9.9"] {
            assert_eq!(policy.judge(peer(ip, 3478)), Judgement::Denied, "{ip}");
        }
        assert_eq!(policy.judge(peer("8.8.4.4", 22)), Judgement::Peer, "host route opens the rest");
        assert_eq!(policy.judge(peer("10.0.0.5", 22)), Judgement::Denied, "a wider one does not");
        assert_eq!(policy.judge(peer("10.1.1.1", 22)), Judgement::Peer);
        let mapped = policy.judge(peer("::ffff:10.1.1.1", 22));
        assert_eq!(mapped, Judgement::Denied, "opening a network does not open its mapped form");
    }

    /// It lies where IPv4-compatible addresses do, and is none.
    #[test]
    fn loopback_is_opened_by_its_own_name() {
        let allow = vec!["::1/128".parse().expect("network")];
        let policy = PeerPolicy { allow, ..policy() };
        assert_eq!(policy.judge(peer("::1", 50000)), Judgement::Peer);
        assert_eq!(policy.judge(peer("::2", 50000)), Judgement::Denied);
        assert_eq!(policy.judge(peer("127.0.0.1", 50000)), Judgement::Denied);
    }

    #[test]
    fn deny_beats_allow() {
        let nets = |text: &str| vec![text.parse().expect("network")];
        let policy = PeerPolicy { allow: nets("8.8.0.0/16"), deny: nets("8.8.8.0/24"), ..policy() };
        assert_eq!(policy.judge(peer("8.8.8.8", 1)), Judgement::Denied);
        assert_eq!(policy.judge(peer("64:ff9b::808:808", 1)), Judgement::Denied);
        assert_eq!(policy.judge(peer("8.8.9.8", 1)), Judgement::Peer);
    }

    #[test]
    fn bad_networks_say_why() {
        for (text, error) in [
            ("", CidrError::Address),
            ("10.0.0/8", CidrError::Address),
            ("10.0.0.0/33", CidrError::Prefix),
            ("::/129", CidrError::Prefix),
            ("10.0.0.0/x", CidrError::Prefix),
            ("10.0.0.1/8", CidrError::HostBits),
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(error), "{text}");
        }
        let all: Cidr = "0.0.0.0/0".parse().expect("network");
        assert!(all.contains("255.1.2.3".parse().expect("address")));
        assert!(!all.contains("::1".parse().expect("address")));
    }

    proptest! {
        #[test]
        fn membership_is_interval_arithmetic(net: u32, prefix in 0u8..=32, ip: u32) {
            let size = 1u128 << (32 - u32::from(prefix));
            let start = u128::from(net) / size * size;
            let first = Ipv4Addr::from_bits(u32::try_from(start).expect("masked"));
            let cidr: Cidr = format!("{first}/{prefix}").parse().expect("network");
            let inside = (start..start + size).contains(&u128::from(ip));
            prop_assert_eq!(cidr.contains(Ipv4Addr::from_bits(ip).into()), inside);
        }
    }
}
