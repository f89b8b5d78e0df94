//! One UDP thread: receive a batch, let `Relay` decide, send what it decided.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_proto::relay::{Effect, Head, More, Relay, Verdict};
use relay_proto::{AllocationId, ClientAddr, DropReason, Now, PeerAddr, RelayAddr};

use crate::quota::Holder;
use crate::ring::Rings;
use crate::shared::{OpenPort, Shared};
use crate::socket::{self, Arena, Epoll, Outgoing, Sender, Span};

/// How often expiries are looked for.
const TICK_MS: u64 = 1_000;
/// Fewest free slots with which a socket is read; below, what waits is sent first.
const SLOTS_LOW: usize = 16;
/// Most payloads taken from one ring before sockets are looked at again.
const RING_POPS_MAX: usize = 128;
/// Tokens from here on are listeners and the waker; allocations have a smaller low half.
const SPECIAL_TOKENS: u64 = 0xFFFF_FF00;
const WAKER_TOKEN: u64 = 0xFFFF_FFFF;
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
    number: usize,
    shared: Arc<Shared>,
    relay: Relay,
    listeners: Vec<Listener>,
    rings: Rings,
    epoll: Epoll,
    ports: Ports,
    arena: Arena,
    sender: Sender,
    /// What is to be sent when the arena is full or the turn is over.
    queue: Vec<Queued>,
    /// Positions in the queue, sorted by socket.
    order: Vec<u16>,
    published: u64,
    /// Kernel drops of listeners that were reported before.
    kernel_drops: u64,
}

/// A datagram that waits to be sent; its payload lies in the arena.
struct Queued {
    way: Way,
    payload: Span,
}

enum Way {
    ToClient { via: AllocationId, to: ClientAddr, head: Head, pad: u8 },
    ToPeer { via: AllocationId, to: PeerAddr },
}

impl Way {
    /// Sorts by socket: a listener, or a relayed port.
    fn socket(&self) -> (bool, usize) {
        match self {
            Self::ToClient { to, .. } => (false, to.listener.into()),
            Self::ToPeer { via, .. } => (true, via.index()),
        }
    }
}

/// Relayed ports by their allocation's position.
#[derive(Default)]
struct Ports(Vec<Option<Port>>);

struct Port {
    id: AllocationId,
    open: OpenPort,
    holder: Holder,
}

