//! The place of a run: a relay on one end of a cable, clients and peers on the other.
//!
//! ```text
//!  relay 198.51.100.1, 2001:db8::1 ── veth pair ── peers 198.51.100.2 to .254, 2001:db8::/64
//!        10.0.0.1 on loopback                      clients 198.18.0.0/15, 2001:db8:c000::/36
//! ```
//!
//! Every client has a /24 or /48 of its own, so that what a server remembers of one prefix does
//! not reach the next check. Nothing is connected to the machine's own interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::{Uid, getpid};

use crate::Outcome;
use crate::namespace::{Namespace, remove, remove_leftovers};
use crate::process::installed;

/// Where the relay listens and opens its ports.
pub const RELAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The same over IPv6.
pub const RELAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// Where peers are.
pub const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
/// Where peers are over IPv6.
pub const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 3);
/// What a relay under test must be allowed to reach.
pub const PEER_NETWORKS: [&str; 2] = ["198.51.100.0/24", "2001:db8::/32"];
/// A private address of the relay's host.
pub const RELAY_PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// STUN and TURN over UDP and TCP.
pub const TURN_PORT: u16 = 3478;
/// Binding only.
pub const STUN_PORT: u16 = 3479;
/// TURN over TLS.
pub const TLS_PORT: u16 = 5349;
/// An address whose NAT keeps ports, and one whose NAT draws a port for every destination.
pub const NAT_CONE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 40);
/// See [`NAT_CONE`].
pub const NAT_SYMMETRIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 41);

/// Our namespaces begin like this, followed by the process that made them.
const PREFIX: &str = "castling-wire-";
/// The cable's name on both ends.
pub const DEVICE: &str = "wan0";

/// Both namespaces. Dropping it removes them.
#[derive(Debug)]
pub struct Site {
    /// The relay's.
    pub server: Namespace,
    /// That of clients and peers.
    pub world: Namespace,
}

impl Site {
    /// Builds it. What runs that were killed have left is removed first.
    ///
    /// # Errors
    /// Whatever the kernel or a tool refuses.
    pub fn build() -> Outcome<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        remove_leftovers(PREFIX)?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = |role: &str| format!("{PREFIX}{}-{serial}-{role}", getpid());
        let server = Namespace::create(&name("relay"))?;
        let world = Namespace::create(&name("world"));
        let world = world.inspect_err(|_| drop(remove(server.name())))?;
        // From here on dropping the site cleans up.
        let site = Self { server, world };
        site.connect()?;
        Ok(site)
    }

    fn connect(&self) -> Outcome<()> {
        for namespace in [&self.server, &self.world] {
            namespace.sysctl(&[
                "net.ipv6.conf.all.disable_ipv6=0",
                "net.ipv6.conf.default.disable_ipv6=0",
                "net.ipv6.conf.default.accept_dad=0",
                "net.ipv6.conf.default.router_solicitations=0",
                // Checks bind any address of a client's prefix.
                "net.ipv6.ip_nonlocal_bind=1",
                // Peers that are closed on purpose say so every time.
                "net.ipv4.icmp_ratelimit=0",
                "net.ipv6.icmp.ratelimit=0",
            ])?;
        }
        self.server.ip(&format!(
            "link add {DEVICE} type veth peer name {DEVICE} netns {}\n\
             addr add {RELAY}/24 dev {DEVICE}\n\
             addr add {RELAY_V6}/64 dev {DEVICE} nodad\n\
             addr add {RELAY_PRIVATE}/32 dev lo\n\
             link set {DEVICE} up\n\
             route add 198.18.0.0/15 via 198.51.100.2\n\
             route add 2001:db8:c000::/36 via 2001:db8::2",
            self.world.name(),
        ))?;
        // Everything that is not the relay is here.
        self.world.ip(&format!(
            "addr add 198.51.100.2/24 dev {DEVICE}\n\
             addr add {PEER}/24 dev {DEVICE}\n\
             addr add {NAT_CONE}/24 dev {DEVICE}\n\
             addr add {NAT_SYMMETRIC}/24 dev {DEVICE}\n\
             addr add 2001:db8::2/64 dev {DEVICE} nodad\n\
             addr add {PEER_V6}/64 dev {DEVICE} nodad\n\
             link set {DEVICE} up\n\
             route add local 198.51.100.64/26 dev lo\n\
             route add local 198.51.100.128/26 dev lo\n\
             route add local 198.18.0.0/15 dev lo\n\
             route add local 2001:db8:c000::/36 dev lo",
        ))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.world] {
            // Nothing is left to be done about a failure here; the next run tries again.
            let _ = remove(namespace.name());
        }
    }
}

/// A family's addresses of the site.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The relay's listener on `port`.
    #[must_use]
    pub fn relay(self, port: u16) -> SocketAddr {
        match self {
            Self::V4 => (RELAY, port).into(),
            Self::V6 => (RELAY_V6, port).into(),
        }
    }

    /// Where peers are.
    #[must_use]
    pub fn peer(self) -> IpAddr {
        match self {
            Self::V4 => PEER.into(),
            Self::V6 => PEER_V6.into(),
        }
    }

    /// The address of the `nth` client, alone in its prefix.
    #[must_use]
    pub fn client(self, nth: u16) -> IpAddr {
        let [high, low] = nth.to_be_bytes();
        match self {
            Self::V4 => Ipv4Addr::new(198, 18 + high % 2, low, 2).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xc000 | (nth & 0x0FFF), 0, 0, 0, 0, 2).into(),
        }
    }
}

/// What a run lacks on this machine, in words; `None` if it can begin.
#[must_use]
pub fn missing() -> Option<String> {
    if !Uid::effective().is_root() {
        return Some("needs root".to_owned());
    }
    let tools = [
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("sysctl", "procps"),
        ("setpriv", "util-linux"),
        ("openssl", "openssl"),
    ];
    let lacking = tools.iter().find(|(tool, _)| !installed(tool));
    lacking.map(|(tool, package)| format!("needs {tool} (Debian package {package})"))
}
