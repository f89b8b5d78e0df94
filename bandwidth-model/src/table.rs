//! A [`Plan`] for people: every number with its unit and the formula it comes from.

use std::fmt::Write as _;

use crate::plan::{Expectation, Plan};
use crate::units::{BitsPerSec, Bytes, LinkCount, Seconds};

/// One number of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Heading under which it stands.
    pub section: &'static str,
    /// What it is, in words.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// How it is computed; empty for what was asked.
    pub formula: &'static str,
}

/// A number with its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count of people or meetings.
    Count(u64),
    /// A count of links.
    Links(LinkCount),
    /// An average of a count, or a share.
    Mean(f64),
    /// A rate.
    Rate(BitsPerSec),
    /// A volume.
    Volume(Bytes),
    /// A duration.
    Time(Seconds),
}

impl Value {
    /// The unit of [`Value::raw`].
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Count(_) | Self::Mean(_) => "",
            Self::Links(_) => "links",
            Self::Rate(_) => "bit/s",
            Self::Volume(_) => "bytes",
            Self::Time(_) => "s",
        }
    }

    /// The plain number in its base unit, for spreadsheets.
    #[must_use]
    pub fn raw(self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Links(links) => links.count().to_string(),
            Self::Mean(mean) => mean.to_string(),
            Self::Rate(rate) => rate.bits_per_s().to_string(),
            Self::Volume(bytes) => bytes.whole().to_string(),
            Self::Time(time) => time.count().to_string(),
        }
    }

    /// The number and its unit, in the prefix that suits its size.
    #[must_use]
    pub fn readable(self) -> String {
        match self {
            Self::Rate(rate) => scaled(rate.bits_per_s(), &RATE_UNITS),
            Self::Volume(bytes) => scaled(bytes.whole(), &VOLUME_UNITS),
            Self::Time(time) => scaled_time(time.count()),
            Self::Count(_) | Self::Links(_) | Self::Mean(_) => self.raw(),
        }
    }
}

/// All numbers of a plan, in the order in which they are best read: first what each person's
/// line must carry, since that limits a class before the relay does.
#[must_use]
pub fn lines(plan: &Plan) -> Vec<Line> {
    let mut lines = Vec::new();
    class_lines(plan, &mut Section { name: "Class", lines: &mut lines });
    person_lines(plan, &mut Section { name: "Each person's own line", lines: &mut lines });
    link_lines(plan, &mut Section { name: "Links", lines: &mut lines });
    relay_lines(plan, &mut Section { name: "Relay", lines: &mut lines });
    if let Some(chance) = &plan.chance {
        chance_lines(chance, &mut Section { name: "By chance", lines: &mut lines });
    }
    client_lines(
        plan,
        &mut Section { name: "Between relay and TURN clients alone", lines: &mut lines },
    );
    article_lines(
        plan,
        &mut Section {
            name: "The 2021 article on such classes, for comparison",
            lines: &mut lines,
        },
    );
    lines
}

/// The plan as an aligned table with headings.
#[must_use]
pub fn to_table(plan: &Plan) -> String {
    let lines = lines(plan);
    let width = |text: fn(&Line) -> String| {
        lines.iter().map(|line| text(line).chars().count()).max().unwrap_or(0)
    };
    let names = width(|line| line.name.clone());
    let values = width(|line| line.value.readable());
    let mut table = String::new();
    let mut section = "";
    for line in &lines {
        if line.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            section = line.section;
            push(&mut table, format_args!("{gap}{section}\n"));
        }
        let value = line.value.readable();
        let row = format!("  {:names$}  {value:>values$}  {}", line.name, line.formula);
        push(&mut table, format_args!("{}\n", row.trim_end()));
    }
    table
}

