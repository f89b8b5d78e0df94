//! One connection: bytes to messages, and what waits for the client to bytes, in the clear or
//! inside TLS.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use relay_proto::framing::{self, Trust};
use relay_proto::{ClientAddr, DropReason, Now, Transport, Verdict};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::opening::{Accepted, Opened, Unopened};
use super::pipe::{Next, Pipe, Tls};
use super::strangers::Ticket;
use super::{Hub, Outbox, Scratch, Streams};
use crate::AbortOnPanic;
use crate::edge::{Edge, act};

/// How long a connection may take for its first valid message, with a proxy's header and TLS's
/// handshake before it.
pub const FIRST_MESSAGE_WAIT: Duration = Duration::from_secs(5);
/// How long it may stay without an allocation after its last one.
const IDLE_WAIT: Duration = Duration::from_secs(30);
/// How long what waits for a client is still written after it has ended its side.
const LINGER_WAIT: Duration = Duration::from_secs(1);

/// Serves a client until it goes, or has to.
pub async fn serve(hub: Rc<Hub>, stream: TcpStream, accepted: Accepted, ticket: Ticket) {
    let _end = AbortOnPanic;
    let valid_until = Instant::now() + FIRST_MESSAGE_WAIT;
    let opened = match timeout_at(valid_until, hub.doors.open(&stream, accepted)).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(Unopened::Refused)) => return hub.refuse(accepted),
        // The other error is that it was silent for too long.
        Ok(Err(Unopened::Gone)) | Err(_) => return,
    };
    let Some(mut connection) = Connection::new(hub, stream, opened, ticket, valid_until) else {
        return;
    };
    let client = connection.client;
    let ended = connection.run().await;
    if let Ok(Ended::ByClient) = ended {
        // Whether it is done by then or not, the stream is closed.
        let _ = timeout(LINGER_WAIT, connection.write_all()).await;
    }
    if connection.outbox.is_over.get() {
        // Its client was kicked, or has another stream by now.
        connection.pipe.abort();
        return connection.count_overhead();
    }
    connection.pipe.close();
    connection.count_overhead();
    connection.hub.forget(client);
}

struct Connection {
    hub: Rc<Hub>,
    pipe: Pipe,
    client: ClientAddr,
    outbox: Rc<Outbox>,
    /// The beginning of a message that is not whole yet.
    held: Vec<u8>,
    /// The place of a stranger; given up while there is an allocation.
    ticket: Option<Ticket>,
    /// When it is closed unless a valid message comes or an allocation lives.
    valid_until: Instant,
}

/// Why a connection is over.
enum Ended {
    /// The client has sent all it wanted to.
    ByClient,
    /// It was too slow, or one stranger too many, or spoke something else.
    ByUs,
}

impl Connection {
    /// A connection that begins; `None` if it is one stranger too many or TLS cannot be served.
    fn new(
        hub: Rc<Hub>,
        stream: TcpStream,
        opened: Opened,
        ticket: Ticket,
        valid_until: Instant,
    ) -> Option<Self> {
        let Opened { client, header } = opened;
        let mut ticket = Some(ticket);
        if header > 0 {
            // Now it is known where they are.
            drop(ticket.take());
            ticket = Some(hub.strangers.admit(client.remote.ip())?);
        }
        let pipe = if client.transport == Transport::Tls {
            let session = hub.doors.certificates.as_ref()?.accept();
            Pipe::Tls(Box::new(Tls::new(stream, session.ok()?)))
        } else {
            Pipe::Plain(stream)
        };
        let outbox = hub.register(client);
        hub.edge.borrow_mut().relay.stream_overhead(client, header, 0);
        Some(Self { hub, pipe, client, outbox, held: Vec::new(), ticket, valid_until })
    }

    async fn run(&mut self) -> io::Result<Ended> {
        let deadline = sleep_until(self.valid_until);
        tokio::pin!(deadline);
        while !self.outbox.is_over.get() {
            let waiting = self.pipe.holds_bytes() || !self.outbox.backlog.borrow().is_empty();
            tokio::select! {
                ready = self.pipe.readable() => {
                    ready?;
                    if let Some(ended) = self.read()? {
                        return Ok(ended);
                    }
                }
                ready = self.pipe.writable(), if waiting => {
                    ready?;
                    self.write()?;
                }
                () = self.outbox.news.notified(), if !waiting => {}
                () = self.outbox.end.notified() => {}
                () = &mut deadline => {
                    if !self.may_stay() {
                        return Ok(Ended::ByUs);
                    }
                    deadline.as_mut().reset(self.valid_until);
                }
            }
        }
        Ok(Ended::ByUs)
    }

