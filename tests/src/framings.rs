//! How clients wrap what they relay, as the kernel sees it at the server's interface.
//!
//! The relay's own counters say how much it carried, not in what; an observer beside it also judges
//! them. Over TLS nothing can be seen.

use serde_json::Value;

use crate::counters::{Flow, Interface};
use crate::lab::WAN;
use crate::namespace::Namespace;
use crate::{Failure, Outcome};

/// Where clients of the laboratory find the relay.
const TURN_PORT: u16 = 3478;

/// Packets since [`watch`].
#[derive(Clone, Copy, Debug)]
pub struct Framings {
    /// ChannelData, from clients and to clients. Of TCP: segments that begin with it.
    pub channel: [u64; 2],
    /// Send indications from clients, Data indications to clients. Of TCP as above.
    pub indication: [u64; 2],
    /// All UDP, to and from relayed ports included: IP packets and their bytes.
    pub udp: Interface,
}

/// Starts to count in the server's namespace.
///
/// # Errors
/// nftables refuses.
pub fn watch(server: &Namespace) -> Outcome<()> {
    // ChannelData begins with the bits 01 (RFC 8656 §12.4). Indications are the method and class in
    // the first two bytes: Send 0x0016 from clients, Data 0x0017 to them (RFC 8656 §17).
    let rules = |direction: &str, interface: &str, port: &str, indication: &str| {
        let client = format!("{interface} {WAN} meta l4proto {{ tcp, udp }} {port} {TURN_PORT}");
        format!(
            "{interface} {WAN} meta l4proto udp counter name udp_{direction};
             {client} @ih,0,2 1 counter name channel_{direction};
             {client} @ih,0,16 {indication} counter name indication_{direction};"
        )
    };
    let counters: String = ["udp", "channel", "indication"]
        .iter()
        .flat_map(|kind| {
            ["rx", "tx"].map(|direction| format!("counter {kind}_{direction} {{ }}\n"))
        })
        .collect();
    server.nft(&format!(
        "table inet framings {{
           {counters}
           chain incoming {{ type filter hook prerouting priority raw; {} }}
           chain outgoing {{ type filter hook postrouting priority srcnat; {} }}
         }}",
        rules("rx", "iifname", "th dport", "0x0016"),
        rules("tx", "oifname", "th sport", "0x0017"),
    ))
}

/// What was counted so far.
///
/// # Errors
/// [`watch`] was not called.
pub fn read(server: &Namespace) -> Outcome<Framings> {
    let text = server.run("nft", &["-j", "list", "counters", "table", "inet", "framings"])?;
    let json: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("{error} in nftables' {text}")))?;
    let find = |name: &str| {
        let counters = json["nftables"].as_array()?.iter().map(|entry| &entry["counter"]);
        let counter = counters.into_iter().find(|counter| counter["name"] == name)?;
        Some(Flow { packets: counter["packets"].as_u64()?, bytes: counter["bytes"].as_u64()? })
    };
    let flow = |kind: &str, direction: &str| {
        let name = format!("{kind}_{direction}");
        find(&name).ok_or_else(|| Failure::new(format!("no counter {name} in {text}")))
    };
    let packets =
        |kind: &str| Ok::<_, Failure>([flow(kind, "rx")?.packets, flow(kind, "tx")?.packets]);
    Ok(Framings {
        channel: packets("channel")?,
        indication: packets("indication")?,
        udp: Interface { rx: flow("udp", "rx")?, tx: flow("udp", "tx")? },
    })
}
