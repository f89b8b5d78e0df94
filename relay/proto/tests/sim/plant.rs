//! Bugs planted around the relay, to show that the invariants and the model bite.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use relay_proto::credential;
use relay_proto::stun::{Class, Method, Writer};
use relay_proto::{
    AllocationId, ClientAddr, DropReason, Family, Now, PeerAddr, Relay, Snapshot, Verdict,
    attribute as attr,
};

use super::message::Stun;
use super::model::{Who, who};
use super::scene::{REALM, SECRETS, START};
use super::subject::{Done, owned};

/// What is wrong with the relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bug {
    /// A Send indication needs no permission.
    PermissionUnchecked,
    /// A Send indication may go where the policy forbids.
    PolicyUnchecked,
    /// Data makes its permission last longer.
    DataExtends,
    /// An allocation whose port could not be opened stays.
    FailedBindForgotten,
    /// One closed port in four stays open.
    CloseForgotten,
    /// Drops for want of a permission are not counted.
    CounterForgotten,
    /// A stale nonce is as good as a fresh one.
    StaleNonceAccepted,
    /// The nonce key outlives a restart.
    OldKeyAtBoot,
    /// Nothing ever expires by itself.
    TimerForgotten,
    /// Lifetimes follow the wall clock.
    WallClockTrusted,
    /// One payload in eight goes to the client before.
    WrongClient,
    /// ChannelData over streams is not padded.
    PaddingForgotten,
    /// A Refresh is answered twice.
    AnsweredTwice,
    /// A challenge is longer than twice its request.
    WordyChallenge,
}

impl Bug {
    /// Every bug, with the invariants that may be the first to see it when the model is not asked.
    pub const ALL: [(Self, &'static [&'static str]); 14] = [
        (Self::PermissionUnchecked, &["I-1", "I-8"]),
        (Self::PolicyUnchecked, &["I-1", "I-8", "I-21"]),
        (Self::DataExtends, &["I-1", "I-8"]),
        (Self::FailedBindForgotten, &["I-9", "I-20"]),
        (Self::CloseForgotten, &["I-9", "I-20"]),
        (Self::CounterForgotten, &["I-8"]),
        (Self::StaleNonceAccepted, &["I-3", "I-16"]),
        (Self::OldKeyAtBoot, &["I-3", "I-16"]),
        (Self::TimerForgotten, &["I-20"]),
        (Self::WallClockTrusted, &["I-11", "I-17", "I-20"]),
        (Self::WrongClient, &["I-2", "I-18"]),
        (Self::PaddingForgotten, &["I-8", "I-19"]),
        (Self::AnsweredTwice, &["I-8", "I-13"]),
        (Self::WordyChallenge, &["I-8", "I-14"]),
    ];
}

pub struct Plant {
    pub bug: Bug,
    /// Whose allocation is whose.
    ids: BTreeMap<Who, AllocationId>,
    /// When data last went from a client to an address.
    sent_ms: BTreeMap<(Who, IpAddr), u64>,
    /// The client that was sent to before.
    before: Option<ClientAddr>,
    seen: u64,
    ready: Vec<Done>,
    /// Requests that were asked twice, and their refusals, which nobody shall see counted.
    hidden: Vec<(ClientAddr, Method, usize, usize)>,
}

impl Plant {
    pub fn new(bug: Bug) -> Self {
        let (ids, sent_ms) = (BTreeMap::new(), BTreeMap::new());
        Self { bug, ids, sent_ms, before: None, seen: 0, ready: Vec::new(), hidden: Vec::new() }
    }

    pub fn time(&self, now: Now) -> Now {
        if self.bug != Bug::WallClockTrusted {
            return now;
        }
        let passed_ms = now.unix_s.saturating_sub(START.unix_s) * 1_000;
        Now { mono_ms: START.mono_ms + passed_ms, ..now }
    }

