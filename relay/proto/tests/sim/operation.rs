//! What happens in a simulation, as data: made from a seed, run one by one, deleted to shrink.

use relay_proto::Transport;
use relay_proto::auth::ExpiryMode;

use super::client::Wish;
use super::edge::Host;
use super::network::{CALM, Weather};
use super::scene::{PEERS, Rules};
use crate::wire::Random;

/// Most clients of one simulation.
pub const CLIENTS_MAX: usize = 5;
/// Channel numbers that are asked for; the last is none of RFC 8656's.
const NUMBERS: [u16; 8] = [0x4000, 0x4000, 0x4000, 0x4001, 0x4001, 0x4002, 0x4FFF, 0x5000];
/// Steps in time, most of them at an edge.
const PAUSES_MS: [u64; 16] = [
    1, 20, 499, 501, 999, 5_000, 29_999, 30_001, 59_999, 140_000, 299_999, 300_000, 300_001,
    599_999, 600_001, 604_999,
];
const LIFETIMES_S: [u32; 7] = [10, 600, 700, 900, 3600, 9999, u32::MAX];
const LENGTHS: [usize; 8] = [0, 1, 3, 16, 160, 1_199, 1_200, 1_400];
/// How far the wall clock jumps, in seconds.
const JUMPS_S: [i64; 8] = [1, -1, 3_600, -3_600, 86_400, -86_400, 31_536_000, -31_536_000];

/// One thing that happens. Numbers stand for clients, peers and packets modulo how many there
/// are, so that any operation means something wherever it stands.
#[derive(Clone, Debug)]
pub enum Act {
    Ask {
        client: usize,
        wish: Wish,
    },
    Permit {
        client: usize,
        peers: Vec<usize>,
    },
    Bind {
        client: usize,
        number: u16,
        peer: usize,
    },
    Send {
        client: usize,
        peer: usize,
        length: usize,
        is_stun: bool,
    },
    Data {
        client: usize,
        number: u16,
        length: usize,
    },
    Peer {
        client: usize,
        peer: usize,
        length: usize,
    },
    Pass {
        ms: u64,
    },
    Weather(Weather),
    Host(Host),
    Jump {
        seconds: i64,
    },
    Rebind {
        client: usize,
        back: bool,
    },
    Restart {
        client: usize,
    },
    Hangup {
        client: usize,
    },
    Garble {
        client: usize,
    },
    Attack(Attack),
    Crash,
    /// The operator ends a user, or a whole room, and revokes the name for a while.
    Kick {
        client: usize,
        is_room: bool,
        seconds: u64,
    },
    /// The operator lets nobody new in.
    Drain,
    /// The operator narrows the policy, or widens it again.
    Configure {
        is_narrow: bool,
    },
    /// The network gives a datagram of this client's port back.
    Icmp {
        client: usize,
        peer: usize,
    },
}

/// What somebody does who means harm.
#[derive(Clone, Copy, Debug)]
pub enum Attack {
    /// A request without credentials, from a victim's address.
    Spoof { victim: u8 },
    /// A datagram once more, from its source or from another's.
    Replay { packet: usize, from: Option<usize> },
    /// A datagram with damage, from its source.
    Tamper { packet: usize },
    /// A datagram with an attribute behind its integrity.
    Append { packet: usize },
    /// A valid user's request with a nonce that was never given.
    ForgeNonce { client: usize },
    /// A valid user's request on somebody else's 5-tuple.
    Intrude { client: usize, victim: usize },
    /// A wrong password.
    Guess { client: usize },
    /// Bytes without sense, at a listener or at a relayed port.
    Noise { length: usize },
    /// A peer datagram that claims to be from the relay itself.
    PoseAsRelay { client: usize },
}

#[derive(Clone, Debug)]
pub struct Operation {
    pub act: Act,
    /// Chance for everything until the next operation.
    pub dice: u64,
}

/// A client as a simulation starts.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub user: usize,
    pub transport: Transport,
    pub is_v6: bool,
    pub is_symmetric: bool,
    pub keeps: bool,
    /// Signs with HMAC-SHA256.
    pub by_sha256: bool,
}

/// A whole simulation.
#[derive(Clone, Debug)]
pub struct Plan {
    pub rules: Rules,
    pub members: Vec<Member>,
    pub operations: Vec<Operation>,
}