/// The plan as CSV (RFC 4180): section, name, value and unit in base units, formula.
#[must_use]
pub fn to_csv(plan: &Plan) -> String {
    let mut csv = String::from("section,name,value,unit,formula\r\n");
    for line in lines(plan) {
        let fields = [line.section, &line.name, &line.value.raw(), line.value.unit(), line.formula];
        let quoted = fields.map(|field| format!("\"{}\"", field.replace('"', "\"\"")));
        push(&mut csv, format_args!("{}\r\n", quoted.join(",")));
    }
    csv
}

/// Collects the lines of one heading.
struct Section<'a> {
    name: &'static str,
    lines: &'a mut Vec<Line>,
}

impl Section<'_> {
    fn add(&mut self, name: impl Into<String>, value: Value, formula: &'static str) {
        self.lines.push(Line { section: self.name, name: name.into(), value, formula });
    }
}

const PER_HOUR: &str = "rate × 3600 s / 8";
const PER_MEETING: &str = "rate × length / 8";
const PER_MONTH: &str = "a meeting × meetings";

fn class_lines(plan: &Plan, section: &mut Section<'_>) {
    let question = &plan.question;
    section.add("people", Value::Count(question.people), "P");
    section.add("of them unable to connect directly", Value::Count(question.relayed), "T");
    section.add("video of each person, encoded", Value::Rate(question.video_bps), "");
    section.add("audio of each person, encoded", Value::Rate(question.audio_bps), "");
    section.add("length of a meeting", Value::Time(question.meeting_s), "");
    section.add("meetings in a month", Value::Count(question.meetings_per_month), "");
}

fn person_lines(plan: &Plan, section: &mut Section<'_>) {
    let stream = &plan.stream;
    section.add("one stream, encoded", Value::Rate(stream.payload_bps), "video + audio");
    section.add("one stream, as packets", Value::Rate(stream.wire_bps), stream.overhead_rule);
    let uplink = Value::Rate(plan.person.uplink_bps);
    section.add("uplink needed, downlink as well", uplink, "(P−1) × b, b = one stream as packets");
    for limit in &plan.person.people_max_by_uplink {
        let uplink = Value::Rate(limit.uplink_bps).readable();
        let name = format!("people at most, with {uplink} of uplink");
        section.add(name, Value::Count(limit.people_max), "1 + ⌊uplink / b⌋");
    }
}

fn link_lines(plan: &Plan, section: &mut Section<'_>) {
    let links = &plan.links;
    section.add("all", Value::Links(links.total), "S = P(P−1)/2");
    section.add("direct", Value::Links(links.direct), "D = (P−T)(P−T−1)/2");
    section.add("relayed", Value::Links(links.relayed), "K = T(2P−T−1)/2");
    section.add("relayed, one end on the relay", Value::Links(links.one_sided), "K1 = T(P−T)");
    let two_sided = Value::Links(links.two_sided);
    section.add("relayed, both ends on the relay", two_sided, "K2 = T(T−1)/2");
}

fn relay_lines(plan: &Plan, section: &mut Section<'_>) {
    let relay = &plan.relay;
    section.add("received", Value::Rate(relay.ingress.bps), "2 × K × b");
    section.add("sent", Value::Rate(relay.egress.bps), "2 × K × b");
    section.add("sent in an hour", Value::Volume(relay.egress.bytes_per_hour), PER_HOUR);
    let meeting = Value::Volume(relay.egress.bytes_per_meeting);
    section.add("sent in a meeting", meeting, PER_MEETING);
    section.add("sent in a month", Value::Volume(relay.egress.bytes_per_month), PER_MONTH);
    section.add("received and sent", Value::Rate(relay.both_ways.bps), "4 × K × b");
    let both_ways = Value::Volume(relay.both_ways.bytes_per_month);
    section.add("received and sent in a month", both_ways, PER_MONTH);
}

