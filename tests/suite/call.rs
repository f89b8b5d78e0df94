//! Real browsers, each behind a router of its own, in a real class.
//!
//! Of `people`, `blocked` sit behind a firewall that drops all UDP except to the relay. Every pair
//! must show moving pictures, the pairs that call themselves relayed must be those that the relay
//! carries and as many as the model says, and the bytes of pages, relay, kernel and model agree.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bandwidth_model::Room;
use e2e::lab::{Lab, Network};
use e2e::report::{Table, difference_percent, say, skip};
use e2e::scrape;
use serde_json::json;

use crate::browser::{self, Spec};
use crate::class::{self, Class, RELAY_ADMIN, WEB};
use crate::laboratory_turn;
use crate::series::{Direction, Recording};

/// Bytes of IPv4 and UDP headers on each datagram.
const UDP_IPV4: f64 = 28.0;
/// ChannelData header on a client leg over UDP.
const CHANNEL_DATA: f64 = 4.0;
/// Length of the window over which bytes are compared.
const WINDOW: Duration = Duration::from_secs(20);
/// How long the relay's view may take to settle.
const SETTLE: Duration = Duration::from_secs(45);
/// How long it must stay the same to count as settled: the relay forgets a path 10 s after its last
/// packet, and by then ICE has stopped to try others.
const SETTLED: Duration = Duration::from_secs(10);
/// Fewest pictures a second of a moving video.
const FRAMES_PER_SEC_MIN: f64 = 1.0;
/// A class without relayed links may cost the relay this much, in wire bit/s per allocation of
/// which every page holds one per link: refreshes, and checks of ICE.
const IDLE_BPS_MAX: f64 = 1_000.0;

/// Largest difference, in per cent, of two counters that count the same packets but are read some
/// milliseconds apart: bursts of pictures fall between.
const SKEW_TOLERANCE: f64 = 0.5;
/// Pause between two looks at the relay and the kernel.
const LOOK: Duration = Duration::from_millis(200);

/// One class.
struct Cell {
    people: usize,
    /// The first ones are blocked, by this network.
    blocked: usize,
    by: Network,
    video: bool,
    /// Largest difference of bytes, in per cent.
    tolerance: f64,
}

impl Cell {
    const fn new(people: usize, blocked: usize) -> Self {
        Self { people, blocked, by: Network::Firewall, video: true, tolerance: 1.0 }
    }

    /// What it is called in the report.
    fn title(&self) -> String {
        let media = if self.video { "audio and video" } else { "audio" };
        let by = if self.blocked == 0 { String::new() } else { format!(", by {:?}", self.by) };
        format!("P={} T={}{by}, {media}", self.people, self.blocked)
    }

    fn name(person: usize) -> String {
        ["Ana", "Ben", "Cleo", "Dan", "Eva", "Finn"][person].to_owned()
    }

    /// Slowest stream, in wire bit/s, that can be judged. Refreshes and the checks of ICE, which no
    /// page counts, are a fixed 0.6 to 0.8 kbit/s of each; a starved encoder makes them a large
    /// share.
    fn stream_bps_min(&self) -> f64 {
        if self.video { 120_000.0 } else { 38_000.0 }
    }

    /// The room with one more or less of blocked people, whichever has another K.
    fn other_room(&self) -> Room {
        let room = |blocked| Room::new(self.people as u64, blocked as u64).expect("T of P");
        // With all but one blocked, the last one has no direct link either.
        let last = self.blocked + 1 >= self.people;
        room(if last { self.blocked - 1 } else { self.blocked + 1 })
    }

    fn room(&self) -> Room {
        Room::new(self.people as u64, self.blocked as u64).expect("a small room")
    }
}

#[test]
fn three_people_without_firewalls_meet_past_the_relay() {
    check(&Cell::new(3, 0));
}

#[test]
fn one_blocked_person_of_three_is_relayed_and_the_others_are_not() {
    check(&Cell::new(3, 1));
}

#[test]
fn two_blocked_people_of_four_cost_five_relayed_links() {
    check(&Cell::new(4, 2));
}

#[test]
fn two_people_who_reach_only_the_turn_port_meet_inside_the_relay() {
    check(&Cell { by: Network::TurnPortOnly, ..Cell::new(3, 2) });
}

#[test]
fn sound_alone_is_predicted_too() {
    check(&Cell { video: false, tolerance: 2.0, ..Cell::new(3, 1) });
}

fn check(cell: &Cell) {
    let title = cell.title();
    let Some(_turn) = laboratory_turn(&title) else { return };
    if let Some(reason) = browser::missing().or_else(|| class::program().err()) {
        return skip(&title, &reason);
    }
    let networks: Vec<_> = (0..cell.people)
        .map(|person| if person < cell.blocked { cell.by } else { Network::Cone })
        .collect();
    let lab = Lab::build(&networks).expect("laboratory");
    let class = Class::start(&lab, None).expect("class");
    let recording = record(cell, &lab).unwrap_or_else(|error| {
        panic!("{title}: {error}\nthe server said:\n{}", class.log());
    });
    let verdict = Verdict::of(cell, &recording);
    say(&format!("{title}\n{}", verdict.table(cell)));
    verdict.check(cell);
}

