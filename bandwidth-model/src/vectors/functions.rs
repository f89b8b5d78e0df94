//! Every function that a vectors file may name.

use super::Failure;
use super::compare::Number;
use super::inputs::{Input, Inputs};
use crate::chance::{self, Share};
use crate::meter::{Meter, percentile_95};
use crate::nat::{self, ByNatType, NatType};
use crate::posterior::Posterior;
use crate::price::{Rounding, Tariff, participant_minutes};
use crate::rates::{self, Sender};
use crate::ratio::Ratio;
use crate::schedule::{self, Forecast, Interval, Lesson, Presence, Remaining};
use crate::units::{BitsPerSec, Bytes, LinkCount, Seconds};
use crate::wire::{self, Media, PacketStream};
use crate::{article, links::Room, sfu};

type Answer = Result<Number, Failure>;
type Function = fn(&mut Inputs) -> Answer;

/// The function of that name.
pub(super) fn named(name: &str) -> Option<Function> {
    FUNCTIONS.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
}

/// All names.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|(name, _)| *name)
}

const FUNCTIONS: &[(&str, Function)] = &[
    // Counts
    ("links_total", |i| Number::links(Room::new(i.people()?, 0)?.links())),
    ("links_relayed", |i| Number::links(i.room()?.relayed())),
    ("links_one_sided", |i| Number::links(i.room()?.one_sided())),
    ("links_two_sided", |i| Number::links(i.room()?.two_sided())),
    ("links_direct", |i| Number::links(i.room()?.direct())),
    ("relayed_share", |i| Ok(Number::Exact(i.room()?.relayed_share()))),
    // Rates
    ("relay_egress_bps", |i| Number::rate(rates::relay_rate(i.room()?, i.stream()?)?)),
    ("relay_egress_bps_hetero", |i| Number::rate(rates::relay_rate_unequal(&senders(i)?)?)),
    ("meter_bps", meter_bps),
    ("sfu_ingress_bps", |i| Number::rate(sfu::sfu_ingress(i.people()?, i.stream()?)?)),
    ("sfu_egress_bps", |i| Number::rate(sfu::sfu_egress(i.people()?, i.stream()?)?)),
    ("volume_bytes", volume_bytes),
    ("wire_bps_affine", wire_bps_affine),
    ("wire_bps_packets", wire_bps_packets),
    ("max_blocked", max_blocked),
    ("mesh_max_participants", mesh_max_participants),
    ("breakeven_T_sum_meter", breakeven_blocked),
    ("breakeven_share_limit", breakeven_share_limit),
    // Chance
    ("link_prob", |i| share(chance::relayed_link_share(i.take("q")?.share()?))),
    ("q_from_r", |i| share(chance::blocked_share(i.take("r")?.share()?))),
    ("any_link_fails", any_link_fails),
    ("expected_links", |i| float(chance::expected_links(i.people()?, i.take("q")?.share()?)?)),
    ("var_links", |i| float(chance::var_links(i.people()?, i.take("q")?.share()?)?)),
    ("quantile_links", quantile_links),
    ("expected_links_hetero", |i| float(chance::expected_links_unequal(&shares(i)?)?)),
    ("quantile_links_hetero", quantile_links_hetero),
    ("expected_links_random_q", expected_links_random_q),
    ("links_by_nat_type", links_by_nat_type),
    ("link_prob_types", link_prob_types),
    ("upper_bound_T_model", |i| share(nat::upper_bound(i.take("q")?.share()?))),
    ("q_posterior_mean", |i| share(posterior(i)?.mean())),
    ("q_posterior_q05", |i| share(posterior(i)?.quantile(Share::new(0.05)?))),
    ("q_posterior_q95", |i| share(posterior(i)?.quantile(Share::new(0.95)?))),
    // Time
    ("churn_volume", churn_volume),
    ("schedule_peak", |i| Number::rate(schedule::peak_rate(&lessons(i)?, i.stream()?)?)),
    ("schedule_volume", |i| Number::bytes(schedule::volume(&lessons(i)?, i.stream()?)?)),
    ("relay_bitrate_cap", relay_bitrate_cap),
    ("forecast_mean", |i| float(forecast(i)?.mean_bytes)),
    ("forecast_sd", |i| float(forecast(i)?.sd_bytes)),
    ("forecast_p90_normal", |i| float(forecast(i)?.normal_quantile_bytes(i.take("z")?.float()?))),
    // Money
    ("cost", cost),
    ("p95", p95),
    ("participant_minutes", |i| {
        Ok(Number::Exact(participant_minutes(i.take("hours")?.decimal()?, i.people()?)?))
    }),
    // The article's printed figures
    ("seed_U", |i| Number::rate(article::rate_each_way(i.people()?, i.stream()?)?)),
    ("seed_meeting_bytes", seed_meeting_bytes),
    ("seed_month_bytes", |i| Number::bytes(article::month_volume(i.take("meetings")?.whole()?)?)),
    ("seed_hours", seed_hours),
];

