//! What every worker does, whatever its clients' transport: relayed ports, hairpin, effects.
//!
//! Datagrams lie in an [`Arena`] until what was decided about them is sent.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use relay_proto::relay::{Effect, Head, More, Relay, Verdict};
use relay_proto::{AllocationId, ClientAddr, DropReason, Now, PeerAddr, RelayAddr};

use crate::caps::Usage;
use crate::quota::Holder;
use crate::ring::Rings;
use crate::shared::{Mailbox, OpenPort, Shared};
use crate::socket::{Arena, Epoll, Outgoing, Sender, Span};

/// Fewest free slots with which a socket is read; below, what waits is sent first.
const SLOTS_LOW: usize = 16;
/// Most payloads taken from one ring before sockets are looked at again.
const RING_POPS_MAX: usize = 128;

/// The clients of a worker: where payloads and replies for them go.
pub trait Clients {
    /// Sends payloads to clients of one listener, in order. What cannot be sent is taken back.
    fn forward(&mut self, relay: &mut Relay, sender: &mut Sender, run: Run<'_>);

    /// Sends a reply.
    ///
    /// # Errors
    /// Why it was dropped.
    fn reply(
        &mut self,
        sender: &mut Sender,
        to: ClientAddr,
        bytes: &[u8],
    ) -> Result<(), DropReason>;

    /// Ends a client that was kicked: what waits for it is dropped.
    fn cut_off(&mut self, relay: &mut Relay, client: ClientAddr);

    /// How many datagrams from clients the kernel threw away since this was last asked.
    fn lost_by_kernel(&mut self) -> u64;
}

/// A worker's relay and everything around it but its clients' sockets.
pub struct Edge<C> {
    /// The worker's number.
    pub number: usize,
    /// What it shares with the others.
    pub shared: Arc<Shared>,
    /// Decides.
    pub relay: Relay,
    /// Its clients.
    pub clients: C,
    /// Watches relayed ports, and whatever else the worker adds.
    pub epoll: Epoll,
    /// Datagrams of this turn.
    pub arena: Arena,
    rings: Rings,
    ports: Ports,
    sender: Sender,
    /// What is to be sent when the arena is full or the turn is over.
    queue: Vec<Queued>,
    /// Positions in the queue, sorted by socket.
    order: Vec<u16>,
    published: u64,
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

/// A payload on its way to a client.
#[derive(Clone, Copy)]
pub struct Forward<'a> {
    /// The allocation it came through.
    pub via: AllocationId,
    /// The client.
    pub to: ClientAddr,
    /// Head, payload and padding, in this order.
    pub parts: [&'a [u8]; 3],
}

impl Forward<'_> {
    /// Tells the relay that it was dropped after all.
    pub fn take_back(&self, relay: &mut Relay, reason: DropReason) {
        let [head, payload, pad] = self.parts;
        relay.unsent_to_client(self.via, self.to, head.len() + pad.len(), payload.len(), reason);
    }
}

/// Payloads for the clients of one listener.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    queue: &'a [Queued],
    order: &'a [u16],
    arena: &'a Arena,
}

impl<'a> Run<'a> {
    /// One of them.
    pub fn at(&self, position: usize) -> Forward<'a> {
        self.forward(self.order[position])
    }

    /// All of them, in order.
    pub fn iter(self) -> impl Iterator<Item = Forward<'a>> {
        self.order.iter().map(move |at| self.forward(*at))
    }

    fn forward(&self, at: u16) -> Forward<'a> {
        const PADDING: [u8; 3] = [0; 3];
        let queued = &self.queue[usize::from(at)];
        let Way::ToClient { via, to, head, pad } = &queued.way else {
            unreachable!("a run for a listener holds payloads for its clients only");
        };
        let payload = self.arena.bytes(queued.payload);
        let parts = [head.as_bytes(), payload, &PADDING[..usize::from(*pad)]];
        Forward { via: *via, to: *to, parts }
    }
}

/// Relayed ports by their allocation's position.
#[derive(Default)]
struct Ports(Vec<Option<Port>>);

struct Port {
    id: AllocationId,
    open: OpenPort,
    holder: Holder,
    /// Where its payload is counted, if its credential is capped.
    usage: Option<Usage>,
}

