//! PRM-06 to PRM-10: which peers a server may be used to reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::permission::{other_peer, permit};
use super::relayed::{arrived, outward};
use crate::conformance::attr;
use crate::conformance::client::{Client, indication};
use crate::conformance::message::{BINDING, CHANNEL_BIND, Draft, IPV6, channel_data};
use crate::conformance::probe::Probe;
use crate::conformance::server::Setup::{Default, Reload};
use crate::conformance::site::{Family, RELAY};
use crate::conformance::trial::Trial;
use crate::conformance::verdict::{Answer, Verdict};
use crate::process::until;
use crate::{Failure, Outcome};

/// Of every range that no peer of a class is in; the server's own address comes with port 80.
const SPECIAL_V4: [&str; 16] = [
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "127.255.1.2",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "198.51.100.1",
];
const SPECIAL_V6: [&str; 15] = [
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::1",
    "2001:0:7f00:1::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
];
/// 6to4, Teredo (server, then client inverted), ISATAP and NAT64 around 10.0.0.1 and the server.
const EMBEDDED: [&str; 10] = [
    "2002:a00:1::1",
    "2002:c633:6401::1",
    "2001:0:a00:1::1",
    "2001:0:808:808:0:0:f5ff:fffe",
    "2001:0:808:808:0:0:39cc:9bfe",
    "2a00:1::5efe:a00:1",
    "2a00:1::200:5efe:c633:6401",
    "2a00:1::5efe:c633:6401",
    "64:ff9b::a00:1",
    "64:ff9b::c633:6401",
];
/// What an attacker is after on the relay's host: DNS, SNMP, a web server.
const SERVICES: [u16; 3] = [53, 161, 80];
pub const PROBES: &[Probe] = &[
    Probe::wire(
        "PRM-06",
        "8656 §10.2, §21.2",
        "CreatePermission for 16 special-use IPv4 peers, default policy",
        "403 for all 16",
        Default,
        |trial| refused(trial, Family::V4, &SPECIAL_V4, permit_numbered),
    ),
    Probe::wire(
        "PRM-07",
        "8656 §21.4",
        "CreatePermission for 15 special-use IPv6 peers on an IPv6 allocation, default policy",
        "403 for all 15",
        Default,
        |trial| refused(trial, Family::V6, &SPECIAL_V6, permit_numbered),
    ),
    Probe::wire(
        "PRM-07",
        "8656 §21.4",
        "the same on an IPv4 allocation",
        "403 for all 15, before any 443",
        Default,
        |trial| refused(trial, Family::V4, &SPECIAL_V6, permit_numbered),
    ),
    Probe::wire(
        "PRM-08",
        "8656 §21.4",
        "6to4, Teredo, ISATAP and NAT64 peers around own or private IPv4, default policy",
        "403 for all 10",
        Default,
        |trial| refused(trial, Family::V6, &EMBEDDED, permit_numbered),
    ),
    Probe::wire(
        "PRM-09",
        "hardening",
        "ChannelBind to the same IPv4 peers",
        "403 for all 16",
        Default,
        |trial| refused(trial, Family::V4, &SPECIAL_V4, bind_numbered),
    ),
    Probe::wire(
        "PRM-09",
        "hardening",
        "ChannelBind to the same IPv6 peers",
        "403 for all 25",
        Default,
        |trial| {
            let peers = [&SPECIAL_V6[..], &EMBEDDED].concat();
            refused(trial, Family::V6, &peers, bind_numbered)
        },
    ),
    Probe::wire(
        "PRM-09",
        "hardening",
        "Send and ChannelData to the IPv4 peers; DNS, SNMP and web services of the host listen",
        "nothing arrives, all is counted as refused",
        Default,
        |trial| sent(trial, Family::V4, &SPECIAL_V4),
    ),
    Probe::wire(
        "PRM-09",
        "hardening",
        "Send and ChannelData to the IPv6 peers; the same services listen",
        "nothing arrives, all is counted as refused",
        Default,
        |trial| sent(trial, Family::V6, &[&SPECIAL_V6[..], &EMBEDDED].concat()),
    ),
    Probe::wire(
        "PRM-09",
        "hardening",
        "Send to the host's services with a permission for the relay's own address",
        "nothing arrives, all is counted peer_denied",
        Default,
        sent_to_itself,
    ),
    Probe::wire(
        "PRM-10",
        "hardening",
        "reload narrows the policy while a permission and a channel live",
        "what was permitted is dropped from then on",
        Reload,
        narrowed,
    ),
];

fn permit_numbered(client: &Client, peer: SocketAddr, _nth: u16) -> Outcome<Answer> {
    permit(client, peer)
}

fn bind_numbered(client: &Client, peer: SocketAddr, nth: u16) -> Outcome<Answer> {
    client.request(Draft::request(CHANNEL_BIND).channel(0x4000 + nth).peer(peer))
}

fn allocated(trial: &Trial<'_>, family: Family) -> Outcome<Client> {
    let mut client = trial.client()?;
    client.allocate_with(match family {
        Family::V4 => Draft::allocate(),
        Family::V6 => Draft::allocate().with(attr::REQUESTED_ADDRESS_FAMILY, &IPV6),
    })?;
    Ok(client)
}

fn parsed(peers: &[&str], port: u16) -> Outcome<Vec<SocketAddr>> {
    let wrong = |text: &str| Failure::new(format!("{text} is no address"));
    let parse = |text: &&str| text.parse::<IpAddr>().map_err(|_| wrong(text));
    peers.iter().map(|text| Ok(SocketAddr::new(parse(text)?, port))).collect()
}

