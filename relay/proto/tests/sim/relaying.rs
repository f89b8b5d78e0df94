//! One step: a call of the relay, the same call of the model, and everything that is judged.

use relay_proto::address::AllocationId;
use std::hash::Hasher as _;
use std::net::SocketAddr;

use relay_proto::icmp::IcmpError;
use relay_proto::revocation::Who as Named;
use relay_proto::{ClientAddr, More, PeerAddr, RelayAddr, Transport, Verdict};

use super::edge::{Asked, Host};
use super::invariants as check;
use super::message::{self, ERROR, INDICATION, SUCCESS, Stun};
use super::model::{Answer, Expected, Fate, Frame, Seal, Who, who};
use super::network::Event;
use super::requests::ALLOCATE;
use super::subject::Done;
use super::world::World;
use crate::wire::Reply;

/// Stands for the code of an indication, which has none.
const ICMP_CODE: u16 = 1;
/// Answers that are remembered to be compared with those to repetitions.
const RECENT_MAX: usize = 16;

/// A request of late, and the success that it got.
pub struct Answered {
    from: Who,
    request: Vec<u8>,
    reply: Vec<u8>,
    at_ms: u64,
    /// The client's changes at that moment: another one may change the answer.
    changes: u64,
}

impl World {
    /// A datagram, or a message of a stream, at a listener.
    pub fn at_relay(&mut self, from: ClientAddr, bytes: &[u8], second: bool) {
        let client = who(from);
        let (fate, expected) = self.model.from_client(self.now, client, bytes, second);
        let is_proven = expected.is_proven;
        let verdict = match second {
            true => self.subject.from_stun_client(self.now, from, bytes),
            false => self.subject.from_client(self.now, from, bytes),
        };
        self.tally.heard_client(from, bytes.len());
        self.compare(&fate, &verdict);
        let by_channel = bytes.first().is_some_and(|byte| *byte >= 0x40);
        match verdict {
            Verdict::ToPeer { via, to, payload, .. } => {
                self.judge_to_peer(client, via, to.0, by_channel);
                if self.network.is_hit(self.network.weather.unsent) {
                    self.subject.unsent_to_peer(via, to, payload.len());
                    self.tally.unsent_to_peer(to, payload.len());
                }
            }
            Verdict::Hairpin { via, from: source, to, payload } => {
                self.judge_to_peer(client, via, to.0, by_channel);
                let payload = payload.to_vec();
                if self.edge.owner(to.0).is_some() {
                    self.hairpin(source, to, &payload);
                } else {
                    self.subject.unsent_to_relay(via, payload.len());
                    self.tally.dropped(relay_proto::DropReason::RelayPortClosed);
                }
            }
            Verdict::ToClient { .. } => panic!("I-2: a client's own bytes for a client"),
            Verdict::Control | Verdict::Drop(_) => {}
        }
        let replies = self.settle(expected, Some((from, bytes, is_proven)));
        let after = self.finish();
        if !is_proven {
            check::i03_unproven_input_changes_nothing(&self.last, &after, bytes);
            check::i04_strangers_leave_nothing(&self.last, &after, replies);
        }
        self.last = after;
    }

    fn judge_to_peer(&self, client: Who, via: AllocationId, to: SocketAddr, by_channel: bool) {
        check::i18_payload_goes_to_the_owner(self.owner_of(via), client);
        let (now_ms, is_narrow) = (self.now.mono_ms, self.is_narrow);
        check::i01_only_to_permitted_peers(&self.seen, now_ms, &client, to, by_channel, is_narrow);
        check::i21_own_services_are_no_destination(to);
    }

    /// A datagram at a relayed port; the host drops it if the port is closed.
    pub fn at_port(&mut self, at: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        let Some(id) = self.edge.owner(at) else { return };
        self.tally.heard_peer(PeerAddr(from), bytes.len());
        let fate = self.model.from_peer(self.now.mono_ms, id, from, bytes);
        let verdict = self.subject.from_peer(self.now, id, PeerAddr(from), bytes);
        self.compare(&fate, &verdict);
        self.to_client(self.owner_of(id), from, bytes, &verdict);
        self.last = self.finish();
    }

    fn hairpin(&mut self, from: RelayAddr, to: RelayAddr, bytes: &[u8]) {
        let owner = self.edge.owner(to.0).and_then(|id| self.owner_of(id));
        let fate = self.model.from_relay(self.now.mono_ms, from.0, to.0, bytes);
        let verdict = self.subject.from_relay(self.now, from, to, bytes);
        self.compare(&fate, &verdict);
        if matches!(verdict, Verdict::ToClient { .. }) {
            self.tally.hairpin(bytes.len());
        }
        self.to_client(owner, from.0, bytes, &verdict);
    }

