//! The stream worker: TURN over TCP and TLS on one thread, with a relay and relayed ports of its own.
//!
//! Each connection is a task of a runtime that has no other thread; relayed ports, the rings of
//! other workers and the time are one more. All of them share one [`Edge`], which nobody holds
//! while waiting.

mod backlog;
mod connection;
mod opening;
mod overhead;
mod pipe;
mod proxy;
mod strangers;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_proto::relay::{More, Relay};
use relay_proto::{ClientAddr, DropReason, Now, Transport};
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::AbortOnPanic;
use crate::edge::{Clients, Edge, Run};
use crate::ring::Rings;
use crate::shared::Shared;
use crate::socket::Sender;
use crate::worker::{TICK_MS, WAKER_TOKEN};
use backlog::Backlog;
use connection::FIRST_MESSAGE_WAIT;
use opening::Accepted;
pub use opening::Doors;
use pipe::SEALED_LEN;
use strangers::Strangers;

/// Most bytes that one read takes from a stream.
const READ_LEN: usize = 64 << 10;
/// Bytes that the kernel may hold of a stream before they are in flight: what waits longer waits
/// in the backlog, where it can still be dropped.
const UNSENT_LEN_MAX: u32 = 64 << 10;
/// How long no connection is accepted after one could not be, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the tasks of the worker share.
struct Hub {
    edge: RefCell<Edge<Streams>>,
    doors: Doors,
    strangers: Strangers,
    scratch: RefCell<Scratch>,
}

/// Where streams are read into; empty whenever nobody reads.
struct Scratch {
    /// What the framing sees.
    bytes: Vec<u8>,
    /// What TLS has still to open.
    sealed: Vec<u8>,
}

/// The clients of the stream worker, each with what waits for it.
#[derive(Default)]
struct Streams(HashMap<ClientAddr, Rc<Outbox>>);

/// What waits for one client.
#[derive(Default)]
struct Outbox {
    backlog: RefCell<Backlog>,
    /// Something was added.
    news: Notify,
    /// The stream is over; its task hears of it even while the client takes nothing.
    end: Notify,
    /// The client is forgotten already: another stream has taken this one's place, because the
    /// kernel knew of its end before its task did.
    is_over: Cell<bool>,
}

impl Clients for Streams {
    fn forward(&mut self, now: Now, relay: &mut Relay, _: &mut Sender, run: Run<'_>) {
        for forward in run.iter() {
            let Some(outbox) = self.0.get(&forward.to) else {
                forward.take_back(relay, DropReason::SendError);
                continue;
            };
            let dropped = |media: backlog::Media| media.take_back(relay, DropReason::TcpBacklog);
            outbox.backlog.borrow_mut().push(now.mono_ms, &forward, dropped);
            outbox.news.notify_one();
        }
    }

    fn reply(&mut self, _: &mut Sender, to: ClientAddr, bytes: &[u8]) -> Result<(), DropReason> {
        let outbox = self.0.get(&to).ok_or(DropReason::SendError)?;
        outbox.news.notify_one();
        let fits = outbox.backlog.borrow_mut().push_reply(bytes);
        if fits { Ok(()) } else { Err(DropReason::TcpBacklog) }
    }

    fn cut_off(&mut self, relay: &mut Relay, client: ClientAddr) {
        self.forget(relay, client);
    }

    fn lost_by_kernel(&mut self) -> u64 {
        0
    }
}

impl Streams {
    /// Ends a client's stream, and what waits for it is dropped; `false` if that is done already.
    fn forget(&mut self, relay: &mut Relay, client: ClientAddr) -> bool {
        let Some(outbox) = self.0.remove(&client) else { return false };
        outbox.is_over.set(true);
        outbox.end.notify_one();
        for media in outbox.backlog.take().into_unwritten() {
            media.take_back(relay, DropReason::SendError);
        }
        true
    }
}

/// Runs the stream worker on this thread until it is told to stop.
///
/// # Errors
/// Descriptors have run out before it could begin.
pub fn run(
    number: usize,
    shared: Arc<Shared>,
    relay: Relay,
    listeners: Vec<std::net::TcpListener>,
    doors: Doors,
    rings: Rings,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let edge = Edge::new(number, shared, relay, Streams::default(), rings)?;
    edge.epoll.add(&edge.mailbox().waker, WAKER_TOKEN)?;
    let hub = Rc::new(Hub {
        edge: RefCell::new(edge),
        doors,
        strangers: Strangers::default(),
        scratch: RefCell::new(Scratch { bytes: vec![0; READ_LEN], sealed: vec![0; SEALED_LEN] }),
    });
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        for (listener, at) in listeners.into_iter().zip(0..) {
            tokio::task::spawn_local(accept(hub.clone(), TcpListener::from_std(listener)?, at));
        }
        let ports = hub.edge.borrow().epoll.watch()?;
        turn(&hub, ports).await
    })
}