impl Ports {
    fn socket(&self, id: AllocationId) -> Option<BorrowedFd<'_>> {
        let port = self.0.get(id.index())?.as_ref().filter(|port| port.id == id)?;
        Some(port.open.socket.as_fd())
    }

    fn insert(&mut self, port: Port) {
        let index = port.id.index();
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(port);
    }

    fn remove(&mut self, id: AllocationId) -> Option<Port> {
        self.0.get_mut(id.index())?.take_if(|port| port.id == id)
    }
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
        let epoll = Epoll::new()?;
        for (listener, token) in listeners.iter().zip(SPECIAL_TOKENS..) {
            epoll.add(&listener.socket, token)?;
        }
        epoll.add(&shared.mailboxes[number].waker, WAKER_TOKEN)?;
        Ok(Self {
            number,
            shared,
            relay,
            listeners,
            rings,
            epoll,
            ports: Ports::default(),
            arena: Arena::new(),
            sender: Sender::new(),
            queue: Vec::with_capacity(2 * Arena::SLOTS),
            order: Vec::with_capacity(2 * Arena::SLOTS),
            published: 0,
            kernel_drops: 0,
        })
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) {
        let shared = self.shared.clone();
        let mailbox = &shared.mailboxes[self.number];
        let mut tick_ms = 0;
        let mut more = More::No;
        while !mailbox.stop.load(Ordering::Relaxed) {
            mailbox.fall_asleep();
            let busy = more == More::Yes || self.rings_wait();
            let timeout = if busy { Duration::ZERO } else { Duration::from_millis(TICK_MS) };
            let ready = self.epoll.wait(timeout);
            mailbox.asleep.store(false, Ordering::SeqCst);
            let now = shared.clock.now();
            mailbox.beat_ms.store(now.mono_ms, Ordering::Relaxed);
            for at in 0..ready {
                self.serve(now, self.epoll.token(at));
            }
            self.drain_rings(now);
            self.flush();
            if more == More::Yes || now.mono_ms >= tick_ms {
                tick_ms = now.mono_ms + TICK_MS;
                more = self.tick(now);
            }
            self.publish_if_wanted(now);
        }
    }

    fn serve(&mut self, now: Now, token: u64) {
        if token == WAKER_TOKEN {
            self.shared.mailboxes[self.number].waker.reset();
            return;
        }
        if self.arena.free() < SLOTS_LOW {
            self.flush();
        }
        match token.checked_sub(SPECIAL_TOKENS).map(usize::try_from) {
            Some(Ok(listener)) if listener < self.listeners.len() => {
                self.serve_listener(now, listener);
            }
            _ => self.serve_port(now, AllocationId::from_token(token)),
        }
    }

    fn serve_listener(&mut self, now: Now, at: usize) {
        let listener = &self.listeners[at];
        let stun_only = listener.stun_only;
        let number = u16::try_from(at).expect("few listeners");
        let slots = match self.arena.receive(listener.socket.as_fd()) {
            Ok(slots) => slots,
            Err(error) => return tracing::debug!(%error, "listener"),
        };
        for slot in slots {
            let Some(datagram) = self.arena.datagram(slot) else { continue };
            let from =
                ClientAddr { remote: datagram.from, local: datagram.local, listener: number };
            let verdict = if stun_only {
                self.relay.from_stun_client(now, from, datagram.bytes)
            } else {
                self.relay.from_client(now, from, datagram.bytes)
            };
            let step = act(verdict, &self.arena);
            self.take(now, step);
        }
    }

    fn serve_port(&mut self, now: Now, id: AllocationId) {
        // The port may have been closed since the kernel reported it.
        let Some(socket) = self.ports.socket(id) else { return };
        let slots = match self.arena.receive(socket) {
            Ok(slots) => slots,
            Err(error) => return tracing::debug!(%error, "relayed port"),
        };
        for slot in slots {
            let Some(datagram) = self.arena.datagram(slot) else { continue };
            let verdict = self.relay.from_peer(now, id, PeerAddr(datagram.from), datagram.bytes);
            let step = act(verdict, &self.arena);
            self.take(now, step);
        }
    }

    fn take(&mut self, now: Now, step: Step) {
        match step {
            Step::Send(queued) => self.queue.push(queued),
            Step::Hairpin { via, from, to, payload } => self.hairpin(now, via, from, to, payload),
            Step::Control => self.drain_effects(),
            Step::Nothing => {}
        }
    }

    /// Delivers to another allocation of this server, without a socket between them.
    fn hairpin(
        &mut self,
        now: Now,
        via: AllocationId,
        from: RelayAddr,
        to: RelayAddr,
        payload: Span,
    ) {
        let bytes = self.arena.bytes(payload);
        let reason = match self.shared.owner(to) {
            None => DropReason::RelayPortClosed,
            Some(owner) if owner == self.number => {
                let verdict = self.relay.from_relay(now, from, to, bytes);
                // A refusal is counted there.
                if let Step::Send(queued) = act(verdict, &self.arena) {
                    self.queue.push(queued);
                }
                return;
            }
            Some(owner) => {
                let outlet = self.rings.to[owner].as_mut();
                if outlet.is_some_and(|outlet| outlet.push(from, to, bytes)) {
                    return self.shared.mailboxes[owner].nudge();
                }
                DropReason::RingFull
            }
        };
        self.relay.unsent_to_relay(via, payload.length(), reason);
    }

    fn rings_wait(&self) -> bool {
        self.rings.from.iter().flatten().any(|inlet| !inlet.is_empty())
    }

    fn drain_rings(&mut self, now: Now) {
        for other in 0..self.rings.from.len() {
            for _ in 0..RING_POPS_MAX {
                if self.arena.free() == 0 {
                    self.flush();
                }
                let arena = &mut self.arena;
                let Some(inlet) = self.rings.from[other].as_mut() else { break };
                let popped =
                    inlet.pop(|from, to, parts| arena.store(parts).map(|at| (from, to, at)));
                let Some(popped) = popped else { break };
                let Some((from, to, payload)) = popped else { continue };
                let bytes = self.arena.bytes(payload);
                let step = act(self.relay.from_relay(now, from, to, bytes), &self.arena);
                self.take(now, step);
            }
        }
    }

    /// Sends everything that waits and empties the arena.
    fn flush(&mut self) {
        self.send_queue();
        self.arena.clear();
    }

    /// Sends everything that waits, socket by socket, each in the order of arrival.
    fn send_queue(&mut self) {
        self.order.clear();
        self.order.extend(0..u16::try_from(self.queue.len()).expect("a few arenas"));
        let queue = &self.queue;
        let key = |at: &u16| (queue[usize::from(*at)].way.socket(), *at);
        self.order.sort_unstable_by_key(key);
        let same = |a: &u16, b: &u16| key(a).0 == key(b).0;
        for run in self.order.chunk_by(same) {
            let Some(first) = run.first() else { continue };
            let socket = match &queue[usize::from(*first)].way {
                Way::ToClient { to, .. } => {
                    Some(self.listeners[usize::from(to.listener)].socket.as_fd())
                }
                Way::ToPeer { via, .. } => self.ports.socket(*via),
            };
            let relay = &mut self.relay;
            let mut refused = |at: usize, reason: DropReason| {
                take_back(relay, &queue[usize::from(run[at])], reason);
            };
            match socket {
                Some(socket) => {
                    let arena = &self.arena;
                    let packets = run.iter().map(|at| outgoing(&queue[usize::from(*at)], arena));
                    self.sender.send(socket, packets, |at, error| refused(at, drop_reason(error)));
                }
                None => (0..run.len()).for_each(|at| refused(at, DropReason::SendError)),
            }
        }
        self.queue.clear();
    }

    fn drain_effects(&mut self) {
        loop {
            // Each arm ends the borrow of the effect before the next is asked for.
            let answer = match self.relay.next_effect() {
                None => return,
                Some(Effect::Reply { to, bytes }) => {
                    let socket = self.listeners[usize::from(to.listener)].socket.as_fd();
                    let packet = reply(to, bytes);
                    let (mut failed, length) = (None, bytes.len());
                    self.sender.send(socket, std::iter::once(packet), |_, error| {
                        failed = Some(drop_reason(error));
                    });
                    failed.map(|reason| Answer::Unsent { to, length, reason })
                }
                Some(Effect::OpenPort { id, family, wish, user, client }) => {
                    let holder = Holder { user: user.into(), ip: client.remote.ip() };
                    let opened = self.shared.open_port(self.number, family, wish, &holder);
                    Some(Answer::Port { id, holder, opened })
                }
                Some(Effect::ClosePort { id }) => Some(Answer::Close(id)),
            };
            match answer {
                None => {}
                Some(Answer::Unsent { to, length, reason }) => {
                    self.relay.unsent_reply(to, length, reason);
                }
                Some(Answer::Port { id, holder, opened }) => self.port_answered(id, holder, opened),
                Some(Answer::Close(id)) => {
                    // What waits may be for this port.
                    self.send_queue();
                    if let Some(port) = self.ports.remove(id) {
                        self.shared.close_port(port.open, &port.holder);
                    }
                }
            }
        }
    }

    fn port_answered(
        &mut self,
        id: AllocationId,
        holder: Holder,
        opened: Result<OpenPort, relay_proto::PortFailure>,
    ) {
        let open = match opened {
            Ok(open) => open,
            Err(failure) => return self.relay.port_failed(id, failure),
        };
        if let Err(error) = self.epoll.add(&open.socket, id.token()) {
            tracing::warn!(%error, "a relayed port cannot be watched");
            self.shared.close_port(open, &holder);
            return self.relay.port_failed(id, relay_proto::PortFailure::Capacity);
        }
        let relayed = open.relayed;
        self.ports.insert(Port { id, open, holder });
        self.relay.port_opened(id, relayed);
    }

    fn tick(&mut self, now: Now) -> More {
        let more = self.relay.tick(now);
        self.drain_effects();
        if self.number == 0 {
            self.shared.sweep_reservations();
        }
        more
    }

    fn publish_if_wanted(&mut self, now: Now) {
        let mailbox = &self.shared.mailboxes[self.number];
        let wanted = mailbox.wanted();
        if wanted == self.published {
            return;
        }
        self.published = wanted;
        let sockets = self.listeners.iter().map(|listener| listener.socket.as_fd());
        let drops: u64 = sockets.map(socket::dropped_by_kernel).sum();
        self.relay.lost_by_kernel(drops.saturating_sub(self.kernel_drops));
        self.kernel_drops = drops;
        mailbox.publish(wanted, self.relay.snapshot(now));
    }
}

