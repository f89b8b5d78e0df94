//! A NAT laboratory in network namespaces.
//!
//! ```text
//!  wan  bridge 203.0.113.0/24, gateway .1 (drops anything to 10.0.0.0/8)
//!   ├─ server  .10            signalling and relay, default route by .1
//!   ├─ router1 .21 ── client1 10.1.1.2/24
//!   └─ routerN .(20+N) ── clientN 10.1.N.2/24, or clientN itself at .(20+N) without a router
//! ```
//!
//! All addresses are for documentation or private use, and nothing is connected to the machine's
//! own interfaces. Neighbours are static and offloads are off, so that a packet of the kernel's
//! counters is a packet of the wire and no ARP disturbs exact sums.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::{Uid, getpid};

use crate::Outcome;
use crate::namespace::{Namespace, remove, remove_leftovers};

/// Where the programs under test live.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// Name of the interface on the WAN, in the server, in routers and in public clients.
pub const WAN: &str = "wan0";
/// Most clients of a laboratory: the last octet of their addresses is 20 + number.
pub const CLIENTS_MAX: usize = 100;

/// All our namespaces begin like this, followed by the process that made them.
const PREFIX: &str = "castling-";
/// Name of a client's interface behind its router, and of the router's towards it.
const LAN: &str = "lan0";

/// What stands between a client and the WAN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Network {
    /// Nothing: an address of its own on the WAN.
    Public,
    /// A NAT that keeps ports: the usual home router.
    Cone,
    /// A NAT with a random port per destination: mobile networks.
    Symmetric,
    /// A NAT whose firewall drops all UDP except to and from the server's address.
    Firewall,
    /// As `Firewall`, but of the server only the port 3478: two such people meet at the relay.
    TurnPortOnly,
    /// A NAT whose firewall drops all UDP.
    NoUdp,
}

/// A running laboratory. Dropping it removes every namespace, and with them all interfaces.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    made: Vec<Namespace>,
    clients: Vec<Namespace>,
}

impl Lab {
    /// Builds one client behind each of `networks`. Leftovers of dead processes are removed first.
    ///
    /// # Errors
    /// Whatever the kernel or a tool refuses.
    pub fn build(networks: &[Network]) -> Outcome<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        assert!(networks.len() <= CLIENTS_MAX, "at most {CLIENTS_MAX} clients");
        remove_leftovers(PREFIX)?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{serial}", getpid());
        let mut lab = Self { prefix, made: Vec::new(), clients: Vec::new() };
        lab.add_wan()?;
        let server = lab.add("server")?;
        lab.plug(&server, host(SERVER))?;
        for (index, network) in networks.iter().enumerate() {
            lab.add_client(index + 1, *network)?;
        }
        lab.introduce_neighbours(networks)?;
        Ok(lab)
    }

    /// The namespace of the programs under test, at [`SERVER`].
    #[must_use]
    pub fn server(&self) -> &Namespace {
        &self.made[1]
    }

    /// The client at `index`, from 0, in the order of the networks given.
    #[must_use]
    pub fn client(&self, index: usize) -> &Namespace {
        &self.clients[index]
    }

    /// The router of the client at `index`, unless its address is its own.
    #[must_use]
    pub fn router(&self, index: usize) -> Option<&Namespace> {
        let name = format!("{}-router{}", self.prefix, index + 1);
        self.made.iter().find(|namespace| namespace.name() == name)
    }

    /// The address that the WAN sees of the client at `index`.
    #[must_use]
    pub fn public_address(index: usize) -> Ipv4Addr {
        wan_address(number(index + 21))
    }

    fn add(&mut self, role: &str) -> Outcome<Namespace> {
        let made = Namespace::create(&format!("{}-{role}", self.prefix))?;
        self.made.push(made.clone());
        Ok(made)
    }

    fn add_wan(&mut self) -> Outcome<()> {
        let wan = self.add("wan")?;
        wan.ip(&format!(
            "link add {WAN} address {} type bridge stp_state 0 mcast_snooping 0\n\
             addr add {}/24 dev {WAN}\n\
             link set {WAN} up",
            mac(1),
            wan_address(1),
        ))?;
        // The gateway only has to exist: a packet for a private address dies there, silently.
        wan.sysctl(&["net.ipv4.ip_forward=1"])?;
        wan.nft(
            "table ip lab {
               chain onward { type filter hook forward priority filter; policy accept;
                 ip daddr 10.0.0.0/8 drop; }
               chain local { type filter hook input priority filter; policy drop; }
             }",
        )
    }

    /// Gives `namespace` the interface [`WAN`] with the last octet `host`.
    fn plug(&self, namespace: &Namespace, host: u8) -> Outcome<()> {
        let wan = &self.made[0];
        let port = format!("port{host}");
        namespace.ip(&format!(
            "link add {WAN} address {} type veth peer name {port} netns {}\n\
             addr add {}/24 dev {WAN}\n\
             link set {WAN} up\n\
             route add default via {}",
            mac(host),
            wan.name(),
            wan_address(host),
            wan_address(1),
        ))?;
        // Nothing is flooded: a frame for somebody else must not count at the server's interface.
        wan.ip(&format!(
            "link set {port} master {WAN} up\n\
             link set {port} type bridge_slave flood off mcast_flood off bcast_flood off learning off",
        ))?;
        wan.run("bridge", &["fdb", "replace", &mac(host), "dev", &port, "master", "static"])?;
        plain_packets(wan, &port)?;
        plain_packets(namespace, WAN)
    }

    fn add_client(&mut self, nth: usize, network: Network) -> Outcome<()> {
        let (nth, host) = (number(nth), number(nth + 20));
        if network == Network::Public {
            let client = self.add(&format!("client{nth}"))?;
            self.plug(&client, host)?;
            self.clients.push(client);
            return Ok(());
        }
        let router = self.add(&format!("router{nth}"))?;
        self.plug(&router, host)?;
        let client = self.add(&format!("client{nth}"))?;
        router.ip(&format!(
            "link add {LAN} address 02:00:0a:01:{nth:02x}:01 type veth peer name {LAN} \
             address 02:00:0a:01:{nth:02x}:02 netns {}\n\
             addr add 10.1.{nth}.1/24 dev {LAN}\n\
             link set {LAN} up\n\
             neigh replace 10.1.{nth}.2 lladdr 02:00:0a:01:{nth:02x}:02 dev {LAN} nud permanent",
            client.name(),
        ))?;
        client.ip(&format!(
            "addr add 10.1.{nth}.2/24 dev {LAN}\n\
             link set {LAN} up\n\
             route add default via 10.1.{nth}.1\n\
             neigh replace 10.1.{nth}.1 lladdr 02:00:0a:01:{nth:02x}:01 dev {LAN} nud permanent",
        ))?;
        plain_packets(&router, LAN)?;
        plain_packets(&client, LAN)?;
        router.sysctl(&["net.ipv4.ip_forward=1"])?;
        router.nft(&router_rules(network))?;
        self.clients.push(client);
        Ok(())
    }

    /// Everybody on the WAN knows everybody's hardware address from the start.
    fn introduce_neighbours(&self, networks: &[Network]) -> Outcome<()> {
        let hosts: Vec<u8> =
            [1, host(SERVER)].into_iter().chain((21..).take(networks.len())).collect();
        let stations = self.made.iter().filter(|namespace| {
            // A client behind a router has no interface on the WAN.
            !self.is_client(namespace) || self.is_public(namespace, networks)
        });
        for (station, own) in stations.zip(&hosts) {
            let others = hosts.iter().filter(|host| *host != own).map(|host| {
                let address = wan_address(*host);
                format!("neigh replace {address} lladdr {} dev {WAN} nud permanent\n", mac(*host))
            });
            station.ip(&others.collect::<String>())?;
        }
        Ok(())
    }

    fn is_client(&self, namespace: &Namespace) -> bool {
        self.clients.iter().any(|client| client.name() == namespace.name())
    }

    fn is_public(&self, namespace: &Namespace, networks: &[Network]) -> bool {
        let at = self.clients.iter().position(|client| client.name() == namespace.name());
        at.is_some_and(|index| networks[index] == Network::Public)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.made {
            // Nothing is left to be done about a failure here; the next laboratory tries again.
            let _ = remove(namespace.name());
        }
    }
}

