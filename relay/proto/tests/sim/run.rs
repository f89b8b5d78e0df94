//! Runs plans: one, many, or ever shorter ones until only what fails is left.

use std::cell::Cell;
use std::hash::Hasher as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use relay_proto::stun::Method;

use super::client::Wish;
use super::invariants as check;
use super::operation::{Operation, Plan};
use super::plant::Bug;
use super::requests::user;
use super::scene::{PEERS, START};
use super::world::World;
use crate::wire::channel_data;

/// How often a failing plan is run to make it shorter.
const SHRINK_RUNS_MAX: usize = 2_000;

/// What a run was about, for reports.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Figures {
    pub operations: u64,
    /// Calls of the relay.
    pub steps: u64,
    pub opened: u64,
    pub to_peers: u64,
    pub to_clients: u64,
    pub hairpins: u64,
    pub virtual_s: u64,
    /// Allocations that live at the end.
    pub alive: u64,
    /// Of all bytes to clients.
    pub digest: u64,
}

impl Figures {
    pub fn add(&mut self, more: &Self) {
        self.operations += more.operations;
        self.steps += more.steps;
        self.opened += more.opened;
        self.to_peers += more.to_peers;
        self.to_clients += more.to_clients;
        self.hairpins += more.hairpins;
        self.virtual_s += more.virtual_s;
        self.alive += more.alive;
        self.digest ^= more.digest;
    }
}

thread_local! {
    /// A failure that is expected, or shown later, is not printed where it happens.
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs a plan; what failed, if anything did.
pub fn run(plan: &Plan, bug: Option<Bug>, has_model: bool) -> Result<Figures, String> {
    let at = Cell::new(0);
    let ended = caught(|| live(plan, bug, has_model, &at));
    ended.map_err(|failure| format!("{failure}\n  at operation {}", at.get()))
}

/// Turns a panic into what it says.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_QUIET.get() {
                usual(info);
            }
        }));
    });
    IS_QUIET.set(true);
    let ended = catch_unwind(AssertUnwindSafe(work));
    IS_QUIET.set(false);
    ended.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        text.strip_prefix("assertion `left == right` failed: ").unwrap_or(text).to_owned()
    })
}

fn live(plan: &Plan, bug: Option<Bug>, has_model: bool, at: &Cell<usize>) -> Figures {
    let mut world = World::new(plan, bug, has_model);
    for (number, operation) in plan.operations.iter().enumerate() {
        at.set(number);
        world.run(operation);
    }
    at.set(plan.operations.len());
    let passed_ms = world.now.mono_ms - START.mono_ms;
    let figures = figures(&world, plan.operations.len(), passed_ms);
    recover(&mut world);
    figures
}

/// The end of every run: faults stop, all clients leave, nothing stays, and all come again.
fn recover(world: &mut World) {
    world.calm();
    for client in 0..world.clients.len() {
        world.clients[client].keeps = false;
        world.restart(client);
    }
    world.run_until(world.now.mono_ms + 3_600_000);
    check::i09_nothing_stays_of_those_who_left(&world.edge, &world.last);
    world.now.unix_s = START.unix_s + (world.now.mono_ms - START.mono_ms) / 1_000;
    for client in 0..world.clients.len() {
        let codes = relays_again(world, client);
        let name = &world.clients[client].username;
        let is_revoked = world.model.is_revoked(world.now, user(name));
        let is_welcome = name != "nobody" && !name.starts_with("18") && !is_revoked;
        if let Some(codes) = codes.filter(|_| is_welcome) {
            check::i25_clients_relay_again(false, client, &codes);
        }
        world.restart(client);
        world.run_until(world.now.mono_ms + 3_600_000);
    }
}

/// Allocates, binds a channel and sends both ways; the answers, if that does not work.
fn relays_again(world: &mut World, client: usize) -> Option<Vec<(Method, u16)>> {
    world.clients[client].relayed = None;
    let now_ms = world.now.mono_ms;
    world.ask(client, Wish::ALLOCATE, 0);
    world.run_until(now_ms + 500);
    world.ask(client, Wish::Bind { number: 0x4000, peer: PEERS[0] }, 0);
    world.run_until(now_ms + 1_000);
    let (up, down) = (world.tally.traffic.peer.tx[0].packets, sent_to_clients(world));
    world.to_relay(client, &channel_data(0x4000, b"there"), false);
    if let Some(at) = world.clients[client].relayed {
        world.peer_sends(at, PEERS[0], b"back");
    }
    world.run_until(now_ms + 1_500);
    let is_through =
        world.tally.traffic.peer.tx[0].packets == up + 1 && sent_to_clients(world) == down + 1;
    (!is_through).then(|| world.clients[client].codes.clone())
}

fn sent_to_clients(world: &World) -> u64 {
    let legs = world.tally.traffic.client.iter();
    legs.flat_map(|leg| leg.tx).map(|count| count.packets).sum()
}

fn figures(world: &World, operations: usize, passed_ms: u64) -> Figures {
    Figures {
        operations: operations as u64,
        steps: world.steps,
        opened: world.last.allocations_opened.iter().sum(),
        to_peers: world.tally.traffic.peer.tx.iter().map(|it| it.packets).sum(),
        to_clients: sent_to_clients(world),
        hairpins: world.tally.traffic.hairpin.packets,
        virtual_s: passed_ms / 1_000,
        alive: world.last.allocations,
        digest: world.digest.finish(),
    }
}

/// Deletes operations for as long as the plan still fails in the same way.
pub fn shrink(plan: &Plan, bug: Option<Bug>, has_model: bool, failure: &str) -> Plan {
    let mut best = plan.clone();
    let (mut runs, mut size) = (0, best.operations.len().div_ceil(2));
    while size > 0 && runs < SHRINK_RUNS_MAX {
        let mut from = 0;
        while from < best.operations.len() && runs < SHRINK_RUNS_MAX {
            let rest = best.operations.iter().enumerate();
            let kept = rest.filter(|(at, _)| !(from..from + size).contains(at));
            let operations: Vec<Operation> = kept.map(|(_, it)| it.clone()).collect();
            let shorter = Plan { operations, ..best.clone() };
            runs += 1;
            match run(&shorter, bug, has_model) {
                Err(found) if kind(&found) == kind(failure) => best = shorter,
                _ => from += size,
            }
        }
        size /= 2;
    }
    best
}

/// What a failure is called: its first word.
pub fn kind(failure: &str) -> &str {
    failure.split([':', '\n']).next().unwrap_or(failure)
}
