//! A class of two browsers of different makes, one of which reaches the relay alone.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::Outcome;
use e2e::framings;
use e2e::lab::{Lab, Network};
use e2e::process::until;
use e2e::report::{say, skip};
use e2e::scrape::{self, Metrics};
use serde_json::{Value, json};

use super::Wrapping;
use super::program::Program;
use super::udp::Udp;
use crate::browser::Spec;
use crate::class::{self, Class, RELAY_ADMIN, WEB};
use crate::laboratory_turn;

/// How long the relay's view may take to settle: it forgets a path 10 s after its last packet.
const SETTLE: Duration = Duration::from_secs(45);
/// Fewest packets each way of a call that flows.
const PACKETS_MIN: u64 = 100;

#[test]
fn firefox_behind_a_firewall_meets_chromium_over_indications() {
    check([Program::Firefox, Program::Chromium], Wrapping::Indications);
}

#[test]
fn chromium_behind_a_firewall_meets_firefox_over_channels() {
    check([Program::Chromium, Program::Firefox], Wrapping::Channels);
}

/// The first of `browsers` sits behind the firewall and wraps what it sends as `wrapping` says.
fn check(browsers: [Program; 2], wrapping: Wrapping) {
    let title = format!("{} blocked, {} not", browsers[0].name(), browsers[1].name());
    if let Some(missing) = browsers.iter().find_map(|browser| browser.missing()) {
        return missing.tell(&title);
    }
    let Some(_turn) = laboratory_turn(&title) else { return };
    if let Err(reason) = class::program() {
        return skip(&title, &reason);
    }
    // Behind a firewall that lets UDP to all of the server through, the blocked one may reach the
    // other one's relayed port, and then the other one does the wrapping.
    let lab = Lab::build(&[Network::TurnPortOnly, Network::Cone]).expect("laboratory");
    framings::watch(lab.server()).expect("counters");
    let class = Class::start(&lab, None).expect("class");
    let call = Call::of(&lab, browsers, wrapping)
        .unwrap_or_else(|error| panic!("{title}: {error}\nthe server said:\n{}", class.log()));

    let links = |kind| call.metrics.count("relay_links", &[("kind", kind)]).expect("relay_links");
    assert_eq!([links("one_sided"), links("two_sided")], [1, 0], "{title}: K1 and K2");
    for (person, sample) in &call.pages {
        let (relayed, badge) = (&sample["links"][0]["relayed"], &sample["badges"][0]);
        assert_eq!(relayed, &json!(true), "{title}: person {person}: {sample}");
        let says = badge.as_str().unwrap_or_default().to_lowercase();
        assert!(says.contains("relay"), "{title}: person {person} has the badge {says:?}");
    }
    assert_eq!(call.pages.len(), 2, "{title}: pages");
    let wrapped = wrapping.of(&call.framings);
    assert!(wrapped.iter().all(|packets| *packets >= PACKETS_MIN), "{title}: {wrapped:?}");
    let other = wrapping.other().of(&call.framings);
    assert!(other[0] < wrapped[0] && other[1] < wrapped[1], "{title}: {other:?} otherwise");
    call.udp.check(&title);
    say(&format!("{title}: K=1, {wrapped:?} packets in {wrapping:?}, {other:?} otherwise"));
}

/// What was seen while pictures moved both ways.
struct Call {
    /// The last sample of each page.
    pages: BTreeMap<u64, Value>,
    metrics: Metrics,
    framings: framings::Framings,
    udp: Udp,
}

impl Call {
    fn of(lab: &Lab, browsers: [Program; 2], wrapping: Wrapping) -> Outcome<Self> {
        let person = |index: usize| {
            json!({
                "name": (["Ana", "Ben"][index]),
                "browser": browsers[index].name().to_lowercase(),
                "namespace": lab.client(index).name(),
                "origin": format!("http://{WEB}"),
                "devices": "camera",
            })
        };
        let people = [person(0), person(1)];
        let argument = json!({ "room": "4821-7739", "video": true, "people": people });
        let mut spec = Spec::start("call.ts", &argument)?;
        while let Some(event) = spec.next()? {
            if event["event"] == "ready" {
                break;
            }
        }
        let metrics = || scrape::metrics(lab.server(), RELAY_ADMIN).expect("metrics");
        // What the relay says in the end is judged with everything else.
        until(SETTLE, || {
            let links = metrics().count("relay_links", &[]).ok()?;
            let wrapped = wrapping.of(&framings::read(lab.server()).ok()?);
            (links == 1 && wrapped.iter().all(|packets| *packets >= PACKETS_MIN)).then_some(())
        });
        let framings = framings::read(lab.server())?;
        let udp = Udp::compare(lab.server(), metrics);
        let metrics = metrics();
        let samples = spec.stop()?;
        let samples = samples.into_iter().filter(|event| event["event"] == "sample");
        let pages = samples.filter_map(|event| Some((event["person"].as_u64()?, event))).collect();
        Ok(Self { pages, metrics, framings, udp })
    }
}
