//! Checks as data, and the run that puts them to a server.

use std::sync::Arc;
use std::sync::atomic::AtomicU16;

use super::record::{Record, Seen};
use super::server::{Server, Setup, Subject};
use super::site::Site;
use super::trial::Trial;
use super::verdict::Verdict;
use crate::Outcome;

/// One check: a stimulus, and what a server must do.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The row that it belongs to.
    pub id: &'static str,
    /// Where the rule stands.
    pub rfc: &'static str,
    /// What is sent.
    pub stimulus: &'static str,
    /// What must come back.
    pub expected: &'static str,
    /// How it is found out.
    pub how: How,
}

/// How a check is made.
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// On the wire, with a server of this set-up.
    Wire(Setup, fn(&Trial<'_>) -> Outcome<Verdict>),
    /// As on the wire, but it takes long: only when asked for.
    Slow(Setup, fn(&Trial<'_>) -> Outcome<Verdict>),
    /// By what all other checks saw.
    Run(fn(&Seen) -> Verdict),
    /// By a test of ours, where time or chance is a value; file and name.
    Test(&'static str, &'static str),
}

impl Probe {
    /// A check on the wire.
    pub const fn wire(
        id: &'static str,
        rfc: &'static str,
        stimulus: &'static str,
        expected: &'static str,
        setup: Setup,
        check: fn(&Trial<'_>) -> Outcome<Verdict>,
    ) -> Self {
        Self { id, rfc, stimulus, expected, how: How::Wire(setup, check) }
    }

    /// A check on the wire that takes long.
    pub const fn slow(
        id: &'static str,
        rfc: &'static str,
        stimulus: &'static str,
        expected: &'static str,
        setup: Setup,
        check: fn(&Trial<'_>) -> Outcome<Verdict>,
    ) -> Self {
        Self { id, rfc, stimulus, expected, how: How::Slow(setup, check) }
    }

    /// A check of everything that a run saw.
    pub const fn run(
        id: &'static str,
        rfc: &'static str,
        stimulus: &'static str,
        expected: &'static str,
        check: fn(&Seen) -> Verdict,
    ) -> Self {
        Self { id, rfc, stimulus, expected, how: How::Run(check) }
    }

    /// A row whose test is `name` in `file`.
    pub const fn test(
        id: &'static str,
        rfc: &'static str,
        stimulus: &'static str,
        expected: &'static str,
        file: &'static str,
        name: &'static str,
    ) -> Self {
        Self { id, rfc, stimulus, expected, how: How::Test(file, name) }
    }
}

/// What a server did, check by check in the order of the table.
#[derive(Clone, Debug)]
pub struct Report {
    /// `None` for checks that are not made on the wire.
    pub verdicts: Vec<Option<Verdict>>,
    /// All that the run saw.
    pub seen: Seen,
}

impl Report {
    /// Checks that passed, and all that were made.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let made = self.verdicts.iter().flatten();
        (made.clone().filter(|verdict| verdict.passed).count(), made.count())
    }
}

/// Puts every check on the wire to `subject`, the slow ones if `real_time`, with one start of the
/// program for each set-up.
///
/// A server that cannot be started with a set-up, or a check that cannot be made, fails.
///
/// # Errors
/// The namespaces refuse.
pub fn run(site: &Site, subject: &Subject, probes: &[Probe], real_time: bool) -> Outcome<Report> {
    let mut verdicts = vec![None; probes.len()];
    let record = Arc::new(Record::default());
    let serial = AtomicU16::new(1);
    for setup in Setup::ALL {
        let checks = probes.iter().enumerate().filter_map(|(at, probe)| match probe.how {
            How::Wire(of, check) if of == setup => Some((at, check)),
            How::Slow(of, check) if of == setup && real_time => Some((at, check)),
            _ => None,
        });
        let checks: Vec<_> = checks.collect();
        if checks.is_empty() {
            continue;
        }
        let server = match Server::start(site, subject, setup) {
            Ok(server) => server,
            Err(error) => {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                checks.iter().for_each(|(at, _)| {
                    verdicts[*at] = Some(Verdict::of(false, first));
                });
                continue;
            }
        };
        let found = site.world.within(|| {
            let trial = Trial::new(site, &server, record.clone(), &serial);
            let made = checks.iter().map(|(at, check)| {
                let verdict = check(&trial);
                (*at, verdict.unwrap_or_else(|error| Verdict::of(false, error)))
            });
            Ok(made.collect::<Vec<_>>())
        })?;
        found.into_iter().for_each(|(at, verdict)| verdicts[at] = Some(verdict));
    }
    let seen = record.seen();
    for (verdict, probe) in verdicts.iter_mut().zip(probes) {
        if let How::Run(check) = probe.how {
            *verdict = Some(check(&seen));
        }
    }
    Ok(Report { verdicts, seen })
}
