//! Users with valid credentials do what they like, wrongly too: nothing panics or leaks, every byte
//! is accounted for, and nothing leaves without a permission (I-1, I-5 to I-9, I-11, I-13, I-17).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use relay_proto::algorithm::{Integrity, PasswordAlgorithm, Seal};
use relay_proto::credential;
use relay_proto::stun::Method;
use relay_proto::traffic::Count;
use relay_proto::{AllocationId, ClientAddr, Family, Transport, attribute as attr};

mod edge;
mod media;
mod operator;
mod requests;

pub use operator::Rules;

use super::super::world::{
    Client, Ports, REALM, SECRET, World, channel_data, client_addr, client_addr_v6, ip, peer,
};
use super::input::Input;
use super::rights::{Rights, own_as_told};

/// Most steps of one input.
const STEPS_MAX: usize = 100;
const PERMISSIONS_MAX: usize = 3;
const CHANNELS_MAX: usize = 2;
/// Whose the clients are: one user has two, and two users share a room.
const USERS: [&str; 4] = ["ana", "room.ben", "room.ben", "room.dan"];
const METHODS: [Method; 5] = [
    Method::Allocate,
    Method::Refresh,
    Method::CreatePermission,
    Method::ChannelBind,
    Method::Binding,
];
const KINDS: [u16; 17] = [
    attr::CHANNEL_NUMBER,
    attr::LIFETIME,
    attr::XOR_PEER_ADDRESS,
    attr::DATA,
    attr::REQUESTED_ADDRESS_FAMILY,
    attr::EVEN_PORT,
    attr::REQUESTED_TRANSPORT,
    attr::RESERVATION_TOKEN,
    attr::ADDITIONAL_ADDRESS_FAMILY,
    attr::USERNAME,
    attr::DONT_FRAGMENT,
    attr::MESSAGE_INTEGRITY_SHA256,
    attr::PASSWORD_ALGORITHM,
    attr::PASSWORD_ALGORITHMS,
    attr::USERHASH,
    attr::ICMP,
    0x7F01, // nobody's
];

pub fn check(bytes: &[u8]) {
    let mut school = School::begin();
    let mut input = Input(bytes);
    for _ in 0..STEPS_MAX {
        let Some(kind) = input.next() else { break };
        school.step(kind, &mut input);
    }
    school.end();
}

struct School {
    world: World,
    clients: Vec<Member>,
    /// RESERVATION-TOKEN that came last.
    token: Vec<u8>,
    /// What the edge has sent: the other end of the relay's own counters.
    to_clients: [Count; Transport::ALL.len()],
    to_peers: Count,
    rules: Rules,
    /// Whose allocations may end now although their time is not over.
    may_close: &'static [&'static str],
    /// Ports that have been looked at: those that are closed, and those that were asked for.
    closed: usize,
    asked: usize,
    /// Those of the latter that the edge has yet to answer for.
    waiting: Vec<(AllocationId, Family)>,
    /// When each allocation was asked for: its lifetime begins then, however late the answer.
    begun_ms: BTreeMap<AllocationId, u64>,
    /// How many answers came late.
    late: u16,
}

struct Member {
    client: Client,
    /// What it signs with.
    seal: Seal,
    user: &'static str,
    /// When its nonce was made.
    nonce_ms: u64,
    rights: Rights,
}

