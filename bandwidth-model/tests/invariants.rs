//! What must hold for every class, not only for the vectors: brute force and random numbers.

use bandwidth_model::chance::{self, Share};
use bandwidth_model::meter::{Meter, percentile_95};
use bandwidth_model::posterior::Posterior;
use bandwidth_model::price::{Rounding, Tariff};
use bandwidth_model::schedule::{Forecast, Interval, Lesson, Presence, Remaining};
use bandwidth_model::{BitsPerSec, Bytes, PEOPLE_MAX, Ratio, Room, Seconds, Sender};
use bandwidth_model::{class, rates, schedule, sfu};
use proptest::prelude::*;

/// Walks over every pair of people. `blocked` and `rates` hold one entry per person.
struct Pairs<'a> {
    blocked: &'a [bool],
    rates: &'a [u64],
}

impl Pairs<'_> {
    fn count(&self, blocked_ends: &[usize]) -> u64 {
        let ends = |i: usize, j: usize| usize::from(self.blocked[i]) + usize::from(self.blocked[j]);
        self.all().filter(|&(i, j)| blocked_ends.contains(&ends(i, j))).count() as u64
    }

    fn relayed_rate(&self) -> u128 {
        let relayed = self.all().filter(|&(i, j)| self.blocked[i] || self.blocked[j]);
        relayed.map(|(i, j)| u128::from(self.rates[i]) + u128::from(self.rates[j])).sum()
    }

    fn all(&self) -> impl Iterator<Item = (usize, usize)> {
        let people = self.blocked.len();
        (0..people).flat_map(move |i| (i + 1..people).map(move |j| (i, j)))
    }

    fn senders(&self) -> Vec<Sender> {
        let sender = |(&blocked, &rate)| Sender { blocked, rate: BitsPerSec::new(rate) };
        self.blocked.iter().zip(self.rates).map(sender).collect()
    }
}

/// All ways to block people in rooms of up to eight.
fn small_rooms() -> impl Iterator<Item = Vec<bool>> {
    (0..=8).flat_map(|people| {
        (0..1_u32 << people).map(move |mask| (0..people).map(|i| mask >> i & 1 == 1).collect())
    })
}

#[test]
fn counts_and_rates_equal_a_walk_over_all_pairs() {
    for blocked in small_rooms() {
        let rates: Vec<u64> = (0..blocked.len() as u64).map(|i| 1 + i * i * 1000).collect();
        let pairs = Pairs { blocked: &blocked, rates: &rates };
        let room = room_of(&blocked);
        assert_eq!(room.links().count(), pairs.count(&[0, 1, 2]), "S of {blocked:?}");
        assert_eq!(room.direct().count(), pairs.count(&[0]), "D of {blocked:?}");
        assert_eq!(room.one_sided().count(), pairs.count(&[1]), "K1 of {blocked:?}");
        assert_eq!(room.two_sided().count(), pairs.count(&[2]), "K2 of {blocked:?}");
        assert_eq!(room.relayed().count(), pairs.count(&[1, 2]), "K of {blocked:?}");

        let unequal = rates::relay_rate_unequal(&pairs.senders()).unwrap();
        assert_eq!(unequal.bits_per_s(), pairs.relayed_rate(), "E of {blocked:?}");
        let same = Pairs { blocked: &blocked, rates: &vec![7; blocked.len()] };
        assert_eq!(
            rates::relay_rate_unequal(&same.senders()),
            rates::relay_rate(room, BitsPerSec::new(7)),
            "equal rates are 2Kb"
        );
    }
}

#[test]
fn chances_equal_a_sum_over_all_ways_to_block() {
    for q in [0.0, 0.1, 0.3, 0.5, 0.9, 1.0] {
        for people in 0..=8_u64 {
            let (mut mean, mut square) = (0.0, 0.0);
            let mut by_links = vec![0.0; room(people, 0).links().count() as usize + 1];
            for blocked in small_rooms().filter(|blocked| blocked.len() as u64 == people) {
                let room = room_of(&blocked);
                let t = room.blocked() as i32;
                let chance = f64::powi(q, t) * f64::powi(1.0 - q, people as i32 - t);
                let links = room.relayed().count();
                mean += chance * links as f64;
                square += chance * (links * links) as f64;
                by_links[links as usize] += chance;
            }
            let near = |left: f64, right: f64| (left - right).abs() < 1e-9;
            let q = share(q);
            assert!(near(chance::expected_links(people, q).unwrap(), mean), "E P={people} {q}");
            let variance = chance::var_links(people, q).unwrap();
            assert!(near(variance, square - mean * mean), "Var P={people} {q}");
            for level in [0.05, 0.37, 0.5, 0.9, 0.99] {
                let mut sum = 0.0;
                let least = by_links.iter().position(|chance| {
                    sum += chance;
                    sum >= level - 1e-12
                });
                let quantile = chance::quantile_links(people, q, share(level)).unwrap();
                assert_eq!(Some(quantile.count() as usize), least, "P={people} q={q} p={level}");
            }
        }
    }
}

