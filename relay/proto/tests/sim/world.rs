//! The simulated world: runs operations on a virtual clock that jumps from event to event.

use std::collections::VecDeque;
use std::hash::DefaultHasher;
use std::net::SocketAddr;

use relay_proto::revocation::Who as Named;
use relay_proto::{ClientAddr, Now, Snapshot, Transport};

use super::adversary::Sniffer;
use super::client::{AGAIN_MS, Client, MARGIN_S, News, Wish};
use super::edge::{Asked, Edge, Host};
use super::invariants as check;
use super::message::Stun;
use super::model::Model;
use super::network::{CALM, Event, Network};
use super::operation::{Act, Member, Operation, Plan};
use super::plant::Bug;
use super::scene::{EXTERNAL_IP, PEERS, PEERS_V6, RELAY_PORT_MIN, Rules, START};
use super::stream::Stream;
use super::subject::Subject;
use super::tally::Tally;
use super::witness::Witness;
use crate::wire::{Random, channel_data, ip};

/// Kinds of people: a room's members, a static user, one whose credential ends soon, one whose
/// name is none.
const USERS: [&str; 9] = [
    "2100000000:r1.p1",
    "2100000000:r1.p3",
    "2100000000:r1.p4",
    "2100000000:r1.p2",
    "2100000001:r1.p1",
    "static",
    "2100000000:t1/r2.p1",
    "1800000700:r2.p2",
    "nobody",
];

pub struct World {
    pub now: Now,
    pub rules: Rules,
    pub subject: Subject,
    pub model: Model,
    pub seen: Witness,
    pub tally: Tally,
    /// Whether the operator's policy forbids some peers now.
    pub is_narrow: bool,
    /// Whether a port is answered for within the effect that asks for it.
    pub is_at_once: bool,
    /// When the port that is answered now was asked for.
    pub port_since_ms: u64,
    pub edge: Edge,
    pub network: Network,
    pub clients: Vec<Client>,
    pub streams: Vec<Stream>,
    pub sniffer: Sniffer,
    /// The relay's snapshot after the last step.
    pub last: Snapshot,
    /// Requests of late, with what they were answered.
    pub recent: VecDeque<super::relaying::Answered>,
    /// Whether the model's opinion counts, beside the invariants.
    pub has_model: bool,
    pub bug: Option<Bug>,
    /// Calls of the relay so far.
    pub steps: u64,
    /// Of every byte that the relay sent to a client.
    pub digest: DefaultHasher,
    boot: u8,
    drawn: u64,
    next_port: u16,
}

impl World {
    pub fn new(plan: &Plan, bug: Option<Bug>, has_model: bool) -> Self {
        let rules = plan.rules.clone();
        let mut world = Self {
            now: START,
            subject: Subject::new(&rules, 1, bug),
            model: Model::new(rules.clone()),
            seen: Witness {
                session_ms_max: u64::from(rules.session_s_max.unwrap_or(u32::MAX)) * 1_000,
                ..Witness::default()
            },
            tally: Tally::default(),
            port_since_ms: 0,
            is_narrow: false,
            is_at_once: true,
            edge: Edge::new(rules.pool, rules.quota),
            network: Network::new(),
            clients: Vec::new(),
            streams: Vec::new(),
            sniffer: Sniffer::default(),
            last: Snapshot::default(),
            recent: VecDeque::new(),
            has_model,
            bug,
            steps: 0,
            digest: DefaultHasher::new(),
            boot: 1,
            drawn: 0,
            next_port: 10_000,
            rules,
        };
        for (at, member) in plan.members.iter().enumerate() {
            world.join(at, *member);
        }
        world
    }

    fn join(&mut self, at: usize, member: Member) {
        let house = u8::try_from(at / 2).expect("few clients");
        let remote_ip = match member.is_v6 {
            true => ip(&format!("2001:db8:{house}::1")),
            false => [192, 0, 2 + house, 1].into(),
        };
        let addr = ClientAddr {
            remote: SocketAddr::new(remote_ip, 0),
            local: None,
            listener: 0,
            transport: member.transport,
        };
        let addr = self.fresh(addr);
        let mut client = Client::new(addr, USERS[member.user]);
        (client.keeps, client.symmetric) = (member.keeps, member.is_symmetric);
        client.by_sha256 = member.by_sha256;
        self.clients.push(client);
        self.streams.push(Stream::default());
    }

