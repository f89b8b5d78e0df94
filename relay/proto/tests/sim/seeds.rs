//! The seeds that run: a bounded range in the suite, any by `cargo sim`.

use std::ops::Range;

use relay_proto::Transport;

use super::client::Wish;
use super::operation::{Act, Member, Operation, Plan};
use super::plant::Bug;
use super::run::{Figures, kind, run, shrink};

/// Seeds and operations each when nobody says otherwise.
const SEEDS: Range<u64> = 0..2_000;
const OPERATIONS: usize = 300;
/// Threads that run seeds.
pub const THREADS: u64 = 2;

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// SIM_SEED=7 names one seed, SIM_SEEDS=0..100 many.
fn seeds() -> Range<u64> {
    if let Ok(text) = std::env::var("SIM_SEED") {
        let seed = number(&text);
        return seed..seed + 1;
    }
    match std::env::var("SIM_SEEDS") {
        Ok(text) => {
            let (from, to) = text.split_once("..").expect("SIM_SEEDS=from..to");
            number(from)..number(to)
        }
        Err(_) => SEEDS,
    }
}

fn operations() -> usize {
    let text = std::env::var("SIM_OPERATIONS");
    text.map_or(OPERATIONS, |text| usize::try_from(number(&text)).expect("a length"))
}

/// Runs one seed; a failure is shrunk and says how to see it again.
fn judge(seed: u64) -> Figures {
    let plan = Plan::new(seed, operations());
    run(&plan, None, true).unwrap_or_else(|failure| {
        let least = shrink(&plan, None, true, &failure);
        let told = run(&least, None, true).expect_err("it failed before");
        let list: Vec<_> = least.operations.iter().map(|it| format!("  {it:?}")).collect();
        panic!(
            "{failure}\n  SIM_SEED={seed} SIM_OPERATIONS={} cargo sim\n\
             shrunk to {} operations: {told}\n{:?}\n{:?}\n{}",
            operations(),
            list.len(),
            least.rules,
            least.members,
            list.join("\n"),
        )
    })
}

#[test]
fn every_seed_keeps_every_invariant_and_agrees_with_the_model() {
    let seeds = seeds();
    let share = |thread: u64| {
        let seeds = seeds.clone();
        move || {
            let mut sum = Figures::default();
            for seed in seeds.filter(|seed| seed % THREADS == thread) {
                sum.add(&judge(seed));
            }
            sum
        }
    };
    let sum = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(share(thread))).collect();
        let mut sum = Figures::default();
        for thread in threads {
            match thread.join() {
                Ok(figures) => sum.add(&figures),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        sum
    });
    println!("seeds {seeds:?}: {sum:?}");
    let has_all = [sum.opened, sum.to_peers, sum.to_clients, sum.hairpins];
    let is_whole = seeds.end - seeds.start < 1_000 || has_all.iter().all(|count| *count > 200);
    assert!(is_whole, "too little of something: {sum:?}");
}

/// What makes a seed worth printing: equal calls give equal bytes.
#[test]
fn equal_seeds_live_equal_lives() {
    let live = |seed| run(&Plan::new(seed, OPERATIONS), None, true).expect("it keeps its rules");
    for seed in 0..20 {
        assert_eq!(live(seed), live(seed), "seed {seed}");
    }
    assert_ne!(live(1).digest, live(2).digest);
}

/// A day passes from one event to the next: a refresh every nine minutes, and a few new nonces.
#[test]
fn day_of_a_client_that_refreshes_is_a_few_hundred_steps() {
    let mut plan = Plan::new(0, 0);
    plan.rules.session_s_max = None;
    let keeper = Member { user: 0, keeps: true, transport: Transport::Udp, ..plan.members[0] };
    plan.members = vec![keeper];
    let acts = [Act::Ask { client: 0, wish: Wish::ALLOCATE }, Act::Pass { ms: 86_400_000 }];
    plan.operations = acts.map(|act| Operation { act, dice: 0 }).into();
    let day = run(&plan, None, true).expect("it keeps its rules");
    assert_eq!((day.virtual_s, day.opened, day.alive), (86_400, 1, 1));
    assert!((160..1_000).contains(&day.steps), "{} steps", day.steps);
}

/// Each bug is seen by the invariants alone, and by the model.
#[test]
fn planted_bugs_are_caught() {
    for (bug, expected) in Bug::ALL {
        for has_model in [false, true] {
            let found = (0..2_000).find_map(|seed| {
                let plan = Plan::new(seed, OPERATIONS);
                run(&plan, Some(bug), has_model).err().map(|failure| (seed, failure))
            });
            let (seed, failure) = found.unwrap_or_else(|| panic!("{bug:?} was not caught"));
            let (by, with) =
                (failure.replace('\n', " "), if has_model { "with" } else { "without" });
            println!("{bug:?} {with} the model: seed {seed}: {by:.90}");
            let is_expected = has_model || expected.contains(&kind(&failure));
            assert!(is_expected, "{bug:?} was caught by {failure}");
        }
    }
}