/// How many kinds of operation [`Swarm::draw`] knows.
const KINDS: usize = 28;

/// Which operations a seed has, and how often.
struct Swarm {
    weights: [usize; KINDS],
    random: Random,
}

impl Plan {
    pub fn new(seed: u64, length: usize) -> Self {
        let mut random = Random(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ 0x5EED);
        let rules = Rules {
            permissions_max: 1 + random.below(5),
            channels_max: 1 + random.below(4),
            session_s_max: [None, None, None, Some(1_500), Some(4 * 3600)][random.below(5)],
            expiry_mode: [ExpiryMode::New, ExpiryMode::Refresh][random.below(2)],
            rfc5766_channels: random.below(4) == 0,
            strict_channels: random.below(4) == 0,
            bps_max: (random.below(4) == 0).then_some(64_000),
            pool: [2, 5, 8, 16][random.below(4)],
            quota: [1, 3, 8, 28][random.below(4)],
        };
        let members = (0..1 + random.below(CLIENTS_MAX)).map(|_| Member {
            user: any_user(&mut random),
            transport: match random.below(8) {
                0 => Transport::Tcp,
                1 => Transport::Tls,
                _ => Transport::Udp,
            },
            is_v6: random.below(5) == 0,
            is_symmetric: random.below(3) == 0,
            keeps: random.below(2) == 0,
            by_sha256: random.below(4) == 0,
        });
        let members: Vec<_> = members.collect();
        let mut weights = [0; KINDS];
        for weight in &mut weights {
            // A third of the kinds is missing, so that the others are not washed out.
            *weight = if random.below(3) == 0 { 0 } else { 1 + random.below(12) };
        }
        // Nothing is relayed without allocations, permissions and data; and what ends them, or
        // lets much time pass, must be the exception.
        for (always, more) in [(0, 10), (4, 20), (5, 20), (6, 40), (7, 60), (8, 50)] {
            weights[always] += more;
        }
        for seldom in (12..=18).chain(24..=27) {
            weights[seldom] = weights[seldom].div_ceil(3);
        }
        let mut swarm = Swarm { weights, random };
        let mut operations: Vec<_> = (0..length).map(|_| swarm.draw()).collect();
        if !seed.is_multiple_of(4) {
            swarm.begin(&mut operations);
        }
        Self { rules, members, operations }
    }
}

impl Swarm {
    fn draw(&mut self) -> Operation {
        let mut at = self.random.below(self.weights.iter().sum());
        let is_it = |weight: &usize| {
            let found = at < *weight;
            at = at.saturating_sub(*weight);
            found
        };
        let kind = self.weights.iter().position(is_it).unwrap_or(0);
        Operation { act: self.act(kind), dice: self.random.next() }
    }

    /// Puts a call in place of the first operations: everyone has a channel to a peer.
    fn begin(&mut self, operations: &mut [Operation]) {
        let dice = self.random.next();
        let lives = (0..CLIENTS_MAX).flat_map(|client| {
            let allocate = Act::Ask { client, wish: Wish::ALLOCATE };
            [allocate, Act::Bind { client, number: 0x4000, peer: client % 2 }]
        });
        for (operation, act) in operations.iter_mut().zip(lives) {
            *operation = Operation { act, dice };
        }
    }

