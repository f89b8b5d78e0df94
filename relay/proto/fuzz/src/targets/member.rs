//! Users with valid credentials do what they like, wrongly too: nothing panics or leaks, every byte
//! is accounted for, and nothing leaves without a permission (I-1, I-5 to I-9, I-11, I-13, I-17).

use std::net::SocketAddr;

use relay_proto::stun::{Class, Message, Method, Writer};
use relay_proto::traffic::Count;
use relay_proto::{
    ClientAddr, DropReason, PeerAddr, PortFailure, RelayAddr, Transport, Verdict, attribute as attr,
};

use super::super::world::{
    Client, Ports, Reply, World, channel_data, client_addr, client_addr_v6, ip, peer,
};
use super::input::Input;
use super::rights::{Rights, own_as_told};

/// Most steps of one input.
const STEPS_MAX: usize = 100;
const PERMISSIONS_MAX: usize = 3;
const CHANNELS_MAX: usize = 2;
/// Steps in time, most of them at an edge.
const PAUSES_MS: [u64; 8] = [1, 999, 40_000, 299_999, 300_000, 300_001, 599_999, 600_000];
/// Steps of the wall clock.
const JUMPS_S: [i64; 4] = [3_600, -3_600, 31_536_000, -31_536_000];
const METHODS: [Method; 5] = [
    Method::Allocate,
    Method::Refresh,
    Method::CreatePermission,
    Method::ChannelBind,
    Method::Binding,
];
const KINDS: [u16; 12] = [
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
    0x001A, // DONT-FRAGMENT (RFC 8656 §18.9)
    0x7F01, // nobody's
];

pub fn check(bytes: &[u8]) {
    let mut class = School::begin();
    let mut input = Input(bytes);
    for _ in 0..STEPS_MAX {
        let Some(kind) = input.next() else { break };
        class.step(kind, &mut input);
    }
    class.end();
}

struct School {
    world: World,
    clients: Vec<Member>,
    /// RESERVATION-TOKEN that came last.
    token: Vec<u8>,
    /// What the edge has sent: the other end of the relay's own counters.
    to_clients: [Count; Transport::ALL.len()],
    to_peers: Count,
}

struct Member {
    client: Client,
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
        let made = at.into_iter().zip(["ana", "ben", "ben", "dan"]).map(|(addr, user)| {
            let mut client = world.client_until(1, user, expires);
            client.addr = addr;
            Member { client, nonce_ms: 0, rights: Rights::default() }
        });
        let clients = made.collect();
        // The clients' first requests are no part of the sums.
        let mut school = Self {
            world,
            clients,
            token: Vec::new(),
            to_clients: Default::default(),
            to_peers: Count::default(),
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
                self.ask(who, Method::Refresh, |w| w.attribute(attr::LIFETIME, &lifetime));
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
                let may = self.clients[who].rights.may_reach(now_ms, own_as_told(to));
                let left = self.client_sends(who, &bytes, input);
                assert_eq!(left, may, "{to}");
            }
            8 | 9 => {
                let number = number(input);
                let bytes = channel_data(number, input.bytes());
                let may = self.clients[who].rights.may_send(self.world.now.mono_ms, number);
                let left = self.client_sends(who, &bytes, input);
                assert_eq!(left, may, "{number:#x}");
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
            _ => {
                self.world.relay.client_closed(self.clients[who].client.addr);
                self.clients[who].rights = Rights::default();
                assert_eq!(self.world.drain(), []);
            }
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
        let waiting = self.world.opened.iter().filter(|port| port.relayed.is_none()).count() as u64;
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
        let waiting: Vec<_> = (0..self.world.opened.len()).collect();
        for at in waiting {
            self.answer(at, true);
        }
        self.world.pass_ms(3_600_000);
        self.world.tick();
        self.hold();
        let state = self.world.relay.snapshot(self.world.now);
        assert_eq!((state.allocations, state.permissions, state.channels), (0, 0, 0));
        let mut opened: Vec<_> =
            self.world.opened.iter().filter(|it| it.relayed.is_some()).map(|it| it.id).collect();
        opened.sort();
        self.world.closed.sort();
        assert_eq!(self.world.closed, opened, "I-6");
    }

