//! Whoever has no key changes nothing (I-3), gets at most one short reply (I-13, I-14) and moves no
//! media, whatever is sent, from wherever, and however genuine messages are spoiled.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use relay_proto::stun::{Class, Message, Method};
use relay_proto::{
    ClientAddr, PeerAddr, RelayAddr, Snapshot, Transport, Verdict, attribute as attr,
};

use super::super::world::{
    Client, Relayed, Reply, World, channel_data, client_addr, client_addr_v6, ip, peer,
};
use super::input::Input;

/// Most steps of one input.
const STEPS_MAX: usize = 64;
/// Most time that one step lets pass: all of an input's steps end before anything expires.
const PAUSE_MS_MAX: u64 = 1_000;

pub fn check(bytes: &[u8]) {
    let mut siege = Siege::begin();
    let mut input = Input(bytes);
    for _ in 0..STEPS_MAX {
        let Some(kind) = input.next() else { break };
        siege.step(kind, &mut input);
    }
    siege.end();
}

struct Siege {
    world: World,
    owner: Client,
    relayed: Relayed,
    neighbour: Relayed,
    /// What the owner has sent, as an eavesdropper has it.
    genuine: Vec<Vec<u8>>,
    before: [u64; 5],
    /// When it began, and how many replies went to each address since.
    start_ms: u64,
    replies: BTreeMap<IpAddr, u64>,
}

impl Siege {
    /// A relay with a channel, permissions, an open neighbour, and an allocation that is over.
    fn begin() -> Self {
        let mut world = World::new();
        let gone = world.client(9, "gone");
        world.allocate(&gone);
        world.pass_ms(400_000);
        let owner = world.client(1, "ana");
        let relayed = world.allocate(&owner);
        let other = world.client(2, "ben");
        let neighbour = world.allocate(&other);
        assert_eq!(world.bind(&owner, 0x4000, peer(1, 1)), 0);
        assert_eq!(world.bind(&owner, 0x4001, neighbour.addr.0), 0);
        assert_eq!(world.permit(&owner, &[peer(2, 2)]), 0);
        world.pass_ms(200_000);
        let genuine = genuine(&mut world, &owner);
        let before = state(&world.relay.snapshot(world.now));
        let start_ms = world.now.mono_ms;
        let replies = BTreeMap::new();
        Self { world, owner, relayed, neighbour, genuine, before, start_ms, replies }
    }

    fn step(&mut self, kind: u8, input: &mut Input<'_>) {
        match kind % 8 {
            0 => {
                let from = source(input);
                self.datagram(from, &input.datagram());
            }
            1 => {
                let from = source(input);
                let bytes = input.datagram();
                let verdict = self.world.relay.from_stun_client(self.world.now, from, &bytes);
                assert!(matches!(verdict, Verdict::Control | Verdict::Drop(_)));
                self.replied(from, &bytes);
            }
            2 => {
                let at = [self.relayed, self.neighbour][input.below(2)];
                let from = any_peer(input);
                let bytes = input.bytes();
                let verdict =
                    self.world.relay.from_peer(self.world.now, at.id, PeerAddr(from), bytes);
                if let Verdict::ToClient { to, payload, .. } = verdict {
                    let may = at.id == self.relayed.id
                        && [peer(1, 1).ip(), peer(2, 2).ip()].contains(&from.ip());
                    assert!(may && to == self.owner.addr && payload == bytes, "{from}");
                }
                assert_eq!(self.world.drain(), []);
            }
            3 => {
                let to = [self.relayed, self.neighbour][input.below(2)];
                let from = RelayAddr(any_peer(input));
                let bytes = input.bytes();
                let verdict = self.world.relay.from_relay(self.world.now, from, to.addr, bytes);
                if let Verdict::ToClient { to, .. } = verdict {
                    assert_eq!(to, self.owner.addr);
                }
                assert_eq!(self.world.drain(), []);
            }
            4 => {
                let from = source(input);
                let spoiled = self.spoiled(input);
                self.datagram(from, &spoiled);
            }
            5 => {
                // Genuine to the last bit, but somebody else's: the nonce is bound to its client.
                let from = source(input);
                if from != self.owner.addr {
                    let bytes = input.below(5);
                    let bytes = self.genuine[bytes].clone();
                    self.datagram(from, &bytes);
                }
            }
            6 => self.world.pass_ms(u64::from(input.word()) % PAUSE_MS_MAX),
            _ => {
                // The same again and again: budgets end, and silence follows.
                let (from, times) = (source(input), input.byte());
                let bytes = input.datagram();
                for _ in 0..times {
                    self.datagram(from, &bytes);
                }
            }
        }
    }

