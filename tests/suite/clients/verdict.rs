//! One run of a client, judged by what the client, the relay and the kernel say of it.

use std::time::Duration;

use e2e::Outcome;
use e2e::counters::Flow;
use e2e::framings::{self, Framings};
use e2e::lab::Lab;
use e2e::process::until;
use e2e::scrape::Metrics;

use super::program::Exchanged;
use super::{Client, Transport, Wrapping};
use crate::relay::Relay;

/// Payloads that each client sends and has echoed.
const MESSAGES: u64 = 100;
/// Fewest allocations of a pair of clients. Browsers begin with one for each stream and RTCP.
const ENDS: u64 = 2;
/// Bytes of IPv4 and UDP headers on each datagram.
const UDP_IPV4: u64 = 28;
/// How long two counters may take to agree once no payload moves, and allocations to be gone.
const SETTLE: Duration = Duration::from_secs(5);
/// Errors that belong to the protocol: the challenge, and a nonce that has grown old.
const CHALLENGES: [&str; 2] = ["401", "438"];

/// What was seen of one run.
pub struct Verdict {
    version: String,
    payloads: u64,
    candidates: Vec<String>,
    /// By the relay while the client still held its allocations.
    held: Metrics,
    framings: Framings,
    /// UDP, in and out, by the kernel and by the relay just before and just after it: a client that
    /// has sent its payloads may still be sending pictures.
    kernel: [Flow; 2],
    relay: [[Flow; 2]; 2],
    /// Allocations that were left after the client had closed.
    left: u64,
}

impl Verdict {
    /// What [`Verdict::row`] shows.
    pub const HEADINGS: [&str; 9] = [
        "",
        "version",
        "candidates",
        "K1+K2",
        "allocations",
        "channels",
        "indications",
        "UDP packets: relay = kernel",
        "left",
    ];

    /// Reads every counter, has the client close and reads what is left, of a client that `ends` its
    /// allocations once it has had the time.
    pub fn of(lab: &Lab, relay: &Relay, client: Exchanged, ends: bool) -> Outcome<Self> {
        let metrics = || relay.metrics().expect("our own relay has metrics");
        let held = metrics();
        let framings = framings::read(lab.server())?;
        let (mut kernel, mut around) = Default::default();
        until(SETTLE, || {
            let before = udp_of(&metrics());
            let udp = framings::read(lab.server()).ok()?.udp;
            kernel = [udp.rx, udp.tx];
            around = [before, udp_of(&metrics())];
            between(kernel, around).then_some(())
        });
        let Exchanged { version, payloads, candidates, .. } = &client;
        let (version, payloads, candidates) = (version.clone(), *payloads, candidates.clone());
        client.close()?;
        let allocations = || metrics().count("relay_allocations", &[]).ok();
        if ends {
            until(SETTLE, || allocations().filter(|count| *count == 0));
        }
        let left = allocations().unwrap_or(u64::MAX);
        Ok(Self { version, payloads, candidates, held, framings, kernel, relay: around, left })
    }

    /// Everything that must hold.
    pub fn check(&self, title: &str, client: &Client, transport: Transport) {
        assert_eq!(self.payloads, MESSAGES, "{title}: payloads that came back");
        assert_eq!(self.candidates, ["relay"; 2], "{title}: candidates in use");

        assert_eq!(self.links(), [0, 1], "{title}: K1 and K2 by the relay");
        let opened = |labels: &[_]| self.count("relay_allocations_total", labels);
        let asked = opened(&[("transport", transport.label())]);
        assert!(asked >= ENDS, "{title}: {asked} allocations");
        assert_eq!(opened(&[]), asked, "{title}: allocations over other transports");
        let hairpin = self.count("relay_hairpin_packets_total", &[]);
        assert!(hairpin >= 2 * MESSAGES, "{title}: {hairpin} payloads between allocations");
        for direction in ["rx", "tx"] {
            let labels =
                [("leg", "client"), ("direction", direction), ("transport", transport.label())];
            let packets = self.count("relay_packets_total", &labels);
            assert!(packets >= 2 * MESSAGES, "{title}: {packets} packets {direction}");
        }

        assert_eq!(self.count("relay_conservation_errors_total", &[]), 0, "{title}");
        assert_eq!(self.refusals(), "", "{title}: refused requests");
        let (kernel, relay) = (self.kernel, self.relay);
        assert!(between(kernel, relay), "{title}: UDP by the kernel {kernel:?}, around {relay:?}");

        let (expected, other) = match client.wrapping {
            Wrapping::Channels => (self.framings.channel, self.framings.indication),
            Wrapping::Indications => (self.framings.indication, self.framings.channel),
        };
        for (direction, packets) in expected.into_iter().enumerate() {
            assert!(packets >= MESSAGES, "{title}: {packets} of {:?}", client.wrapping);
            assert!(packets > other[direction], "{title}: mostly {:?}", client.wrapping);
        }
        if client.ends(transport) {
            assert_eq!(self.left, 0, "{title}: allocations left");
        }
    }

    /// One row under [`Verdict::HEADINGS`].
    pub fn row(&self, title: &str) -> Vec<String> {
        let [one_sided, two_sided] = self.links();
        let mut candidates = self.candidates.clone();
        candidates.dedup();
        let pair = |[rx, tx]: [u64; 2]| format!("{rx} in, {tx} out");
        vec![
            title.to_owned(),
            self.version.clone(),
            candidates.join(", "),
            format!("{one_sided}+{two_sided}"),
            self.count("relay_allocations_total", &[]).to_string(),
            pair(self.framings.channel),
            pair(self.framings.indication),
            pair(self.kernel.map(|flow| flow.packets)),
            self.left.to_string(),
        ]
    }

    fn links(&self) -> [u64; 2] {
        ["one_sided", "two_sided"].map(|kind| self.count("relay_links", &[("kind", kind)]))
    }

    /// Requests that were refused for another reason than the protocol's own.
    fn refusals(&self) -> String {
        let refused = self.held.values("relay_requests_total", "code", &[("class", "error")]);
        let strange = refused.into_iter().filter(|(code, _)| !CHALLENGES.contains(&code.as_str()));
        strange.map(|(code, count)| format!("{count} × {code}")).collect::<Vec<_>>().join(", ")
    }

    fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.held.count(name, labels).expect("the relay shows every counter from its start")
    }
}

/// Whether what the kernel counted lies between what the relay had counted before and after.
fn between(kernel: [Flow; 2], relay: [[Flow; 2]; 2]) -> bool {
    let within = |low: u64, middle: u64, high: u64| low <= middle && middle <= high;
    (0..2).all(|way| {
        let [before, after] = relay.map(|ways| ways[way]);
        within(before.packets, kernel[way].packets, after.packets)
            && within(before.bytes, kernel[way].bytes, after.bytes)
    })
}

/// UDP of all legs as the relay counts it, in IP packets: what came in, what went out.
fn udp_of(metrics: &Metrics) -> [Flow; 2] {
    ["rx", "tx"].map(|direction| {
        let labels = [("direction", direction), ("transport", "udp")];
        let sum = |name| metrics.count(name, &labels).expect("every leg is shown");
        let packets = sum("relay_packets_total");
        Flow { packets, bytes: sum("relay_bytes_total") + UDP_IPV4 * packets }
    })
}