    /// Reads once and serves every message that is whole.
    fn read(&mut self) -> io::Result<Option<Ended>> {
        let hub = self.hub.clone();
        let Scratch { bytes, sealed } = &mut *hub.scratch.borrow_mut();
        let held = self.held.len();
        bytes[..held].copy_from_slice(&self.held);
        let arrived = self.pipe.read(&mut bytes[held..], sealed)?;
        self.count_overhead();
        let ended = match arrived.next {
            Next::More => None,
            Next::End => Some(Ended::ByClient),
            Next::Broken => {
                hub.edge.borrow_mut().relay.stream_broken(self.client, &[]);
                Some(Ended::ByUs)
            }
        };
        if arrived.length == 0 {
            return Ok(ended);
        }
        let edge = &mut *hub.edge.borrow_mut();
        let now = edge.shared.clock.now();
        let mut rest = &bytes[..held + arrived.length];
        let mut is_valid = false;
        let framed = loop {
            let trust = match edge.relay.has_allocation(now, self.client) {
                true => Trust::Client,
                false => Trust::Stranger,
            };
            match framing::split_first(rest, trust) {
                Ok(Some((message, after))) => {
                    is_valid |= serve_message(edge, now, self.client, message);
                    rest = after;
                }
                Ok(None) => break Ok(()),
                Err(broken) => break Err(broken),
            }
        };
        edge.flush(now);
        if framed.is_err() {
            edge.relay.stream_broken(self.client, rest);
            return Ok(Some(Ended::ByUs));
        }
        if is_valid {
            self.valid_until = Instant::now() + IDLE_WAIT;
        }
        self.held.clear();
        self.held.extend_from_slice(rest);
        let has_allocation = edge.relay.has_allocation(now, self.client);
        Ok(ended.or((!self.settle(has_allocation)).then_some(Ended::ByUs)))
    }

    /// Writes once, as many messages as go into one call.
    fn write(&mut self) -> io::Result<()> {
        {
            let Edge { relay, shared, .. } = &mut *self.hub.edge.borrow_mut();
            let mut backlog = self.outbox.backlog.borrow_mut();
            backlog.drop_stale(shared.clock.now().mono_ms, |media| {
                media.take_back(relay, DropReason::TcpBacklog);
            });
            self.pipe.write(&mut backlog)?;
        }
        self.count_overhead();
        Ok(())
    }

    async fn write_all(&mut self) -> io::Result<()> {
        while self.pipe.holds_bytes() || !self.outbox.backlog.borrow().is_empty() {
            self.pipe.writable().await?;
            self.write()?;
        }
        Ok(())
    }

    fn count_overhead(&mut self) {
        if let Some((received, sent)) = self.pipe.overhead() {
            self.hub.edge.borrow_mut().relay.stream_overhead(self.client, received, sent);
        }
    }

    /// Whether the connection outlives its deadline; then it has another.
    fn may_stay(&mut self) -> bool {
        let has_allocation = {
            let edge = &mut *self.hub.edge.borrow_mut();
            edge.relay.has_allocation(edge.shared.clock.now(), self.client)
        };
        if has_allocation {
            self.valid_until = Instant::now() + IDLE_WAIT;
        }
        self.settle(has_allocation) && self.valid_until > Instant::now()
    }

    /// Takes or gives up the place of a stranger; `false` if there is none left.
    fn settle(&mut self, has_allocation: bool) -> bool {
        if has_allocation {
            self.ticket = None;
        } else if self.ticket.is_none() {
            self.ticket = self.hub.strangers.admit(self.client.remote.ip());
            return self.ticket.is_some();
        }
        true
    }
}

/// Serves one message; says whether it was a request or an indication that means something.
fn serve_message(edge: &mut Edge<Streams>, now: Now, client: ClientAddr, message: &[u8]) -> bool {
    edge.make_room(now);
    let stored = edge.arena.store([message, &[]]);
    let stored = stored.expect("room was made, and no message is longer than a slot");
    let verdict = edge.relay.from_client(now, client, edge.arena.bytes(stored));
    let is_valid = matches!(verdict, Verdict::Control);
    let step = act(verdict, &edge.arena, 0);
    edge.take(now, step);
    is_valid
}
