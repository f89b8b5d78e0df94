//! Counters over time. Pages, relay and kernel are read at different moments; between two readings
//! a counter is taken to run straight, so all can be compared over one and the same window.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use e2e::namespace::Namespace;
use e2e::{Failure, Outcome, counters, scrape};
use serde::Deserialize;
use serde_json::Value;

/// Seen from the relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// Into the relay: what the pages send.
    In,
    /// Out of it: what they receive.
    Out,
}

impl Direction {
    /// Both, in the order of their discriminants.
    pub const BOTH: [Self; 2] = [Self::In, Self::Out];
}

/// Each end of a window is an average over this many milliseconds: video comes in bursts, and a
/// burst between two readings must not decide.
const EDGE_MS: f64 = 2_000.0;
/// Points of such an average.
const EDGE_POINTS: u32 = 40;

/// A span of time, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    begin: f64,
    end: f64,
}

impl Window {
    /// Length between the middles of its edges.
    pub fn seconds(self) -> f64 {
        (self.end - self.begin - EDGE_MS) / 1000.0
    }
}

/// One counter, read again and again: (milliseconds since 1970, value).
#[derive(Debug, Default)]
pub struct Series {
    readings: Vec<(f64, f64)>,
    /// How long each of them took, in milliseconds; empty if that is not known.
    took: Vec<f64>,
}

impl Series {
    /// How much it grew over `window`, which its readings must cover.
    pub fn over(&self, window: Window) -> f64 {
        self.around(window.end - EDGE_MS) - self.around(window.begin)
    }

    /// Mean over the edge that begins at `time`.
    fn around(&self, time: f64) -> f64 {
        let points = (0..EDGE_POINTS).map(|point| f64::from(point) / f64::from(EDGE_POINTS));
        points.map(|part| self.at(time + part * EDGE_MS)).sum::<f64>() / f64::from(EDGE_POINTS)
    }

    fn at(&self, time: f64) -> f64 {
        let next = self.readings.partition_point(|(at, _)| *at <= time);
        let [(before, low), (after, high)] = self.readings[next - 1..=next] else {
            unreachable!("a slice of two")
        };
        low + (high - low) * (time - before) / (after - before)
    }

    /// A reading that was true `at` this time. One that is older than the last says nothing new.
    fn push(&mut self, at: f64, value: f64) {
        if self.last() < at {
            self.readings.push((at, value));
        }
    }

    /// A reading that was true some time between `begin` and `end`.
    fn take(&mut self, [begin, end]: [f64; 2], value: f64) {
        self.readings.push(((begin + end) / 2.0, value));
        self.took.push(end - begin);
    }

    /// Leaves out the slower half: of a reading that took long nobody knows when it was true.
    fn keep_crisp(&mut self) {
        let mut sorted = self.took.clone();
        sorted.sort_by(f64::total_cmp);
        let Some(median) = sorted.get(sorted.len() / 2) else { return };
        let mut took = self.took.iter();
        self.readings.retain(|_| took.next().is_none_or(|took| took <= median));
        self.took.clear();
    }

    fn first(&self) -> f64 {
        self.readings.first().map_or(f64::INFINITY, |(at, _)| *at)
    }

    fn last(&self) -> f64 {
        self.readings.last().map_or(f64::NEG_INFINITY, |(at, _)| *at)
    }
}

/// Bytes and packets of a link's end in one direction.
#[derive(Debug, Default)]
pub struct FlowSeries {
    pub bytes: Series,
    pub packets: Series,
}

/// A link as one of its ends saw it.
#[derive(Debug, Default)]
pub struct End {
    flows: [FlowSeries; 2],
    pub frames: Series,
    relayed: Vec<bool>,
    own_leg: Vec<bool>,
}

impl End {
    pub fn flow(&self, direction: Direction) -> &FlowSeries {
        &self.flows[direction as usize]
    }

    /// What the page said last.
    pub fn relayed(&self) -> bool {
        self.relayed.last().copied().unwrap_or_default()
    }

    /// Whether this end used an allocation of its own, as the page said last.
    pub fn own_leg(&self) -> bool {
        self.own_leg.last().copied().unwrap_or_default()
    }
}

/// Everything that was read in one run.
#[derive(Debug)]
pub struct Recording {
    pages: Vec<BTreeMap<String, End>>,
    badges: Vec<Vec<String>>,
    relay: [Series; 2],
    kernel: [Series; 2],
    stun: [Series; 2],
    relay_links: [u64; 2],
}

/// What `call.ts` tells of a page. Unknown fields are the page's business.
#[derive(Deserialize)]
struct Sample {
    person: usize,
    links: Vec<Link>,
    badges: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    name: String,
    relayed: Option<bool>,
    own_leg: bool,
    bytes_sent: f64,
    bytes_received: f64,
    packets_sent: f64,
    packets_received: f64,
    frames_decoded: f64,
    pair: Pair,
}

/// The browser's entry of the candidate pair in use.
#[derive(Deserialize)]
struct Pair {
    /// When the statistics were true, in milliseconds since 1970.
    timestamp: Option<f64>,
}

impl Recording {
    pub fn new(people: usize) -> Self {
        Self {
            pages: (0..people).map(|_| BTreeMap::new()).collect(),
            badges: vec![Vec::new(); people],
            relay: <[Series; 2]>::default(),
            kernel: <[Series; 2]>::default(),
            stun: <[Series; 2]>::default(),
            relay_links: [0; 2],
        }
    }

