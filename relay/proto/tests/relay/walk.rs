//! Random but valid lives of a few clients, step by step beside the naive model.

use std::net::SocketAddr;

use relay_proto::stun::Method;
use relay_proto::{Verdict, attribute as attr};

use super::model::{CHANNELS_MAX, Model, Outcome, PERMISSIONS_MAX};
use super::world::{Client, Random, Relayed, World, channel_data, peer, rendered};

const CLIENTS: usize = 3;
const STEPS: usize = 400;
const SEEDS: u64 = 60;
const NUMBERS: [u16; 3] = [0x4000, 0x4001, 0x4FFF];
/// Steps in time, most of them at an edge.
const PAUSES_MS: [u64; 9] = [1, 999, 59_999, 140_000, 299_999, 300_000, 300_001, 599_999, 600_001];
const LIFETIMES_S: [u64; 6] = [0, 10, 600, 900, 3600, 9999];

struct Walk {
    world: World,
    model: Model,
    random: Random,
    clients: Vec<Client>,
    /// The allocation that each client had last.
    relayed: Vec<Option<Relayed>>,
    /// Every byte that left the relay.
    transcript: Vec<u8>,
    /// How many payloads reached a peer, a channel, a client without one, and nobody.
    reached: [u32; 4],
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut world = World::with(|settings| {
            settings.permissions_max = PERMISSIONS_MAX;
            settings.channels_max = CHANNELS_MAX;
        });
        // Valid for longer than any walk.
        let expires = world.now.unix_s + 1_000_000_000;
        let clients = (1..).take(CLIENTS).map(|port| world.client_until(port, "ana", expires));
        let clients = clients.collect();
        Self {
            world,
            model: Model::default(),
            random: Random(seed),
            clients,
            relayed: vec![None; CLIENTS],
            transcript: Vec::new(),
            reached: [0; 4],
        }
    }

    fn any_peer(&mut self) -> SocketAddr {
        let relayed: Vec<_> = self.relayed.iter().flatten().map(|it| it.addr.0).collect();
        let mut peers: Vec<_> = (1..=3).flat_map(|ip| [peer(ip, 1), peer(ip, 2)]).collect();
        peers.extend(relayed.iter().chain(&relayed));
        *self.random.pick(&peers)
    }

    fn lifetime_s(&mut self) -> u64 {
        *self.random.pick(&LIFETIMES_S)
    }

    fn ask(
        &mut self,
        client: usize,
        method: Method,
        attributes: &[(u16, Vec<u8>)],
        peers: &[SocketAddr],
    ) -> u16 {
        let who = &mut self.clients[client];
        self.world.renew_nonce(who);
        let reply = self.world.ask(who, method, |w| {
            let w = attributes.iter().fold(w, |w, (kind, value)| w.attribute(*kind, value));
            peers.iter().fold(w, |w, peer| w.xor_address(attr::XOR_PEER_ADDRESS, *peer))
        });
        self.transcript.extend(&reply.bytes);
        reply.code()
    }

    fn outcome(&mut self, client: usize, bytes: &[u8]) -> Outcome {
        let from = self.clients[client].addr;
        match self.world.relay.from_client(self.world.now, from, bytes) {
            Verdict::ToPeer { to, .. } => Outcome::ToPeer(to.0),
            Verdict::Hairpin { from, to, payload, .. } => {
                let verdict = self.world.relay.from_relay(self.world.now, from, to, payload);
                self.heard(from.0, &verdict)
            }
            Verdict::Drop(_) => Outcome::Dropped,
            other => panic!("{other:?}"),
        }
    }

    fn heard(&mut self, from: SocketAddr, verdict: &Verdict<'_>) -> Outcome {
        let Verdict::ToClient { to, .. } = verdict else { return Outcome::Dropped };
        let bytes = rendered(verdict);
        self.transcript.extend(&bytes);
        let client = self.clients.iter().position(|client| client.addr == *to).expect("a client");
        match bytes[0] >> 6 {
            1 => Outcome::Channel(client, u16::from_be_bytes([bytes[0], bytes[1]])),
            _ => Outcome::Indication(client, from),
        }
    }

    fn tally(&mut self, outcome: Outcome) {
        let kind = match outcome {
            Outcome::ToPeer(_) => 0,
            Outcome::Channel(..) => 1,
            Outcome::Indication(..) => 2,
            Outcome::Dropped => 3,
        };
        self.reached[kind] += 1;
    }

    /// One step; returns what the relay did and what the model says.
    fn step(&mut self) -> (String, String) {
        let now_ms = self.world.now.mono_ms;
        let client = self.random.below(CLIENTS);
        match self.random.below(30) {
            0 => {
                let pause_ms = *self.random.pick(&PAUSES_MS);
                self.world.pass_ms(pause_ms);
                let now_ms = self.world.now.mono_ms;
                self.world.tick();
                let got = self.world.relay.snapshot(self.world.now);
                let got = (got.allocations, got.permissions, got.channels);
                (format!("gauges {got:?}"), format!("gauges {:?}", self.model.gauges(now_ms)))
            }
            1 => {
                // Time passes without a tick: lifetimes are checked where they matter.
                let pause_ms = *self.random.pick(&PAUSES_MS);
                self.world.pass_ms(pause_ms);
                (String::new(), String::new())
            }
            2 | 3 => {
                let lifetime_s = self.lifetime_s();
                let wanted = if self.model.live(now_ms, client).is_some() { 437 } else { 0 };
                let lifetime = u32::try_from(lifetime_s).expect("short").to_be_bytes().to_vec();
                let attributes =
                    [(attr::REQUESTED_TRANSPORT, vec![17, 0, 0, 0]), (attr::LIFETIME, lifetime)];
                let code = self.ask(client, Method::Allocate, &attributes, &[]);
                if code == 0 {
                    let relayed = self.world.last_opened();
                    self.relayed[client] = Some(relayed);
                    self.model.allocate(now_ms, client, lifetime_s, relayed.addr.0);
                }
                (format!("allocate {code}"), format!("allocate {wanted}"))
            }
            4 => {
                let lifetime_s = self.lifetime_s();
                let wanted = self.model.refresh(now_ms, client, lifetime_s);
                let lifetime = u32::try_from(lifetime_s).expect("short").to_be_bytes().to_vec();
                let code = self.ask(client, Method::Refresh, &[(attr::LIFETIME, lifetime)], &[]);
                (format!("refresh {code}"), format!("refresh {wanted}"))
            }
            5..=8 => {
                let peers: Vec<_> = (0..=self.random.below(3)).map(|_| self.any_peer()).collect();
                let wanted = self.model.permit(now_ms, client, &peers);
                let code = self.ask(client, Method::CreatePermission, &[], &peers);
                (format!("permit {peers:?} {code}"), format!("permit {peers:?} {wanted}"))
            }
            9..=12 => {
                let (number, peer) = (*self.random.pick(&NUMBERS), self.any_peer());
                let wanted = self.model.bind(now_ms, client, number, peer);
                let value = [&number.to_be_bytes()[..], &[0, 0]].concat();
                let code = self.ask(
                    client,
                    Method::ChannelBind,
                    &[(attr::CHANNEL_NUMBER, value)],
                    &[peer],
                );
                (format!("bind {peer} {code}"), format!("bind {peer} {wanted}"))
            }
            13..=17 => {
                let to = self.any_peer();
                let bytes = self.world.indication(to, b"payload");
                let wanted = self.model.send(now_ms, client, to);
                let got = self.outcome(client, &bytes);
                self.tally(got);
                (format!("send {to} {got:?}"), format!("send {to} {wanted:?}"))
            }
            18..=23 => {
                let number = *self.random.pick(&NUMBERS);
                let wanted = self.model.channel_data(now_ms, client, number);
                let got = self.outcome(client, &channel_data(number, b"payload"));
                self.tally(got);
                (format!("data {number:#x} {got:?}"), format!("data {number:#x} {wanted:?}"))
            }
            _ => {
                let Some(at) = self.relayed[client] else { return Default::default() };
                let from = peer(1 + self.random.byte() % 3, 1 + u16::from(self.random.byte() % 2));
                let wanted = self.model.hear(now_ms, client, from);
                let verdict = self.world.peer_sends(at, from, b"payload");
                let got = self.heard(from, &verdict);
                self.tally(got);
                (format!("peer {from} {got:?}"), format!("peer {from} {wanted:?}"))
            }
        }
    }
}

