//! What the kernel counted: interfaces, and nftables for what is not the relay's.

use std::ops::Sub;

use serde_json::Value;

use crate::lab::WAN;
use crate::namespace::Namespace;
use crate::{Failure, Outcome};

/// Ethernet header that interface counters include, in bytes per packet.
const ETHERNET: u64 = 14;

/// Packets and bytes in one direction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flow {
    /// Datagrams or packets.
    pub packets: u64,
    /// Bytes; the field that holds the value says from which layer upwards.
    pub bytes: u64,
}

impl Flow {
    /// Counts one packet of `bytes`.
    pub fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += u64::try_from(bytes).expect("lengths fit 64 bits");
    }
}

impl std::ops::AddAssign for Flow {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

impl Sub for Flow {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { packets: self.packets - before.packets, bytes: self.bytes - before.bytes }
    }
}

/// IP packets that crossed an interface, Ethernet headers left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Into the namespace.
    pub rx: Flow,
    /// Out of it.
    pub tx: Flow,
}

impl Sub for Interface {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { rx: self.rx - before.rx, tx: self.tx - before.tx }
    }
}

/// Reads the kernel's counters of the interface [`WAN`] in one request.
///
/// # Errors
/// The namespace has no such interface.
pub fn interface(namespace: &Namespace) -> Outcome<Interface> {
    let args = ["-n", namespace.name(), "-s", "-j", "link", "show", "dev", WAN];
    let text = crate::namespace::run(std::process::Command::new("ip").args(args), "")?;
    let json: Value = parse(&text)?;
    let side = |side: &str| {
        let number = |field: &str| json[0]["stats64"][side][field].as_u64();
        let (packets, bytes) = (number("packets")?, number("bytes")?);
        Some(Flow { packets, bytes: bytes - ETHERNET * packets })
    };
    side("rx")
        .zip(side("tx"))
        .map(|(rx, tx)| Interface { rx, tx })
        .ok_or_else(|| Failure::new(format!("no interface counters in {text}")))
}

/// Starts to tell apart, beside the interface's counters, what [`Kinds`] names.
///
/// # Errors
/// nftables refuses.
pub fn count_kinds(namespace: &Namespace) -> Outcome<()> {
    // The magic cookie of STUN is the second word of the datagram, or the third behind the
    // ChannelData header. Media has random bits there: one packet in 2^32 is misjudged.
    let rules = |direction: &str, interface: &str| {
        format!(
            "{interface} {WAN} meta l4proto != udp counter name other_{direction};
             {interface} {WAN} meta l4proto udp @th,96,32 0x2112a442 \
               counter name stun_{direction} return;
             {interface} {WAN} meta l4proto udp @th,128,32 0x2112a442 \
               counter name stun_{direction};"
        )
    };
    namespace.nft(&format!(
        "table inet kinds {{
           counter other_rx {{ }}
           counter other_tx {{ }}
           counter stun_rx {{ }}
           counter stun_tx {{ }}
           chain incoming {{ type filter hook prerouting priority raw; {} }}
           chain outgoing {{ type filter hook postrouting priority srcnat; {} }}
         }}",
        rules("rx", "iifname"),
        rules("tx", "oifname"),
    ))
}

/// IP packets by kind, as far as they are not media.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    /// Not UDP: the page, its WebSocket, ICMP.
    pub other: Interface,
    /// STUN and TURN messages, those inside ChannelData (the checks of ICE) included. Send and
    /// Data indications count whole, with their payload.
    pub stun: Interface,
}

/// What [`count_kinds`] has counted.
///
/// # Errors
/// It was not started.
pub fn kinds(namespace: &Namespace) -> Outcome<Kinds> {
    let text = namespace.run("nft", &["-j", "list", "counters", "table", "inet", "kinds"])?;
    let json: Value = parse(&text)?;
    let none = || Failure::new(format!("no counters in {text}"));
    let find = |name: &str| {
        let counters = json["nftables"].as_array()?.iter().map(|entry| &entry["counter"]);
        let counter = counters.into_iter().find(|counter| counter["name"] == name)?;
        Some(Flow { packets: counter["packets"].as_u64()?, bytes: counter["bytes"].as_u64()? })
    };
    let both = |kind: &str| {
        let rx = find(&format!("{kind}_rx")).ok_or_else(none)?;
        let tx = find(&format!("{kind}_tx")).ok_or_else(none)?;
        Ok::<_, Failure>(Interface { rx, tx })
    };
    Ok(Kinds { other: both("other")?, stun: both("stun")? })
}

fn parse(text: &str) -> Outcome<Value> {
    serde_json::from_str(text).map_err(|error| Failure::new(format!("{error} in {text}")))
}