    fn allocate(&mut self, who: usize, input: &mut Input<'_>) {
        let flags = input.byte();
        let lifetime = u32::from(input.word()).to_be_bytes();
        let token = self.token.clone();
        let given = |bit: u8| flags & bit != 0;
        self.ask(who, Method::Allocate, |w| {
            let mut w = w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            if given(1) {
                w = w.attribute(attr::LIFETIME, &lifetime);
            }
            if given(2) {
                w = w.attribute(attr::EVEN_PORT, &[flags & 0x80]);
            }
            if given(4) {
                w = w.attribute(attr::RESERVATION_TOKEN, &token);
            }
            if given(8) {
                w = w.attribute(attr::REQUESTED_ADDRESS_FAMILY, &[1 + (flags >> 7), 0, 0, 0]);
            }
            if given(16) {
                w = w.attribute(attr::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
            }
            w
        });
    }

    /// A signed request, once more as a retransmission, and what it gives the client.
    fn ask(&mut self, who: usize, method: Method, fill: impl FnOnce(Writer<'_>) -> Writer<'_>) {
        self.renew_nonce(who);
        let member = &self.clients[who];
        let client = member.client.clone();
        let bytes = self.world.request(&client, method, fill);
        let verdict = self.world.relay.from_client(self.world.now, client.addr, &bytes);
        // Binding is shed when the budget is spent.
        let is_shed = verdict == Verdict::Drop(DropReason::RateLimited);
        assert!(verdict == Verdict::Control || is_shed, "{verdict:?}");
        let replies = self.replies();
        assert!(replies.len() <= 1, "{replies:?}");
        let Some(reply) = replies.first() else { return };
        assert_eq!(reply.to, client.addr);
        let is_success = self.judge(who, method, &bytes, reply);
        // What is gone is gone, and Binding has no key.
        if is_success && !matches!(method, Method::Refresh | Method::Binding) {
            self.world.relay.from_client(self.world.now, client.addr, &bytes);
            assert_eq!(self.replies().as_slice(), replies, "I-12");
        }
    }

    /// Whether it is success; the rights that it gives are written down.
    fn judge(&mut self, who: usize, method: Method, asked: &[u8], reply: &Reply) -> bool {
        let code = reply.code();
        let now_ms = self.world.now.mono_ms;
        let Member { client, rights, .. } = &mut self.clients[who];
        let is_signed = reply.message().verify(&client.key);
        match (method, code) {
            (Method::Binding, 0 | 420) => return false,
            (_, 400 | 401 | 438) if !is_signed => return false,
            _ => assert!(is_signed, "{method:?} {code} without integrity"),
        }
        if let Some(token) = reply.attribute(attr::RESERVATION_TOKEN) {
            self.token = token;
        }
        if code != 0 {
            return false;
        }
        let request = Message::parse(asked).expect("what was answered is whole");
        if let (Method::Allocate | Method::Refresh, lifetime_s) = (method, reply.lifetime_s()) {
            let lifetime_s = lifetime_s.expect("a success says how long");
            assert!(lifetime_s == 0 || (600..=3600).contains(&lifetime_s), "I-5: {lifetime_s}");
            rights.live(now_ms, lifetime_s, reply.address(attr::XOR_RELAYED_ADDRESS));
        }
        rights.granted(now_ms, method, &request);
        true
    }

    /// A datagram of a client that need not be signed; whether it leaves the relay.
    fn client_sends(&mut self, who: usize, bytes: &[u8], input: &mut Input<'_>) -> bool {
        let now = self.world.now;
        let from = self.clients[who].client.addr;
        let verdict = self.world.relay.from_client(now, from, bytes);
        let leaves = matches!(verdict, Verdict::ToPeer { .. } | Verdict::Hairpin { .. });
        match verdict {
            Verdict::Control | Verdict::Drop(_) => {}
            Verdict::ToPeer { via, to, payload } => {
                assert!(self.clients[who].rights.may_send_to(now.mono_ms, to.0), "I-1: {to:?}");
                self.to_peers.packets += 1;
                self.to_peers.bytes += payload.len() as u64;
                if input.byte() == 255 {
                    let reason = DropReason::SocketBuffer;
                    self.world.relay.unsent_to_peer(via, to, payload.len(), reason);
                    self.to_peers.packets -= 1;
                    self.to_peers.bytes -= payload.len() as u64;
                }
            }
            Verdict::Hairpin { via, from, to, payload } => {
                assert!(self.clients[who].rights.may_send_to(now.mono_ms, to.0), "I-1: {to:?}");
                assert_ne!(from, to);
                let is_open =
                    self.world.opened.iter().any(|port| {
                        port.relayed == Some(to) && !self.world.closed.contains(&port.id)
                    });
                if is_open {
                    self.relay_hears(from, to, payload);
                } else {
                    let reason = DropReason::RelayPortClosed;
                    self.world.relay.unsent_to_relay(via, payload.len(), reason);
                }
            }
            Verdict::ToClient { .. } => panic!("a client's datagram comes back: {verdict:?}"),
        }
        let replies = self.replies();
        assert!(replies.len() <= 1, "{replies:?}");
        assert!(replies.iter().all(|reply| reply.to == from));
        leaves
    }

    fn relay_hears(&mut self, from: RelayAddr, to: RelayAddr, payload: &[u8]) {
        let now = self.world.now;
        let verdict = self.world.relay.from_relay(now, from, to, payload);
        self.client_hears(None, from.0, payload, rendered(&verdict));
    }

    fn peer_sends(&mut self, input: &mut Input<'_>) {
        let from = self.any_peer(input);
        let payload = input.bytes();
        let Some(last) = self.world.opened.len().checked_sub(1) else { return };
        let id = self.world.opened[last.saturating_sub(input.below(4))].id;
        let verdict = self.world.relay.from_peer(self.world.now, id, PeerAddr(from), payload);
        let is_unsent = input.byte() == 255;
        let heard = rendered(&verdict);
        if let (Verdict::ToClient { via, to, head, payload, pad }, true) = (verdict, is_unsent) {
            let framing = head.as_bytes().len() + usize::from(pad);
            let reason = DropReason::SocketBuffer;
            self.world.relay.unsent_to_client(via, to, framing, payload.len(), reason);
            return;
        }
        self.client_hears(Some(id), from, payload, heard);
    }

    /// Only from a permitted peer, and its bytes exactly (I-2).
    fn client_hears(
        &mut self,
        at: Option<relay_proto::AllocationId>,
        from: SocketAddr,
        payload: &[u8],
        heard: Option<(relay_proto::AllocationId, ClientAddr, Vec<u8>)>,
    ) {
        let Some((via, to, bytes)) = heard else { return };
        assert!(at.is_none_or(|at| at == via), "I-18");
        let now_ms = self.world.now.mono_ms;
        let member = self.clients.iter().find(|it| it.client.addr == to).expect("one of ours");
        assert!(member.rights.may_hear(now_ms, from), "I-2: {from}");
        if to.transport == Transport::Tcp {
            assert_eq!(bytes.len() % 4, 0);
        }
        let got = match bytes[0] >> 6 {
            1 => {
                let number = u16::from_be_bytes([bytes[0], bytes[1]]);
                assert_eq!(member.rights.channel(now_ms, number), Some(from));
                let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
                let (got, pad) = bytes[4..].split_at(length);
                assert!(pad.len() < 4 && pad.iter().all(|byte| *byte == 0));
                got.to_vec()
            }
            _ => {
                let message = Message::parse(&bytes).expect("ours are whole");
                assert_eq!(
                    (message.method, message.class),
                    (Some(Method::Data), Class::Indication)
                );
                let address = message.attribute(attr::XOR_PEER_ADDRESS).expect("present");
                assert_eq!(message.unxor(address), Some(from));
                message.attribute(attr::DATA).expect("present").to_vec()
            }
        };
        assert_eq!(got, payload);
        self.sent_to_client(to, bytes.len());
        assert_eq!(self.world.drain(), []);
    }

    fn pass(&mut self, input: &mut Input<'_>) {
        match input.byte() {
            0..=199 => {
                let pause_ms = input.pick(&PAUSES_MS);
                self.world.pass_ms(pause_ms);
                if input.byte() & 1 == 1 {
                    self.world.tick();
                }
            }
            // I-17: the wall clock judges credentials alone.
            _ => {
                let before = self.world.relay.snapshot(self.world.now);
                let jump_s = input.pick(&JUMPS_S);
                self.world.now.unix_s = self.world.now.unix_s.saturating_add_signed(jump_s);
                let after = self.world.relay.snapshot(self.world.now);
                assert_eq!(
                    (before.allocations, before.permissions, before.channels),
                    (after.allocations, after.permissions, after.channels)
                );
            }
        }
    }

    /// How the edge answers when it is to open a port, and late answers.
    fn edge(&mut self, input: &mut Input<'_>) {
        let kind = input.byte();
        match kind % 8 {
            0..=2 => self.world.ports = Ports::Open,
            3 => self.world.ports = Ports::Fail(PortFailure::Quota),
            4 => self.world.ports = Ports::Fail(PortFailure::Capacity),
            5 => self.world.ports = Ports::Wait,
            _ => {
                let last = self.world.opened.len();
                if last > 0 {
                    let at = last - 1 - input.below(4).min(last - 1);
                    self.answer(at, kind % 8 == 6);
                }
            }
        }
    }

    /// Answers for a port that is still waited for.
    fn answer(&mut self, at: usize, well: bool) {
        let asked = self.world.opened[at].clone();
        if asked.relayed.is_some() {
            return;
        }
        if well {
            let port = 60_001 + u16::try_from(at).expect("few");
            let ip = if asked.family == relay_proto::Family::V4 {
                ip("203.0.113.1")
            } else {
                ip("2001:db8:0:1::1")
            };
            let relayed = RelayAddr(SocketAddr::new(ip, port));
            self.world.opened[at].relayed = Some(relayed);
            self.world.relay.port_opened(asked.id, relayed);
        } else {
            self.world.relay.port_failed(asked.id, PortFailure::Capacity);
            self.world.opened.remove(at);
        }
        for reply in self.replies() {
            let who = self.clients.iter().position(|it| it.client.addr == reply.to);
            let who = who.expect("one of ours");
            if reply.code() == 0 {
                let now_ms = self.world.now.mono_ms;
                let address = reply.address(attr::XOR_RELAYED_ADDRESS);
                self.clients[who].rights.live(now_ms, reply.lifetime_s().unwrap_or(0), address);
            }
        }
    }

    fn renew_nonce(&mut self, who: usize) {
        let now_ms = self.world.now.mono_ms;
        if self.clients[who].nonce_ms + 500_000 > now_ms && self.clients[who].nonce_ms > 0 {
            return;
        }
        let addr = self.clients[who].client.addr;
        let ask = self.world.message(Method::Refresh, Class::Request, |w| {
            w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        });
        self.world.relay.from_client(self.world.now, addr, &ask);
        let replies = self.replies();
        let [challenge] = &replies[..] else { panic!("a challenge, not {replies:?}") };
        assert_eq!(challenge.code(), 401);
        self.clients[who].client.nonce = challenge.attribute(attr::NONCE).expect("I-15");
        self.clients[who].nonce_ms = now_ms;
    }

    fn replies(&mut self) -> Vec<Reply> {
        let replies = self.world.drain();
        for reply in &replies {
            self.sent_to_client(reply.to, reply.bytes.len());
        }
        replies
    }

    fn sent_to_client(&mut self, to: ClientAddr, bytes: usize) {
        let sent = &mut self.to_clients[to.transport.index()];
        sent.packets += 1;
        sent.bytes += bytes as u64;
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

fn rendered(verdict: &Verdict<'_>) -> Option<(relay_proto::AllocationId, ClientAddr, Vec<u8>)> {
    match verdict {
        Verdict::ToClient { via, to, .. } => {
            Some((*via, *to, super::super::world::rendered(verdict)))
        }
        Verdict::Drop(_) => None,
        other => panic!("neither for the client nor dropped: {other:?}"),
    }
}
