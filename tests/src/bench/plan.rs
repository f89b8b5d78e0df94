//! What a run does, and how it is told to stop.

use std::time::Duration;

use super::flows::Way;
use super::kernel;
use super::throughput::{Case, Leg};
use crate::report::say;
use crate::{Failure, Outcome};

/// Payload sizes in bytes: video that fills a packet, and audio.
const PAYLOADS: [u16; 2] = [1_100, 100];
/// Packets that leave a socket together: evenly spaced, and a video frame's.
const BURSTS: [usize; 2] = [1, 8];
/// Allocations of the cases that are about their number.
const FLOWS: [usize; 4] = [20, 500, 5_000, 20_000];
/// Descriptors of a program beside those of its allocations.
const OTHER_DESCRIPTORS: usize = 1_000;
const ROUNDS: usize = 5;
const PROBE: Duration = Duration::from_millis(500);
/// A round that would end later than this after the start is not begun.
const TIME_MAX: Duration = Duration::from_secs(16 * 60);
const QUICK_ROUNDS: usize = 2;
const QUICK_PROBE: Duration = Duration::from_millis(240);

/// What the command line asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Kinds of traffic; all relays do one before the next begins.
    pub cases: Vec<Case>,
    /// Whether the relays are few, unless they are named.
    pub quick: bool,
    /// Whether memory and allocations per second are measured, too.
    pub footprint: bool,
    /// Whether too much is sent, too.
    pub overload: bool,
    /// How often everything is measured.
    pub rounds: usize,
    /// How long each rate is tried.
    pub probe: Duration,
    /// After this time no other round begins.
    pub time_max: Duration,
    /// Ask for real-time priority.
    pub realtime: bool,
    /// Write the tables into the document.
    pub write: bool,
}

/// How to use the program.
pub const USAGE: &str = "\
usage: bench [--quick] [--flows] [--write] [--rounds N] [--only TEXT] [--no-realtime]
  --quick        two short rounds of the most telling cases, about a minute
  --flows        only 20, 500, 5,000 and 20,000 allocations at a time
  --write        put the tables into docs/performance.md
  --rounds N     how often everything is measured [default: 5]
  --only TEXT    cases with TEXT in their names, such as \"burst 8\" \"footprint\" or
                 \"overload\"
  --no-realtime  let other work on this machine run, at the price of noise
RELAY_SUBJECT chooses relays: castling, coturn, turn-crate or the path of a turnserver, separated
by commas.";

impl Plan {
    /// Reads a command line without the program's name.
    ///
    /// # Errors
    /// The first word that means nothing here.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Outcome<Self> {
        let mut plan = Self {
            cases: cases(),
            quick: false,
            footprint: true,
            overload: true,
            rounds: ROUNDS,
            probe: PROBE,
            time_max: TIME_MAX,
            realtime: true,
            write: false,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words.next().ok_or_else(|| Failure::new(format!("{word}: its value is missing")))
            };
            match word.as_str() {
                "--quick" => plan.shorten(),
                "--flows" => plan.count_flows(),
                "--write" => plan.write = true,
                "--no-realtime" => plan.realtime = false,
                "--rounds" => {
                    let value = value()?;
                    let rounds = value.parse().ok().filter(|rounds| (1..=100).contains(rounds));
                    let wrong = || Failure::new(format!("--rounds {value}: 1 to 100"));
                    plan.rounds = rounds.ok_or_else(wrong)?;
                }
                "--only" => plan.restrict(&value()?)?,
                _ => return Err(Failure::new(format!("{word}: no such option"))),
            }
        }
        Ok(plan)
    }

    /// The same with no more allocations than `descriptors` allow: every relay here, and the
    /// generator, opens one for each.
    #[must_use]
    pub fn within(mut self, descriptors: usize) -> Self {
        let most = descriptors.saturating_sub(OTHER_DESCRIPTORS);
        for case in self.cases.iter_mut().filter(|case| case.allocations > most) {
            say(&format!("{descriptors} descriptors: {} flows become {most}", case.allocations));
            case.allocations = most;
        }
        self
    }

    fn shorten(&mut self) {
        self.cases.retain(Case::is_telling);
        self.quick = true;
        self.overload = false;
        self.rounds = QUICK_ROUNDS;
        self.probe = QUICK_PROBE;
    }

    fn count_flows(&mut self) {
        let plain = Case::new(Way::Channels, PAYLOADS[0], BURSTS[0]);
        self.cases = FLOWS.map(|allocations| Case { allocations, ..plain }).to_vec();
        (self.footprint, self.overload) = (false, false);
    }

    fn restrict(&mut self, text: &str) -> Outcome<()> {
        self.cases.retain(|case| case.name().contains(text));
        self.footprint = "footprint".contains(text);
        self.overload = "overload".contains(text);
        if self.cases.is_empty() && !self.footprint && !self.overload {
            return Err(Failure::new(format!("--only {text}: no such case")));
        }
        Ok(())
    }
}

