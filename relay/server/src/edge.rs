//! What every worker does, whatever its clients' transport: relayed ports, hairpin, effects.
//!
//! Datagrams lie in an [`Arena`] until what was decided about them is sent.

mod relayed;

use std::io;
use std::sync::Arc;

use relay_proto::relay::{Effect, Head, More, Relay, Verdict};
use relay_proto::{AllocationId, ClientAddr, DropReason, Family, Now, PeerAddr, RelayAddr};

use crate::caps::Usage;
use crate::quota::Holder;
use crate::ring::Rings;
use crate::shared::{Mailbox, OpenPort, Shared};
use crate::socket::{Arena, Epoll, Sender, Span};
use relayed::{PortKey, Ports, send_to_peers, tell_errors};

/// Fewest free slots with which a socket is read; below, what waits is sent first.
const SLOTS_LOW: usize = 16;
/// Most datagrams that wait to be sent; a slot of the arena may hold a train of them.
const QUEUE_MAX: usize = 1024;
/// Most payloads taken from one ring before sockets are looked at again.
const RING_POPS_MAX: usize = 128;

/// The clients of a worker: where payloads and replies for them go.
pub trait Clients {
    /// Sends payloads to clients of one listener, in order. What cannot be sent is taken back.
    fn forward(&mut self, now: Now, relay: &mut Relay, sender: &mut Sender, run: Run<'_>);

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
    /// What is to be sent when there is no more room or the turn is over.
    queue: Vec<Queued>,
    /// Positions in the queue, sorted by socket and flow.
    order: Vec<u16>,
    published: u64,
}

/// A datagram that waits to be sent; its payload lies in the arena.
struct Queued {
    way: Way,
    payload: Span,
    /// The traffic class it came with, if that is preserved.
    class: u8,
}

enum Way {
    ToClient {
        via: AllocationId,
        to: ClientAddr,
        head: Head,
        pad: u8,
    },
    /// `whole` datagrams are not fragmented.
    ToPeer {
        via: AllocationId,
        to: PeerAddr,
        whole: bool,
    },
}

impl Way {
    /// Sorts by socket: a listener, or a relayed port.
    fn socket(&self) -> (bool, usize) {
        match self {
            Self::ToClient { to, .. } => (false, to.listener.into()),
            Self::ToPeer { via, to, .. } => {
                (true, 2 * via.index() + Family::of(&to.0.ip()).index())
            }
        }
    }

    /// Sorts what leaves from one socket, so that datagrams of one flow are neighbours and can
    /// leave as a train: by the client's allocation, or by the peer's port.
    fn flow(&self) -> usize {
        match self {
            Self::ToClient { via, .. } => via.index(),
            Self::ToPeer { to, .. } => to.0.port().into(),
        }
    }

    /// The relayed port that it leaves from.
    fn port(&self) -> Option<PortKey> {
        match self {
            Self::ToClient { .. } => None,
            Self::ToPeer { via, to, .. } => {
                Some(PortKey { id: *via, family: Family::of(&to.0.ip()) })
            }
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
    /// The traffic class that it came with, 0 if that is not preserved.
    pub class: u8,
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
        Forward { via: *via, to: *to, class: queued.class, parts }
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
            queue: Vec::with_capacity(QUEUE_MAX),
            order: Vec::with_capacity(QUEUE_MAX),
            published: 0,
        })
    }

    /// The worker's own mailbox.
    pub fn mailbox(&self) -> &Mailbox {
        &self.shared.mailboxes[self.number]
    }

    /// Makes room for another batch, if there is little.
    pub fn make_room(&mut self, now: Now) {
        if self.arena.free() < SLOTS_LOW {
            self.flush(now);
        }
    }