/// Runs the class until the relay's view is the model's or patience ends, then for the window.
fn record(cell: &Cell, lab: &Lab) -> e2e::Outcome<Recording> {
    let people: Vec<_> = (0..cell.people)
        .map(|person| {
            json!({
                "name": Cell::name(person),
                "namespace": lab.client(person).name(),
                "origin": format!("http://{WEB}"),
                "devices": if cell.video { "camera" } else { "microphone" },
            })
        })
        .collect();
    let argument = json!({ "room": "4821-7739", "video": cell.video, "people": people });
    e2e::counters::count_kinds(lab.server())?;
    let mut spec = Spec::start("call.ts", &argument)?;
    while let Some(event) = spec.next()? {
        if event["event"] == "ready" {
            break;
        }
    }
    let expected = cell.room().relayed().count();
    let relay_links = || {
        let metrics = scrape::metrics(lab.server(), RELAY_ADMIN).ok()?;
        metrics.count("relay_links", &[]).ok()
    };
    // What the relay says in the end is judged with everything else.
    let mut since = None;
    e2e::process::until(SETTLE, || {
        since =
            relay_links().filter(|links| *links == expected).and(since.or(Some(Instant::now())));
        since.filter(|start| start.elapsed() > SETTLED)
    });
    let mut recording = Recording::new(cell.people);
    let begin = Instant::now();
    while begin.elapsed() < WINDOW {
        recording.look_at_server(lab.server(), RELAY_ADMIN)?;
        recording.hear(spec.arrived()?)?;
        std::thread::sleep(LOOK);
    }
    recording.hear(spec.stop()?)?;
    Ok(recording.finish())
}

/// Both sides of every comparison.
struct Verdict {
    seconds: f64,
    /// Pairs by their names, with what their two ends say of being relayed.
    pairs: BTreeMap<[String; 2], Vec<bool>>,
    /// Badges of each person that say "relayed".
    badges: Vec<usize>,
    /// Fewest pictures a second of any video.
    frames_per_sec: f64,
    /// One-sided and two-sided.
    relay_links: [u64; 2],
    /// Wire bytes in the window: into the relay, and out of it.
    bytes: [Bytes; 2],
}

/// The same quantity from four sources, in wire bytes.
struct Bytes {
    pages: f64,
    relay: f64,
    kernel: f64,
    /// What the pages counted, without the headers that they do not know of.
    payload: f64,
    /// The part of `kernel` that is STUN, which pages do not count.
    stun: f64,
    model: f64,
}

impl Verdict {
    fn of(cell: &Cell, recording: &Recording) -> Self {
        let window = recording.window();
        let mut pairs = BTreeMap::<_, Vec<bool>>::new();
        let mut frames_per_sec = f64::INFINITY;
        let (mut pages, mut payload) = ([0.0; 2], [0.0; 2]);
        let mut relayed_ends = 0.0;
        for (person, links) in recording.ends() {
            for (other, end) in links {
                let mut pair = [Cell::name(person), other.clone()];
                pair.sort();
                let relayed = end.relayed();
                pairs.entry(pair).or_default().push(relayed);
                let frames = end.frames.over(window) / window.seconds();
                frames_per_sec = frames_per_sec.min(frames);
                if relayed {
                    relayed_ends += 1.0;
                    let header = UDP_IPV4 + if end.own_leg() { CHANNEL_DATA } else { 0.0 };
                    for direction in Direction::BOTH {
                        let flow = end.flow(direction);
                        let bytes = flow.bytes.over(window);
                        payload[direction as usize] += bytes;
                        pages[direction as usize] += bytes + header * flow.packets.over(window);
                    }
                }
            }
        }
        // b: mean wire bytes of one stream on one of its two legs. Each relayed link has two
        // streams and each stream two legs, one in and one out.
        let legs = pages[0] + pages[1];
        let b = if relayed_ends == 0.0 { 0.0 } else { legs / (2.0 * relayed_ends) };
        let model = 2.0 * cell.room().relayed().count() as f64 * b;
        let bytes = Direction::BOTH.map(|direction| Bytes {
            pages: pages[direction as usize],
            payload: payload[direction as usize],
            relay: recording.relay(direction).over(window),
            kernel: recording.kernel(direction).over(window),
            stun: recording.stun(direction).over(window),
            model,
        });
        let badges = (0..cell.people).map(|person| recording.relayed_badges(person)).collect();
        let relay_links = recording.relay_links();
        Self { seconds: window.seconds(), pairs, badges, frames_per_sec, relay_links, bytes }
    }

    /// Pairs of which both ends say that they are relayed.
    fn relayed_pairs(&self) -> usize {
        self.pairs.values().filter(|ends| ends.iter().all(|relayed| *relayed)).count()
    }

    /// Mean wire rate of a relayed stream.
    fn stream_bps(&self, cell: &Cell) -> f64 {
        let streams = 2.0 * cell.room().relayed().count() as f64;
        self.bytes[0].pages * 8.0 / self.seconds / streams
    }