/// What the laboratory lacks on this machine, in words; `None` if it can be built.
#[must_use]
pub fn missing() -> Option<String> {
    if !Uid::effective().is_root() {
        return Some("needs root".to_owned());
    }
    let tools =
        [("ip", "iproute2"), ("nft", "nftables"), ("ethtool", "ethtool"), ("sysctl", "procps")];
    let lacking = tools.iter().find(|(tool, _)| !crate::process::installed(tool));
    lacking.map(|(tool, package)| format!("needs {tool} (Debian package {package})"))
}

fn router_rules(network: Network) -> String {
    let masquerade = match network {
        Network::Symmetric => "masquerade fully-random",
        _ => "masquerade",
    };
    let firewall = match network {
        Network::Firewall => format!("meta l4proto udp ip daddr != {SERVER} drop;"),
        Network::TurnPortOnly => {
            format!("meta l4proto udp ip daddr != {SERVER} drop; udp dport != 3478 drop;")
        }
        Network::NoUdp => "meta l4proto udp drop;".to_owned(),
        Network::Public | Network::Cone | Network::Symmetric => String::new(),
    };
    // Unsolicited input must not reach the router itself: conntrack would keep the port of a
    // peer's early probe, and two port-preserving NATs could not meet.
    format!(
        "table ip lab {{
           chain outgoing {{ type nat hook postrouting priority srcnat;
             oifname {WAN} {masquerade}; }}
           chain from_inside {{ {firewall} accept; }}
           chain onward {{ type filter hook forward priority filter; policy drop;
             iifname {LAN} oifname {WAN} jump from_inside;
             ct state established,related accept; }}
           chain local {{ type filter hook input priority filter; policy accept;
             iifname {WAN} drop; }}
         }}"
    )
}

/// Turns off whatever merges packets on their way, so that the kernel counts what the wire has.
fn plain_packets(namespace: &Namespace, device: &str) -> Outcome<()> {
    let features =
        ["gro", "gso", "tso", "tx-udp-segmentation", "rx-gro-list", "rx-udp-gro-forwarding"];
    let mut args = vec!["-K", device];
    for feature in features {
        args.extend([feature, "off"]);
    }
    namespace.run("ethtool", &args).map(drop)
}

fn host(address: Ipv4Addr) -> u8 {
    address.octets()[3]
}

fn number(value: usize) -> u8 {
    u8::try_from(value).expect("clients are fewer than CLIENTS_MAX")
}

fn wan_address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, host)
}

fn mac(host: u8) -> String {
    format!("02:00:cb:00:71:{host:02x}")
}
