//! The edge: time, ports that open late or never, and replies on their way out.

use std::net::SocketAddr;

use relay_proto::{AllocationId, ClientAddr, Family, PortFailure, RelayAddr};

use super::super::super::world::{Opened, Ports, Reply, ip};
use super::super::input::Input;
use super::super::rights::Rights;
use super::School;
use super::requests::relayed;

/// Steps in time, most of them at an edge.
const PAUSES_MS: [u64; 8] = [1, 999, 40_000, 299_999, 300_000, 300_001, 599_999, 600_000];
/// Steps of the wall clock.
const JUMPS_S: [i64; 4] = [3_600, -3_600, 31_536_000, -31_536_000];

impl School {
    /// How the edge answers when it is to open a port, and late answers.
    pub(super) fn edge(&mut self, input: &mut Input<'_>) {
        let kind = input.byte();
        match kind % 11 {
            0..=2 => self.world.ports = Ports::Open,
            3 => self.world.ports = Ports::Fail(PortFailure::Quota),
            4 => self.world.ports = Ports::Fail(PortFailure::Capacity),
            5 => self.world.ports = Ports::Wait,
            6 => self.world.ports = Ports::FailOnce(PortFailure::Quota),
            7 => self.world.ports = Ports::FailOf(Family::V4, PortFailure::Capacity),
            8 => self.world.ports = Ports::FailOf(Family::V6, PortFailure::Family),
            _ => {
                let well = input.byte() & 1 == 0;
                if !self.waiting.is_empty() {
                    let at = input.below(self.waiting.len());
                    self.answer(at, well);
                }
            }
        }
    }

    /// Answers for a port that is still waited for.
    pub(super) fn answer(&mut self, at: usize, well: bool) {
        let (id, family) = self.waiting.remove(at);
        if well {
            self.late += 1;
            let ip = if family == Family::V4 { ip("203.0.113.1") } else { ip("2001:db8:0:1::1") };
            let relayed = RelayAddr(SocketAddr::new(ip, 60_000 + self.late));
            let mut opened = self.world.opened.iter_mut();
            let is_it =
                |it: &&mut Opened| it.id == id && it.family == family && it.relayed.is_none();
            opened.find(is_it).expect("was asked for").relayed = Some(relayed);
            self.world.relay.port_opened(id, relayed);
        } else {
            self.world.relay.port_failed(id, PortFailure::Capacity);
        }
        for reply in self.replies() {
            let member = self.clients.iter_mut().find(|it| it.client.addr == reply.to);
            let member = member.expect("one of ours");
            if reply.code() == 0 {
                let lifetime_s = reply.lifetime_s().expect("a success says how long");
                let begun_ms = self.begun_ms[&id];
                member.rights = Rights::open(begun_ms, lifetime_s, &relayed(&reply));
            }
        }
    }

    pub(super) fn replies(&mut self) -> Vec<Reply> {
        let replies = self.world.drain();
        for reply in &replies {
            self.sent_to_client(reply.to, reply.bytes.len());
        }
        let asked = &self.world.opened[self.asked..];
        for port in asked {
            self.begun_ms.entry(port.id).or_insert(self.world.now.mono_ms);
        }
        if self.world.ports == Ports::Wait {
            self.waiting.extend(asked.iter().map(|port| (port.id, port.family)));
        }
        self.asked = self.world.opened.len();
        self.see_closed_ports();
        replies
    }

    /// Every port that was closed.
    pub(super) fn closed(&self) -> impl Iterator<Item = (AllocationId, Family)> {
        self.world.closed.iter().copied().zip(self.world.closed_families.iter().copied())
    }

    pub(super) fn sent_to_client(&mut self, to: ClientAddr, bytes: usize) {
        let sent = &mut self.to_clients[to.transport.index()];
        sent.packets += 1;
        sent.bytes += bytes as u64;
    }

    pub(super) fn pass(&mut self, input: &mut Input<'_>) {
        match input.byte() {
            0..=199 => {
                let pause_ms = input.pick(&PAUSES_MS);
                self.world.pass_ms(pause_ms);
                if input.byte() & 1 == 1 {
                    self.world.tick();
                    self.see_closed_ports();
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

    /// Whose port is closed has that address no more, and was to lose it.
    fn see_closed_ports(&mut self) {
        let now_ms = self.world.now.mono_ms;
        let closed: Vec<_> = self.closed().skip(self.closed).collect();
        for (id, family) in closed {
            let mut ports =
                self.world.opened.iter().filter(|it| it.id == id && it.family == family);
            let port = ports.find(|port| port.relayed.is_some()).expect("was opened");
            let mut members = self.clients.iter_mut();
            let member = members.find(|it| it.client.addr == port.client).expect("one of ours");
            if member.rights.relayed(family) == port.relayed.map(|relayed| relayed.0) {
                let may_close = self.may_close.contains(&member.user);
                let is_due = may_close || !member.rights.lives_in(now_ms, family);
                assert!(is_due, "ended before its time");
                member.rights.close(family);
            }
        }
        self.closed = self.world.closed.len();
    }
}
