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
    Wire(Setup, Check),
    /// As on the wire with [`Setup::Open`], but it takes minutes: only when asked for. Besides, a
    /// test of ours checks the same where time is a value.
    Slow(Check, Option<Test>),
    /// By what all other checks saw.
    Run(fn(&Seen) -> Verdict),
    /// By a test of ours alone.
    Test(Test),
}

/// Finds out what a server does.
pub type Check = fn(&Trial<'_>) -> Outcome<Verdict>;

/// A test of the protocol core: file and name.
pub type Test = (&'static str, &'static str);

impl Probe {
    /// A check on the wire.
    pub const fn wire(
        id: &'static str,
        rfc: &'static str,
        stimulus: &'static str,
        expected: &'static str,
        setup: Setup,
        check: Check,
    ) -> Self {
        Self { id, rfc, stimulus, expected, how: How::Wire(setup, check) }
    }

    /// A check on the wire that takes long, and the test that need not wait.
    pub const fn slow(
        id: &'static str,
        rfc: &'static str,
        stimulus: &'static str,
        expected: &'static str,
        check: Check,
        test: Option<Test>,
    ) -> Self {
        Self { id, rfc, stimulus, expected, how: How::Slow(check, test) }
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

    /// A row that needs a test of ours.
    pub const fn test(
        id: &'static str,
        rfc: &'static str,
        stimulus: &'static str,
        expected: &'static str,
        test: Test,
    ) -> Self {
        Self { id, rfc, stimulus, expected, how: How::Test(test) }
    }

    /// The test of ours that checks the row as well, or instead.
    #[must_use]
    pub const fn our_test(&self) -> Option<Test> {
        match self.how {
            How::Slow(_, test) => test,
            How::Test(test) => Some(test),
            How::Wire(..) | How::Run(_) => None,
        }
    }

    /// Whether the rule is ours and no RFC's.
    #[must_use]
    pub fn is_hardening(&self) -> bool {
        self.rfc == "hardening"
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
    /// Checks that passed, and all that were made, of those that `counts` picks.
    #[must_use]
    pub fn count(&self, probes: &[Probe], counts: impl Fn(&Probe) -> bool) -> (usize, usize) {
        let made = probes.iter().zip(&self.verdicts).filter(|(probe, _)| counts(probe));
        let made = made.filter_map(|(_, verdict)| verdict.as_ref());
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
        let quick: Vec<_> = picked(probes, |how| match how {
            How::Wire(of, check) if of == setup => Some(check),
            _ => None,
        });
        let slow: Vec<_> = picked(probes, |how| match how {
            How::Slow(check, _) if setup == Setup::Open && real_time => Some(check),
            _ => None,
        });
        if quick.is_empty() && slow.is_empty() {
            continue;
        }
        let server = match Server::start(site, subject, setup) {
            Ok(server) => server,
            Err(error) => {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                for (at, _) in quick.iter().chain(&slow) {
                    verdicts[*at] = Some(Verdict::of(false, first));
                }
                continue;
            }
        };
        let found = site.world.within(|| {
            let trial = Trial::new(site, &server, record.clone(), &serial);
            Ok(all(&trial, &quick, &slow))
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

/// Checks and their places in the table.
type Picked = (usize, Check);

fn picked(probes: &[Probe], pick: impl Fn(How) -> Option<Check>) -> Vec<Picked> {
    let placed = probes.iter().enumerate();
    placed.filter_map(|(at, probe)| Some((at, pick(probe.how)?))).collect()
}

/// Makes the quick checks one after the other, the slow ones beside them.
fn all(trial: &Trial<'_>, quick: &[Picked], slow: &[Picked]) -> Vec<(usize, Verdict)> {
    let make = |(at, check): &Picked| {
        (*at, check(trial).unwrap_or_else(|error| Verdict::of(false, error)))
    };
    // Threads are born into the namespace of the thread that makes them.
    std::thread::scope(|scope| {
        let waiting: Vec<_> = slow.iter().map(|check| scope.spawn(move || make(check))).collect();
        let mut found: Vec<_> = quick.iter().map(make).collect();
        for thread in waiting {
            found.push(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        found
    })
}
