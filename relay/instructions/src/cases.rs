//! What is counted: each kind of media packet, and the requests that come in storms.

use std::hint::black_box;
use std::net::SocketAddr;

use relay_proto::stun::{Class, Method};
use relay_proto::{PeerAddr, Verdict, attribute as attr};

use crate::bench::{Bench, allocate, counted};

/// How often each case is run; all of them with the same figures, or nearly.
pub const ROUNDS: u64 = 500;
/// Payload of a media packet in bytes, as a video call makes them.
const PAYLOAD: [u8; 1_100] = [0x80; 1_100];
const NUMBER: u16 = 0x4000;

/// Something to be counted.
pub struct Case {
    /// The word in the file of figures.
    pub name: &'static str,
    /// Prepares it, and runs it [`ROUNDS`] times inside [`counted`].
    pub run: fn(),
}

/// Every case.
pub const ALL: [Case; 9] = [
    Case { name: "channel_up", run: channel_up },
    Case { name: "channel_down", run: channel_down },
    Case { name: "send_indication", run: send_indication },
    Case { name: "data_indication", run: data_indication },
    Case { name: "hairpin", run: hairpin },
    Case { name: "refused_peer", run: refused_peer },
    Case { name: "challenge", run: challenge },
    Case { name: "refresh", run: refresh },
    Case { name: "allocate_release", run: allocate_release },
];

impl Case {
    /// The case of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|case| case.name == name)
    }
}

/// ChannelData from a client to a peer.
fn channel_up() {
    let mut bench = Bench::new();
    let (client, ..) = bench.member(1);
    bench.bind(&client, NUMBER, peer(1));
    let packet = channel_data();
    rounds(|| {
        let verdict = bench.relay.from_client(bench.now, client.addr, &packet);
        assert!(matches!(black_box(verdict), Verdict::ToPeer { .. }));
    });
}

/// A peer's datagram to a client as ChannelData.
fn channel_down() {
    let mut bench = Bench::new();
    let (client, id, _) = bench.member(1);
    bench.bind(&client, NUMBER, peer(1));
    rounds(|| {
        let verdict = bench.relay.from_peer(bench.now, id, PeerAddr(peer(1)), &PAYLOAD);
        assert!(matches!(black_box(verdict), Verdict::ToClient { .. }));
    });
}

/// A Send indication from a client to a peer.
fn send_indication() {
    let mut bench = Bench::new();
    let (client, ..) = bench.member(1);
    bench.permit(&client, peer(1));
    let packet = bench.message(Method::Send, Class::Indication, |writer| {
        writer.xor_address(attr::XOR_PEER_ADDRESS, peer(1)).attribute(attr::DATA, &PAYLOAD)
    });
    rounds(|| {
        let verdict = bench.relay.from_client(bench.now, client.addr, &packet);
        assert!(matches!(black_box(verdict), Verdict::ToPeer { .. }));
    });
}

/// A peer's datagram to a client as a Data indication.
fn data_indication() {
    let mut bench = Bench::new();
    let (client, id, _) = bench.member(1);
    bench.permit(&client, peer(1));
    rounds(|| {
        let verdict = bench.relay.from_peer(bench.now, id, PeerAddr(peer(1)), &PAYLOAD);
        assert!(matches!(black_box(verdict), Verdict::ToClient { .. }));
    });
}

/// ChannelData from a client through its allocation and another one to that one's client.
fn hairpin() {
    let mut bench = Bench::new();
    let ((ana, _, ana_at), (ben, _, ben_at)) = (bench.member(1), bench.member(2));
    bench.bind(&ana, NUMBER, ben_at.0);
    bench.bind(&ben, NUMBER, ana_at.0);
    let packet = channel_data();
    rounds(|| {
        let verdict = bench.relay.from_client(bench.now, ana.addr, &packet);
        let Verdict::Hairpin { from, to, payload, .. } = verdict else { panic!("{verdict:?}") };
        let verdict = bench.relay.from_relay(bench.now, from, to, payload);
        assert!(matches!(black_box(verdict), Verdict::ToClient { .. }));
    });
}

/// A datagram from a peer that nobody permitted.
fn refused_peer() {
    let mut bench = Bench::new();
    let (client, id, _) = bench.member(1);
    bench.bind(&client, NUMBER, peer(1));
    rounds(|| {
        let verdict = bench.relay.from_peer(bench.now, id, PeerAddr(peer(2)), &PAYLOAD);
        assert!(matches!(black_box(verdict), Verdict::Drop(_)));
    });
}

/// Allocate without credentials, and the 401 with a nonce; one a second, so that none is shed.
fn challenge() {
    let mut bench = Bench::new();
    let client = bench.client(1);
    let asked = bench.message(Method::Allocate, Class::Request, allocate);
    rounds(|| {
        bench.now.mono_ms += 1_000;
        bench.relay.from_client(bench.now, client.addr, &asked);
        assert_eq!(bench.drain(), Some(Class::Error));
    });
}

/// Refresh of an allocation by its owner.
fn refresh() {
    let mut bench = Bench::new();
    let (client, ..) = bench.member(1);
    let asked = bench.request(&client, Method::Refresh, |writer| writer);
    rounds(|| bench.perform(client.addr, &asked));
}

/// Allocate and the Refresh that gives it back, both signed; the socket is not in it.
fn allocate_release() {
    let mut bench = Bench::new();
    let client = bench.client(1);
    let one = |bench: &mut Bench| {
        let begin = bench.request(&client, Method::Allocate, allocate);
        let end = bench
            .request(&client, Method::Refresh, |writer| writer.attribute(attr::LIFETIME, &[0; 4]));
        [begin, end]
    };
    let asked: Vec<_> = (0..ROUNDS).map(|_| one(&mut bench)).collect();
    let mut asked = asked.iter();
    rounds(|| {
        for bytes in asked.next().expect("one for each round") {
            bench.perform(client.addr, bytes);
        }
    });
}

fn rounds(mut round: impl FnMut()) {
    counted(&mut || (0..ROUNDS).for_each(|_| round()));
}

fn peer(last: u8) -> SocketAddr {
    ([198, 51, 100, last], 40_000).into()
}

fn channel_data() -> Vec<u8> {
    let length = u16::try_from(PAYLOAD.len()).expect("a datagram");
    [&NUMBER.to_be_bytes()[..], &length.to_be_bytes(), &PAYLOAD].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_gets_the_verdicts_it_is_named_for() {
        ALL.iter().for_each(|case| (case.run)());
    }

    #[test]
    fn every_case_has_a_committed_figure() {
        let known: crate::Figures = include_str!("../figures.txt").parse().expect("figures");
        let names: Vec<_> = ALL.iter().map(|case| case.name).collect();
        assert_eq!(known.0.len(), names.len());
        assert!(names.iter().all(|name| known.0.contains_key(*name)), "{names:?}");
    }
}