/// Asks for every peer; each must be answered with 403.
fn refused(
    trial: &Trial<'_>,
    family: Family,
    peers: &[&str],
    ask: fn(&Client, SocketAddr, u16) -> Outcome<Answer>,
) -> Outcome<Verdict> {
    let client = allocated(trial, family)?;
    let (mut count, mut others) = (0, Vec::new());
    for (nth, peer) in (0..).zip(parsed(peers, 80)?) {
        let answer = ask(&client, peer, nth)?;
        if answer.error(&[403]).passed {
            count += 1;
        } else {
            others.push(format!("{answer} for {}", peer.ip()));
        }
    }
    if others.is_empty() {
        return Ok(Verdict::of(true, format_args!("403 for all {count}")));
    }
    let accepted = others.iter().filter(|text| text.starts_with("success")).count();
    let text = format!("403 for {count}, {accepted} accepted; such as {}", others[0]);
    Ok(Verdict::of(false, text))
}

/// Tries everything to get a datagram to services of the host, and listens there.
fn sent(trial: &Trial<'_>, family: Family, peers: &[&str]) -> Outcome<Verdict> {
    let client = allocated(trial, family)?;
    let services = services(trial)?;
    let before = refusals(trial)?;
    let mut sent = 0;
    for (port, first) in SERVICES.into_iter().zip([0x4000, 0x4100, 0x4200]) {
        for (nth, peer) in (first..).zip(parsed(peers, port)?) {
            // Whatever these answer: payload must not arrive.
            permit(&client, peer)?;
            client.request(Draft::request(CHANNEL_BIND).channel(nth).peer(peer))?;
            client.send_to(peer, b"who is there?")?;
            client.send(&channel_data(nth, b"who is there?"))?;
            sent += 2;
        }
    }
    finish(trial, &client, &services, sent, before)
}

/// A permission for the relay's own address is for relayed ports, not for its host's services.
fn sent_to_itself(trial: &Trial<'_>) -> Outcome<Verdict> {
    let client = trial.allocated()?;
    let services = services(trial)?;
    client.permit((RELAY, trial.allocated()?.relayed()?.port()).into())?;
    let before = refusals(trial)?;
    let denied = trial.dropped("peer_denied")?;
    for port in SERVICES {
        client.send_to((RELAY, port).into(), b"who is there?")?;
    }
    let all = finish(trial, &client, &services, SERVICES.len() as u64, before)?;
    let denied = trial.dropped("peer_denied")? - denied == SERVICES.len() as u64;
    let counts = trial.server.metrics(trial.site)?.is_some();
    Ok(Verdict { passed: all.passed && (denied || !counts), ..all })
}

/// What listens on every address of the relay's host.
fn services(trial: &Trial<'_>) -> Outcome<Vec<UdpSocket>> {
    let listen = |port: &u16| -> Outcome<[UdpSocket; 2]> {
        let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, *port))?;
        let v6 = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None)?;
        v6.set_only_v6(true)?;
        v6.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), *port).into())?;
        Ok([v4, v6.into()])
    };
    trial.site.server.within(|| {
        let pairs: Outcome<Vec<_>> = SERVICES.iter().map(listen).collect();
        Ok(pairs?.into_iter().flatten().collect())
    })
}

/// Payload from clients that our relay refused to pass on so far.
fn refusals(trial: &Trial<'_>) -> Outcome<u64> {
    let reasons = ["peer_denied", "no_permission", "no_channel"];
    reasons.iter().map(|reason| trial.dropped(reason)).sum()
}

/// Passes if no service got anything and our relay counted all that was `sent` as refused.
fn finish(
    trial: &Trial<'_>,
    client: &Client,
    services: &[UdpSocket],
    sent: u64,
    before: u64,
) -> Outcome<Verdict> {
    // Answered when all before it was dealt with.
    client.ask(&Draft::request(BINDING))?.succeeded("Binding")?;
    let mut arrived = 0;
    for service in services {
        service.set_read_timeout(Some(Duration::from_millis(20)))?;
        while service.recv_from(&mut [0; 64]).is_ok() {
            arrived += 1;
        }
    }
    let said = format!("{arrived} of {sent} arrive");
    if trial.server.metrics(trial.site)?.is_none() {
        return Ok(Verdict::of(arrived == 0, said));
    }
    let counted = refusals(trial)? - before;
    Ok(Verdict::of(
        arrived == 0 && counted == sent,
        format!("{said}, {counted} counted as refused"),
    ))
}

fn narrowed(trial: &Trial<'_>) -> Outcome<Verdict> {
    let (client, peer, other) = (trial.allocated()?, trial.peer()?, other_peer()?);
    client.permit(peer.address)?;
    client.bind(0x4000, other.address)?;
    let stimulus = indication(peer.address, b"before");
    let before = arrived(outward(&client, stimulus.bytes(), &peer, &other)?, b"before");
    trial.server.close_peers(trial.site)?;
    let reaches = || -> Outcome<bool> {
        client.send_to(peer.address, b"after")?;
        client.send(&channel_data(0x4000, b"after"))?;
        client.ask(&Draft::request(BINDING))?.succeeded("Binding")?;
        let wait = Duration::from_millis(20);
        Ok(peer.next(wait)?.is_some() | other.next(wait)?.is_some())
    };
    // The file is read while packets go on; from some packet on none passes.
    let stopped = until(Duration::from_secs(2), || match reaches() {
        Ok(true) => None,
        Ok(false) => Some(Ok(())),
        Err(error) => Some(Err(error)),
    });
    stopped.clone().transpose()?;
    let after = if stopped.is_some() { "dropped after it" } else { "arrives after it" };
    Ok(before.and(Verdict::of(stopped.is_some(), after)))
}