/// A failure prints what to call this with.
fn walk(seed: u64) -> Walk {
    let mut walk = Walk::new(seed);
    for step in 0..STEPS {
        let (got, wanted) = walk.step();
        assert_eq!(got, wanted, "walk({seed}), step {step}: relay on the left, model on the right");
    }
    let after = walk.world.relay.snapshot(walk.world.now);
    assert_eq!(after.conservation_errors, 0, "walk({seed})");
    // I-9: when nobody refreshes, nothing is left.
    walk.world.pass_ms(3_600_000);
    walk.world.tick();
    let after = walk.world.relay.snapshot(walk.world.now);
    assert_eq!((after.allocations, after.permissions, after.channels), (0, 0, 0), "walk({seed})");
    let opened: u64 = after.allocations_opened.iter().sum();
    assert_eq!(opened, after.allocations_closed.iter().sum(), "walk({seed})");
    assert_eq!(walk.world.closed.len(), walk.world.opened.len(), "walk({seed}): I-6");
    walk
}

#[test]
fn relay_and_model_agree_on_random_lives() {
    let mut reached = [0; 4];
    for seed in 0..SEEDS {
        let ended = walk(seed);
        reached.iter_mut().zip(ended.reached).for_each(|(sum, more)| *sum += more);
    }
    assert!(reached.iter().all(|count| *count > 200), "too little of something: {reached:?}");
}

/// Contract of the crate: equal construction and equal calls give equal bytes.
#[test]
fn equal_lives_give_equal_bytes() {
    for seed in 1_000..1_005 {
        let first = walk(seed).transcript;
        assert!(first.len() > 1_000);
        assert!(first == walk(seed).transcript, "walk({seed}) differed from itself");
    }
}