    /// The same place, from a port that was never used.
    pub fn fresh(&mut self, addr: ClientAddr) -> ClientAddr {
        // Whatever was at a port is long gone when its turn comes again.
        self.next_port = if self.next_port < 65_000 { self.next_port + 1 } else { 10_000 };
        let remote = SocketAddr::new(addr.remote.ip(), self.next_port);
        ClientAddr { remote, ..addr }
    }

    /// One operation and everything that follows from it at once.
    pub fn run(&mut self, operation: &Operation) {
        self.network.random = Random(operation.dice);
        self.act(&operation.act);
        self.run_until(self.now.mono_ms);
    }

    fn act(&mut self, act: &Act) {
        let count = self.clients.len();
        match act {
            Act::Ask { client, wish } => self.ask(client % count, wish.clone(), 0),
            Act::Permit { client, peers } => {
                let peers = peers.iter().map(|peer| self.peer(*client, *peer)).collect();
                self.ask(client % count, Wish::Permit { peers }, 0);
            }
            Act::Bind { client, number, peer } => {
                let wish = Wish::Bind { number: *number, peer: self.peer(*client, *peer) };
                self.ask(client % count, wish, 0);
            }
            Act::Send { client, peer, length, is_stun } => {
                let (client, to) = (client % count, self.peer(*client, *peer));
                self.send(client, to, *length, *is_stun);
            }
            Act::Data { client, number, length } => {
                let payload = self.payload(*length, false);
                self.to_relay(client % count, &channel_data(*number, &payload), false);
            }
            Act::Peer { client, peer, length } => {
                let (from, payload) = (self.peer(*client, *peer), self.payload(*length, false));
                if let Some(at) = self.clients[client % count].relayed {
                    self.peer_sends(at, from, &payload);
                }
            }
            Act::Pass { ms } => self.run_until(self.now.mono_ms + ms),
            Act::Weather(weather) => self.network.weather = *weather,
            Act::Host(host) => self.edge.host = *host,
            Act::Jump { seconds } => self.jump(*seconds),
            Act::Rebind { client, back } => self.rebind(client % count, *back),
            Act::Restart { client } => self.restart(client % count),
            Act::Hangup { client } => self.hang_up(client % count),
            Act::Garble { client } => self.garble(client % count),
            Act::Attack(attack) => self.attack(*attack),
            Act::Crash => self.crash(),
            Act::Kick { client, is_room, seconds } => {
                let name = super::requests::user(&self.clients[client % count].username);
                let room = name.split_once('.').map(|(room, _)| room).filter(|_| *is_room);
                let user = || Named::User(name.to_owned());
                let named = room.map_or_else(user, |room| Named::Room(room.to_owned()));
                self.kick(&named, self.now.unix_s + seconds);
            }
            Act::Drain => {
                self.subject.drain();
                self.model.is_draining = true;
            }
            Act::Configure { is_narrow } => self.configure(*is_narrow),
            Act::Icmp { client, peer } => {
                let peer = self.peer(*client, *peer);
                if let Some(at) = self.clients[client % count].relayed {
                    self.icmp(at, peer);
                }
            }
        }
    }

    /// Lets time pass to then, from one event to the next. Between events the timer is asked
    /// when something ends, and at the end of each stretch.
    pub fn run_until(&mut self, until_ms: u64) {
        loop {
            let now_ms = self.now.mono_ms;
            let event_ms = self.network.next_ms().filter(|at_ms| *at_ms <= until_ms);
            // Ticks come on whole seconds, as the edge has them.
            let end_ms = self.model.next_end_ms().map(|end_ms| end_ms.next_multiple_of(1_000));
            let tick_ms = end_ms.filter(|at_ms| *at_ms <= until_ms).map(|it| it.max(now_ms));
            match (event_ms, tick_ms) {
                (None, None) => break,
                (Some(event_ms), tick) if tick.is_none_or(|tick_ms| event_ms <= tick_ms) => {
                    let Some((at_ms, event)) = self.network.pop(until_ms) else { break };
                    self.move_clock(at_ms.max(now_ms));
                    self.happen(event);
                }
                (_, tick_ms) => {
                    self.move_clock(tick_ms.unwrap_or(now_ms));
                    self.tick();
                }
            }
        }
        if until_ms > self.now.mono_ms {
            self.move_clock(until_ms);
            self.tick();
        }
    }