/// The worker's own turns: relayed ports, rings, time.
async fn turn(hub: &Hub, ports: AsyncFd<OwnedFd>) -> io::Result<()> {
    let (shared, number) = {
        let edge = hub.edge.borrow();
        (edge.shared.clone(), edge.number)
    };
    let mailbox = &shared.mailboxes[number];
    let mut clock = tokio::time::interval(Duration::from_millis(TICK_MS));
    let mut tick_ms = 0;
    let mut more = More::No;
    while !mailbox.stop.load(Ordering::Relaxed) {
        mailbox.fall_asleep();
        let is_busy = more == More::Yes || hub.edge.borrow().rings_wait();
        let ready = if is_busy {
            None
        } else {
            tokio::select! {
                ready = ports.readable() => Some(ready?),
                _ = clock.tick() => None,
            }
        };
        mailbox.asleep.store(false, Ordering::SeqCst);
        let now = shared.clock.now();
        mailbox.beat_ms.store(now.mono_ms, Ordering::Relaxed);
        let is_empty = serve_ports(&mut hub.edge.borrow_mut(), now);
        hub.edge.borrow_mut().obey_orders(now);
        if more == More::Yes || now.mono_ms >= tick_ms {
            tick_ms = now.mono_ms + TICK_MS;
            more = hub.edge.borrow_mut().tick(now);
        }
        hub.edge.borrow_mut().publish_if_wanted(now);
        if let Some(mut ready) = ready.filter(|_| is_empty) {
            // Only an empty set announces what comes next.
            ready.clear_ready();
        }
        // Connections write what they were given.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Serves what other threads and peers have sent; says whether the epoll set had nothing.
fn serve_ports(edge: &mut Edge<Streams>, now: Now) -> bool {
    let count = edge.epoll.wait(Duration::ZERO);
    for at in 0..count {
        match edge.epoll.token(at) {
            WAKER_TOKEN => edge.mailbox().waker.reset(),
            _ => {
                edge.make_room(now);
                edge.serve_port(now, at);
            }
        }
    }
    edge.drain_rings(now);
    edge.flush(now);
    count == 0
}

/// Accepts connections of one listener.
async fn accept(hub: Rc<Hub>, listener: TcpListener, number: u16) {
    let _end = AbortOnPanic;
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                if let Err(error) = hub.clone().admit(stream, remote, number) {
                    tracing::debug!(%error, "connection");
                }
            }
            Err(error) => {
                tracing::debug!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Hub {
    /// Gives a connection a task, or closes it if too many strangers wait already.
    fn admit(
        self: Rc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        listener: u16,
    ) -> io::Result<()> {
        let is_proxied = self.doors.trusts(remote.ip());
        let ticket = match is_proxied {
            true => self.strangers.admit_proxied(),
            false => self.strangers.admit(remote.ip()),
        };
        let later = match ticket {
            None if !is_proxied => self.strangers.wait(remote.ip()),
            _ => None,
        };
        stream.set_nodelay(true)?;
        socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_LEN_MAX)?;
        let accepted = Accepted { remote, local: stream.local_addr()?.ip(), listener };
        match (ticket, later) {
            (Some(ticket), _) => {
                tokio::task::spawn_local(connection::serve(self, stream, accepted, ticket));
            }
            (None, Some(place)) => {
                tokio::task::spawn_local(async move {
                    if let Ok(Ok(ticket)) = timeout(FIRST_MESSAGE_WAIT, place).await {
                        connection::serve(self, stream, accepted, ticket).await;
                    }
                });
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// Makes room for what a client is sent. A stream that had its addresses before is over.
    fn register(&self, client: ClientAddr) -> Rc<Outbox> {
        self.forget(client);
        let outbox = Rc::new(Outbox::default());
        self.edge.borrow_mut().clients.0.insert(client, outbox.clone());
        outbox
    }

    /// Counts a connection that began with something else than it had to.
    fn refuse(&self, accepted: Accepted) {
        let Accepted { remote, local, listener } = accepted;
        let from = ClientAddr { remote, local: Some(local), listener, transport: Transport::Tcp };
        self.edge.borrow_mut().relay.stream_broken(from, &[]);
    }

    /// Ends a client's part: what waits for it is dropped, and its allocation freed.
    fn forget(&self, client: ClientAddr) {
        let edge = &mut *self.edge.borrow_mut();
        if !edge.clients.forget(&mut edge.relay, client) {
            return;
        }
        edge.relay.client_closed(client);
        let now = edge.shared.clock.now();
        edge.drain_effects(now);
    }
}
