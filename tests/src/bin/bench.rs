//! `bench`: the relay beside others, in alternating runs. `make bench` runs it.

use std::process::ExitCode;
use std::time::Instant;

use e2e::Outcome;
use e2e::bench::field::Field;
use e2e::bench::figures::Figures;
use e2e::bench::plan::{Plan, USAGE, catch_interrupts};
use e2e::bench::subject::Subject;
use e2e::bench::{cpu, footprint, machine, overload, throughput};
use e2e::document::Document;
use e2e::report::say;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let done = Plan::parse(words).and_then(|plan| run(&plan));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(plan: &Plan) -> Outcome<()> {
    let subjects = Subject::chosen(plan.quick)?;
    let descriptors = cpu::raise_descriptor_limit()?;
    let plan = &plan.clone().within(descriptors);
    let machine = machine::describe(&subjects)?;
    let document = plan.write.then(|| Document::open("performance.md")).transpose()?;
    catch_interrupts()?;
    let field = Field::build(plan.realtime)?;
    say(&machine);
    let (figures, rounds) = measure(plan, &field, &subjects)?;
    let conditions = if field.realtime { "" } else { ", without real-time priority" };
    let text = format!(
        "Measured on a {machine}. Rounds: {rounds}{conditions}. Figures are medians (least–most).\n\n{}",
        figures.tables(&subjects)
    );
    println!("{text}");
    if let Some(document) = document {
        say(&format!("written: {}", document.write(&text)?.display()));
    }
    Ok(())
}

/// Measures everything in turns, and says how many rounds the time allowed.
fn measure(plan: &Plan, field: &Field, subjects: &[Subject]) -> Outcome<(Figures, usize)> {
    let mut figures = Figures::default();
    let start = Instant::now();
    for round in 1..=plan.rounds {
        for case in &plan.cases {
            for subject in subjects.iter().filter(|subject| subject.takes(*case)) {
                let near = figures.last_rate(*case, *subject);
                let found = throughput::measure(field, *subject, *case, plan.probe, near)?;
                say(&format!(
                    "round {round}: {}: {}: {:.0} packets/s, {:.2} µs each",
                    case.name(),
                    subject.name(),
                    found.rate,
                    found.cpu_ns / 1e3
                ));
                figures.throughput.push((*case, *subject, found));
            }
        }
        for subject in subjects.iter().filter(|_| plan.footprint) {
            let found = footprint::measure(field, *subject)?;
            say(&format!(
                "round {round}: {}: {:.1} MB idle, {:.2} KB each, {:.0} allocations/s",
                subject.name(),
                found.idle as f64 / 1e6,
                found.per_allocation() / 1e3,
                found.per_second
            ));
            figures.footprint.push((*subject, found));
        }
        for subject in subjects.iter().filter(|_| plan.overload) {
            let near = figures.last_rate(overload::CASE, *subject);
            let found = overload::measure(field, *subject, plan.probe, near)?;
            say(&format!(
                "round {round}: {}: of {:.2} times its maximum it carries {:.2}; calls get {:.2} \
                 beside a flood of {:.2}, {:.2} beside strangers",
                subject.name(),
                found.offered,
                found.goodput,
                found.beside_flood,
                found.flood,
                found.beside_storm
            ));
            figures.overload.push((*subject, found));
        }
        let rounds = u32::try_from(round).expect("rounds are few");
        let next_end = start.elapsed() + start.elapsed() / rounds;
        if round < plan.rounds && next_end > plan.time_max {
            say(&format!("no time for more than {round} of {} rounds", plan.rounds));
            return Ok((figures, round));
        }
    }
    Ok((figures, plan.rounds))
}
