//! CHN: channels.

use std::net::{Ipv4Addr, SocketAddr};

use super::relayed::{arrived, outward};
use crate::Outcome;
use crate::conformance::client::Client;
use crate::conformance::message::{CHANNEL_BIND, Draft, channel_data};
use crate::conformance::probe::Probe;
use crate::conformance::server::Setup::Open;
use crate::conformance::site::{PEER, PEER_V6, RELAY, RELAY_PRIVATE};
use crate::conformance::trial::Trial;
use crate::conformance::verdict::{Answer, Verdict};

/// Channels of one allocation that a server must not exceed.
const CAP: u16 = 64;

pub const PROBES: &[Probe] = &[
    Probe::wire("CHN-01", "8656 §12, §12.2", "ChannelBind 0x5000", "400", Open, |trial| {
        Ok(bind(&trial.allocated()?, 0x5000, (PEER, 9_000).into())?.error(&[400]))
    }),
    Probe::wire("CHN-02", "8656 §12, §12.2", "ChannelBind 0x7FFF", "400", Open, |trial| {
        Ok(bind(&trial.allocated()?, 0x7FFF, (PEER, 9_000).into())?.error(&[400]))
    }),
    Probe::wire("CHN-03", "8656 §12.2", "no CHANNEL-NUMBER", "400", Open, |trial| {
        let draft = Draft::request(CHANNEL_BIND).peer((PEER, 9_000).into());
        Ok(trial.allocated()?.request(draft)?.error(&[400]))
    }),
    Probe::wire("CHN-04", "8656 §12.2", "no XOR-PEER-ADDRESS", "400", Open, |trial| {
        let draft = Draft::request(CHANNEL_BIND).channel(0x4000);
        Ok(trial.allocated()?.request(draft)?.error(&[400]))
    }),
    Probe::wire(
        "CHN-05",
        "8656 §12.2",
        "peer already bound to another channel",
        "400, first binding kept",
        Open,
        |trial| {
            let (client, peer) = (trial.allocated()?, trial.peer()?);
            client.bind(0x4000, peer.address)?;
            let refused = bind(&client, 0x4001, peer.address)?.error(&[400]);
            Ok(refused.and(carries(trial, &client, 0x4000, &peer)?))
        },
    ),
    Probe::wire(
        "CHN-05",
        "8656 §12.2",
        "channel already bound to another peer",
        "400, first binding kept",
        Open,
        |trial| {
            let (client, peer) = (trial.allocated()?, trial.peer()?);
            client.bind(0x4000, peer.address)?;
            let refused = bind(&client, 0x4000, trial.peer()?.address)?.error(&[400]);
            Ok(refused.and(carries(trial, &client, 0x4000, &peer)?))
        },
    ),
    Probe::wire("CHN-06", "8656 §12.2", "same pair again", "success", Open, |trial| {
        let (client, peer) = (trial.allocated()?, trial.peer()?);
        client.bind(0x4000, peer.address)?;
        Ok(bind(&client, 0x4000, peer.address)?.success())
    }),
    Probe::wire(
        "CHN-07",
        "8656 §12.2",
        "retransmission, same transaction id",
        "the same success",
        Open,
        |trial| {
            let (client, peer) = (trial.allocated()?, trial.peer()?);
            let draft = Draft::request(CHANNEL_BIND).channel(0x4000).peer(peer.address);
            let draft = draft.signed(&client.session);
            let first = client.ask(&draft)?.succeeded("ChannelBind")?;
            Ok(client.ask(&draft)?.success_if(|second| second.bytes == first.bytes))
        },
    ),
    Probe::wire("CHN-08", "8656 §12.2", "IPv6 peer on an IPv4 allocation", "443", Open, |trial| {
        Ok(bind(&trial.allocated()?, 0x4000, (PEER_V6, 9_000).into())?.error(&[443]))
    }),
    Probe::wire("CHN-09", "8656 §12.2, §21.2", "peer 127.0.0.1", "403", Open, |trial| {
        Ok(bind(&trial.allocated()?, 0x4000, (Ipv4Addr::LOCALHOST, 9_000).into())?.error(&[403]))
    }),
    Probe::wire(
        "CHN-09",
        "8656 §12.2, §21.2",
        "own relay address, port 22",
        "403",
        Open,
        |trial| Ok(bind(&trial.allocated()?, 0x4000, (RELAY, 22).into())?.error(&[403])),
    ),
    Probe::wire("CHN-10", "8656 §12.2", "private address of the host", "403", Open, |trial| {
        Ok(bind(&trial.allocated()?, 0x4000, (RELAY_PRIVATE, 9_000).into())?.error(&[403]))
    }),
    Probe::wire(
        "CHN-10",
        "8656 §12.2; hardening",
        "one channel more than the cap of 64",
        "508",
        Open,
        |trial| {
            let client = trial.allocated()?;
            let peer = |nth| SocketAddr::from((PEER, 20_000 + nth));
            for nth in 0..CAP {
                bind(&client, 0x4000 + nth, peer(nth))?.succeeded("ChannelBind")?;
            }
            Ok(bind(&client, 0x4000 + CAP, peer(CAP))?.error(&[508]))
        },
    ),
];

fn bind(client: &Client, number: u16, peer: SocketAddr) -> Outcome<Answer> {
    client.request(Draft::request(CHANNEL_BIND).channel(number).peer(peer))
}

/// Whether ChannelData on this number reaches this peer.
fn carries(
    trial: &Trial<'_>,
    client: &Client,
    number: u16,
    peer: &crate::conformance::trial::Peer,
) -> Outcome<Verdict> {
    let witness = trial.peer()?;
    let got = outward(client, &channel_data(number, b"still"), peer, &witness)?;
    Ok(arrived(got, b"still"))
}