    /// A genuine message with some bits changed, or cut, or longer.
    fn spoiled(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let mut bytes = self.genuine[input.below(self.genuine.len())].clone();
        for _ in 0..=input.below(4) {
            let at = usize::from(input.word()) % bytes.len();
            bytes[at] ^= input.byte();
        }
        match input.byte() {
            0..=200 => {}
            201..=230 => bytes.truncate(usize::from(input.word()) % bytes.len()),
            _ => bytes.extend_from_slice(input.bytes()),
        }
        // What stands behind the integrity does not count: this would be genuine still.
        let is_genuine = Message::parse(&bytes).is_ok_and(|it| it.verify(&self.owner.key));
        if is_genuine || self.genuine.contains(&bytes) {
            bytes[8] ^= 1;
        }
        bytes
    }

    fn datagram(&mut self, from: ClientAddr, bytes: &[u8]) {
        let verdict = self.world.relay.from_client(self.world.now, from, bytes);
        match verdict {
            Verdict::Control | Verdict::Drop(_) => {}
            // Media needs no key, but the 5-tuple of its allocation.
            Verdict::ToPeer { to, .. } => {
                assert!(
                    from == self.owner.addr
                        && [peer(1, 1).ip(), peer(2, 2).ip()].contains(&to.0.ip())
                );
            }
            Verdict::Hairpin { to, .. } => {
                assert!(from == self.owner.addr && to == self.neighbour.addr);
            }
            Verdict::ToClient { .. } => panic!("a client's datagram comes back: {verdict:?}"),
        }
        self.replied(from, bytes);
    }

    /// At most one reply, to the source, short, and only where a question was asked.
    fn replied(&mut self, from: ClientAddr, asked: &[u8]) {
        let replies = self.world.drain();
        assert!(replies.len() <= 1, "{replies:?}");
        let Some(reply) = replies.first() else { return };
        assert_eq!(reply.to, from);
        let request = Message::parse(asked).expect("only what is whole is answered");
        assert_eq!(request.class, Class::Request);
        assert_eq!(reply.message().transaction_id(), request.transaction_id());
        assert_eq!(reply.message().method, request.method);
        check_content(reply, request.method.expect("only what is known is answered"));
        if from.transport == Transport::Udp {
            let v6_binding = if from.remote.is_ipv6() { 44 } else { 0 };
            assert!(reply.bytes.len() <= v6_binding.max(2 * asked.len()), "amplified");
            let sent = self.replies.entry(from.remote.ip()).or_default();
            *sent += 1;
            let passed_ms = self.world.now.mono_ms - self.start_ms;
            let is_known = from.remote.ip() == self.owner.addr.remote.ip();
            let budget = if is_known { 1_100 + passed_ms } else { 100 + passed_ms / 100 };
            assert!(*sent <= budget, "{sent} replies after {passed_ms} ms");
        }
    }

