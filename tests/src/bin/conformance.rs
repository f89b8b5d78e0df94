//! `conformance`: the same checks on the wire against several servers. `make conformance` runs it.

use std::process::ExitCode;

use e2e::conformance::probe::{Probe, Report};
use e2e::conformance::server::{Subject, VARIABLE};
use e2e::conformance::site::{Site, missing};
use e2e::conformance::{probe, rows, tables};
use e2e::document::Document;
use e2e::report::say;
use e2e::{Failure, Outcome};

const USAGE: &str = "\
usage: conformance [--write] [--real-time] [--only TEXT]
  --write      put the tables into docs/conformance.md
  --real-time  make the slow checks, too
  --only TEXT  rows whose id begins with TEXT
RELAY_SUBJECT=castling, =coturn or =<path of a turnserver> probes one server alone.";

#[derive(Default)]
struct Plan {
    write: bool,
    real_time: bool,
    only: String,
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match parse(words).and_then(|plan| run(&plan)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::from(2)
        }
    }
}

fn parse(words: Vec<String>) -> Outcome<Plan> {
    let mut plan = Plan::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--write" => plan.write = true,
            "--real-time" => plan.real_time = true,
            "--only" => {
                let missing = || Failure::new("--only: its value is missing");
                plan.only = words.next().ok_or_else(missing)?;
            }
            _ => return Err(Failure::new(format!("{word}: no such option"))),
        }
    }
    Ok(plan)
}

fn run(plan: &Plan) -> Outcome<()> {
    if let Some(reason) = missing() {
        return Err(Failure::new(reason));
    }
    let names = std::env::var(VARIABLE).unwrap_or_else(|_| "castling coturn".to_owned());
    let subjects: Outcome<Vec<_>> = names.split_whitespace().map(Subject::parse).collect();
    let subjects = subjects?;
    let document = plan.write.then(|| Document::open("conformance.md")).transpose()?;
    let mut probes = rows::all();
    probes.retain(|probe| probe.id.starts_with(&plan.only));
    // Each in namespaces of its own, side by side: most of a run is waiting.
    let reports: Outcome<Vec<_>> = std::thread::scope(|scope| {
        let probe = |subject| probe_one(subject, &probes, plan.real_time);
        let runs = subjects.iter().map(|subject| scope.spawn(move || probe(subject)));
        let runs: Vec<_> = runs.collect();
        let ended = runs.into_iter().map(|run| match run.join() {
            Ok(report) => report,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ended.collect()
    });
    let reports = reports?;
    let text = tables::tables(&probes, &reports);
    println!("{text}");
    if let Some(document) = document {
        say(&format!("written: {}", document.write(&text)?.display()));
    }
    Ok(())
}

/// The server's name, its version and what it did.
fn probe_one(
    subject: &Subject,
    probes: &[Probe],
    real_time: bool,
) -> Outcome<(String, String, Report)> {
    let version = subject.version()?;
    let site = Site::build()?;
    let report = probe::run(&site, subject, probes, real_time)?;
    let (passed, made) = report.count(probes, |_| true);
    say(&format!("{version}: {passed} of {made}"));
    Ok((subject.to_string(), version, report))
}