impl Ports {
    fn socket(&self, id: AllocationId) -> Option<BorrowedFd<'_>> {
        let port = self.0.get(id.index())?.as_ref().filter(|port| port.id == id)?;
        Some(port.open.socket.as_fd())
    }

    fn usage(&self, id: AllocationId) -> Option<&Usage> {
        self.0.get(id.index())?.as_ref().filter(|port| port.id == id)?.usage.as_ref()
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

impl<C: Clients> Edge<C> {
    /// An edge without relayed ports.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn new(
        number: usize,
        shared: Arc<Shared>,
        relay: Relay,
        clients: C,
        rings: Rings,
    ) -> io::Result<Self> {
        Ok(Self {
            number,
            shared,
            relay,
            clients,
            epoll: Epoll::new()?,
            arena: Arena::new(),
            rings,
            ports: Ports::default(),
            sender: Sender::new(),
            queue: Vec::with_capacity(2 * Arena::SLOTS),
            order: Vec::with_capacity(2 * Arena::SLOTS),
            published: 0,
        })
    }

    /// The worker's own mailbox.
    pub fn mailbox(&self) -> &Mailbox {
        &self.shared.mailboxes[self.number]
    }

    /// Makes room for another batch, if there is little.
    pub fn make_room(&mut self) {
        if self.arena.free() < SLOTS_LOW {
            self.flush();
        }
    }

    /// Reads a relayed port.
    pub fn serve_port(&mut self, now: Now, id: AllocationId) {
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

    /// Does what was decided.
    pub fn take(&mut self, now: Now, step: Step) {
        match step {
            Step::Send(Send(queued)) => self.enqueue(now, queued),
            Step::Hairpin { via, from, to, payload } => self.hairpin(now, via, from, to, payload),
            Step::Control => self.drain_effects(now),
            Step::Nothing => {}
        }
    }

    /// Puts a datagram into the queue, if the caps allow it.
    fn enqueue(&mut self, now: Now, queued: Queued) {
        if !self.shared.caps.are_off()
            && let Err(reason) = self.charge(now, &queued)
        {
            return self.take_back(&queued, reason);
        }
        self.queue.push(queued);
    }

    fn charge(&self, now: Now, queued: &Queued) -> Result<(), DropReason> {
        let (Way::ToClient { via, .. } | Way::ToPeer { via, .. }) = &queued.way;
        let bytes = queued.payload.length();
        self.shared.caps.carry(self.ports.usage(*via), bytes)?;
        self.shared.caps.send(now, bytes)
    }

    fn take_back(&mut self, queued: &Queued, reason: DropReason) {
        let payload = queued.payload.length();
        match &queued.way {
            Way::ToClient { via, to, head, pad } => {
                let framing = head.as_bytes().len() + usize::from(*pad);
                self.relay.unsent_to_client(*via, *to, framing, payload, reason);
            }
            Way::ToPeer { via, to } => self.relay.unsent_to_peer(*via, *to, payload, reason),
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
        if let Err(reason) = self.shared.caps.carry(self.ports.usage(via), bytes.len()) {
            return self.relay.unsent_to_relay(via, bytes.len(), reason);
        }
        let reason = match self.shared.owner(to) {
            None => DropReason::RelayPortClosed,
            Some(owner) if owner == self.number => {
                let verdict = self.relay.from_relay(now, from, to, bytes);
                // A refusal is counted there.
                if let Step::Send(Send(queued)) = act(verdict, &self.arena) {
                    self.enqueue(now, queued);
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

    /// Whether payloads from other workers wait.
    pub fn rings_wait(&self) -> bool {
        self.rings.from.iter().flatten().any(|inlet| !inlet.is_empty())
    }

    /// Takes payloads from other workers.
    pub fn drain_rings(&mut self, now: Now) {
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
    pub fn flush(&mut self) {
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
        for order in self.order.chunk_by(same) {
            let run = Run { queue, order, arena: &self.arena };
            match order.first().map(|first| &queue[usize::from(*first)].way) {
                Some(Way::ToClient { .. }) => {
                    self.clients.forward(&mut self.relay, &mut self.sender, run);
                }
                Some(Way::ToPeer { via, .. }) => {
                    send_to_peers(self.ports.socket(*via), &mut self.relay, &mut self.sender, run);
                }
                None => {}
            }
        }
        self.queue.clear();
    }

    /// Does what the relay wants done: replies, ports to open and to close.
    pub fn drain_effects(&mut self, now: Now) {
        loop {
            // Each arm ends the borrow of the effect before the next is asked for.
            let answer = match self.relay.next_effect() {
                None => return,
                Some(Effect::Reply { to, bytes }) => {
                    let (sent, length) =
                        (self.clients.reply(&mut self.sender, to, bytes), bytes.len());
                    sent.err().map(|reason| Answer::Unsent { to, length, reason })
                }
                Some(Effect::OpenPort { id, family, wish, user, username, client }) => {
                    let holder = Holder { user: user.into(), ip: client.remote.ip() };
                    let admitted = self.shared.caps.admit(now, username);
                    let opened = admitted.and_then(|usage| {
                        let open = self.shared.open_port(self.number, family, wish, &holder)?;
                        Ok((open, usage))
                    });
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

    fn port_answered(&mut self, id: AllocationId, holder: Holder, opened: Opened) {
        let (open, usage) = match opened {
            Ok(opened) => opened,
            Err(failure) => return self.relay.port_failed(id, failure),
        };
        if let Err(error) = self.epoll.add(&open.socket, id.token()) {
            tracing::warn!(%error, "a relayed port cannot be watched");
            self.shared.close_port(open, &holder);
            return self.relay.port_failed(id, relay_proto::PortFailure::Capacity);
        }
        let relayed = open.relayed;
        self.ports.insert(Port { id, open, holder, usage });
        self.relay.port_opened(id, relayed);
    }

    /// Ends what has expired; call once a second, and again soon if there is more.
    pub fn tick(&mut self, now: Now) -> More {
        let more = self.relay.tick(now);
        self.drain_effects(now);
        if self.number == 0 {
            self.shared.sweep_reservations();
        }
        more
    }

    /// Does what the operator wants; call after [`Edge::flush`].
    pub fn obey_orders(&mut self, now: Now) {
        while let Some(waiting) = self.shared.mailboxes[self.number].orders.next() {
            let obeyed = waiting.order.clone().obey(now, &mut self.relay);
            self.drain_effects(now);
            for client in &obeyed.kicked {
                self.clients.cut_off(&mut self.relay, *client);
            }
            waiting.answer(obeyed);
        }
    }

    /// Says what was counted, if somebody has asked since the last time.
    pub fn publish_if_wanted(&mut self, now: Now) {
        let wanted = self.mailbox().wanted();
        if wanted == self.published {
            return;
        }
        self.published = wanted;
        self.relay.lost_by_kernel(self.clients.lost_by_kernel());
        self.mailbox().publish(wanted, self.relay.snapshot(now));
    }
}

/// A verdict, with its payload's place instead of its bytes.
pub enum Step {
    /// Something is to be sent.
    Send(Send),
    /// A payload for another allocation of this server.
    Hairpin {
        /// The allocation it comes from.
        via: AllocationId,
        /// That one's relayed address.
        from: RelayAddr,
        /// The relayed address it is for.
        to: RelayAddr,
        /// Its bytes.
        payload: Span,
    },
    /// The relay has effects.
    Control,
    /// Refused, and counted.
    Nothing,
}

/// A datagram to be sent at the end of the turn.
pub struct Send(Queued);

/// What the relay is to be told about an effect.
enum Answer {
    Unsent { to: ClientAddr, length: usize, reason: DropReason },
    Port { id: AllocationId, holder: Holder, opened: Opened },
    Close(AllocationId),
}

/// A port, and where its payload is counted.
type Opened = Result<(OpenPort, Option<Usage>), relay_proto::PortFailure>;

/// Remembers a verdict whose payload lies in `arena`.
pub fn act(verdict: Verdict<'_>, arena: &Arena) -> Step {
    let send = |way, payload| Step::Send(Send(Queued { way, payload: arena.span(payload) }));
    match verdict {
        Verdict::ToPeer { via, to, payload } => send(Way::ToPeer { via, to }, payload),
        Verdict::ToClient { via, to, head, payload, pad } => {
            send(Way::ToClient { via, to, head, pad }, payload)
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

fn send_to_peers(
    socket: Option<BorrowedFd<'_>>,
    relay: &mut Relay,
    sender: &mut Sender,
    run: Run<'_>,
) {
    let queued = |at: &u16| &run.queue[usize::from(*at)];
    let mut refused = |at: usize, reason: DropReason| {
        let queued = queued(&run.order[at]);
        if let Way::ToPeer { via, to } = &queued.way {
            relay.unsent_to_peer(*via, *to, queued.payload.length(), reason);
        }
    };
    let Some(socket) = socket else {
        return (0..run.order.len()).for_each(|at| refused(at, DropReason::SendError));
    };
    let packets = run.order.iter().map(queued).filter_map(|queued| match &queued.way {
        Way::ToPeer { to, .. } => {
            let parts = [run.arena.bytes(queued.payload), &[][..], &[][..]];
            Some(Outgoing { to: to.0, from: None, parts })
        }
        Way::ToClient { .. } => None,
    });
    sender.send(socket, packets, |at, error| refused(at, drop_reason(error)));
}

/// The kernel's word as a reason.
pub fn drop_reason(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropReason::SocketBuffer,
        Some(libc::EMSGSIZE) => DropReason::TooBig,
        _ => DropReason::SendError,
    }
}