    /// Everything is as it was, and still works.
    fn end(mut self) {
        let after = self.world.relay.snapshot(self.world.now);
        assert_eq!(self.before, state(&after));
        assert_eq!(after.conservation_errors, 0);
        assert!(self.world.closed.is_empty());
        assert_eq!(self.world.opened.len(), 3);
        let media = channel_data(0x4000, b"media");
        let verdict = self.world.client_sends(&self.owner, &media);
        assert!(matches!(verdict, Verdict::ToPeer { to, .. } if to.0 == peer(1, 1)));
        assert!(self.world.sends(&self.owner, peer(2, 2)));
        assert!(!self.world.sends(&self.owner, peer(3, 3)));
        assert!(self.world.hears(self.relayed, peer(2, 9)));
        assert!(!self.world.hears(self.neighbour, peer(2, 2)));
        // The owner is answered whatever was spent in its name, and ends when it would have.
        assert_eq!(self.world.refresh(&self.owner, 600).code(), 0);
        self.world.pass_ms(600_000);
        self.world.tick();
        assert_eq!(self.world.relay.snapshot(self.world.now).allocations, 0);
    }
}

/// Requests and media of the owner that each would change something.
fn genuine(world: &mut World, owner: &Client) -> Vec<Vec<u8>> {
    vec![
        world.request(owner, Method::Refresh, |w| w.attribute(attr::LIFETIME, &[0; 4])),
        world.request(owner, Method::CreatePermission, |w| {
            w.xor_address(attr::XOR_PEER_ADDRESS, peer(3, 3))
        }),
        world.request(owner, Method::ChannelBind, |w| {
            w.attribute(attr::CHANNEL_NUMBER, &[0x40, 2, 0, 0])
                .xor_address(attr::XOR_PEER_ADDRESS, peer(4, 4))
        }),
        world.request(owner, Method::Allocate, |w| {
            w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        }),
        world.message(Method::Refresh, Class::Request, |w| {
            w.attribute(attr::LIFETIME, &[0; 4])
                .attribute(attr::USERNAME, owner.username.as_bytes())
                .attribute(attr::REALM, b"castling")
                .attribute(attr::NONCE, &owner.nonce)
                .integrity_sha256(&owner.key)
        }),
        world.indication(peer(2, 2), b"payload"),
        channel_data(0x4000, b"payload"),
    ]
}

/// All that is state: everything in a snapshot but what it counts.
fn state(of: &Snapshot) -> [u64; 5] {
    let (opened, closed) = (of.allocations_opened.iter(), of.allocations_closed.iter());
    [of.allocations, of.permissions, of.channels, opened.sum(), closed.sum()]
}

/// What a stranger may be told.
fn check_content(reply: &Reply, method: Method) {
    let code = reply.code();
    match (method, code) {
        (Method::Binding, 0) => {
            assert_eq!(reply.address(attr::XOR_MAPPED_ADDRESS), Some(reply.to.remote));
        }
        (Method::Binding, 420) | (_, 400) => {}
        (_, 401 | 438) => {
            assert!(reply.attribute(attr::REALM).is_some(), "I-15");
            assert!(reply.attribute(attr::NONCE).is_some(), "I-15");
        }
        other => panic!("{other:?} without a key"),
    }
}

fn source(input: &mut Input<'_>) -> ClientAddr {
    let kind = input.byte();
    let plain = client_addr(1 + u16::from(kind / 16));
    match kind % 8 {
        0..=2 => plain,
        3 => client_addr_v6(1 + u16::from(kind / 16)),
        4 => ClientAddr { transport: Transport::Tcp, ..plain },
        5 => ClientAddr { listener: 1, ..plain },
        6 => ClientAddr { remote: SocketAddr::new(ip("198.51.100.9"), input.word()), ..plain },
        _ => ClientAddr { remote: any_peer(input), ..plain },
    }
}

/// Peers with and without a permission, our own addresses, and what is no peer at all.
fn any_peer(input: &mut Input<'_>) -> SocketAddr {
    let kind = input.byte();
    let low = u16::from(kind / 8);
    let text = match kind % 8 {
        0 | 1 => return peer(1 + kind / 64, low),
        2 => "203.0.113.1",
        3 => "10.0.0.5",
        4 => "0.0.0.0",
        5 => "255.255.255.255",
        6 => "::ffff:198.51.100.1",
        _ => "2001:db8:9::1",
    };
    SocketAddr::new(ip(text), input.pick(&[0, 1, 3478, 50_001, 50_002, low]))
}