    fn move_clock(&mut self, to_ms: u64) {
        let seconds = to_ms / 1_000 - self.now.mono_ms / 1_000;
        if to_ms > self.now.mono_ms {
            self.now = Now { mono_ms: to_ms, unix_s: self.now.unix_s + seconds };
            // What ends by itself is no doing of the next step's.
            self.last = self.subject.snapshot(self.now);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::AtRelay { from, bytes, second } => self.at_relay(from, &bytes, second),
            Event::Chunk { client, connection, bytes } => self.chunk(client, connection, &bytes),
            Event::AtClient { to, bytes } => self.at_client(to, &bytes),
            Event::AtPort { at, from, bytes } => self.at_port(at, from, &bytes),
            Event::PortAnswer { id, opens } => self.port_answer(id, opens),
            Event::Again { client, id } => self.again(client, id),
            Event::Keep { client, allocation } => {
                let it = &self.clients[client];
                if it.keeps && it.allocation == Some(allocation) {
                    self.ask(client, Wish::Refresh { lifetime_s: 600, family: 0 }, 0);
                }
            }
        }
    }

    /// A client begins to ask.
    pub fn ask(&mut self, client: usize, wish: Wish, challenges: u8) {
        let id = self.draw_id();
        let second = matches!(wish, Wish::Binding { second: true });
        let bytes = self.clients[client].ask(id, wish, challenges);
        self.to_relay(client, &bytes, second);
        let at_ms = self.now.mono_ms + AGAIN_MS[0];
        self.network.push(at_ms, Event::Again { client, id });
    }

    /// No answer yet: the same datagram once more. A stream loses nothing, so it is not used twice.
    fn again(&mut self, client: usize, id: [u8; 12]) {
        let it = &mut self.clients[client];
        let is_stream = it.addr.transport != Transport::Udp;
        let Some(at) = it.pending.iter().position(|pending| pending.id == id) else { return };
        let pending = &mut it.pending[at];
        if pending.sent == AGAIN_MS.len() {
            it.pending.swap_remove(at);
            return;
        }
        let at_ms = self.now.mono_ms + AGAIN_MS[pending.sent];
        pending.sent += 1;
        if !is_stream {
            let second = matches!(pending.wish, Wish::Binding { second: true });
            let bytes = pending.bytes.clone();
            self.to_relay(client, &bytes, second);
        }
        self.network.push(at_ms, Event::Again { client, id });
    }

    /// A Send indication.
    pub fn send(&mut self, client: usize, to: SocketAddr, length: usize, is_stun: bool) {
        let payload = self.payload(length, is_stun);
        if payload.len() > 65_000 {
            return; // the message's own length field would not hold it
        }
        let bytes = super::adversary::indication(self.draw_id(), to, &payload);
        self.to_relay(client, &bytes, false);
    }

    /// Puts a client's message on its way to the relay.
    pub fn to_relay(&mut self, client: usize, bytes: &[u8], second: bool) {
        let it = &self.clients[client];
        if it.addr.transport != Transport::Udp {
            self.write(client, bytes);
            return;
        }
        let from = if second { it.addr_at_second() } else { it.addr };
        self.sniffer.overhear(from, bytes);
        let event = |bytes| Event::AtRelay { from, bytes, second };
        self.network.carry(self.now.mono_ms, bytes, event);
    }

    pub fn peer_sends(&mut self, at: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        let event = |bytes| Event::AtPort { at, from, bytes };
        self.network.carry(self.now.mono_ms, bytes, event);
    }

    /// A message from the relay has come to where a client is, or was.
    fn at_client(&mut self, to: ClientAddr, bytes: &[u8]) {
        let is_there = |it: &Client| it.addr == to || it.addr_at_second() == to;
        let Some(client) = self.clients.iter().position(is_there) else { return };
        let Some(stun) = Stun::read(bytes) else { return };
        let Some(news) = self.clients[client].hear(&stun) else { return };
        let now_ms = self.now.mono_ms;
        let keep =
            |lifetime_s: u32| now_ms + u64::from(lifetime_s.saturating_sub(MARGIN_S)) * 1_000;
        match news {
            News::Challenged(wish, challenges) => self.ask(client, wish, challenges),
            News::Allocated { id, lifetime_s } => {
                self.network.push(keep(lifetime_s), Event::Keep { client, allocation: id });
            }
            News::Refreshed { lifetime_s } => {
                // A session that is nearly over cannot be made longer.
                let allocation = self.clients[client].allocation.filter(|_| lifetime_s > MARGIN_S);
                if let Some(allocation) = allocation {
                    self.network.push(keep(lifetime_s), Event::Keep { client, allocation });
                }
            }
            News::Other => {}
        }
    }

