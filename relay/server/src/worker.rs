//! One UDP thread: receive a batch, let `Relay` decide, send what it decided.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_proto::relay::{More, Relay};
use relay_proto::{ClientAddr, DropReason, Now, Transport};

use crate::edge::{Clients, Edge, Forward, Run, act, drop_reason};
use crate::ring::Rings;
use crate::shared::Shared;
use crate::socket::{self, Outgoing, Sender};

/// How often expiries are looked for.
pub const TICK_MS: u64 = 1_000;
/// Tokens from here on are listeners and the waker; allocations have a smaller low half.
const SPECIAL_TOKENS: u64 = 0xFFFF_FF00;
/// The token of a worker's waker.
pub const WAKER_TOKEN: u64 = 0xFFFF_FFFF;
/// Most listeners of a worker, so that their tokens fit below the waker's.
pub const LISTENERS_MAX: usize = 128;

/// A socket that clients write to.
pub struct Listener {
    /// The socket, one of as many as there are workers.
    pub socket: UdpSocket,
    /// Only Binding is answered here.
    pub stun_only: bool,
}

/// A worker and everything that it alone touches.
pub struct Worker {
    edge: Edge<Listeners>,
}

/// The clients of a UDP worker are reached through its listeners.
struct Listeners {
    sockets: Vec<Listener>,
    /// Kernel drops that were reported before.
    kernel_drops: u64,
}

impl Clients for Listeners {
    fn forward(&mut self, _: Now, relay: &mut Relay, sender: &mut Sender, run: Run<'_>) {
        let socket = self.sockets[usize::from(run.at(0).to.listener)].socket.as_fd();
        sender.send(socket, run.iter().map(outgoing), |at, error| {
            run.at(at).take_back(relay, drop_reason(error));
        });
    }

    fn reply(
        &mut self,
        sender: &mut Sender,
        to: ClientAddr,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let socket = self.sockets[usize::from(to.listener)].socket.as_fd();
        let packet = Outgoing { to: to.remote, from: to.local, class: 0, parts: [bytes, &[], &[]] };
        let mut sent = Ok(());
        sender.send(socket, std::iter::once(packet), |_, error| sent = Err(drop_reason(error)));
        sent
    }

    fn cut_off(&mut self, _: &mut Relay, _: ClientAddr) {
        // What was decided before is sent already.
    }

    fn lost_by_kernel(&mut self) -> u64 {
        let sockets = self.sockets.iter().map(|listener| listener.socket.as_fd());
        let drops: u64 = sockets.map(socket::dropped_by_kernel).sum();
        let new = drops.saturating_sub(self.kernel_drops);
        self.kernel_drops = drops;
        new
    }
}

fn outgoing(forward: Forward<'_>) -> Outgoing<'_> {
    let Forward { to, class, parts, .. } = forward;
    Outgoing { to: to.remote, from: to.local, class, parts }
}

impl Worker {
    /// A worker that is ready to run.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn new(
        number: usize,
        shared: Arc<Shared>,
        relay: Relay,
        listeners: Vec<Listener>,
        rings: Rings,
    ) -> io::Result<Self> {
        let clients = Listeners { sockets: listeners, kernel_drops: 0 };
        let edge = Edge::new(number, shared, relay, clients, rings)?;
        for (listener, token) in edge.clients.sockets.iter().zip(SPECIAL_TOKENS..) {
            edge.epoll.add(&listener.socket, token)?;
        }
        edge.epoll.add(&edge.mailbox().waker, WAKER_TOKEN)?;
        Ok(Self { edge })
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) {
        let edge = &mut self.edge;
        let shared = edge.shared.clone();
        let mailbox = &shared.mailboxes[edge.number];
        let mut tick_ms = 0;
        let mut more = More::No;
        while !mailbox.stop.load(Ordering::Relaxed) {
            mailbox.fall_asleep();
            let busy = more == More::Yes || edge.rings_wait();
            let timeout = if busy { Duration::ZERO } else { Duration::from_millis(TICK_MS) };
            let ready = edge.epoll.wait(timeout);
            mailbox.asleep.store(false, Ordering::SeqCst);
            let now = shared.clock.now();
            mailbox.beat_ms.store(now.mono_ms, Ordering::Relaxed);
            for at in 0..ready {
                serve(edge, now, at);
            }
            edge.drain_rings(now);
            edge.flush(now);
            edge.obey_orders(now);
            if more == More::Yes || now.mono_ms >= tick_ms {
                tick_ms = now.mono_ms + TICK_MS;
                more = edge.tick(now);
            }
            edge.publish_if_wanted(now);
        }
    }
}

fn serve(edge: &mut Edge<Listeners>, now: Now, at: usize) {
    let token = edge.epoll.token(at);
    if token == WAKER_TOKEN {
        edge.mailbox().waker.reset();
        return;
    }
    edge.make_room(now);
    match token.checked_sub(SPECIAL_TOKENS).map(usize::try_from) {
        Some(Ok(listener)) if listener < edge.clients.sockets.len() => {
            serve_listener(edge, now, listener);
        }
        _ => edge.serve_port(now, at),
    }
}

fn serve_listener(edge: &mut Edge<Listeners>, now: Now, at: usize) {
    let listener = &edge.clients.sockets[at];
    let stun_only = listener.stun_only;
    let number = u16::try_from(at).expect("few listeners");
    let slots = match edge.arena.receive(listener.socket.as_fd()) {
        Ok(slots) => slots,
        Err(error) => return tracing::debug!(%error, "listener"),
    };
    for slot in slots {
        let Some(received) = edge.arena.received(slot) else { continue };
        let from = ClientAddr {
            remote: received.from,
            local: received.local,
            listener: number,
            transport: Transport::Udp,
        };
        for datagram in received.datagrams() {
            let bytes = edge.arena.bytes(datagram);
            let verdict = if stun_only {
                edge.relay.from_stun_client(now, from, bytes)
            } else {
                edge.relay.from_client(now, from, bytes)
            };
            let step = act(verdict, &edge.arena, received.class);
            edge.take(now, step);
        }
    }
}
