//! One measurement: how many packets one relay carries in one case, and what a packet costs.

use std::time::Duration;

use super::cpu;
use super::field::Field;
use super::flows::{Flows, Way};
use super::load::{self, Echo, Load};
use super::plan::check_interrupt;
use super::search;
use super::subject::{Relay, Subject};
use crate::{Failure, Outcome};

/// Fixed rates at which CPU time is measured, in packets per second. At low rates a relay sleeps
/// between packets and pays for waking up, so a figure for one rate says nothing about another.
pub const FIXED_RATES: [f64; 2] = [50_000.0, 100_000.0];

/// Where the first search begins, in packets per second.
const START_RATE: f64 = 200_000.0;
/// Packets per second before the search, and how long: everything must come back.
const WARM_UP_RATE: f64 = 20_000.0;
const WARM_UP: Duration = Duration::from_millis(200);
/// Least share of the warm-up that must come back, or something is broken.
const WARM_UP_SHARE_MIN: f64 = 0.9;
/// Probes of which one must hold. Neighbours on the machine only ever spoil a probe.
const PROBES_MAX: usize = 2;

/// A kind of traffic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Case {
    /// Which way packets take.
    pub way: Way,
    /// Payload of a packet, in bytes.
    pub payload_len: u16,
    /// Packets that leave one socket together.
    pub burst: usize,
}

impl Case {
    /// What tables call it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}, {} B, burst {}", self.way.name(), self.payload_len, self.burst)
    }
}

/// What one relay did in one case.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// Highest rate that held, in packets per second.
    pub rate: f64,
    /// The relay may be faster: the generator was not.
    pub generator_limit: bool,
    /// CPU time per packet at that rate, in nanoseconds.
    pub cpu_ns: f64,
    /// The same at the rates of [`FIXED_RATES`], where those held.
    pub cpu_ns_fixed: [Option<f64>; FIXED_RATES.len()],
}

/// Measures `subject` in `case`. `near` is the rate found before, to start from.
///
/// # Errors
/// The relay fails, or does not even carry `WARM_UP_RATE`.
pub fn measure(
    field: &Field,
    subject: Subject,
    case: Case,
    probe: Duration,
    near: Option<f64>,
) -> Outcome<Throughput> {
    let relay = Relay::start(field, subject)?;
    let flows = Flows::open(field, case)?;
    field.generate(|| {
        let mut bench = Bench { field, relay, flows, burst: case.burst, probe, runs: 0 };
        bench.warm_up().map_err(|error| {
            Failure::new(format!("{}, {}: {error}", subject.name(), case.name()))
        })?;
        bench.search(near.unwrap_or(START_RATE))
    })
}

struct Bench<'a> {
    field: &'a Field,
    relay: Relay,
    flows: Flows,
    burst: usize,
    probe: Duration,
    runs: u16,
}

impl Bench<'_> {
    fn warm_up(&mut self) -> Outcome<()> {
        let (echo, _) = self.run(WARM_UP_RATE, WARM_UP)?;
        let (sent, received) = (echo.sent(), echo.received());
        if (received as f64) < WARM_UP_SHARE_MIN * sent as f64 {
            return Err(Failure::new(format!("of {sent} packets only {received} came through")));
        }
        Ok(())
    }

    fn search(&mut self, start: f64) -> Outcome<Throughput> {
        let mut probes = Vec::new();
        let highest = search::highest(search::step(start), |step| {
            let probe = self.probe(search::rate(step))?;
            probes.push((step, probe));
            Ok::<_, Failure>(matches!(probe, Probe::Held { .. }))
        });
        let none = || Failure::new("not even the lowest rate holds");
        let highest = highest?.ok_or_else(none)?;
        let at = |wanted: usize| probes.iter().find(|(step, _)| *step == wanted);
        let cpu_ns = at(highest).and_then(|(_, probe)| probe.cpu_ns()).ok_or_else(none)?;
        let generator_limit =
            at(highest + 1).is_none_or(|(_, probe)| matches!(probe, Probe::GeneratorLate));
        let mut cpu_ns_fixed = [None; FIXED_RATES.len()];
        for (figure, rate) in cpu_ns_fixed.iter_mut().zip(FIXED_RATES) {
            *figure = self.probe(rate)?.cpu_ns();
        }
        Ok(Throughput { rate: search::rate(highest), generator_limit, cpu_ns, cpu_ns_fixed })
    }

    fn probe(&mut self, rate: f64) -> Outcome<Probe> {
        let mut lost = false;
        for _ in 0..PROBES_MAX {
            let (echo, cpu_ns) = self.run(rate, self.probe)?;
            if echo.holds() && echo.generator_kept_up() {
                return Ok(Probe::Held { cpu_ns });
            }
            // A relay that loses packets of a late generator is no better for its lateness.
            lost |= !echo.holds();
        }
        Ok(if lost { Probe::Lost } else { Probe::GeneratorLate })
    }

    /// One load, and the CPU time per packet that it took, in nanoseconds.
    fn run(&mut self, rate: f64, duration: Duration) -> Outcome<(Echo, f64)> {
        check_interrupt()?;
        self.runs += 1;
        let load = Load { rate, burst: self.burst, duration };
        let before = self.used_ns()?;
        let echo = load::run(&mut self.flows, load, self.runs)?;
        let used = self.used_ns()? - before;
        Ok((echo.clone(), used as f64 / echo.received().max(1) as f64))
    }

    /// CPU time of the relay and of the kernel's thread that receives for it.
    fn used_ns(&self) -> Outcome<u64> {
        let threads = self.field.relay_napi.iter().copied();
        threads.chain([self.relay.id()]).map(cpu::used_ns).sum()
    }
}

/// What came of trying one rate.
#[derive(Clone, Copy)]
enum Probe {
    /// The relay kept up, at this CPU time per packet in nanoseconds.
    Held { cpu_ns: f64 },
    /// The relay lost packets.
    Lost,
    /// The generator did not reach the rate.
    GeneratorLate,
}

impl Probe {
    fn cpu_ns(self) -> Option<f64> {
        match self {
            Self::Held { cpu_ns } => Some(cpu_ns),
            Self::Lost | Self::GeneratorLate => None,
        }
    }
}