impl School {
    fn begin() -> Self {
        let mut world = World::with(|settings| {
            settings.permissions_max = PERMISSIONS_MAX;
            settings.channels_max = CHANNELS_MAX;
        });
        let expires = world.now.unix_s + 100_000_000;
        let tcp = ClientAddr { transport: Transport::Tcp, ..client_addr(3) };
        let at = [client_addr(1), client_addr(2), tcp, client_addr_v6(4)];
        let made = at.into_iter().zip(USERS).map(|(addr, user)| {
            let client = Client { addr, ..world.client_until(1, user, expires) };
            let password = credential::password(SECRET, &client.username);
            // Over a stream everything is SHA-256, as a client of RFC 8489 would have it.
            let (algorithm, by) = match addr.transport {
                Transport::Udp => (PasswordAlgorithm::Md5, Integrity::Sha1),
                _ => (PasswordAlgorithm::Sha256, Integrity::Sha256),
            };
            let seal = Seal { key: algorithm.key(&client.username, REALM, &password), by };
            Member { client, seal, user, nonce_ms: 0, rights: Rights::default() }
        });
        let clients = made.collect();
        // The clients' first requests are no part of the sums.
        let mut school = Self {
            world,
            clients,
            token: Vec::new(),
            to_clients: Default::default(),
            to_peers: Count::default(),
            rules: Rules::default(),
            may_close: &[],
            closed: 0,
            asked: 0,
            waiting: Vec::new(),
            begun_ms: BTreeMap::new(),
            late: 0,
        };
        for leg in &school.world.relay.snapshot(school.world.now).traffic.client {
            for count in leg.tx {
                school.to_clients[0].merge(count);
            }
        }
        school
    }

    fn step(&mut self, kind: u8, input: &mut Input<'_>) {
        let who = input.below(self.clients.len());
        match kind % 16 {
            0 => self.allocate(who, input),
            1 => {
                let lifetime = u32::from(input.word()).to_be_bytes();
                let family = input.byte();
                self.ask(who, Method::Refresh, |w| {
                    let w = w.attribute(attr::LIFETIME, &lifetime);
                    match family {
                        0..=127 => w,
                        _ => w.attribute(attr::REQUESTED_ADDRESS_FAMILY, &[family % 3, 0, 0, 0]),
                    }
                });
            }
            2 | 3 => {
                let peers: Vec<_> = (0..=input.below(4)).map(|_| self.any_peer(input)).collect();
                self.ask(who, Method::CreatePermission, |w| {
                    peers.iter().fold(w, |w, peer| w.xor_address(attr::XOR_PEER_ADDRESS, *peer))
                });
            }
            4 | 5 => {
                let [high, low] = number(input).to_be_bytes();
                let peer = self.any_peer(input);
                self.ask(who, Method::ChannelBind, |w| {
                    w.attribute(attr::CHANNEL_NUMBER, &[high, low, 0, 0])
                        .xor_address(attr::XOR_PEER_ADDRESS, peer)
                });
            }
            6 | 7 => {
                let to = self.any_peer(input);
                let bytes = self.world.indication(to, input.bytes());
                let now_ms = self.world.now.mono_ms;
                let may = self.clients[who].rights.may_reach(now_ms, self.rules, own_as_told(to));
                let left = self.client_sends(who, &bytes, input);
                assert!(left == may || self.rules.shapes && may, "{to}: {left}");
            }
            8 | 9 => {
                let number = number(input);
                let bytes = channel_data(number, input.bytes());
                let now_ms = self.world.now.mono_ms;
                let may = self.clients[who].rights.may_send(now_ms, self.rules, number);
                let left = self.client_sends(who, &bytes, input);
                assert!(left == may || self.rules.shapes && may, "{number:#x}: {left}");
            }
            10 => self.peer_sends(input),
            11 => self.pass(input),
            12 => {
                let method = input.pick(&METHODS);
                let attributes: Vec<_> =
                    (0..input.below(6)).map(|_| (any_kind(input), input.bytes())).collect();
                self.ask(who, method, |w| {
                    attributes.iter().fold(w, |w, (kind, value)| w.attribute(*kind, value))
                });
            }
            13 => {
                let bytes = input.datagram();
                self.client_sends(who, &bytes, input);
            }
            14 => self.edge(input),
            _ => match input.byte() {
                0..=99 => {
                    self.world.relay.client_closed(self.clients[who].client.addr);
                    self.clients[who].rights = Rights::default();
                    assert_eq!(self.replies(), []);
                }
                100..=149 => self.intrude(who, input),
                150..=179 => self.network_complains(input),
                _ => self.operate(input),
            },
        }
        self.hold();
    }

