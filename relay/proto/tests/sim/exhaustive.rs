//! The small world of which every life is lived: one client, two peers, two channels, one port,
//! and every sequence of twelve acts up to a depth.

use relay_proto::Transport;
use relay_proto::auth::ExpiryMode;

use super::client::Wish;
use super::invariants as check;
use super::operation::{Act, Member, Operation, Plan};
use super::run::caught;
use super::scene::{PEERS, Rules};
use super::seeds::THREADS;
use super::world::World;
use crate::wire::channel_data;

/// Depth of `cargo test`; `cargo sim`, which is optimised, goes two deeper.
const DEPTH: u32 = if cfg!(debug_assertions) { 4 } else { 6 };
const ACTS: u64 = 12;
const NUMBERS: [u16; 2] = [0x4000, 0x4001];
/// Steps in time at the edges of permissions, channels and allocations.
const PAUSES_S: [u64; 5] = [299, 300, 301, 599, 600];

fn act(number: u64) -> Option<Act> {
    let bind = |at: usize| Wish::Bind { number: NUMBERS[at], peer: PEERS[at * 2] };
    let pause = |at: u64| PAUSES_S.get(usize::try_from(at).ok()?).copied();
    let wish = match number {
        0 => Wish::ALLOCATE,
        1 => Wish::Refresh { lifetime_s: 0, family: 0 },
        2 => Wish::Permit { peers: vec![PEERS[0]] },
        3 => bind(0),
        4 => bind(1),
        5 => return Some(Act::Crash),
        6 => return None,
        other => return pause(other - 7).map(|seconds| Act::Pass { ms: seconds * 1_000 }),
    };
    Some(Act::Ask { client: 0, wish })
}

/// One life; its digits in base [`ACTS`] are its acts.
fn live(world: &mut World, acts: &[Option<Act>], life: u64, depth: u32) {
    let mut rest = life;
    for _ in 0..depth {
        let number = usize::try_from(rest % ACTS).expect("below the number of acts");
        rest /= ACTS;
        match &acts[number] {
            Some(act) => world.run(&Operation { act: act.clone(), dice: life }),
            None => probe(world),
        }
    }
    // The next life begins elsewhere, when nothing is left of this one.
    world.restart(0);
    world.run_until(world.now.mono_ms + 600_000);
    check::i09_nothing_stays_of_those_who_left(&world.edge, &world.last);
}

/// Data every way there is.
fn probe(world: &mut World) {
    for (at, number) in NUMBERS.into_iter().enumerate() {
        let peer = PEERS[at * 2];
        world.to_relay(0, &channel_data(number, b"by channel"), false);
        world.send(0, peer, 16, false);
        if let Some(port) = world.clients[0].relayed {
            world.peer_sends(port, peer, b"from a peer");
        }
    }
    world.run_until(world.now.mono_ms);
}

fn plan() -> Plan {
    let member = Member {
        user: 0,
        transport: Transport::Udp,
        is_v6: false,
        is_symmetric: false,
        keeps: false,
        by_sha256: false,
    };
    let rules = Rules {
        permissions_max: 2,
        channels_max: 2,
        session_s_max: None,
        expiry_mode: ExpiryMode::New,
        rfc5766_channels: false,
        strict_channels: false,
        bps_max: None,
        pool: 1,
        quota: 1,
    };
    Plan { rules, members: vec![member], operations: Vec::new() }
}

/// Lives all lives whose number leaves this remainder.
fn live_all(remainder: u64, depth: u32) -> u64 {
    let acts: Vec<_> = (0..ACTS).map(act).collect();
    let mut world = World::new(&plan(), None, true);
    for life in (0..ACTS.pow(depth)).filter(|life| life % THREADS == remainder) {
        if let Err(failure) = caught(|| live(&mut world, &acts, life, depth)) {
            let digits = (0..depth).map(|place| life / ACTS.pow(place) % ACTS);
            let told: Vec<_> = digits.map(|number| format!("  {:?}", act(number))).collect();
            panic!("{failure}\nlife {life} of depth {depth}:\n{}", told.join("\n"));
        }
    }
    world.steps
}

#[test]
fn every_short_life_keeps_every_invariant() {
    let steps: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|it| scope.spawn(move || live_all(it, DEPTH))).collect();
        let ended = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.map(|it| it.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).sum()
    });
    println!("{} lives of {DEPTH} acts, {steps} steps", ACTS.pow(DEPTH));
}
