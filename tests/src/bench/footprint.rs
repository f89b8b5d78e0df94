//! How much memory a relay takes, and how fast it makes allocations.

use std::time::Instant;

use super::cpu;
use super::field::{Field, GENERATOR};
use super::flows::{self, CHANNEL};
use super::plan::check_interrupt;
use super::server::{LISTENER, Relay, Setup};
use super::subject::Subject;
use crate::Outcome;

/// Allocations that are open at the end, with a channel each.
pub const ALLOCATIONS: usize = 5_000;

/// What one relay took.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Resident memory before the first client, in bytes.
    pub idle: u64,
    /// Resident memory with [`ALLOCATIONS`], in bytes.
    pub loaded: u64,
    /// Authenticated Allocate and ChannelBind, each pair with the challenge before it, per second
    /// of a client that waits for every answer.
    pub per_second: f64,
    /// CPU time of the relay for one such pair, in nanoseconds; the client's own is left out.
    pub cpu_ns: f64,
}

impl Footprint {
    /// Memory of one allocation with its channel, in bytes.
    #[must_use]
    pub fn per_allocation(&self) -> f64 {
        (self.loaded as f64 - self.idle as f64) / ALLOCATIONS as f64
    }
}

/// Measures `subject`.
///
/// # Errors
/// The relay refuses an allocation or fails.
pub fn measure(field: &Field, subject: Subject) -> Outcome<Footprint> {
    let relay = Relay::start(field, subject, Setup::PLAIN)?;
    let idle = cpu::resident(relay.id())?;
    let sockets: Vec<_> = (0..ALLOCATIONS)
        .map(|_| field.generator.udp((GENERATOR, 0).into()))
        .collect::<Outcome<_>>()?;
    let (allocations, time, used) = field.generate(|| {
        let before = cpu::used_ns(relay.id())?;
        let start = Instant::now();
        let mut allocations = Vec::with_capacity(ALLOCATIONS);
        for (socket, port) in sockets.into_iter().zip(10_000..) {
            check_interrupt()?;
            let mut allocation = flows::open(socket, LISTENER)?;
            allocation.bind(CHANNEL, (GENERATOR, port).into())?;
            allocations.push(allocation);
        }
        Ok((allocations, start.elapsed(), cpu::used_ns(relay.id())? - before))
    })?;
    let loaded = cpu::resident(relay.id())?;
    let count = allocations.len() as f64;
    Ok(Footprint {
        idle,
        loaded,
        per_second: count / time.as_secs_f64(),
        cpu_ns: used as f64 / count,
    })
}