fn float(value: f64) -> Answer {
    Ok(Number::Float(value))
}

fn share(value: Share) -> Answer {
    float(value.value())
}

fn senders(inputs: &mut Inputs) -> Result<Vec<Sender>, Failure> {
    let blocked = inputs.take("blocked")?;
    let rates = inputs.take("rates_bps")?.list()?;
    let flags = blocked.list()?;
    if flags.len() != rates.len() {
        return Err(blocked.wrong("as long as rates_bps"));
    }
    let sender = |(blocked, rate): (&Input, &Input)| {
        Ok(Sender { blocked: blocked.flag()?, rate: rate.rate()? })
    };
    flags.iter().zip(&rates).map(sender).collect()
}

fn shares(inputs: &mut Inputs) -> Result<Vec<Share>, Failure> {
    inputs.take("q")?.list()?.iter().map(Input::share).collect()
}

fn interval(start: &Input, end: &Input) -> Result<Interval, Failure> {
    Ok(Interval::new(start.seconds()?, end.seconds()?)?)
}

fn lessons(inputs: &mut Inputs) -> Result<Vec<Lesson>, Failure> {
    let lesson = |item: &Input| {
        let [start, end, people, blocked] = item.tuple()?;
        let room = Room::new(people.whole()?, blocked.whole()?)?;
        Ok(Lesson { time: interval(&start, &end)?, room })
    };
    inputs.take("classes")?.list()?.iter().map(lesson).collect()
}

fn posterior(inputs: &mut Inputs) -> Result<Posterior, Failure> {
    Ok(Posterior::after(inputs.take("blocked")?.whole()?, inputs.take("seen")?.whole()?)?)
}

fn forecast(inputs: &mut Inputs) -> Result<Forecast, Failure> {
    let remaining = |item: &Input| {
        let [people, q, wire, seconds, classes] = item.tuple()?;
        Ok(Remaining {
            people: people.whole()?,
            blocked: q.share()?,
            stream: wire.rate()?,
            time: seconds.seconds()?,
            classes: classes.whole()?,
        })
    };
    let used = inputs.take("used_bytes")?.bytes()?;
    let list = inputs.take("remaining")?.list()?;
    let list: Result<Vec<Remaining>, Failure> = list.iter().map(remaining).collect();
    Ok(Forecast::of(used, &list?)?)
}

fn meter_bps(inputs: &mut Inputs) -> Answer {
    let meter = inputs.take("meter")?;
    let meter = Meter::named(&meter.text()?).ok_or_else(|| meter.wrong("a meter"))?;
    let hairpin_nat = inputs.take("hairpin_nat")?.flag()?;
    Number::rate(meter.rate(inputs.room()?, inputs.stream()?, hairpin_nat)?)
}

fn volume_bytes(inputs: &mut Inputs) -> Answer {
    let rate = inputs.take("bps")?.rate()?;
    Number::bytes(rate.lasting(inputs.take("seconds")?.seconds()?)?)
}

fn wire_bps_affine(inputs: &mut Inputs) -> Answer {
    let video = inputs.take("video")?.flag()?;
    let media = if video { Media::WithVideo } else { Media::AudioOnly };
    Number::rate(wire::wire_rate(inputs.take("payload_bps")?.rate()?, media)?)
}

fn wire_bps_packets(inputs: &mut Inputs) -> Answer {
    let mut decimal = |name| inputs.take(name)?.decimal();
    let stream = PacketStream {
        payload_bps: decimal("payload_bps")?,
        rtp_per_s: decimal("pps")?,
        rtp_header_bytes: decimal("rtp_hdr")?,
        srtp_tag_bytes: decimal("srtp_tag")?,
        rtcp_per_s: decimal("rtcp_pps")?,
        rtcp_bytes: decimal("rtcp_len")?,
        framing_bytes: decimal("framing")?,
        udp_bytes: decimal("udp")?,
        ip_bytes: decimal("ip")?,
    };
    Ok(Number::Exact(stream.wire_bps()?))
}

fn max_blocked(inputs: &mut Inputs) -> Answer {
    let limit = inputs.take("limit_bps")?.rate()?;
    Number::whole(rates::max_blocked(inputs.people()?, inputs.stream()?, limit)?.into())
}

fn mesh_max_participants(inputs: &mut Inputs) -> Answer {
    let uplink = inputs.take("uplink_bps")?.rate()?;
    Number::whole(rates::mesh_people_max(uplink, inputs.take("wire_bps")?.rate()?)?.into())
}

fn breakeven_blocked(inputs: &mut Inputs) -> Answer {
    let people = inputs.take("P")?;
    let blocked = sfu::breakeven_blocked(people.whole()?)?;
    Number::whole(blocked.ok_or_else(|| people.wrong("a room that breaks even"))?.into())
}