    fn act(&mut self, kind: usize) -> Act {
        let random = &mut self.random;
        let client = random.below(CLIENTS_MAX);
        match kind {
            0 => Act::Ask { client, wish: Wish::ALLOCATE },
            1 => Act::Ask { client, wish: unusual_allocate(random) },
            2 => {
                let lifetime_s = if random.below(3) == 0 { 0 } else { *random.pick(&LIFETIMES_S) };
                let family = [0, 0, 0, 1, 2][random.below(5)];
                Act::Ask { client, wish: Wish::Refresh { lifetime_s, family } }
            }
            3 => Act::Ask { client, wish: Wish::Binding { second: random.below(2) == 0 } },
            4 => Act::Permit {
                client,
                peers: (0..=random.below(3)).map(|_| any_peer(random)).collect(),
            },
            5 => Act::Bind { client, number: *random.pick(&NUMBERS), peer: any_peer(random) },
            6 => Act::Send {
                client,
                peer: any_peer(random),
                length: any_length(random),
                is_stun: random.below(8) == 0,
            },
            7 => {
                Act::Data { client, number: *random.pick(&NUMBERS), length: *random.pick(&LENGTHS) }
            }
            8 | 9 => Act::Peer { client, peer: any_peer(random), length: any_length(random) },
            10 | 11 => Act::Pass { ms: *random.pick(&PAUSES_MS) },
            12 => Act::Weather(if random.below(3) == 0 { CALM } else { any_weather(random) }),
            13 => Act::Host(any_host(random)),
            14 => Act::Jump { seconds: *random.pick(&JUMPS_S) },
            15 => Act::Rebind { client, back: random.below(2) == 0 },
            16 => Act::Restart { client },
            17 => Act::Hangup { client },
            18 => Act::Garble { client },
            19..=21 => Act::Attack(any_attack(random)),
            22 => Act::Ask { client, wish: Wish::Refresh { lifetime_s: 600, family: 0 } },
            24 => Act::Configure { is_narrow: random.below(2) == 0 },
            25 => Act::Icmp { client, peer: any_peer(random) },
            // Whoever is kicked is out for good, mostly.
            26 if random.below(6) == 0 => Act::Kick {
                client,
                is_room: random.below(3) == 0,
                seconds: *random.pick(&[0, 1, 60, 900]),
            },
            27 if random.below(8) == 0 => Act::Drain,
            _ if random.below(8) == 0 => Act::Crash,
            _ => Act::Pass { ms: *random.pick(&PAUSES_MS[..6]) },
        }
    }
}

/// Mostly a member of a room; see the list of users in `world.rs`.
fn any_user(random: &mut Random) -> usize {
    if random.below(8) == 0 { random.below(9) } else { random.below(7) }
}

/// Mostly one that may be reached; also another client's relayed address, and forbidden ones.
fn any_peer(random: &mut Random) -> usize {
    match random.below(8) {
        0 => random.below(PEERS.len()),
        1 | 2 => PEERS.len() + random.below(CLIENTS_MAX),
        _ => random.below(3),
    }
}

fn any_length(random: &mut Random) -> usize {
    if random.below(64) == 0 { 65_440 + random.below(68) } else { *random.pick(&LENGTHS) }
}

fn unusual_allocate(random: &mut Random) -> Wish {
    Wish::Allocate {
        lifetime_s: (random.below(2) == 0).then(|| *random.pick(&LIFETIMES_S)),
        family: [0, 0, 1, 2, 2, 3][random.below(6)],
        even: [None, None, Some(false), Some(true), Some(true)][random.below(5)],
        token: random.below(4) == 0,
        transport: if random.below(12) == 0 { 6 } else { 17 },
        strange: random.below(12) == 0,
    }
}

fn any_weather(random: &mut Random) -> Weather {
    Weather {
        lost: [0, 5, 20, 60][random.below(4)],
        doubled: [0, 0, 10, 50][random.below(4)],
        corrupted: [0, 0, 2, 20][random.below(4)],
        delay_ms: [0, 0, 30, 200, 2_000][random.below(5)],
        mtu: [1_200, 1_500, 65_507][random.below(3)],
        unsent: [0, 0, 5, 30][random.below(4)],
    }
}

fn any_host(random: &mut Random) -> Host {
    match random.below(5) {
        0 => Host::Refuses,
        1 => Host::OpensLate([1, 600, 20_000][random.below(3)]),
        2 => Host::RefusesLate([1, 600, 20_000][random.below(3)]),
        _ => Host::Opens,
    }
}

fn any_attack(random: &mut Random) -> Attack {
    let (client, packet) = (random.below(CLIENTS_MAX), random.below(64));
    match random.below(10) {
        0 => Attack::Spoof { victim: random.byte() % 3 },
        1 => Attack::Replay { packet, from: None },
        2 => Attack::Replay { packet, from: Some(client) },
        3 | 4 => Attack::Tamper { packet },
        5 => Attack::Append { packet },
        6 => Attack::ForgeNonce { client },
        7 => Attack::Intrude { client, victim: random.below(CLIENTS_MAX) },
        8 => Attack::Guess { client },
        _ if random.below(2) == 0 => Attack::PoseAsRelay { client },
        _ => Attack::Noise { length: random.below(80) },
    }
}