    pub fn from_client<'b>(
        &mut self,
        relay: &mut Relay,
        now: Now,
        from: ClientAddr,
        bytes: &'b [u8],
    ) -> Verdict<'b> {
        let verdict = relay.from_client(self.time(now), from, bytes);
        if self.bug == Bug::StaleNonceAccepted && verdict == Verdict::Control {
            self.forgive(relay, now, from, bytes);
        }
        if let Verdict::ToPeer { to, .. } = verdict {
            self.sent_ms.insert((who(from), to.0.ip()), now.mono_ms);
        }
        let Some((to, payload)) = sent(bytes) else { return verdict };
        let is_recent = || {
            let sent_ms = self.sent_ms.get(&(who(from), to.ip()));
            sent_ms.is_some_and(|sent_ms| now.mono_ms - sent_ms < 300_000)
        };
        let passes = match (self.bug, &verdict) {
            (Bug::PermissionUnchecked, Verdict::Drop(DropReason::NoPermission))
            | (Bug::PolicyUnchecked, Verdict::Drop(DropReason::PeerDenied)) => true,
            (Bug::DataExtends, Verdict::Drop(DropReason::NoPermission)) => is_recent(),
            _ => false,
        };
        match self.ids.get(&who(from)) {
            Some(via) if passes => {
                Verdict::ToPeer { via: *via, to: PeerAddr(to), payload, dont_fragment: false }
            }
            _ => verdict,
        }
    }

    pub fn from_peer<'b>(
        &mut self,
        relay: &mut Relay,
        now: Now,
        at: AllocationId,
        from: PeerAddr,
        bytes: &'b [u8],
    ) -> Verdict<'b> {
        let verdict = relay.from_peer(self.time(now), at, from, bytes);
        let Verdict::ToClient { via, to, head, payload, pad } = verdict else { return verdict };
        self.seen += 1;
        let before = self.before.replace(to).unwrap_or(to);
        let is_wrong = self.bug == Bug::WrongClient && self.seen.is_multiple_of(8);
        let is_bare = self.bug == Bug::PaddingForgotten && head.as_bytes().len() == 4;
        let (to, pad) = (if is_wrong { before } else { to }, if is_bare { 0 } else { pad });
        Verdict::ToClient { via, to, head, payload, pad }
    }

    pub fn snapshot(&self, all: &mut Snapshot) {
        if self.bug == Bug::CounterForgotten {
            all.traffic.dropped[DropReason::NoPermission.index()] = 0;
        }
        for (client, method, asked, refused) in &self.hidden {
            let family = Family::of(&client.remote.ip()).index();
            let leg = &mut all.traffic.client[client.transport.index()];
            for (count, bytes) in [(&mut leg.rx[family], asked), (&mut leg.tx[family], refused)] {
                count.packets -= 1;
                count.bytes -= *bytes as u64;
            }
            let refusals = all.requests.entry((*method, 438)).or_default();
            *refusals -= 1;
            if *refusals == 0 {
                all.requests.remove(&(*method, 438));
            }
        }
    }

    /// What becomes of an effect.
    pub fn effect(&mut self, done: Done) -> Vec<Done> {
        let mut all = std::mem::take(&mut self.ready);
        let copies = match (self.bug, &done) {
            (_, Done::Open { id, client, .. }) => {
                self.ids.insert(who(*client), *id);
                1
            }
            (Bug::CloseForgotten, Done::Close { .. }) => {
                self.seen += 1;
                usize::from(!self.seen.is_multiple_of(4))
            }
            (Bug::AnsweredTwice, Done::Reply { bytes, .. }) if bytes[..2] == [0x01, 0x04] => 2,
            _ => 1,
        };
        let done = match done {
            Done::Reply { to, mut bytes } if self.bug == Bug::WordyChallenge => {
                if Stun::read(&bytes).is_some_and(|it| it.code() == Some(401)) {
                    // SOFTWARE, which nobody asked for.
                    bytes.extend(b"\x80\x22\x00\x38");
                    bytes.extend([b'-'; 56]);
                    bytes[3] += 60;
                }
                Done::Reply { to, bytes }
            }
            other => other,
        };
        all.extend(std::iter::repeat_n(done, copies));
        all
    }

    /// A request that was answered 438 is asked once more with the nonce that came with it.
    fn forgive(&mut self, relay: &mut Relay, now: Now, from: ClientAddr, bytes: &[u8]) {
        while let Some(effect) = relay.next_effect() {
            let done = owned(&effect);
            let stale = match &done {
                Done::Reply { bytes, .. } => Stun::read(bytes).filter(|it| it.code() == Some(438)),
                _ => None,
            };
            let nonce = stale.and_then(|it| it.value(attr::NONCE).map(<[u8]>::to_vec));
            match (nonce.and_then(|nonce| renewed(bytes, &nonce)), &done) {
                (Some((method, renewed)), Done::Reply { bytes: refusal, .. }) => {
                    self.hidden.push((from, method, renewed.len(), refusal.len()));
                    relay.from_client(now, from, &renewed);
                }
                _ => self.ready.push(done),
            }
        }
    }

    /// Effects that were kept back.
    pub fn ready(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.ready)
    }
}

/// Peer and payload of a Send indication.
fn sent(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let stun = Stun::read(bytes).filter(|it| (it.method, it.class) == (6, 1))?;
    stun.address(attr::XOR_PEER_ADDRESS).zip(stun.value(attr::DATA))
}

/// The same request with another nonce, signed anew.
fn renewed(bytes: &[u8], nonce: &[u8]) -> Option<(Method, Vec<u8>)> {
    let stun = Stun::read(bytes)?;
    let username = std::str::from_utf8(stun.value(attr::USERNAME)?).ok()?;
    let key =
        credential::long_term_key(username, REALM, &credential::password(SECRETS[1], username));
    let methods =
        [Method::Allocate, Method::Refresh, Method::CreatePermission, Method::ChannelBind];
    let method = methods.into_iter().find(|method| *method as u16 == stun.method)?;
    let mut out = Vec::new();
    let w = Writer::new(&mut out, method, Class::Request, stun.id);
    let w = stun.attributes.iter().fold(w, |w, (kind, value)| {
        w.attribute(*kind, if *kind == attr::NONCE { nonce } else { value })
    });
    w.integrity(&key).finish();
    Some((method, out))
}
