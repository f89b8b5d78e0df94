//! Somebody who listens in and means harm, but has no key except a user's own.

use std::collections::VecDeque;
use std::net::SocketAddr;

use relay_proto::attribute as attr;
use relay_proto::stun::{Class, Method, Writer};
use relay_proto::{ClientAddr, Transport};

use super::client::Wish;
use super::network::Event;
use super::operation::Attack;
use super::scene::EXTERNAL_IP;
use super::world::World;
use crate::wire::client_addr;

/// Datagrams that are remembered.
const OVERHEARD_MAX: usize = 24;

/// What somebody on the path has seen.
#[derive(Default)]
pub struct Sniffer {
    overheard: VecDeque<(ClientAddr, Vec<u8>)>,
}

impl Sniffer {
    pub fn overhear(&mut self, from: ClientAddr, bytes: &[u8]) {
        if self.overheard.len() == OVERHEARD_MAX {
            self.overheard.pop_front();
        }
        self.overheard.push_back((from, bytes.to_vec()));
    }

    fn packet(&self, number: usize) -> Option<(ClientAddr, Vec<u8>)> {
        self.overheard.get(number % self.overheard.len().max(1)).cloned()
    }
}

impl World {
    pub fn attack(&mut self, attack: Attack) {
        let count = self.clients.len();
        match attack {
            Attack::Spoof { victim } => {
                let id = self.draw_id();
                let binding = self.clients[0].write(id, &Wish::Binding { second: false });
                let mut from = client_addr(4_000);
                from.remote = ([198, 18, victim, 1], 4_000).into();
                self.inject(from, if victim == 0 { binding } else { unsigned_allocate(id) });
            }
            Attack::Replay { packet, from } => {
                let Some((source, bytes)) = self.sniffer.packet(packet) else { return };
                let other = from.map(|client| self.clients[client % count].addr);
                self.inject(other.unwrap_or(source), bytes);
            }
            Attack::Tamper { packet } => {
                let Some((source, mut bytes)) = self.sniffer.packet(packet) else { return };
                self.network.damage(&mut bytes);
                self.inject(source, bytes);
            }
            Attack::Append { packet } => {
                let Some((source, bytes)) = self.sniffer.packet(packet) else { return };
                self.inject(source, append(bytes));
            }
            Attack::ForgeNonce { client } => {
                let mut forger = self.clients[client % count].clone();
                forger.nonce = b"AAAAAAAAAAAA".to_vec();
                let bytes = forger.write(self.draw_id(), &Wish::ALLOCATE);
                self.inject(forger.addr, bytes);
            }
            Attack::Intrude { client, victim } => {
                // It even has the victim's nonce.
                let (mut intruder, victim) =
                    (self.clients[client % count].clone(), &self.clients[victim % count]);
                intruder.nonce.clone_from(&victim.nonce);
                let addr = victim.addr;
                let wish = Wish::Refresh { lifetime_s: 0, family: 0 };
                let bytes = intruder.write(self.draw_id(), &wish);
                self.inject(addr, bytes);
            }
            Attack::Guess { client } => {
                let mut guesser = self.clients[client % count].clone();
                guesser.key = [7; 16];
                let bytes = guesser.write(self.draw_id(), &Wish::ALLOCATE);
                self.inject(guesser.addr, bytes);
            }
            Attack::Noise { length } => {
                let bytes: Vec<u8> = (0..length).map(|_| self.network.random.byte()).collect();
                let client = self.network.random.below(count);
                self.inject(self.clients[client].addr, bytes);
            }
            Attack::PoseAsRelay { client } => {
                let payload = self.payload(16, false);
                if let Some(at) = self.clients[client % count].relayed {
                    self.peer_sends(at, SocketAddr::new(EXTERNAL_IP.into(), 50_000), &payload);
                }
            }
        }
    }

    /// A datagram from wherever the adversary likes. Streams cannot be forged.
    fn inject(&mut self, from: ClientAddr, bytes: Vec<u8>) {
        if from.transport == Transport::Udp {
            let second = from.listener == 1;
            self.network.push(self.now.mono_ms, Event::AtRelay { from, bytes, second });
        }
    }
}

/// A Send indication.
pub fn indication(id: [u8; 12], to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 64);
    Writer::new(&mut out, Method::Send, Class::Indication, id)
        .xor_address(attr::XOR_PEER_ADDRESS, to)
        .attribute(attr::DATA, payload)
        .finish();
    out
}

fn unsigned_allocate(id: [u8; 12]) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out, Method::Allocate, Class::Request, id)
        .attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        .finish();
    out
}

/// LIFETIME 0 behind whatever is there, and a length that includes it.
fn append(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend([0, 0x0D, 0, 4, 0, 0, 0, 0]);
    if let (Ok(length), Some(field)) =
        (u16::try_from(bytes.len().saturating_sub(20)), bytes.get_mut(2..4))
    {
        field.copy_from_slice(&length.to_be_bytes());
    }
    bytes
}