/// Channels in all sizes; the rest with full packets only, as their cost differs from the channels'
/// by headers, hops, streams and workers, not by size.
fn cases() -> Vec<Case> {
    let every = |way, payloads: &[u16]| -> Vec<Case> {
        let sizes = payloads.iter();
        let bursts = |payload_len| BURSTS.map(|burst| Case::new(way, payload_len, burst));
        sizes.flat_map(|payload_len| bursts(*payload_len)).collect()
    };
    let channels = every(Way::Channels, &PAYLOADS);
    let indications = every(Way::Indications, &PAYLOADS[..1]);
    let between = every(Way::RelayToRelay, &PAYLOADS[..1]);
    let over = |leg, burst| Case { leg, ..Case::new(Way::Channels, PAYLOADS[0], burst) };
    let [even, frames] = BURSTS;
    let streams = vec![over(Leg::Tcp, even), over(Leg::Tcp, frames), over(Leg::Tls, frames)];
    // Partners are at any two workers, so half of the packets go from one to the other.
    let across = between.iter().map(|case| Case { cores: 2, ..*case }).collect();
    [channels, indications, between, streams, across].concat()
}

/// From now on INT and TERM end the run at its next step, so that it can clean up.
///
/// # Errors
/// The kernel refuses.
pub fn catch_interrupts() -> Outcome<()> {
    Ok(kernel::catch_interrupts()?)
}

/// Fails once a signal was caught.
///
/// # Errors
/// The run is to end.
pub fn check_interrupt() -> Outcome<()> {
    if kernel::interrupted() { Err(Failure::new("interrupted")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Outcome<Plan> {
        Plan::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_option_changes_the_plan() {
        let full = parse("").unwrap();
        assert_eq!((full.cases.len(), full.rounds, full.footprint), (13, 5, true));
        assert!(full.overload);
        let quick = parse("--quick --write").unwrap();
        assert_eq!((quick.cases.len(), quick.rounds, quick.write), (4, 2, true));
        let only = parse("--rounds 3 --only indications --no-realtime").unwrap();
        assert_eq!((only.cases.len(), only.rounds, only.footprint), (2, 3, false));
        assert!(!only.realtime && !only.overload);
        let flows: Vec<_> = parse("--flows").unwrap().cases.iter().map(Case::name).collect();
        assert_eq!(flows[0], "channels, 1100 B, burst 1");
        assert_eq!(flows[3], "channels, 1100 B, burst 1, 20000 flows");
        let overload = parse("--only overload").unwrap();
        assert_eq!((overload.cases.len(), overload.overload), (0, true));
        assert_eq!(parse("--only TCP").unwrap().cases.len(), 2);
        assert_eq!(parse("--only cores").unwrap().cases.len(), 2);
        let footprint = parse("--only footprint").unwrap();
        assert_eq!((footprint.cases.len(), footprint.footprint), (0, true));
    }

    #[test]
    fn flows_are_as_many_as_the_machine_allows() {
        let allocations = |descriptors| -> Vec<_> {
            let plan = parse("--flows").unwrap().within(descriptors);
            plan.cases.iter().map(|case| case.allocations).collect()
        };
        assert_eq!(allocations(1 << 20), FLOWS);
        assert_eq!(allocations(20_000), [20, 500, 5_000, 19_000]);
    }

    #[test]
    fn no_payload_needs_padding_on_a_stream() {
        assert!(PAYLOADS.iter().all(|payload_len| payload_len % 4 == 0));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for line in ["--fast", "--rounds", "--rounds 0", "--rounds x", "--only nonsense"] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(line.split(' ').next().unwrap()), "{error}");
        }
    }
}