    /// What holds after every step.
    fn hold(&self) {
        let state = self.world.relay.snapshot(self.world.now);
        assert_eq!(state.conservation_errors, 0, "I-8");
        assert!(state.allocations <= self.clients.len() as u64);
        assert!(state.permissions <= state.allocations * PERMISSIONS_MAX as u64);
        assert!(state.channels <= state.allocations * CHANNELS_MAX as u64);
        assert!(state.allocations_carrying <= state.allocations);
        let [opened, closed] = [&state.allocations_opened[..], &state.allocations_closed[..]]
            .map(|counts| counts.iter().sum::<u64>());
        let waiting = self.waiting.len() as u64;
        assert!(
            opened - closed <= state.allocations && state.allocations <= opened - closed + waiting
        );
        for (leg, sent) in state.traffic.client.iter().zip(self.to_clients) {
            let mut counted = leg.tx[0];
            counted.merge(leg.tx[1]);
            assert_eq!(counted, sent, "bytes to clients");
        }
        let mut counted = state.traffic.peer.tx[0];
        counted.merge(state.traffic.peer.tx[1]);
        assert_eq!(counted, self.to_peers, "bytes to peers");
    }

    /// When all have gone, so has everything (I-9), and each port was closed once (I-6).
    fn end(mut self) {
        self.world.ports = Ports::Open;
        while !self.waiting.is_empty() {
            self.answer(0, true);
        }
        self.world.pass_ms(3_600_000);
        self.world.tick();
        self.hold();
        let state = self.world.relay.snapshot(self.world.now);
        assert_eq!((state.allocations, state.permissions, state.channels), (0, 0, 0));
        let sorted = |mut ports: Vec<(AllocationId, usize)>| {
            ports.sort();
            ports
        };
        let opened = self.world.opened.iter().filter(|port| port.relayed.is_some());
        let opened = sorted(opened.map(|port| (port.id, port.family.index())).collect());
        let closed = sorted(self.closed().map(|(id, family)| (id, family.index())).collect());
        assert_eq!(closed, opened, "I-6");
    }

    /// Peers of both families, each other's relayed ports, and what nobody may reach.
    fn any_peer(&self, input: &mut Input<'_>) -> SocketAddr {
        let kind = input.byte();
        let port = u16::from(kind >> 4 & 3);
        let text = match kind % 16 {
            0..=4 => return peer(1 + kind % 4, port),
            5 | 6 => "2001:db8:9::1",
            7..=10 => {
                let ports: Vec<_> = self.world.opened.iter().filter_map(|it| it.relayed).collect();
                let last = ports.len().saturating_sub(1 + usize::from(kind >> 4 & 3));
                return ports.get(last).map_or(peer(1, 1), |relayed| relayed.0);
            }
            11 => "10.0.0.5",
            12 => "127.0.0.1",
            13 => "::ffff:198.51.100.1",
            14 => return SocketAddr::new(ip("203.0.113.1"), input.word()),
            _ => {
                let bytes = input.bytes();
                let mut address = [0; 16];
                address.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                return SocketAddr::new(address.into(), port);
            }
        };
        SocketAddr::new(ip(text), port)
    }
}

/// An attribute's type; the integrity is made by whoever signs.
fn any_kind(input: &mut Input<'_>) -> u16 {
    let kind = if input.byte() < 250 { input.pick(&KINDS) } else { input.word() };
    if kind == attr::MESSAGE_INTEGRITY { attr::DATA } else { kind }
}

fn number(input: &mut Input<'_>) -> u16 {
    input.pick(&[0x4000, 0x4001, 0x4FFF, 0x4002, 0x5000, 0x3FFF, 0x7FFF])
}