    /// Reads the kernel's counters and the relay's once.
    pub fn look_at_server(&mut self, server: &Namespace, relay: SocketAddr) -> Outcome<()> {
        let (when, (all, kinds)) =
            timed(|| Ok((counters::interface(server)?, counters::kinds(server)?)))?;
        let (udp, stun) = (all - kinds.other, kinds.stun);
        for (nth, (udp, stun)) in [(udp.rx, stun.rx), (udp.tx, stun.tx)].into_iter().enumerate() {
            self.kernel[nth].take(when, udp.bytes as f64);
            self.stun[nth].take(when, stun.bytes as f64);
        }
        let (when, metrics) = timed(|| scrape::metrics(server, relay))?;
        for (series, direction) in self.relay.iter_mut().zip(["rx", "tx"]) {
            let bytes = metrics.count("relay_wire_bytes_total", &[("direction", direction)])?;
            series.take(when, bytes as f64);
        }
        for (links, kind) in self.relay_links.iter_mut().zip(["one_sided", "two_sided"]) {
            *links = metrics.count("relay_links", &[("kind", kind)])?;
        }
        Ok(())
    }

    /// Takes the samples among `events`.
    pub fn hear(&mut self, events: Vec<Value>) -> Outcome<()> {
        for event in events.into_iter().filter(|event| event["event"] == "sample") {
            let sample: Sample = serde_json::from_value(event)
                .map_err(|error| Failure::new(format!("a page's sample: {error}")))?;
            self.badges[sample.person] = sample.badges;
            for link in sample.links {
                let Some(at) = link.pair.timestamp else { continue };
                let end = self.pages[sample.person].entry(link.name).or_default();
                let [sent, received] = &mut end.flows;
                sent.bytes.push(at, link.bytes_sent);
                sent.packets.push(at, link.packets_sent);
                received.bytes.push(at, link.bytes_received);
                received.packets.push(at, link.packets_received);
                end.frames.push(at, link.frames_decoded);
                end.relayed.push(link.relayed.unwrap_or_default());
                end.own_leg.push(link.own_leg);
            }
        }
        Ok(())
    }

    /// Ends the recording: of the server's counters the crisper half of the readings is kept.
    pub fn finish(mut self) -> Self {
        let server = self.relay.iter_mut().chain(&mut self.kernel).chain(&mut self.stun);
        server.for_each(Series::keep_crisp);
        self
    }

    /// The longest span that every counter covers.
    pub fn window(&self) -> Window {
        let ends = self.pages.iter().flatten().map(|(_, end)| &end.frames);
        let all: Vec<_> =
            self.relay.iter().chain(&self.kernel).chain(&self.stun).chain(ends).collect();
        Window {
            begin: all.iter().map(|series| series.first()).fold(f64::NEG_INFINITY, f64::max),
            // Readings must lie on both sides of the end.
            end: all.iter().map(|series| series.last()).fold(f64::INFINITY, f64::min) - 1.0,
        }
    }

    /// Every person's links, by the name of the other end.
    pub fn ends(&self) -> impl Iterator<Item = (usize, &BTreeMap<String, End>)> {
        self.pages.iter().enumerate()
    }

    /// How many badges of a person said that a link is relayed, when last seen.
    pub fn relayed_badges(&self, person: usize) -> usize {
        let relayed = |text: &&String| text.to_lowercase().contains("relay");
        self.badges[person].iter().filter(relayed).count()
    }

    pub fn relay(&self, direction: Direction) -> &Series {
        &self.relay[direction as usize]
    }

    /// UDP packets of the server's interface, with IP headers.
    pub fn kernel(&self, direction: Direction) -> &Series {
        &self.kernel[direction as usize]
    }

    /// Those of them that are STUN: requests of clients, and the checks of ICE on every path.
    pub fn stun(&self, direction: Direction) -> &Series {
        &self.stun[direction as usize]
    }

    /// K1 and K2 as the relay saw them last.
    pub fn relay_links(&self) -> [u64; 2] {
        self.relay_links
    }
}

/// What `read` answers, with the time when it began and the time when it ended.
fn timed<T>(read: impl FnOnce() -> Outcome<T>) -> Outcome<([f64; 2], T)> {
    let before = milliseconds();
    let answer = read()?;
    Ok(([before, milliseconds()], answer))
}

fn milliseconds() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_interpolated() {
        let series = series([(0.0, 10.0), (10.0, 20.0), (20.0, 60.0)]);
        assert_eq!([0.0, 5.0, 15.0].map(|time| series.at(time)), [10.0, 15.0, 40.0]);
    }

    #[test]
    fn a_steady_counter_grows_by_its_rate_over_any_window() {
        let steady =
            |step: f64| series((0..200).map(|nth| f64::from(nth) * step).map(|at| (at, 3.0 * at)));
        let window = Window { begin: 1_234.0, end: 9_876.0 };
        for step in [50.0, 77.0] {
            let rate = steady(step).over(window) / window.seconds();
            assert!((rate - 3_000.0).abs() < 1e-6, "{rate}");
        }
    }

    #[test]
    fn slow_readings_are_left_out() {
        let mut series = Series::default();
        for (begin, took, value) in [(0.0, 2.0, 1.0), (10.0, 90.0, 2.0), (110.0, 4.0, 3.0)] {
            series.take([begin, begin + took], value);
        }
        series.keep_crisp();
        assert_eq!(series.readings, [(1.0, 1.0), (112.0, 3.0)]);
    }

    fn series(readings: impl IntoIterator<Item = (f64, f64)>) -> Series {
        let mut series = Series::default();
        for (at, value) in readings {
            series.push(at, value);
        }
        series
    }
}
