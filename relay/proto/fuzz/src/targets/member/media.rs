//! Payload both ways, and what the edge makes of the verdicts.

use std::net::SocketAddr;

use relay_proto::stun::{Class, Message, Method};
use relay_proto::{
    AllocationId, ClientAddr, DropReason, IcmpError, PeerAddr, RelayAddr, Transport, Verdict,
    attribute as attr,
};

use super::super::super::world;
use super::super::input::Input;
use super::{Rules, School};

impl School {
    /// A datagram of a client that need not be signed; whether it leaves the relay.
    pub(super) fn client_sends(&mut self, who: usize, bytes: &[u8], input: &mut Input<'_>) -> bool {
        let now = self.world.now;
        let from = self.clients[who].client.addr;
        let verdict = self.world.relay.from_client(now, from, bytes);
        let leaves = matches!(verdict, Verdict::ToPeer { .. } | Verdict::Hairpin { .. });
        match verdict {
            Verdict::Control | Verdict::Drop(_) => {}
            Verdict::ToPeer { via, to, payload, dont_fragment } => {
                assert!(
                    self.clients[who].rights.may_send_to(now.mono_ms, self.rules, to.0),
                    "I-1: {to:?}"
                );
                assert!(!dont_fragment || to.0.is_ipv4());
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
                assert!(
                    self.clients[who].rights.may_send_to(now.mono_ms, self.rules, to.0),
                    "I-1: {to:?}"
                );
                assert_ne!(from, to);
                let mut ports = self.world.opened.iter().filter(|port| port.relayed == Some(to));
                let is_closed = |id, family| self.closed().any(|closed| closed == (id, family));
                let is_open = ports.any(|port| !is_closed(port.id, port.family));
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

    /// The network gives a datagram back, truly or not (RFC 8656 §11.5).
    pub(super) fn network_complains(&mut self, input: &mut Input<'_>) {
        let peer = self.any_peer(input);
        let Some(id) = self.any_port(input) else { return };
        let (kind, code) = (input.byte(), input.byte());
        let error = IcmpError { kind, code, mtu: u32::from(input.word()) };
        self.world.relay.icmp(self.world.now, id, PeerAddr(peer), error);
        let replies = self.replies();
        assert!(replies.len() <= 1, "{replies:?}");
        for reply in replies {
            let now_ms = self.world.now.mono_ms;
            let mut members = self.clients.iter();
            let member = members.find(|it| it.client.addr == reply.to).expect("one of ours");
            let strict = Rules { strict: true, ..self.rules };
            assert!(member.rights.may_hear(now_ms, strict, peer), "{peer}");
            let message = reply.message();
            assert_eq!((message.method, message.class), (Some(Method::Data), Class::Indication));
            assert_eq!(reply.address(attr::XOR_PEER_ADDRESS), Some(peer));
            assert!(
                message.attribute(attr::ICMP).is_some() && message.attribute(attr::DATA).is_none()
            );
        }
    }

    /// One of the ports that were asked for last.
    fn any_port(&self, input: &mut Input<'_>) -> Option<AllocationId> {
        let last = self.world.opened.len().checked_sub(1)?;
        Some(self.world.opened[last.saturating_sub(input.below(4))].id)
    }

    pub(super) fn peer_sends(&mut self, input: &mut Input<'_>) {
        let from = self.any_peer(input);
        let payload = input.bytes();
        let Some(id) = self.any_port(input) else { return };
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
        at: Option<AllocationId>,
        from: SocketAddr,
        payload: &[u8],
        heard: Option<(AllocationId, ClientAddr, Vec<u8>)>,
    ) {
        let Some((via, to, bytes)) = heard else { return };
        assert!(at.is_none_or(|at| at == via), "I-18");
        let now_ms = self.world.now.mono_ms;
        let member = self.clients.iter().find(|it| it.client.addr == to).expect("one of ours");
        assert!(member.rights.may_hear(now_ms, self.rules, from), "I-2: {from}");
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
        assert_eq!(self.replies(), []);
    }
}

fn rendered(verdict: &Verdict<'_>) -> Option<(AllocationId, ClientAddr, Vec<u8>)> {
    match verdict {
        Verdict::ToClient { via, to, .. } => Some((*via, *to, world::rendered(verdict))),
        Verdict::Drop(_) => None,
        other => panic!("neither for the client nor dropped: {other:?}"),
    }
}
