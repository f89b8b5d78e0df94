//! The rules once more, as naively as can be: maps of what ends when, and no timers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

pub const PERMISSIONS_MAX: usize = 3;
pub const CHANNELS_MAX: usize = 2;

/// What becomes of a payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    ToPeer(SocketAddr),
    /// To the client of this number, in this channel.
    Channel(usize, u16),
    /// To the client of this number, from this peer.
    Indication(usize, SocketAddr),
    Dropped,
}

#[derive(Debug)]
pub struct Allocation {
    pub relayed: SocketAddr,
    ends_ms: u64,
    permissions: BTreeMap<IpAddr, u64>,
    channels: BTreeMap<u16, (SocketAddr, u64)>,
}

/// Allocations by the number of their client.
#[derive(Debug, Default)]
pub struct Model {
    allocations: BTreeMap<usize, Allocation>,
}

fn granted_ms(lifetime_s: u64) -> u64 {
    lifetime_s.clamp(600, 3600) * 1000
}

impl Model {
    pub fn live(&mut self, now_ms: u64, client: usize) -> Option<&mut Allocation> {
        self.allocations.retain(|_, it| now_ms < it.ends_ms);
        let found = self.allocations.get_mut(&client)?;
        found.permissions.retain(|_, ends_ms| now_ms < *ends_ms);
        found.channels.retain(|_, (_, ends_ms)| now_ms < *ends_ms);
        Some(found)
    }

    /// To be called where the relay answered with success; 437 otherwise.
    pub fn allocate(&mut self, now_ms: u64, client: usize, lifetime_s: u64, relayed: SocketAddr) {
        let ends_ms = now_ms + granted_ms(lifetime_s);
        let (permissions, channels) = (BTreeMap::new(), BTreeMap::new());
        self.allocations.insert(client, Allocation { relayed, ends_ms, permissions, channels });
    }

    pub fn refresh(&mut self, now_ms: u64, client: usize, lifetime_s: u64) -> u16 {
        let Some(allocation) = self.live(now_ms, client) else { return 437 };
        allocation.ends_ms = now_ms + granted_ms(lifetime_s);
        if lifetime_s == 0 {
            self.allocations.remove(&client);
        }
        0
    }

    pub fn permit(&mut self, now_ms: u64, client: usize, peers: &[SocketAddr]) -> u16 {
        let Some(allocation) = self.live(now_ms, client) else { return 437 };
        let mut wanted = allocation.permissions.clone();
        wanted.extend(peers.iter().map(|peer| (peer.ip(), now_ms + 300_000)));
        if wanted.len() > PERMISSIONS_MAX {
            return 508;
        }
        allocation.permissions = wanted;
        0
    }

    pub fn bind(&mut self, now_ms: u64, client: usize, number: u16, peer: SocketAddr) -> u16 {
        let Some(allocation) = self.live(now_ms, client) else { return 437 };
        if peer == allocation.relayed {
            return 403;
        }
        let mut half =
            allocation.channels.iter().filter(|(at, (to, _))| (**at == number) != (*to == peer));
        if half.next().is_some() {
            return 400;
        }
        let is_new = !allocation.channels.contains_key(&number);
        if is_new && allocation.channels.len() == CHANNELS_MAX {
            return 508;
        }
        let code = self.permit(now_ms, client, &[peer]);
        if code == 0 {
            let allocation = self.live(now_ms, client).expect("it was there");
            allocation.channels.insert(number, (peer, now_ms + 600_000));
        }
        code
    }

    pub fn send(&mut self, now_ms: u64, client: usize, peer: SocketAddr) -> Outcome {
        match self.live(now_ms, client) {
            Some(it) if it.permissions.contains_key(&peer.ip()) && peer != it.relayed => {
                let from = it.relayed;
                self.deliver(now_ms, from, peer)
            }
            _ => Outcome::Dropped,
        }
    }

    pub fn channel_data(&mut self, now_ms: u64, client: usize, number: u16) -> Outcome {
        let Some(allocation) = self.live(now_ms, client) else { return Outcome::Dropped };
        let Some(&(peer, _)) = allocation.channels.get(&number) else { return Outcome::Dropped };
        let from = allocation.relayed;
        self.deliver(now_ms, from, peer)
    }

    pub fn hear(&mut self, now_ms: u64, client: usize, peer: SocketAddr) -> Outcome {
        let Some(allocation) = self.live(now_ms, client) else { return Outcome::Dropped };
        match allocation.channels.iter().find(|(_, (to, _))| *to == peer) {
            Some((&number, _)) => Outcome::Channel(client, number),
            None if allocation.permissions.contains_key(&peer.ip()) => {
                Outcome::Indication(client, peer)
            }
            None => Outcome::Dropped,
        }
    }

    /// Live allocations, permissions and channels.
    pub fn gauges(&mut self, now_ms: u64) -> (u64, u64, u64) {
        let clients: Vec<usize> = self.allocations.keys().copied().collect();
        let mut sum = (0, 0, 0);
        for client in clients {
            if let Some(it) = self.live(now_ms, client) {
                let (permissions, channels) = (it.permissions.len(), it.channels.len());
                sum = (sum.0 + 1, sum.1 + permissions as u64, sum.2 + channels as u64);
            }
        }
        sum
    }

    fn deliver(&mut self, now_ms: u64, from: SocketAddr, to: SocketAddr) -> Outcome {
        let is_ours = to.ip() == from.ip();
        match self.allocations.iter().find(|(_, it)| it.relayed == to).map(|(client, _)| *client) {
            Some(client) => self.hear(now_ms, client, from),
            None if is_ours => Outcome::Dropped,
            None => Outcome::ToPeer(to),
        }
    }
}
