//! The answer: what a class needs from the relay, and from each person's line.

use serde::Serialize;

use crate::chance::{Share, expected_links, quantile_links};
use crate::class::{Chance, Class};
use crate::error::ModelError;
use crate::meter::Meter;
use crate::rates::{mesh_people_max, mesh_uplink};
use crate::units::{BitsPerSec, Bytes, LinkCount, Seconds};
use crate::{article, wire};

/// Everything the model says about one [`Class`].
///
/// Rates are wire rates (IP packets) in bit/s, volumes bytes, times seconds; the JSON names end in
/// the unit. Volumes are rounded to whole bytes, expectations to six decimals.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The class that was asked about.
    pub question: Question,
    /// How many links there are, of which kind.
    pub links: Links,
    /// One person's stream towards one other person.
    pub stream: Stream,
    /// What the mesh asks of each person's line. The first limit to look at.
    pub person: Person,
    /// What crosses the relay's network interface.
    pub relay: Relay,
    /// What passes between the relay and its TURN clients, as some services bill it.
    pub client_legs: ClientLegs,
    /// The well-known figures of an article, for comparison.
    pub article: Article,
    /// What to expect if people are blocked by chance; `null` without a share in the question.
    pub chance: Option<Expectation>,
}

/// The question as it was understood.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Question {
    /// P.
    pub people: u64,
    /// T: people who cannot connect directly.
    #[serde(rename = "relayed_people")]
    pub relayed: u64,
    /// Encoded video of each person, 0 for none.
    pub video_bps: BitsPerSec,
    /// Encoded audio of each person, 0 for none.
    pub audio_bps: BitsPerSec,
    /// Length of a meeting.
    pub meeting_s: Seconds,
    /// Meetings in a month.
    pub meetings_per_month: u64,
}

/// Links of the room.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Links {
    /// S: every pair of people.
    pub total: LinkCount,
    /// K: through the relay.
    pub relayed: LinkCount,
    /// K1: relayed, with one end on the relay.
    pub one_sided: LinkCount,
    /// K2: relayed, with both ends on the relay.
    pub two_sided: LinkCount,
    /// D: without the relay.
    pub direct: LinkCount,
}

/// One one-way stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stream {
    /// Video and audio as encoded.
    pub payload_bps: BitsPerSec,
    /// The same as IP packets: b.
    pub wire_bps: BitsPerSec,
    /// How the one was computed from the other.
    pub overhead_rule: &'static str,
}

/// Load of each person's own line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Person {
    /// Uplink that everybody needs, and downlink as well: (P−1)·b.
    pub uplink_bps: BitsPerSec,
    /// The most people that given uplinks allow.
    pub people_max_by_uplink: Vec<UplinkLimit>,
}

/// How many people one uplink allows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UplinkLimit {
    /// The slowest uplink in the room.
    pub uplink_bps: BitsPerSec,
    /// People in the room, everyone included.
    pub people_max: u64,
}

/// A rate and what it adds up to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Flow {
    /// While a meeting runs.
    pub bps: BitsPerSec,
    /// In an hour.
    pub bytes_per_hour: Bytes,
    /// In one meeting.
    pub bytes_per_meeting: Bytes,
    /// In all meetings of a month.
    pub bytes_per_month: Bytes,
}

/// Traffic of the relay's interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Relay {
    /// Received: 2·K·b.
    pub ingress: Flow,
    /// Sent: the same.
    pub egress: Flow,
    /// Received and sent, added: 4·K·b.
    pub both_ways: Flow,
}

/// Traffic between the relay and its TURN clients.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClientLegs {
    /// From the relay to its clients: (K1 + 2·K2)·b.
    pub to_clients: Flow,
    /// Both ways, added: 2·(K1 + 2·K2)·b.
    pub both_ways: Flow,
}

/// The article's figures; see [`article`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Article {
    /// What they are and what they leave out.
    pub label: &'static str,
    /// S·B, with B the payload of a stream.
    pub each_way_bps: BitsPerSec,
    /// Both of its directions over a meeting.
    pub bytes_per_meeting: Bytes,
    /// All meetings of a month.
    pub bytes_per_month: Bytes,
}

/// What chance makes of the class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expectation {
    /// q: a person is blocked, independently of the others.
    pub blocked_share: f64,
    /// r: a link is relayed.
    pub relayed_links_share: f64,
    /// E\[K\].
    pub mean_relayed_links: f64,
    /// K in nine classes of ten is at most this.
    pub p90_relayed_links: LinkCount,
    /// Ingress, and equally egress, on average: 2·E\[K\]·b.
    pub mean_egress_bps: BitsPerSec,
    /// Egress of all meetings of a month, on average.
    pub mean_egress_bytes_per_month: Bytes,
    /// Ingress, and equally egress, at the p90 of K.
    pub p90_egress_bps: BitsPerSec,
    /// The same over one meeting. A whole month varies less than its meetings, so it has none.
    pub p90_egress_bytes_per_meeting: Bytes,
}

impl Plan {
    /// The plan of a class.
    #[must_use]
    pub fn of(class: &Class) -> Self {
        compute(class).expect("the limits of a class keep every number below 2^127")
    }

