//! What becomes of calls when a relay gets more than it can carry.
//!
//! All figures are parts of the highest rate that this relay held before, so that relays of
//! different speed are loaded alike.

use std::time::Duration;

use super::field::{Field, GENERATOR};
use super::flows::{self, CHANNEL, Flows, Intruder, Way};
use super::kernel;
use super::packet::{Train, Wrap};
use super::plan::check_interrupt;
use super::server::{LISTENER, Relay};
use super::subject::Subject;
use super::throughput::{Bench, Case};
use crate::{Failure, Outcome};

/// What the calls are: the generator can make twice as much of it as relays carry, because the
/// kernel cuts up its bursts.
pub const CASE: Case = Case::new(Way::Channels, 1_100, 8);
/// What is offered, in parts of the highest rate.
const TOO_MUCH: f64 = 2.0;
/// What the calls send while somebody else floods, in parts of the highest rate.
const CALLS: f64 = 0.5;
/// What that somebody sends. Together it is `TOO_MUCH`.
const FLOOD: f64 = TOO_MUCH - CALLS;
/// Requests of strangers, in parts of the highest rate of packets.
const STORM: f64 = 0.5;
/// Marks packets of the flood, which nobody counts. Runs are fewer.
const FLOOD_RUN: u16 = u16::MAX;
/// Most packets of a flood in one call.
const FLOOD_BURST: usize = 8;
/// Room for what one socket has on its way, in bytes of kernel memory.
const SEND_BUFFER_LEN: usize = 16 << 20;
/// An Allocate request for UDP, without credentials (RFC 8656 §7.1).
const ALLOCATE: [u8; 28] = [
    0, 3, 0, 8, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, // header
    0, 0x19, 0, 4, 17, 0, 0, 0, // REQUESTED-TRANSPORT: UDP
];

/// What one relay did.
#[derive(Clone, Copy, Debug)]
pub struct Overload {
    /// Packets sent at `TOO_MUCH`, in parts of the highest rate: the generator may have been late.
    pub offered: f64,
    /// Packets carried meanwhile, in parts of the highest rate.
    pub goodput: f64,
    /// Packets that one client sent on its own channel, in parts of the highest rate.
    pub flood: f64,
    /// Part of the calls' packets that came through beside it.
    pub beside_flood: f64,
    /// Part of the calls' packets that came through while a stranger asked for allocations.
    pub beside_storm: f64,
}

/// Measures `subject`, whose highest rate is searched from `near`.
///
/// # Errors
/// The relay fails.
pub fn measure(
    field: &Field,
    subject: Subject,
    probe: Duration,
    near: Option<f64>,
) -> Outcome<Overload> {
    let relay = Relay::start(field, subject, CASE.setup())?;
    let calls = Flows::open(field, &relay, CASE)?;
    // The flood's own allocation: it has every right to send.
    let peer = field.generator.udp((GENERATOR, 0).into())?;
    let client = field.generator.udp((GENERATOR, 0).into())?;
    client.connect(LISTENER)?;
    let mut allocation = flows::open(client.try_clone()?, LISTENER)?;
    allocation.bind(CHANNEL, peer.local_addr()?)?;
    let flooder = flood(client)?;
    let storm = storm(field)?;
    field.generate(|| {
        let mut bench = Bench::new(field, relay, calls, CASE.burst, probe);
        let wrong = |error: Failure| Failure::new(format!("overload, {}: {error}", subject.name()));
        bench.warm_up().map_err(wrong)?;
        let highest = bench.search(near.unwrap_or(200_000.0)).map_err(wrong)?.rate;
        check_interrupt()?;
        let (echo, _) = bench.run_beside(highest * TOO_MUCH, 0.0, probe)?;
        let part = |packets: u64| part_of(highest, packets, probe);
        let (offered, goodput) = (part(echo.sent()), part(echo.received()));
        bench.flows.intruder = Some(flooder);
        let (echo, _) = bench.run_beside(highest * CALLS, highest * FLOOD, probe)?;
        let (flood, beside_flood) = (part(echo.intruded), echo.share());
        bench.flows.intruder = Some(storm);
        let (echo, _) = bench.run_beside(highest * CALLS, highest * STORM, probe)?;
        Ok(Overload { offered, goodput, flood, beside_flood, beside_storm: echo.share() })
    })
}

/// `packets` in `time`, in parts of a rate in packets per second.
fn part_of(rate: f64, packets: u64, time: Duration) -> f64 {
    packets as f64 / time.as_secs_f64() / rate
}

fn flood(socket: std::net::UdpSocket) -> Outcome<Intruder> {
    let mut train = Train::new(Wrap::Channel(CHANNEL), CASE.payload_len, FLOOD_BURST);
    // Nobody reads what comes back: the smallest buffer will do.
    kernel::tune(&socket, train.datagram_len(), 0)?;
    kernel::widen(&socket, SEND_BUFFER_LEN)?;
    let bytes = train.stamped(FLOOD_RUN, 0).to_vec();
    Ok(Intruder { socket, bytes, count: FLOOD_BURST })
}

fn storm(field: &Field) -> Outcome<Intruder> {
    let socket = field.generator.udp((GENERATOR, 0).into())?;
    socket.connect(LISTENER)?;
    kernel::tune(&socket, ALLOCATE.len(), 0)?;
    kernel::widen(&socket, SEND_BUFFER_LEN)?;
    Ok(Intruder { socket, bytes: ALLOCATE.repeat(FLOOD_BURST), count: FLOOD_BURST })
}

#[cfg(test)]
mod tests {
    use stun::message::Message;

    use super::*;

    #[test]
    fn parts_are_of_the_highest_rate() {
        let part = part_of(200_000.0, 50_000, Duration::from_millis(500));
        assert!((part - 0.5).abs() < 1e-9);
    }

    #[test]
    fn an_independent_decoder_reads_the_stranger_s_request() {
        let mut message = Message { raw: ALLOCATE.to_vec(), ..Message::new() };
        message.decode().unwrap();
        assert_eq!(message.typ.to_string(), "Allocate request");
        assert_eq!(message.attributes.0.len(), 1);
    }
}