proptest! {
    #[test]
    fn links_add_up_and_grow((people, blocked) in people_and_blocked(PEOPLE_MAX - 1)) {
        let here = room(people, blocked);
        let sum = here.one_sided().count() + here.two_sided().count() + here.direct().count();
        prop_assert_eq!(sum, here.links().count());
        prop_assert_eq!(here.relayed().count() + here.direct().count(), here.links().count());
        prop_assert!(room(people + 1, blocked).relayed() >= here.relayed());
        prop_assert!(room(people + 1, blocked + 1).relayed() >= here.relayed());
        prop_assert_eq!(room(people, 0).relayed().count(), 0);
        prop_assert_eq!(room(people, people).relayed(), here.links());
        prop_assert_eq!(room(people, people.saturating_sub(1)).relayed(), here.links());
    }

    #[test]
    fn meters_agree_with_each_other(
        (people, blocked) in people_and_blocked(PEOPLE_MAX),
        b in 0..class::RATE_BPS_MAX,
    ) {
        let (room, b) = (room(people, blocked), BitsPerSec::new(b));
        let rate = |meter: Meter, nat| meter.rate(room, b, nat).unwrap();
        prop_assert_eq!(rate(Meter::NicTx, false), rates::relay_rate(room, b).unwrap());
        for nat in [false, true] {
            prop_assert_eq!(rate(Meter::NicTx, nat), rate(Meter::NicRx, nat));
            prop_assert_eq!(rate(Meter::NicSum, nat), rate(Meter::NicTx, nat).times(2).unwrap());
        }
        prop_assert!(rate(Meter::ClientTx, false) <= rate(Meter::NicTx, false));
        prop_assert!(rate(Meter::NicTx, true) >= rate(Meter::NicTx, false));
    }

    #[test]
    fn a_relay_never_sends_more_than_an_sfu((people, blocked) in people_and_blocked(10_000)) {
        let b = BitsPerSec::new(1_000);
        let relay = rates::relay_rate(room(people, blocked), b).unwrap();
        let sfu = sfu::sfu_egress(people, b).unwrap();
        prop_assert!(relay <= sfu);
        prop_assert_eq!(relay == sfu, blocked + 1 >= people);
    }

    #[test]
    fn inverse_questions_are_tight(people in 0..10_000_u64, limit in 0..10_u64.pow(13)) {
        let (b, limit) = (BitsPerSec::new(1_129_500), BitsPerSec::new(limit));
        let most = rates::max_blocked(people, b, limit).unwrap();
        prop_assert!(rates::relay_rate(room(people, most), b).unwrap() <= limit);
        if most < people {
            prop_assert!(rates::relay_rate(room(people, most + 1), b).unwrap() > limit);
        }
        let people = rates::mesh_people_max(limit, b).unwrap();
        prop_assert!(rates::mesh_uplink(people, b).unwrap() <= limit);
        prop_assert!(rates::mesh_uplink(people + 1, b).unwrap() > limit);
        if let Some(even) = sfu::breakeven_blocked(people.min(10_000)).unwrap() {
            let people = people.min(10_000);
            prop_assert!(4 * room(people, even).relayed().count() >= people * people);
            prop_assert!(even == 0 || 4 * room(people, even - 1).relayed().count() < people * people);
        }
    }

    #[test]
    fn chances_stay_in_range(people in 0..3_000_u64, q in 0.0..=1.0, low in 0.0..=1.0, up in 0.0..=1.0) {
        let total = room(people, 0).links().count() as f64;
        let mean = chance::expected_links(people, share(q)).unwrap();
        prop_assert!((0.0..=total).contains(&mean));
        prop_assert!(chance::var_links(people, share(q)).unwrap() >= 0.0);
        let (low, high) = if low < up { (low, up) } else { (up, low) };
        let quantile = |level| chance::quantile_links(people, share(q), share(level)).unwrap();
        prop_assert!(quantile(low) <= quantile(high));
        let back = chance::blocked_share(chance::relayed_link_share(share(q)));
        prop_assert!((back.value() - q).abs() < 1e-7, "{} {}", back, q);
    }

    #[test]
    fn learned_shares_are_ordered(seen in 0..5_000_u64, part in 0.0..=1.0) {
        let posterior = Posterior::after((seen as f64 * part) as u64, seen).unwrap();
        let quantile = |level| posterior.quantile(share(level));
        prop_assert!(quantile(0.05) < quantile(0.5));
        prop_assert!(quantile(0.5) < quantile(0.95));
        prop_assert!(quantile(0.01) < posterior.mean() && posterior.mean() < quantile(0.99));
    }

    #[test]
    fn volumes_add_up_over_any_split(
        lessons in prop::collection::vec((0..500_u64, 0..500_u64, people_and_blocked(30)), 0..8),
        at in 0..1_000_u64,
        b in 0..10_000_u64,
    ) {
        let b = BitsPerSec::new(b);
        let lesson = |start: u64, end: u64, (people, blocked)| Lesson {
            time: interval(start, end.max(start)),
            room: room(people, blocked),
        };
        let whole: Vec<_> = lessons.iter().map(|&(s, d, r)| lesson(s, s + d, r)).collect();
        let before: Vec<_> =
            lessons.iter().map(|&(s, d, r)| lesson(s.min(at), (s + d).min(at), r)).collect();
        let after: Vec<_> =
            lessons.iter().map(|&(s, d, r)| lesson(s.max(at), (s + d).max(at), r)).collect();
        let volume = |lessons: &[Lesson]| schedule::volume(lessons, b).unwrap();
        prop_assert_eq!(volume(&before).plus(volume(&after)), Ok(volume(&whole)));

        let peak = |lessons: &[Lesson]| schedule::peak_rate(lessons, b).unwrap();
        prop_assert_eq!(peak(&before).max(peak(&after)), peak(&whole));
    }

    #[test]
    fn a_room_nobody_leaves_is_a_lesson(
        senders in prop::collection::vec((any::<bool>(), 0..10_000_000_u64), 0..12),
        seconds in 0..100_000_u64,
    ) {
        let senders: Vec<_> = senders
            .into_iter()
            .map(|(blocked, rate)| Sender { blocked, rate: BitsPerSec::new(rate) })
            .collect();
        let time = interval(0, seconds);
        let presences: Vec<_> =
            senders.iter().map(|&sender| Presence { time, sender }).collect();
        let rate = rates::relay_rate_unequal(&senders).unwrap();
        prop_assert_eq!(schedule::churn_volume(&presences), rate.lasting(time.length()));
    }

    #[test]
    fn costs_rise_with_use(used in 0..10_u64.pow(15), more in 0..10_u64.pow(15), cents in 0..100_i128) {
        let tariff = |rounding| Tariff {
            base: Ratio::new(5, 1).unwrap(),
            included: Bytes::new(2_000_000_000_000),
            price: Ratio::new(cents, 100).unwrap(),
            unit: Bytes::new(1_000_000_000),
            rounding,
        };
        let cost = |rounding, bytes| tariff(rounding).cost(Bytes::new(bytes)).unwrap();
        let at_least = |left: Ratio, right: Ratio| !left.minus(right).unwrap().is_negative();
        for rounding in [Rounding::None, Rounding::Ceil] {
            prop_assert!(at_least(cost(rounding, used + more), cost(rounding, used)));
        }
        prop_assert!(at_least(cost(Rounding::Ceil, used), cost(Rounding::None, used)));
        // Beyond the allowance, pro rata is a straight line.
        let start = 2_000_000_000_000;
        let step = |from, by| {
            cost(Rounding::None, start + from + by).minus(cost(Rounding::None, start + from)).unwrap()
        };
        prop_assert_eq!(step(0, more), step(used, more));
    }

    #[test]
    fn the_95th_percentile_is_a_sample(samples in prop::collection::vec(0..1_000_u64, 1..400)) {
        let rates: Vec<_> = samples.iter().copied().map(BitsPerSec::new).collect();
        let billed = percentile_95(&rates);
        prop_assert!(rates.contains(&billed));
        let above = rates.iter().filter(|&&rate| rate > billed).count();
        prop_assert!(above <= rates.len() / 20);
    }

    #[test]
    fn forecasts_are_ordered(classes in 0..200_u64, q in 0.0..=1.0, people in 0..30_u64) {
        let remaining = [Remaining {
            people,
            blocked: share(q),
            stream: BitsPerSec::new(1_129_500),
            time: Seconds::HOUR,
            classes,
        }];
        let forecast = Forecast::of(Bytes::new(600), &remaining).unwrap();
        prop_assert!(forecast.mean_bytes >= 600.0 && forecast.sd_bytes >= 0.0);
        let quantile = |z| forecast.normal_quantile_bytes(z);
        prop_assert!(quantile(-1.28) <= quantile(0.0) && quantile(0.0) <= quantile(1.28));
    }
}

fn room(people: u64, blocked: u64) -> Room {
    Room::new(people, blocked).expect("a possible room")
}

fn room_of(blocked: &[bool]) -> Room {
    room(blocked.len() as u64, blocked.iter().filter(|&&blocked| blocked).count() as u64)
}

fn share(value: f64) -> Share {
    Share::new(value).expect("a share")
}

fn interval(start: u64, end: u64) -> Interval {
    Interval::new(Seconds::new(start), Seconds::new(end)).expect("start before end")
}

fn people_and_blocked(people_max: u64) -> impl Strategy<Value = (u64, u64)> {
    (0..=people_max).prop_flat_map(|people| (Just(people), 0..=people))
}
