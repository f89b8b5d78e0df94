//! Calls that go on in the background: a few allocations with steady media both ways.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::Outcome;
use e2e::bench::cpu;
use e2e::lab::Lab;
use e2e::turn_client::Allocation;

use crate::relay::{TURN, mint};

/// Calls at once, each of a user of its own.
pub const CALLS: usize = 4;
/// The channel that every allocation binds to its peer.
const CHANNEL: u16 = 0x4001;
/// Time between two packets of one direction of a call: about what video has.
const INTERVAL: Duration = Duration::from_millis(5);
/// Payload of a packet in bytes; its first says which run it belongs to.
const PAYLOAD_LEN: usize = 200;
/// How long packets may still be on their way after the last was sent.
const DRAIN: Duration = Duration::from_secs(2);

/// Packets of all calls, both directions together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Media {
    pub sent: u64,
    pub received: u64,
}

impl Media {
    /// Packets that did not arrive, as a share.
    pub fn loss(self) -> f64 {
        1.0 - self.received as f64 / self.sent as f64
    }
}

/// Open calls, silent but [`Calls::during`] something.
pub struct Calls {
    list: Vec<Call>,
    run: u8,
}

struct Call {
    client: UdpSocket,
    peer: UdpSocket,
}

impl Calls {
    /// Allocations of a client of the laboratory, with another of its clients as their peer.
    pub fn open(lab: &Lab, client: usize, peer: usize) -> Outcome<Self> {
        let call = |number| Call::open(lab, client, peer, number);
        Ok(Self { list: (0..CALLS).map(call).collect::<Outcome<_>>()?, run: 0 })
    }

    /// Does `work` while everybody talks; says what arrived.
    pub fn during<T>(&mut self, work: impl FnOnce() -> T) -> (T, Media) {
        self.run += 1;
        let goes_on = AtomicBool::new(true);
        std::thread::scope(|scope| {
            let talk = scope.spawn(|| self.talk(&goes_on));
            let done = {
                let _hang_up = HangUp(&goes_on);
                work()
            };
            (done, talk.join().expect("talking does not fail"))
        })
    }

    fn talk(&self, goes_on: &AtomicBool) -> Media {
        cpu::be_elsewhere();
        let mut media = Media::default();
        let mut next = Instant::now();
        while goes_on.load(Ordering::Relaxed) {
            if Instant::now() >= next {
                next += INTERVAL;
                media.sent += self.list.iter().map(|call| call.send(self.run)).sum::<u64>();
            }
            media.received += self.receive();
            std::thread::sleep(INTERVAL / 5);
        }
        let end = Instant::now();
        while media.received < media.sent && end.elapsed() < DRAIN {
            media.received += self.receive();
            std::thread::sleep(INTERVAL / 5);
        }
        media
    }

    fn receive(&self) -> u64 {
        self.list.iter().map(|call| call.receive(self.run)).sum()
    }
}

/// Ends the talk even if the work panics.
struct HangUp<'a>(&'a AtomicBool);

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Call {
    fn open(lab: &Lab, client: usize, peer: usize, number: usize) -> Outcome<Self> {
        let socket = lab.client(client).udp((Lab::public_address(client), 0).into())?;
        let client = socket.try_clone()?;
        let mut allocation = Allocation::open(socket, TURN, mint(&format!("room.{number}")))?;
        let socket = lab.client(peer).udp((Lab::public_address(peer), 0).into())?;
        allocation.bind(CHANNEL, socket.local_addr()?)?;
        client.connect(TURN)?;
        socket.connect(allocation.relayed())?;
        client.set_nonblocking(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self { client, peer: socket })
    }

    /// One packet each way; returns how many left.
    fn send(&self, run: u8) -> u64 {
        let payload = [run; PAYLOAD_LEN];
        let length = u16::try_from(PAYLOAD_LEN).expect("short");
        let framed = [&CHANNEL.to_be_bytes(), &length.to_be_bytes(), &payload[..]].concat();
        let sent = [self.client.send(&framed), self.peer.send(&payload)];
        sent.into_iter().filter(Result::is_ok).count() as u64
    }

    /// What has arrived on both sides. Packets of runs before this one are late and do not count.
    fn receive(&self, run: u8) -> u64 {
        let mut buffer = [0; 2048];
        let mut count = 0;
        for (socket, at) in [(&self.client, 4), (&self.peer, 0)] {
            while let Ok(length) = socket.recv(&mut buffer) {
                count += u64::from(length == PAYLOAD_LEN + at && buffer[at] == run);
            }
        }
        count
    }
}