    fn check(&self, cell: &Cell) {
        let title = cell.title();
        let expected = cell.room().relayed().count();
        assert_eq!(
            self.pairs.len() as u64,
            cell.room().links().count(),
            "{title}: pairs connected"
        );
        for (pair, ends) in &self.pairs {
            assert_eq!(ends.len(), 2, "{title}: {pair:?} know of each other");
            let blocked = (0..cell.blocked).any(|person| pair.contains(&Cell::name(person)));
            assert!(ends.iter().all(|end| *end == blocked), "{title}: {pair:?} relayed: {ends:?}");
        }
        for (person, badges) in self.badges.iter().enumerate() {
            let links = if person < cell.blocked { cell.people - 1 } else { cell.blocked };
            assert_eq!(*badges, links, "{title}: badges of {}", Cell::name(person));
        }
        assert_eq!(self.relayed_pairs() as u64, expected, "{title}: K by the browsers");
        let [one_sided, two_sided] = self.relay_links;
        assert_eq!(one_sided + two_sided, expected, "{title}: K by the relay");
        if cell.by == Network::TurnPortOnly {
            // Two such people have no other way than two allocations.
            let model = [cell.room().one_sided().count(), cell.room().two_sided().count()];
            assert_eq!(self.relay_links, model, "{title}: K1 and K2 by the relay");
        }
        if cell.video {
            let slowest = self.frames_per_sec;
            assert!(slowest >= FRAMES_PER_SEC_MIN, "{title}: {slowest:.2} pictures a second");
        }
        for (bytes, direction) in self.bytes.iter().zip(Direction::BOTH) {
            let title = format!("{title}: {direction:?}");
            if expected == 0 {
                let allocations = (cell.people * (cell.people - 1)) as f64;
                let bps = bytes.relay.max(bytes.kernel) * 8.0 / self.seconds;
                assert!(bps <= IDLE_BPS_MAX * allocations, "{title}: {bps:.0} bit/s of nothing");
                continue;
            }
            let close = |what: &str, measured: f64, expected: f64, tolerance: f64| {
                let difference = difference_percent(measured, expected);
                assert!(difference.abs() <= tolerance, "{title}: {what} {difference:+.2} %");
            };
            close("relay against kernel", bytes.relay, bytes.kernel, SKEW_TOLERANCE);
            close("media against pages", bytes.kernel - bytes.stun, bytes.pages, cell.tolerance);
            let (bps, least) = (self.stream_bps(cell), cell.stream_bps_min());
            if bps < least {
                let text =
                    format!("streams of {bps:.0} bit/s on a busy machine, {least:.0} needed");
                skip(&format!("{title}: STUN and all against 2Kb"), &text);
                continue;
            }
            close("relay against pages", bytes.relay, bytes.pages, cell.tolerance);
            close("relay against model", bytes.relay, bytes.model, cell.tolerance);
            close("kernel against model", bytes.kernel, bytes.model, cell.tolerance);
            // A check that cannot fail shows nothing: two wrong models must be found out.
            let other_k = cell.other_room().relayed().count() as f64;
            let other = bytes.model * other_k / expected as f64;
            for (what, wrong) in [("K of another T", other), ("no headers", bytes.payload)] {
                let difference = difference_percent(bytes.kernel, wrong).abs();
                assert!(difference > cell.tolerance, "{title}: {what} passes: {difference:.2} %");
            }
        }
    }

    fn table(&self, cell: &Cell) -> String {
        let expected = cell.room().relayed().count();
        let mut table = Table::new(&[
            "",
            "pages",
            "relay",
            "kernel",
            "of it STUN",
            "2Kb",
            "relay/kernel",
            "media/pages",
            "relay/pages",
            "kernel/2Kb",
        ]);
        for (bytes, direction) in self.bytes.iter().zip(Direction::BOTH) {
            let per_cent = |measured, expected: f64| match expected {
                0.0 => "-".to_owned(),
                _ => format!("{:+.2} %", difference_percent(measured, expected)),
            };
            table.row(vec![
                format!("{direction:?}"),
                format!("{:.0} B", bytes.pages),
                format!("{:.0} B", bytes.relay),
                format!("{:.0} B", bytes.kernel),
                format!("{:.0} B", bytes.stun),
                format!("{:.0} B", bytes.model),
                per_cent(bytes.relay, bytes.kernel),
                per_cent(bytes.kernel - bytes.stun, bytes.pages),
                per_cent(bytes.relay, bytes.pages),
                per_cent(bytes.kernel, bytes.model),
            ]);
        }
        format!(
            "  K: model {expected}, browsers {}, relay {}+{}; {:.1} s; slowest video {:.1}/s, \
             streams {:.0} kbit/s\n{table}",
            self.relayed_pairs(),
            self.relay_links[0],
            self.relay_links[1],
            self.seconds,
            self.frames_per_sec,
            if expected == 0 { 0.0 } else { self.stream_bps(cell) / 1000.0 },
        )
    }
}