fn chance_lines(chance: &Expectation, section: &mut Section<'_>) {
    let q = Value::Mean(chance.blocked_share);
    section.add("share of people who are blocked", q, "q = 1 − √(1−r)");
    let r = Value::Mean(chance.relayed_links_share);
    section.add("share of links that are relayed", r, "r = 1 − (1−q)²");
    section.add("relayed links on average", Value::Mean(chance.mean_relayed_links), "E[K] = S × r");
    let p90 = Value::Links(chance.p90_relayed_links);
    section.add("relayed links in 9 of 10 classes, at most", p90, "K at the 90 % quantile of T");
    section.add("sent on average", Value::Rate(chance.mean_egress_bps), "2 × E[K] × b");
    let month = Value::Volume(chance.mean_egress_bytes_per_month);
    section.add("sent in a month on average", month, "rate × length / 8 × meetings");
    section.add(
        "sent in 9 of 10 classes, at most",
        Value::Rate(chance.p90_egress_bps),
        "2 × K × b",
    );
    let meeting = Value::Volume(chance.p90_egress_bytes_per_meeting);
    section.add("sent in 9 of 10 meetings, at most", meeting, PER_MEETING);
}

fn client_lines(plan: &Plan, section: &mut Section<'_>) {
    let legs = &plan.client_legs;
    section.add("sent", Value::Rate(legs.to_clients.bps), "(K1 + 2 × K2) × b");
    section.add("sent in a month", Value::Volume(legs.to_clients.bytes_per_month), PER_MONTH);
    section.add("received and sent", Value::Rate(legs.both_ways.bps), "2 × (K1 + 2 × K2) × b");
    let both_ways = Value::Volume(legs.both_ways.bytes_per_month);
    section.add("received and sent in a month", both_ways, PER_MONTH);
}

fn article_lines(plan: &Plan, section: &mut Section<'_>) {
    let article = &plan.article;
    section.add("relay, each way", Value::Rate(article.each_way_bps), article.label);
    let meeting = Value::Volume(article.bytes_per_meeting);
    section.add("relay, up and down in a meeting", meeting, "2 × S × B × length / 8");
    let month = Value::Volume(article.bytes_per_month);
    section.add("relay, up and down in a month", month, PER_MONTH);
}

const RATE_UNITS: [&str; 6] = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "Pbit/s"];
const VOLUME_UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];

/// Up to three decimals in the largest unit that leaves at least 1 before the point.
fn scaled(value: u128, units: &[&str]) -> String {
    let steps = (value.checked_ilog10().unwrap_or(0) as usize / 3).min(units.len() - 1);
    let unit = 1000_u128.pow(steps as u32);
    let rest = (value % unit * 1000 + unit / 2) / unit;
    let (whole, thousandths) = (value / unit + rest / 1000, rest % 1000);
    format!("{} {}", with_decimals(whole, thousandths), units[steps])
}

fn scaled_time(seconds: u64) -> String {
    if seconds < 3600 {
        return format!("{seconds} s");
    }
    let thousandths = (u128::from(seconds) * 1000 + 1800) / 3600;
    format!("{} h", with_decimals(thousandths / 1000, thousandths % 1000))
}

fn with_decimals(whole: u128, thousandths: u128) -> String {
    let text = format!("{whole}.{thousandths:03}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn push(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.write_fmt(piece).expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable_and_not_misleading() {
        let rate = |bits| Value::Rate(BitsPerSec::new(bits)).readable();
        assert_eq!(rate(0), "0 bit/s");
        assert_eq!(rate(999), "999 bit/s");
        assert_eq!(rate(1_000), "1 kbit/s");
        assert_eq!(rate(1_128_440), "1.128 Mbit/s");
        assert_eq!(rate(999_999_600), "1000 Mbit/s");
        assert_eq!(rate(20_000_000), "20 Mbit/s");
        assert_eq!(Value::Volume(Bytes::new(1_005_000_000_000)).readable(), "1.005 TB");
        assert_eq!(Value::Volume(Bytes::new(100)).readable(), "100 B");
        assert_eq!(Value::Time(Seconds::new(5_400)).readable(), "1.5 h");
        assert_eq!(Value::Time(Seconds::new(90)).readable(), "90 s");
    }
}
