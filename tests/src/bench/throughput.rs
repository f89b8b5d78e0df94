//! One measurement: how many packets one relay carries in one case, and what a packet costs.

use std::time::Duration;

use super::cpu;
use super::field::Field;
use super::flows::{ALLOCATIONS, Flows, Way};
use super::load::{self, Echo, Load};
use super::plan::check_interrupt;
use super::search;
use super::server::{Relay, Setup};
use super::subject::Subject;
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

/// Least payload of a full packet, in bytes.
const FULL_LEN: u16 = 1_000;
/// Allocations for which the usual relayed ports are too few.
const MANY: usize = 14_000;

/// How clients reach the relay. Peers use UDP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Leg {
    /// By datagrams.
    Udp,
    /// By a TCP connection each.
    Tcp,
    /// By TLS over TCP.
    Tls,
}

/// A kind of traffic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Case {
    /// Which way packets take.
    pub way: Way,
    /// Payload of a packet, in bytes.
    pub payload_len: u16,
    /// Packets that leave one socket together.
    pub burst: usize,
    /// Between clients and relay.
    pub leg: Leg,
    /// How many, each with a flow in both directions.
    pub allocations: usize,
    /// Cores of the relay, with a packet thread each. The second it shares with the generator.
    pub cores: usize,
}

impl Case {
    /// Clients with UDP, a core for the relay, and not many allocations.
    #[must_use]
    pub const fn new(way: Way, payload_len: u16, burst: usize) -> Self {
        Self { way, payload_len, burst, leg: Leg::Udp, allocations: ALLOCATIONS, cores: 1 }
    }

    /// Whether it is one of those that say most: full packets by channels and from relay to relay,
    /// over UDP and on one core.
    #[must_use]
    pub fn is_telling(&self) -> bool {
        let plain = self.leg == Leg::Udp && self.cores == 1;
        plain && self.payload_len >= FULL_LEN && self.way != Way::Indications
    }

    /// How a relay is started for it.
    #[must_use]
    pub fn setup(&self) -> Setup {
        Setup { cores: self.cores, tls: self.leg == Leg::Tls, many_ports: self.allocations > MANY }
    }

    /// What tables call it.
    #[must_use]
    pub fn name(&self) -> String {
        let leg = match self.leg {
            Leg::Udp => "",
            Leg::Tcp => " over TCP",
            Leg::Tls => " over TLS",
        };
        let mut name =
            format!("{}{leg}, {} B, burst {}", self.way.name(), self.payload_len, self.burst);
        if self.allocations != ALLOCATIONS {
            name.push_str(&format!(", {} flows", self.allocations));
        }
        if self.cores > 1 {
            name.push_str(&format!(", {} cores", self.cores));
        }
        name
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
    /// Resident memory of the relay after that, in bytes.
    pub resident: u64,
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
    let wrong =
        |error: Failure| Failure::new(format!("{}, {}: {error}", subject.name(), case.name()));
    let relay = Relay::start(field, subject, case.setup()).map_err(wrong)?;
    let flows = Flows::open(field, &relay, case).map_err(wrong)?;
    field.generate(|| {
        let mut bench = Bench::new(field, relay, flows, case.burst, probe);
        bench.warm_up().map_err(wrong)?;
        bench.search(near.unwrap_or(START_RATE)).map_err(wrong)
    })
}

/// A relay under load.
pub(super) struct Bench<'a> {
    field: &'a Field,
    relay: Relay,
    /// What the load is sent over.
    pub flows: Flows,
    burst: usize,
    probe: Duration,
    runs: u16,
}

impl<'a> Bench<'a> {
    /// Nothing is sent yet.
    pub fn new(
        field: &'a Field,
        relay: Relay,
        flows: Flows,
        burst: usize,
        probe: Duration,
    ) -> Self {
        Self { field, relay, flows, burst, probe, runs: 0 }
    }

    /// Sends a little, which must come back, and once.
    ///
    /// # Errors
    /// It did not.
    pub fn warm_up(&mut self) -> Outcome<()> {
        let (echo, _) = self.run(WARM_UP_RATE, WARM_UP)?;
        let (sent, received) = (echo.sent(), echo.received());
        if received > sent || (received as f64) < WARM_UP_SHARE_MIN * sent as f64 {
            return Err(Failure::new(format!("of {sent} packets {received} came through")));
        }
        Ok(())
    }

    /// Finds the highest rate that holds, beginning near `start` packets per second.
    ///
    /// # Errors
    /// None does, or the relay fails.
    pub fn search(&mut self, start: f64) -> Outcome<Throughput> {
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
        let (rate, resident) = (search::rate(highest), cpu::resident(self.relay.id())?);
        Ok(Throughput { rate, generator_limit, cpu_ns, cpu_ns_fixed, resident })
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
        self.run_beside(rate, 0.0, duration)
    }

    /// The same, while the intruder of the flows sends at `intruder_rate` packets per second.
    ///
    /// # Errors
    /// A socket's, or the run is to end.
    pub fn run_beside(
        &mut self,
        rate: f64,
        intruder_rate: f64,
        duration: Duration,
    ) -> Outcome<(Echo, f64)> {
        check_interrupt()?;
        self.runs += 1;
        let load = Load { rate, burst: self.burst, intruder_rate, duration };
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
