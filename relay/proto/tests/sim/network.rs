//! What lies between clients, relay and peers: a queue of events on a virtual clock, and weather.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use relay_proto::{AllocationId, ClientAddr};

use crate::wire::Random;

/// Longest datagram that a network carries in bytes, if it has no narrow link.
const MTU_MAX: usize = 65_507;

/// Something that happens at its time.
#[derive(Debug)]
pub enum Event {
    /// A datagram at a listener, the second STUN port's if `second`.
    AtRelay {
        from: ClientAddr,
        bytes: Vec<u8>,
        second: bool,
    },
    /// A part of a client's stream.
    Chunk {
        client: usize,
        connection: u64,
        bytes: Vec<u8>,
    },
    AtClient {
        to: ClientAddr,
        bytes: Vec<u8>,
    },
    /// A datagram at a relayed port.
    AtPort {
        at: SocketAddr,
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    /// A client asks again, unless it has been answered.
    Again {
        client: usize,
        id: [u8; 12],
    },
    /// A client refreshes what it has.
    Keep {
        client: usize,
        allocation: [u8; 12],
    },
    /// The host has opened a port, or refused it.
    PortAnswer {
        id: AllocationId,
        opens: bool,
    },
}

/// How the network behaves, in percent, milliseconds and bytes.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub lost: u8,
    pub doubled: u8,
    pub corrupted: u8,
    /// Each packet takes its own time up to this, so that packets overtake each other.
    pub delay_ms: u16,
    pub mtu: usize,
    /// Of packets that the relay sends: its kernel does not take them.
    pub unsent: u8,
}

pub const CALM: Weather =
    Weather { lost: 0, doubled: 0, corrupted: 0, delay_ms: 0, mtu: MTU_MAX, unsent: 0 };

pub struct Network {
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    pub weather: Weather,
    pub random: Random,
}

impl Network {
    pub fn new() -> Self {
        Self { queue: BTreeMap::new(), sequence: 0, weather: CALM, random: Random(0) }
    }

    pub fn push(&mut self, at_ms: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at_ms, self.sequence), event);
    }

    /// The next event that is due by then.
    pub fn pop(&mut self, until_ms: u64) -> Option<(u64, Event)> {
        let entry = self.queue.first_entry().filter(|it| it.key().0 <= until_ms)?;
        Some((entry.key().0, entry.remove()))
    }

    pub fn next_ms(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((at_ms, _), _)| *at_ms)
    }

    /// Carries a datagram: once, twice or not at all, perhaps late and perhaps damaged.
    pub fn carry(&mut self, now_ms: u64, bytes: &[u8], event: impl Fn(Vec<u8>) -> Event) {
        let weather = self.weather;
        if bytes.len() > weather.mtu || self.is_hit(weather.lost) {
            return;
        }
        let copies = 1 + usize::from(self.is_hit(weather.doubled));
        for _ in 0..copies {
            let mut bytes = bytes.to_vec();
            if self.is_hit(weather.corrupted) {
                self.damage(&mut bytes);
            }
            let at_ms = now_ms + self.delay_ms();
            self.push(at_ms, event(bytes));
        }
    }

    pub fn delay_ms(&mut self) -> u64 {
        let most = u64::from(self.weather.delay_ms);
        if most == 0 { 0 } else { self.random.next() % (most + 1) }
    }

    pub fn is_hit(&mut self, percent: u8) -> bool {
        percent > 0 && self.random.next() % 100 < u64::from(percent)
    }

    /// Up to three bits flip, or the end is missing.
    pub fn damage(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        if self.is_hit(30) {
            bytes.truncate(self.random.below(bytes.len()));
            return;
        }
        for _ in 0..=self.random.below(3) {
            let at = self.random.below(bytes.len());
            bytes[at] ^= 1 << self.random.below(8);
        }
    }
}
