//! The edge: time, ports that open late or never, and replies on their way out.

use std::net::SocketAddr;

use relay_proto::{ClientAddr, Family, PortFailure, RelayAddr, attribute as attr};

use super::super::super::world::{Ports, Reply, ip};
use super::super::input::Input;
use super::super::rights::Rights;
use super::School;

/// Steps in time, most of them at an edge.
const PAUSES_MS: [u64; 8] = [1, 999, 40_000, 299_999, 300_000, 300_001, 599_999, 600_000];
/// Steps of the wall clock.
const JUMPS_S: [i64; 4] = [3_600, -3_600, 31_536_000, -31_536_000];

impl School {
    /// How the edge answers when it is to open a port, and late answers.
    pub(super) fn edge(&mut self, input: &mut Input<'_>) {
        let kind = input.byte();
        match kind % 10 {
            0..=2 => self.world.ports = Ports::Open,
            3 => self.world.ports = Ports::Fail(PortFailure::Quota),
            4 => self.world.ports = Ports::Fail(PortFailure::Capacity),
            5 => self.world.ports = Ports::Wait,
            6 => self.world.ports = Ports::FailOnce(PortFailure::Quota),
            _ => {
                let last = self.world.opened.len();
                if last > 0 {
                    let at = last - 1 - input.below(4).min(last - 1);
                    self.answer(at, kind % 10 == 7);
                }
            }
        }
    }

    /// Answers for a port that is still waited for.
    pub(super) fn answer(&mut self, at: usize, well: bool) {
        let asked = self.world.opened[at].clone();
        // The one that had no room may be asked for again, and got.
        if self.world.opened.iter().any(|it| it.id == asked.id && it.relayed.is_some()) {
            return;
        }
        if well {
            let port = 60_001 + u16::try_from(at).expect("few");
            let ip =
                if asked.family == Family::V4 { ip("203.0.113.1") } else { ip("2001:db8:0:1::1") };
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

    pub(super) fn replies(&mut self) -> Vec<Reply> {
        let replies = self.world.drain();
        for reply in &replies {
            self.sent_to_client(reply.to, reply.bytes.len());
        }
        self.see_closed_ports();
        replies
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

    /// Whose port is closed has no allocation any more, and was to have none.
    fn see_closed_ports(&mut self) {
        let now_ms = self.world.now.mono_ms;
        for id in &self.world.closed[self.closed..] {
            let port =
                self.world.opened.iter().find(|port| port.id == *id && port.relayed.is_some());
            let port = port.expect("was opened");
            let mut members = self.clients.iter_mut();
            let member = members.find(|it| it.client.addr == port.client).expect("one of ours");
            if member.rights.relayed() == port.relayed.map(|relayed| relayed.0) {
                let is_due = self.may_close || !member.rights.lives(now_ms);
                assert!(is_due, "ended before its time");
                member.rights = Rights::default();
            }
        }
        self.closed = self.world.closed.len();
    }
}