/// A verdict, with its payload's place instead of its bytes.
enum Step {
    Send(Queued),
    Hairpin { via: AllocationId, from: RelayAddr, to: RelayAddr, payload: Span },
    Control,
    Nothing,
}

/// What the relay is to be told about an effect.
enum Answer {
    Unsent { to: ClientAddr, length: usize, reason: DropReason },
    Port { id: AllocationId, holder: Holder, opened: Result<OpenPort, relay_proto::PortFailure> },
    Close(AllocationId),
}

fn act(verdict: Verdict<'_>, arena: &Arena) -> Step {
    match verdict {
        Verdict::ToPeer { via, to, payload } => {
            Step::Send(Queued { way: Way::ToPeer { via, to }, payload: arena.span(payload) })
        }
        Verdict::ToClient { via, to, head, payload, pad } => {
            let way = Way::ToClient { via, to, head, pad };
            Step::Send(Queued { way, payload: arena.span(payload) })
        }
        Verdict::Hairpin { via, from, to, payload } => {
            Step::Hairpin { via, from, to, payload: arena.span(payload) }
        }
        Verdict::Control => Step::Control,
        Verdict::Drop(reason) => {
            tracing::trace!(reason = reason.label(), "dropped");
            Step::Nothing
        }
    }
}

fn outgoing<'a>(queued: &'a Queued, arena: &'a Arena) -> Outgoing<'a> {
    const PADDING: [u8; 3] = [0; 3];
    let payload = arena.bytes(queued.payload);
    match &queued.way {
        Way::ToClient { to, head, pad, .. } => Outgoing {
            to: to.remote,
            from: to.local,
            parts: [head.as_bytes(), payload, &PADDING[..usize::from(*pad)]],
        },
        Way::ToPeer { to, .. } => Outgoing { to: to.0, from: None, parts: [payload, &[], &[]] },
    }
}

fn reply(to: ClientAddr, bytes: &[u8]) -> Outgoing<'_> {
    Outgoing { to: to.remote, from: to.local, parts: [bytes, &[], &[]] }
}

/// The kernel refused it: it was dropped, not sent.
fn take_back(relay: &mut Relay, queued: &Queued, reason: DropReason) {
    let payload = queued.payload.length();
    match &queued.way {
        Way::ToClient { via, to, head, pad } => {
            let framing = head.as_bytes().len() + usize::from(*pad);
            relay.unsent_to_client(*via, *to, framing, payload, reason);
        }
        Way::ToPeer { via, to } => relay.unsent_to_peer(*via, *to, payload, reason),
    }
}

fn drop_reason(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropReason::SocketBuffer,
        Some(libc::EMSGSIZE) => DropReason::TooBig,
        _ => DropReason::SendError,
    }
}
