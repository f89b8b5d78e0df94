//! One run of a client, judged by what the client, the relay and the kernel say of it.

use std::time::Duration;

use e2e::Outcome;
use e2e::framings::{self, Framings};
use e2e::lab::Lab;
use e2e::process::until;
use e2e::scrape::Metrics;

use super::program::Exchanged;
use super::udp::Udp;
use super::{Client, Transport};
use crate::relay::Relay;

/// Payloads that each client sends and has echoed.
const MESSAGES: u64 = 100;
/// Fewest allocations of a pair of clients. Browsers begin with one for each stream and RTCP.
const ENDS: u64 = 2;
/// How long allocations may take to be gone.
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
    udp: Udp,
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
        let udp = Udp::compare(lab.server(), metrics);
        let Exchanged { version, payloads, candidates, .. } = &client;
        let (version, payloads, candidates) = (version.clone(), *payloads, candidates.clone());
        client.close()?;
        let allocations = || metrics().count("relay_allocations", &[]).ok();
        if ends {
            until(SETTLE, || allocations().filter(|count| *count == 0));
        }
        let left = allocations().unwrap_or(u64::MAX);
        Ok(Self { version, payloads, candidates, held, framings, udp, left })
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
        self.udp.check(title);

        if client.ends(transport) {
            assert_eq!(self.left, 0, "{title}: allocations left");
        }

        if transport == Transport::Tls {
            return; // nobody can see what is inside
        }
        let expected = client.wrapping.of(&self.framings);
        let other = client.wrapping.other().of(&self.framings);
        for (direction, packets) in expected.into_iter().enumerate() {
            assert!(packets >= MESSAGES, "{title}: {packets} of {:?}", client.wrapping);
            assert!(packets > other[direction], "{title}: mostly {:?}", client.wrapping);
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
            pair(self.udp.packets()),
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