    /// The wall clock jumps; the other one does not.
    fn jump(&mut self, seconds: i64) {
        let before = self.subject.snapshot(self.now);
        self.now.unix_s = self.now.unix_s.saturating_add_signed(seconds);
        check::i17_wall_clock_ends_nothing(&before, &self.subject.snapshot(self.now));
    }

    fn rebind(&mut self, client: usize, back: bool) {
        if self.clients[client].addr.transport != Transport::Udp {
            return self.hang_up(client);
        }
        let former = self.clients[client].former.last().copied().filter(|_| back);
        let addr = former.unwrap_or_else(|| self.fresh(self.clients[client].addr));
        self.clients[client].move_to(addr);
    }

    /// An ICE restart: another port or stream, and all from the beginning.
    pub fn restart(&mut self, client: usize) {
        self.hang_up(client);
        let addr = self.fresh(self.clients[client].addr);
        self.clients[client].restart(addr);
    }

    fn configure(&mut self, is_narrow: bool) {
        self.subject.configure(&self.rules, is_narrow);
        (self.is_narrow, self.model.is_narrow) = (is_narrow, is_narrow);
    }

    /// The process dies and starts again: other keys, no memory, all ports closed.
    fn crash(&mut self) {
        self.boot = self.boot.wrapping_add(1).max(1);
        self.subject = Subject::new(&self.rules, self.boot, self.bug);
        self.is_narrow = false;
        self.model = Model::new(self.rules.clone());
        let host = self.edge.host;
        self.edge = Edge::new(self.rules.pool, self.rules.quota);
        self.edge.host = host;
        self.seen.forget();
        self.tally = Tally::default();
        self.recent.clear();
        self.last = self.subject.snapshot(self.now);
        check::i26_boot_begins_with_nothing(&self.last);
        for client in 0..self.clients.len() {
            self.lose_stream(client);
        }
    }

    /// Faults stop. Old packets are delivered or die.
    pub fn calm(&mut self) {
        self.network.weather = CALM;
        self.edge.host = Host::Opens;
        self.configure(false);
        if self.model.is_draining {
            // Whoever drains starts another one.
            self.crash();
        }
        self.run_until(self.now.mono_ms + AGAIN_MS.iter().sum::<u64>());
    }

    /// A peer by number: the first few are reachable ones of the family that the client has a
    /// relayed address of, then comes the whole list, then clients' relayed addresses.
    pub fn peer(&self, client: usize, number: usize) -> SocketAddr {
        let is_v6 =
            self.clients[client % self.clients.len()].relayed.is_some_and(|it| it.is_ipv6());
        if let (true, Some(known)) = (is_v6, PEERS_V6.get(number)) {
            return *known;
        }
        if let Some(known) = PEERS.get(number) {
            return *known;
        }
        let other = &self.clients[number % self.clients.len()];
        other.relayed.unwrap_or(SocketAddr::new(EXTERNAL_IP.into(), RELAY_PORT_MIN))
    }

    /// Bytes that are told apart; STUN's first eight if `is_stun`.
    pub fn payload(&mut self, length: usize, is_stun: bool) -> Vec<u8> {
        self.drawn += 1;
        let mut bytes = vec![self.drawn.to_le_bytes()[0] | 0x80; length];
        let head = if is_stun { *b"\0\x01\0\0\x21\x12\xA4\x42" } else { self.drawn.to_be_bytes() };
        bytes.iter_mut().zip(head).for_each(|(to, from)| *to = from);
        bytes
    }

    pub fn draw_id(&mut self) -> [u8; 12] {
        self.drawn += 1;
        let mut id = *b"sim         ";
        id[4..].copy_from_slice(&self.drawn.to_be_bytes());
        id
    }

    fn port_answer(&mut self, id: relay_proto::AllocationId, opens: bool) {
        let Some(asked) = self.edge.waiting.remove(&id) else { return };
        self.answer_port(asked, !opens);
    }

    pub fn bind(
        &mut self,
        asked: Asked,
        refuses: bool,
    ) -> Result<SocketAddr, relay_proto::PortFailure> {
        let chance = self.network.random.next();
        self.edge.bind(self.now.mono_ms, asked, refuses, chance)
    }
}
