//! The relay under test, as the edge calls it, and the bugs that may be planted around it.

use std::collections::VecDeque;

use relay_proto::icmp::IcmpError;
use relay_proto::operator::Alternates;
use relay_proto::request::PortWish;
use relay_proto::revocation::Who as Named;
use relay_proto::{
    AllocationId, ClientAddr, DropReason, Effect, Family, More, Now, PeerAddr, PortFailure, Relay,
    RelayAddr, Snapshot, Verdict,
};

use super::plant::{Bug, Plant};
use super::scene::{self, Rules};

/// An effect that outlives the call that told of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Done {
    Reply { to: ClientAddr, bytes: Vec<u8> },
    Open { id: AllocationId, family: Family, wish: PortWish, user: String, client: ClientAddr },
    Close { id: AllocationId },
}

pub struct Subject {
    relay: Relay,
    plant: Option<Plant>,
    ready: VecDeque<Done>,
}

impl Subject {
    /// The relay as it starts for the so many-th time.
    pub fn new(rules: &Rules, boot: u8, bug: Option<Bug>) -> Self {
        let boot = if bug == Some(Bug::OldKeyAtBoot) { 1 } else { boot };
        Self {
            relay: Relay::new(rules.settings(false), &scene::keys(boot)),
            plant: bug.map(Plant::new),
            ready: VecDeque::new(),
        }
    }

    pub fn from_client<'b>(&mut self, now: Now, from: ClientAddr, bytes: &'b [u8]) -> Verdict<'b> {
        let Some(plant) = &mut self.plant else { return self.relay.from_client(now, from, bytes) };
        plant.from_client(&mut self.relay, now, from, bytes)
    }

    pub fn from_stun_client(
        &mut self,
        now: Now,
        from: ClientAddr,
        bytes: &[u8],
    ) -> Verdict<'static> {
        self.relay.from_stun_client(now, from, bytes)
    }

    pub fn from_peer<'b>(
        &mut self,
        now: Now,
        at: AllocationId,
        from: PeerAddr,
        bytes: &'b [u8],
    ) -> Verdict<'b> {
        let Some(plant) = &mut self.plant else {
            return self.relay.from_peer(now, at, from, bytes);
        };
        plant.from_peer(&mut self.relay, now, at, from, bytes)
    }

    pub fn from_relay<'b>(
        &mut self,
        now: Now,
        from: RelayAddr,
        to: RelayAddr,
        bytes: &'b [u8],
    ) -> Verdict<'b> {
        self.relay.from_relay(self.planted_time(now), from, to, bytes)
    }

    pub fn tick(&mut self, now: Now) -> More {
        if self.plant.as_ref().is_some_and(|plant| plant.bug == Bug::TimerForgotten) {
            return More::No;
        }
        self.relay.tick(self.planted_time(now))
    }

    pub fn port_opened(&mut self, id: AllocationId, relayed: RelayAddr) {
        self.relay.port_opened(id, relayed);
    }

    pub fn port_failed(&mut self, id: AllocationId, why: PortFailure) {
        if self.plant.as_ref().is_none_or(|plant| plant.bug != Bug::FailedBindForgotten) {
            self.relay.port_failed(id, why);
        }
    }

    pub fn client_closed(&mut self, client: ClientAddr) {
        self.relay.client_closed(client);
    }

    pub fn stream_broken(&mut self, client: ClientAddr, bytes: &[u8]) {
        self.relay.stream_broken(client, bytes);
    }

    pub fn is_client(&mut self, now: Now, client: ClientAddr) -> bool {
        self.relay.has_allocation(now, client)
    }

    pub fn kick(&mut self, now: Now, who: &Named, until: u64) -> u64 {
        self.relay.kick(self.planted_time(now), who, until).until
    }

    pub fn drain(&mut self) {
        self.relay.drain(Alternates::default());
    }

    pub fn configure(&mut self, rules: &Rules, is_narrow: bool) {
        self.relay.configure(rules.settings(is_narrow));
    }

    pub fn icmp(&mut self, now: Now, at: AllocationId, peer: PeerAddr, error: IcmpError) {
        self.relay.icmp(self.planted_time(now), at, peer, error);
    }

    pub fn unsent_to_client(
        &mut self,
        via: AllocationId,
        to: ClientAddr,
        framing: usize,
        payload: usize,
    ) {
        self.relay.unsent_to_client(via, to, framing, payload, DropReason::SocketBuffer);
    }

    pub fn unsent_to_peer(&mut self, via: AllocationId, to: PeerAddr, payload: usize) {
        self.relay.unsent_to_peer(via, to, payload, DropReason::SendError);
    }

    pub fn unsent_to_relay(&mut self, via: AllocationId, payload: usize) {
        self.relay.unsent_to_relay(via, payload, DropReason::RelayPortClosed);
    }

    pub fn snapshot(&self, now: Now) -> Snapshot {
        let mut all = self.relay.snapshot(self.planted_time(now));
        if let Some(plant) = &self.plant {
            plant.snapshot(&mut all);
        }
        all
    }

    pub fn next_effect(&mut self) -> Option<Done> {
        let Some(plant) = &mut self.plant else {
            return self.relay.next_effect().map(|effect| owned(&effect));
        };
        self.ready.extend(plant.ready());
        if self.ready.is_empty() {
            let done = owned(&self.relay.next_effect()?);
            self.ready.extend(plant.effect(done));
            return self.next_effect();
        }
        self.ready.pop_front()
    }

    fn planted_time(&self, now: Now) -> Now {
        self.plant.as_ref().map_or(now, |plant| plant.time(now))
    }
}

pub fn owned(effect: &Effect<'_>) -> Done {
    match effect {
        Effect::Reply { to, bytes } => Done::Reply { to: *to, bytes: bytes.to_vec() },
        Effect::OpenPort { id, family, wish, user, client, .. } => Done::Open {
            id: *id,
            family: *family,
            wish: *wish,
            user: (*user).to_owned(),
            client: *client,
        },
        Effect::ClosePort { id, .. } => Done::Close { id: *id },
    }
}