    /// Judges what comes from a peer, and sends it on.
    fn to_client(
        &mut self,
        owner: Option<Who>,
        from: SocketAddr,
        bytes: &[u8],
        verdict: &Verdict<'_>,
    ) {
        let Verdict::ToClient { via, to, head, payload, pad } = *verdict else { return };
        check::i18_payload_goes_to_the_owner(owner, who(to));
        check::i02_only_from_permitted_peers(&self.seen, self.now.mono_ms, from, bytes, verdict);
        let whole = [head.as_bytes(), payload, &[0; 3][..usize::from(pad)]].concat();
        self.digest.write(&whole);
        if to.transport != Transport::Udp {
            check::i19_stream_output_is_padded(&whole, payload.len());
        }
        if self.network.is_hit(self.network.weather.unsent) {
            let framing = whole.len() - payload.len();
            self.subject.unsent_to_client(via, to, framing, payload.len());
            self.tally.unsent_to_client(to, whole.len());
        }
    }

    /// Asks the timer until it has nothing left.
    pub fn tick(&mut self) {
        let expected = self.model.tick(self.now.mono_ms);
        while self.subject.tick(self.now) == More::Yes {}
        self.settle(expected, None);
        check::i20_nothing_is_overdue(&self.seen, &self.edge, self.now.mono_ms);
        self.last = self.finish();
    }

    /// A port's late answer.
    pub fn answer_port(&mut self, asked: Asked, refuses: bool) {
        self.port_since_ms = asked.since_ms;
        self.is_at_once = false;
        let mut expected = Expected::default();
        self.open(asked, refuses, &mut expected);
        self.settle(expected, None);
        self.last = self.finish();
    }

    /// The operator ends a user or a room.
    pub fn kick(&mut self, named: &Named, until: u64) {
        let (until, expected) = self.model.kick(named, until);
        let told = self.subject.kick(self.now, named, until);
        assert!(!self.has_model || told == until, "revoked until {told}, not {until}");
        self.settle(expected, None);
        check::i22_nothing_is_left_of_the_kicked(&self.edge, named);
        self.last = self.finish();
    }

    /// The network could not deliver what a port has sent.
    pub fn icmp(&mut self, at: SocketAddr, peer: SocketAddr) {
        let Some(id) = self.edge.owner(at) else { return };
        let error = if peer.is_ipv4() { (3, 3) } else { (1, 4) };
        let error = IcmpError { kind: error.0, code: error.1, mtu: 0 };
        let told = self.model.icmp(self.now.mono_ms, id, peer);
        self.subject.icmp(self.now, id, PeerAddr(peer), error);
        let answers = told.into_iter().map(|who| Answer {
            to: Some(who),
            method: 7,
            code: ICMP_CODE,
            ..Answer::default()
        });
        self.settle(Expected { answers: answers.collect(), ..Expected::default() }, None);
        self.last = self.finish();
    }

    /// Drains the effects as the edge does, and compares them with what must be.
    /// Returns how many there were.
    pub fn settle(
        &mut self,
        mut expected: Expected,
        cause: Option<(ClientAddr, &[u8], bool)>,
    ) -> usize {
        let (mut replies, mut effects) = (0, 0);
        let mut answers = Vec::new();
        while let Some(done) = self.subject.next_effect() {
            effects += 1;
            match done {
                Done::Reply { to, bytes } => {
                    let reply = Reply { to, bytes };
                    let wanted = expected.answers.get(answers.len()).and_then(|it| it.seal);
                    replies += 1;
                    self.judge_reply(&reply, cause);
                    answers.push(read(&reply, wanted));
                    self.deliver(reply);
                }
                Done::Open { id, family, wish, user, client } => {
                    let at = expected.opens.iter().position(|it| *it == who(client));
                    assert!(!self.has_model || at.is_some(), "a port that nobody asked for");
                    at.map(|at| expected.opens.swap_remove(at));
                    self.model.ids.insert(id, who(client));
                    let since_ms = self.now.mono_ms;
                    let asked = Asked { id, family, wish, user, client, since_ms };
                    self.ask_host(asked, &mut expected);
                }
                Done::Close { id } => {
                    let port = self.edge.open.remove(&id);
                    let port = port.unwrap_or_else(|| panic!("I-6: {id} closed, but not open"));
                    self.edge.closes += 1;
                    self.seen.closed(self.now.mono_ms, &who(port.client), port.at);
                    let at = expected.closes.iter().position(|it| *it == who(port.client));
                    assert!(!self.has_model || at.is_some(), "{:?} was closed early", port.client);
                    at.map(|at| expected.closes.swap_remove(at));
                }
            }
        }
        if let Some((_, bytes, _)) = cause {
            check::i13_one_answer_at_most(bytes, replies);
        }
        if self.has_model {
            assert_eq!(answers, expected.answers, "relay's answers on the left, model's right");
            assert!(expected.opens.is_empty(), "no port was asked for");
            assert!(expected.closes.is_empty(), "still open: {:?}", expected.closes);
        }
        effects
    }