    /// Serves the relayed port that the last wait reported at this position.
    pub fn serve_port(&mut self, now: Now, at: usize) {
        let key = PortKey::from_token(self.epoll.token(at));
        if self.epoll.has_error(at) {
            self.take_errors(now, key);
        }
        let id = key.id;
        // The port may have been closed since the kernel reported it.
        let Some(socket) = self.ports.socket(key) else { return };
        let slots = match self.arena.receive(socket) {
            Ok(slots) => slots,
            Err(error) => return tracing::debug!(%error, "relayed port"),
        };
        for slot in slots {
            let Some(received) = self.arena.received(slot) else { continue };
            for datagram in received.datagrams() {
                let bytes = self.arena.bytes(datagram);
                let verdict = self.relay.from_peer(now, id, PeerAddr(received.from), bytes);
                let step = act(verdict, &self.arena, received.class);
                self.take(now, step);
            }
        }
    }

    /// Tells clients what the network said about their datagrams.
    fn take_errors(&mut self, now: Now, key: PortKey) {
        let Some(socket) = self.ports.socket(key) else { return };
        tell_errors(&mut self.relay, now, socket, key.id, None);
        self.drain_effects(now);
    }

    /// Does what was decided.
    pub fn take(&mut self, now: Now, step: Step) {
        match step {
            Step::Send(Send(queued)) => self.enqueue(now, queued),
            Step::Hairpin(hairpin) => self.hairpin(now, hairpin),
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
        if self.queue.len() == QUEUE_MAX {
            self.send_queue(now);
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
            Way::ToPeer { via, to, .. } => self.relay.unsent_to_peer(*via, *to, payload, reason),
        }
    }

    /// Delivers to another allocation of this server, without a socket between them.
    fn hairpin(&mut self, now: Now, hairpin: Hairpin) {
        let Hairpin { via, from, to, payload, class } = hairpin;
        let bytes = self.arena.bytes(payload);
        if let Err(reason) = self.shared.caps.carry(self.ports.usage(via), bytes.len()) {
            return self.relay.unsent_to_relay(via, bytes.len(), reason);
        }
        let reason = match self.shared.owner(to) {
            None => DropReason::RelayPortClosed,
            Some(owner) if owner == self.number => {
                let verdict = self.relay.from_relay(now, from, to, bytes);
                // A refusal is counted there.
                if let Step::Send(Send(queued)) = act(verdict, &self.arena, class) {
                    self.enqueue(now, queued);
                }
                return;
            }
            Some(owner) => {
                let outlet = self.rings.to[owner].as_mut();
                if outlet.is_some_and(|outlet| outlet.push(from, to, class, bytes)) {
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
                    self.flush(now);
                }
                let arena = &mut self.arena;
                let Some(inlet) = self.rings.from[other].as_mut() else { break };
                let popped = inlet.pop(|from, to, class, parts| {
                    arena.store(parts).map(|at| (from, to, class, at))
                });
                let Some(popped) = popped else { break };
                let Some((from, to, class, payload)) = popped else { continue };
                let bytes = self.arena.bytes(payload);
                let step = act(self.relay.from_relay(now, from, to, bytes), &self.arena, class);
                self.take(now, step);
            }
        }
    }

    /// Sends everything that waits and empties the arena.
    pub fn flush(&mut self, now: Now) {
        self.send_queue(now);
        // A datagram that the kernel refused may be news for its client.
        self.drain_effects(now);
        self.arena.clear();
    }

    /// Sends everything that waits, socket by socket, each flow in the order of arrival.
    fn send_queue(&mut self, now: Now) {
        self.order.clear();
        self.order.extend(0..u16::try_from(self.queue.len()).expect("at most QUEUE_MAX"));
        let queue = &self.queue;
        let way = |at: &u16| &queue[usize::from(*at)].way;
        self.order.sort_unstable_by_key(|at| (way(at).socket(), way(at).flow(), *at));
        let same = |a: &u16, b: &u16| way(a).socket() == way(b).socket();
        for order in self.order.chunk_by(same) {
            let run = Run { queue, order, arena: &self.arena };
            match order.first().map(|first| &queue[usize::from(*first)].way) {
                Some(Way::ToClient { .. }) => {
                    self.clients.forward(now, &mut self.relay, &mut self.sender, run);
                }
                Some(Way::ToPeer { .. }) => {
                    send_to_peers(now, &self.ports, &mut self.relay, &mut self.sender, run);
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
                Some(Effect::OpenPort { id, family, wish, user, username, client, is_second }) => {
                    let holder = Holder { user: user.into(), ip: client.remote.ip() };
                    let open = if is_second { Shared::open_second_port } else { Shared::open_port };
                    let caps = &self.shared.caps;
                    let admitted = if is_second { Ok(None) } else { caps.admit(now, username) };
                    let opened = admitted.and_then(|usage| {
                        Ok((open(&self.shared, self.number, family, wish, &holder)?, usage))
                    });
                    Some(Answer::Port { id, holder, opened, is_second })
                }
                Some(Effect::ClosePort { id, family }) => {
                    Some(Answer::Close(PortKey { id, family }))
                }
            };
            match answer {
                None => {}
                Some(Answer::Unsent { to, length, reason }) => {
                    self.relay.unsent_reply(to, length, reason);
                }
                Some(Answer::Port { id, holder, opened, is_second }) => {
                    self.port_answered(id, holder, opened, is_second);
                }
                Some(Answer::Close(key)) => {
                    // What waits may be for this port.
                    self.send_queue(now);
                    match self.ports.remove(key) {
                        Some((port, Some(holder))) => self.shared.close_port(port, &holder),
                        Some((port, None)) => self.shared.close_one_port(port),
                        None => {}
                    }
                }
            }
        }
    }

    fn port_answered(&mut self, id: AllocationId, holder: Holder, opened: Opened, is_second: bool) {
        let (open, usage) = match opened {
            Ok(opened) => opened,
            Err(failure) => return self.relay.port_failed(id, failure),
        };
        let key = PortKey { id, family: open.family() };
        if let Err(error) = self.epoll.add(&open.socket, key.token()) {
            tracing::warn!(%error, "a relayed port cannot be watched");
            if is_second {
                self.shared.close_one_port(open);
            } else {
                self.shared.close_port(open, &holder);
            }
            return self.relay.port_failed(id, relay_proto::PortFailure::Capacity);
        }
        let relayed = open.relayed;
        self.ports.insert(id, open, holder, usage);
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
    Hairpin(Hairpin),
    /// The relay has effects.
    Control,
    /// Refused, and counted.
    Nothing,
}

/// A payload for another allocation of this server.
pub struct Hairpin {
    /// The allocation it comes from.
    via: AllocationId,
    /// That one's relayed address.
    from: RelayAddr,
    /// The relayed address it is for.
    to: RelayAddr,
    /// Its bytes.
    payload: Span,
    /// The traffic class it came with, if that is preserved.
    class: u8,
}

/// A datagram to be sent at the end of the turn.
pub struct Send(Queued);

/// What the relay is to be told about an effect.
enum Answer {
    Unsent { to: ClientAddr, length: usize, reason: DropReason },
    Port { id: AllocationId, holder: Holder, opened: Opened, is_second: bool },
    Close(PortKey),
}

/// A port, and where its payload is counted.
type Opened = Result<(OpenPort, Option<Usage>), relay_proto::PortFailure>;

/// Remembers a verdict whose payload lies in `arena`; `class` is the traffic class it came with.
pub fn act(verdict: Verdict<'_>, arena: &Arena, class: u8) -> Step {
    let send = |way, payload| Step::Send(Send(Queued { way, payload: arena.span(payload), class }));
    match verdict {
        Verdict::ToPeer { via, to, payload, dont_fragment } => {
            send(Way::ToPeer { via, to, whole: dont_fragment }, payload)
        }
        Verdict::ToClient { via, to, head, payload, pad } => {
            send(Way::ToClient { via, to, head, pad }, payload)
        }
        Verdict::Hairpin { via, from, to, payload } => {
            let payload = arena.span(payload);
            Step::Hairpin(Hairpin { via, from, to, payload, class })
        }
        Verdict::Control => Step::Control,
        Verdict::Drop(reason) => {
            tracing::trace!(reason = reason.label(), "dropped");
            Step::Nothing
        }
    }
}

/// The kernel's word as a reason.
pub fn drop_reason(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropReason::SocketBuffer,
        Some(libc::EMSGSIZE) => DropReason::TooBig,
        _ => DropReason::SendError,
    }
}