    /// The canonical JSON: UTF-8, two spaces of indentation, keys in the order of the fields, a
    /// final newline. `castling-plan --json` prints it and `GET /api/plan` answers it.
    ///
    /// Counts, rates and volumes are exact integers; in rooms of thousands they pass 2^53, which
    /// a reader that keeps numbers as floats must know.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self)
            .expect("numbers, fixed names and texts always serialise");
        json.push('\n');
        json
    }
}

/// Uplinks that people really have, bit/s.
const UPLINKS_BPS: [u64; 6] = [1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000, 50_000_000];
/// The quantile of K that a plan states.
const HIGH_QUANTILE: f64 = 0.9;

fn compute(class: &Class) -> Result<Plan, ModelError> {
    let room = class.room;
    let payload = class.video.plus(class.audio)?;
    let b = wire::wire_rate(payload, class.media())?;
    let meter = |meter: Meter| Flow::of(meter.rate(room, b, false)?, class);
    Ok(Plan {
        question: Question {
            people: room.people(),
            relayed: room.blocked(),
            video_bps: class.video,
            audio_bps: class.audio,
            meeting_s: class.meeting,
            meetings_per_month: class.meetings,
        },
        links: Links {
            total: room.links(),
            relayed: room.relayed(),
            one_sided: room.one_sided(),
            two_sided: room.two_sided(),
            direct: room.direct(),
        },
        stream: Stream { payload_bps: payload, wire_bps: b, overhead_rule: class.media().rule() },
        person: Person {
            uplink_bps: mesh_uplink(room.people(), b)?,
            people_max_by_uplink: uplink_limits(b)?,
        },
        relay: Relay {
            ingress: meter(Meter::NicRx)?,
            egress: meter(Meter::NicTx)?,
            both_ways: meter(Meter::NicSum)?,
        },
        client_legs: ClientLegs {
            to_clients: meter(Meter::ClientTx)?,
            both_ways: meter(Meter::ClientSum)?,
        },
        article: article_figures(class, payload)?,
        chance: class.chance.map(|chance| expectation(class, chance, b)).transpose()?,
    })
}

impl Flow {
    fn of(bps: BitsPerSec, class: &Class) -> Result<Self, ModelError> {
        let bytes_per_meeting = bps.lasting(class.meeting)?;
        Ok(Self {
            bps,
            bytes_per_hour: bps.lasting(Seconds::HOUR)?,
            bytes_per_meeting,
            bytes_per_month: bytes_per_meeting.times(u128::from(class.meetings))?,
        })
    }
}

fn uplink_limits(b: BitsPerSec) -> Result<Vec<UplinkLimit>, ModelError> {
    let limit =
        |uplink_bps| Ok(UplinkLimit { uplink_bps, people_max: mesh_people_max(uplink_bps, b)? });
    UPLINKS_BPS.into_iter().map(BitsPerSec::new).map(limit).collect()
}

fn article_figures(class: &Class, payload: BitsPerSec) -> Result<Article, ModelError> {
    let people = class.room.people();
    let bytes_per_meeting = article::meeting_volume(people, payload, class.meeting)?;
    Ok(Article {
        label: article::LABEL,
        each_way_bps: article::rate_each_way(people, payload)?,
        bytes_per_meeting,
        bytes_per_month: bytes_per_meeting.times(u128::from(class.meetings))?,
    })
}

fn expectation(class: &Class, chance: Chance, b: BitsPerSec) -> Result<Expectation, ModelError> {
    let people = class.room.people();
    let (q, r) = (chance.blocked(), chance.relayed_links());
    let mean = expected_links(people, q)?;
    let p90 = quantile_links(people, q, Share::new(HIGH_QUANTILE)?)?;
    let month_s = class.meeting.count() as f64 * class.meetings as f64;
    let mean_bps = 2.0 * mean * b.bits_per_s() as f64;
    let p90_rate = b.times(2 * u128::from(p90.count()))?;
    Ok(Expectation {
        blocked_share: six_decimals(q.value()),
        relayed_links_share: six_decimals(r.value()),
        mean_relayed_links: six_decimals(mean),
        p90_relayed_links: p90,
        mean_egress_bps: BitsPerSec::nearest(mean_bps)?,
        mean_egress_bytes_per_month: Bytes::nearest(mean_bps * month_s / 8.0)?,
        p90_egress_bps: p90_rate,
        p90_egress_bytes_per_meeting: p90_rate.lasting(class.meeting)?,
    })
}

fn six_decimals(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_question_has_an_answer() {
        let class = Class::from_pairs([
            ("people", "1000000"),
            ("video", "10Gbit"),
            ("audio", "10Gbit"),
            ("hours", "744"),
            ("meetings", "1000000"),
            ("blocked-share", "0.3"),
        ]);
        let plan = Plan::of(&class.unwrap());
        assert_eq!(plan.links.relayed, plan.links.total);
        assert!(plan.relay.both_ways.bytes_per_month > plan.relay.egress.bytes_per_month);
    }
}