    /// The host answers at once or later.
    fn ask_host(&mut self, asked: Asked, expected: &mut Expected) {
        let (late_ms, opens) = match self.edge.host {
            Host::Opens | Host::Refuses => {
                let refuses = self.edge.host == Host::Refuses;
                self.is_at_once = true;
                return self.open(asked, refuses, expected);
            }
            Host::OpensLate(ms) => (ms, true),
            Host::RefusesLate(ms) => (ms, false),
        };
        let (at_ms, id) = (self.now.mono_ms + late_ms, asked.id);
        self.edge.waiting.insert(id, asked);
        self.network.push(at_ms, Event::PortAnswer { id, opens });
    }

    fn open(&mut self, asked: Asked, refuses: bool, expected: &mut Expected) {
        let (id, client) = (asked.id, who(asked.client));
        let more = match self.bind(asked, refuses) {
            Ok(at) => {
                let more = self.model.port_opened(id, client, at);
                self.subject.port_opened(id, RelayAddr(at));
                more
            }
            Err(why) => {
                let before = self.subject.snapshot(self.now);
                let more = self.model.port_failed(id, why, self.is_at_once);
                self.subject.port_failed(id, why);
                let after = self.subject.snapshot(self.now);
                for answer in &more.answers {
                    check::i24_newcomers_are_turned_away(&before, &after, answer.code);
                }
                more
            }
        };
        expected.answers.extend(more.answers);
        expected.closes.extend(more.closes);
        expected.opens.extend(more.opens);
    }

    /// What is judged of a reply by itself, and what is learnt from it.
    fn judge_reply(&mut self, reply: &Reply, cause: Option<(ClientAddr, &[u8], bool)>) {
        let (now_ms, to) = (self.now.mono_ms, who(reply.to));
        self.digest.write(&reply.bytes);
        let stun = Stun::read(&reply.bytes);
        let stun = stun.unwrap_or_else(|| panic!("no message: {:02x?}", reply.bytes));
        self.tally.reply(reply.to, reply.bytes.len(), &stun);
        if stun.class == INDICATION {
            // An error of the network: nobody asked.
            assert!(cause.is_none(), "I-13: an indication for an answer");
            return;
        }
        if let Some(nonce) = stun.value(0x0015) {
            self.model.learn_nonce(now_ms, to, nonce);
        }
        let Some((from, request, is_proven)) = cause else {
            // A port that was late: its Allocate is known to the model only.
            check::i15_challenges_and_successes_are_whole(&reply.bytes, true);
            if stun.class == SUCCESS {
                self.seen.allocated(now_ms, self.port_since_ms, to, &stun);
            }
            return;
        };
        assert_eq!(reply.to, from, "I-18: another's answer");
        if stun.class == SUCCESS && stun.method != 1 {
            let nonce = Stun::read(request).and_then(|it| it.value(0x0015).map(<[u8]>::to_vec));
            let is_known = nonce.is_some_and(|it| self.model.knows_nonce(now_ms, to, &it));
            check::i16_nonce_is_the_clients_and_fresh(is_known);
        }
        check::i15_challenges_and_successes_are_whole(&reply.bytes, is_proven);
        if !is_proven && from.transport == Transport::Udp {
            check::i14_answers_to_strangers_are_short(request, reply);
        }
        if stun.class == ERROR || stun.method == 1 {
            return;
        }
        self.judge_repetition(to, request, &reply.bytes);
        self.seen.granted(now_ms, to, request, &stun);
        let grant = self.seen.grants.get(&to);
        if let Some((granted_s, grant)) = stun.number(0x000D).zip(grant) {
            // A repeated Allocate is told what the first one was.
            let age_ms = if stun.method == ALLOCATE { 0 } else { now_ms - grant.since_ms };
            let most = self.rules.session_s_max;
            check::i05_lifetimes_are_granted_within_bounds(granted_s, age_ms, most);
        }
        let highest = if self.rules.rfc5766_channels { 0x7FFF } else { 0x4FFF };
        check::i10_channel_numbers_are_in_range(&self.seen, &to, highest);
        self.remember(to, request, &reply.bytes);
    }

    fn judge_repetition(&mut self, from: Who, request: &[u8], reply: &[u8]) {
        let now_ms = self.now.mono_ms;
        let changes = self.seen.grants.get(&from).map_or(0, |it| it.changes);
        self.recent.retain(|it| now_ms - it.at_ms <= check::REPEAT_MS);
        let first = self.recent.iter().find(|it| it.from == from && it.request == request);
        if let Some(first) = first.filter(|it| it.changes == changes) {
            check::i12_repeated_request_gets_the_same_answer(&first.reply, reply);
        }
    }