fn breakeven_share_limit(inputs: &mut Inputs) -> Answer {
    let people = inputs.take("P")?;
    if people.text()? != "inf" {
        return Err(people.wrong("\"inf\""));
    }
    float(sfu::breakeven_share_limit())
}

fn any_link_fails(inputs: &mut Inputs) -> Answer {
    let links = LinkCount::new(inputs.take("links")?.whole()?);
    share(chance::any_link_fails(links, inputs.take("success")?.share()?))
}

fn quantile_links(inputs: &mut Inputs) -> Answer {
    let (q, p) = (inputs.take("q")?.share()?, inputs.take("p")?.share()?);
    Number::links(chance::quantile_links(inputs.people()?, q, p)?)
}

fn quantile_links_hetero(inputs: &mut Inputs) -> Answer {
    let level = inputs.take("p")?.share()?;
    Number::links(chance::quantile_links_unequal(&shares(inputs)?, level)?)
}

fn expected_links_random_q(inputs: &mut Inputs) -> Answer {
    let (mean, var) = (inputs.take("mean")?.share()?, inputs.take("var")?.float()?);
    float(chance::expected_links_random_q(inputs.people()?, mean, var)?)
}

fn links_by_nat_type(inputs: &mut Inputs) -> Answer {
    let mut people: ByNatType<u64> = Default::default();
    for (count, nat) in people.iter_mut().zip(NatType::ALL) {
        if let Some(input) = inputs.take_if_given(nat.letter()) {
            *count = input.whole()?;
        }
    }
    Number::links(nat::links_by_nat_type(people)?)
}

fn link_prob_types(inputs: &mut Inputs) -> Answer {
    let mut shares: ByNatType<Share> = [Share::new(0.0)?; 5];
    for (share, nat) in shares.iter_mut().zip(NatType::ALL) {
        if let Some(input) = inputs.take_if_given(nat.letter()) {
            *share = input.share()?;
        }
    }
    share(nat::relayed_link_share_by_type(shares)?)
}

fn churn_volume(inputs: &mut Inputs) -> Answer {
    let intervals = inputs.take("intervals_s")?;
    let times = intervals.list()?;
    let senders = senders(inputs)?;
    if times.len() != senders.len() {
        return Err(intervals.wrong("as long as rates_bps"));
    }
    let presence = |(time, sender): (&Input, Sender)| {
        let [start, end] = time.tuple()?;
        Ok(Presence { time: interval(&start, &end)?, sender })
    };
    let presences: Result<Vec<_>, Failure> = times.iter().zip(senders).map(presence).collect();
    Number::bytes(schedule::churn_volume(&presences?)?)
}

fn relay_bitrate_cap(inputs: &mut Inputs) -> Answer {
    let remaining = inputs.take("remaining_bytes")?.bytes()?;
    let link_s = inputs.take("relayed_link_seconds")?.whole()?;
    Ok(Number::Exact(schedule::relay_bitrate_cap(remaining, link_s)?))
}

fn cost(inputs: &mut Inputs) -> Answer {
    let rounding = inputs.take("rounding")?;
    let rounding = match rounding.text()?.as_str() {
        "none" => Rounding::None,
        "ceil" => Rounding::Ceil,
        _ => return Err(rounding.wrong("\"none\" or \"ceil\"")),
    };
    let tariff = Tariff {
        base: inputs.take("base")?.decimal()?,
        included: inputs.take("included_bytes")?.bytes()?,
        price: inputs.take("price")?.decimal()?,
        unit: inputs.take("unit_bytes")?.bytes()?,
        rounding,
    };
    Ok(Number::Exact(tariff.cost(inputs.take("meter_bytes")?.bytes()?)?))
}

fn p95(inputs: &mut Inputs) -> Answer {
    const SAMPLES_MAX: u64 = 1_000_000;
    let samples = inputs.take("samples")?;
    let active = inputs.take("active")?;
    let rate = inputs.take("active_bps")?.rate()?;
    let (total, active_count) = (samples.whole()?, active.whole()?);
    if total > SAMPLES_MAX {
        return Err(samples.wrong("at most 1000000"));
    }
    if active_count > total {
        return Err(active.wrong("at most the number of samples"));
    }
    let mut rates = vec![BitsPerSec::ZERO; total as usize];
    rates[..active_count as usize].fill(rate);
    Number::rate(percentile_95(&rates))
}

fn seed_meeting_bytes(inputs: &mut Inputs) -> Answer {
    let hours = inputs.take("hours")?;
    let seconds = hours.decimal()?.times(Ratio::whole(3600)?)?.as_whole();
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let time = Seconds::new(seconds.ok_or_else(|| hours.wrong("a whole number of seconds"))?);
    Number::bytes(article::meeting_volume(inputs.people()?, inputs.stream()?, time)?)
}

fn seed_hours(inputs: &mut Inputs) -> Answer {
    let quota: Bytes = inputs.take("quota_bytes")?.bytes()?;
    Ok(Number::Exact(article::hours_within(quota, inputs.take("bytes_per_hour")?.bytes()?)?))
}