    fn remember(&mut self, from: Who, request: &[u8], reply: &[u8]) {
        let changes = self.seen.grants.get(&from).map_or(0, |it| it.changes);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        let (request, reply, at_ms) = (request.to_vec(), reply.to_vec(), self.now.mono_ms);
        self.recent.push_back(Answered { from, request, reply, at_ms, changes });
    }

    fn deliver(&mut self, reply: Reply) {
        let (to, bytes) = (reply.to, reply.bytes);
        if to.transport == Transport::Udp {
            return self
                .network
                .carry(self.now.mono_ms, &bytes, |bytes| Event::AtClient { to, bytes });
        }
        let Some(client) = self.clients.iter().position(|it| it.addr == to) else { return };
        let at_ms = self.now.mono_ms + self.network.delay_ms();
        let stream = &mut self.streams[client];
        stream.down_ms = stream.down_ms.max(at_ms);
        self.network.push(stream.down_ms, Event::AtClient { to, bytes });
    }

    /// What holds after every step.
    pub fn finish(&mut self) -> relay_proto::Snapshot {
        self.steps += 1;
        let after = self.subject.snapshot(self.now);
        check::i06_ports_are_conserved(&self.edge);
        check::i07_tuples_and_ports_are_unique(&self.edge, self.rules.quota);
        check::i08_counters_are_the_networks(&self.tally, &self.last, &after);
        check::i09_gauges_are_what_is_open(&self.edge, &after);
        check::i11_only_requests_extend(&self.seen, self.now.mono_ms, &after);
        check::i23_series_are_bounded(&after);
        if self.has_model {
            let (permissions, channels) = self.model.gauges(self.now.mono_ms);
            let wanted = (self.model.allocations.len() as u64, permissions, channels);
            let got = (after.allocations, after.permissions, after.channels);
            assert_eq!(got, wanted, "relay's gauges on the left, model's on the right");
            assert_eq!(self.model.opened, after.allocations_opened, "allocations opened");
            assert_eq!(self.model.closed, after.allocations_closed, "allocations closed");
            assert_eq!(self.model.icmp_errors, after.icmp_errors, "errors of the network");
            assert_eq!(self.model.auth_failures, after.auth_failures, "refused credentials");
        }
        after
    }

    fn compare(&mut self, fate: &Fate<'_>, verdict: &Verdict<'_>) {
        self.tally.verdict(verdict);
        if !self.has_model {
            return;
        }
        let got = match *verdict {
            Verdict::ToPeer { via, to, payload, .. } => match self.owner_of(via) {
                Some(via) => Fate::ToPeer { via, to: to.0, payload },
                None => panic!("{via} is nobody's"),
            },
            Verdict::ToClient { to, ref head, payload, .. } => {
                let head = head.as_bytes();
                let frame = if head[0] < 0x40 {
                    let whole = [head, &vec![0; payload.len().next_multiple_of(4)]].concat();
                    let peer = Stun::read(&whole).and_then(|it| it.address(0x0012));
                    Frame::Indication(peer.expect("a Data indication names its peer"))
                } else {
                    Frame::Channel(u16::from_be_bytes([head[0], head[1]]))
                };
                Fate::ToClient { to: who(to), frame, payload }
            }
            Verdict::Hairpin { from, to, payload, .. } => {
                Fate::Hairpin { from: from.0, to: to.0, payload }
            }
            Verdict::Control => Fate::Control,
            Verdict::Drop(reason) => Fate::Drop(reason),
        };
        assert_eq!(got, *fate, "relay's verdict on the left, model's on the right");
    }

    fn owner_of(&self, id: AllocationId) -> Option<Who> {
        self.edge.open.get(&id).map(|port| who(port.client))
    }
}

/// A reply in the model's terms; `seal` is the signature that it must bear.
fn read(reply: &Reply, seal: Option<Seal>) -> Answer {
    let stun = Stun::read(&reply.bytes).expect("judged already");
    let is_signed = seal.is_some_and(|(key, by)| stun.has_sha256 == by && stun.is_signed_by(&key));
    // A signature of nobody is unlike any key.
    let other = stun.integrity.map(|_| Seal::default());
    Answer {
        to: Some(who(reply.to)),
        method: stun.method,
        id: if stun.class == INDICATION { [0; 12] } else { stun.id },
        code: stun.code().unwrap_or(ICMP_CODE),
        lifetime_s: stun.number(0x000D),
        relayed: stun.address(0x0016),
        mapped: stun.address(0x0020),
        has_token: stun.value(0x0022).is_some(),
        challenges: stun.value(0x0014).is_some() && stun.value(0x0015).is_some(),
        unknown: stun.value(message::UNKNOWN_ATTRIBUTES).unwrap_or_default().to_vec(),
        seal: if is_signed { seal } else { other },
    }
}
