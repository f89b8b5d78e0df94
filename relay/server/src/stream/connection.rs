//! One connection: bytes to messages, and what waits for the client to bytes.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use relay_proto::framing::{self, Trust};
use relay_proto::{ClientAddr, Now, Verdict};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::strangers::Ticket;
use super::{Hub, Outbox, Streams};
use crate::AbortOnPanic;
use crate::edge::{Edge, act};

/// How long a connection may take for its first valid message.
const FIRST_MESSAGE_WAIT: Duration = Duration::from_secs(5);
/// How long it may stay without an allocation after its last one.
const IDLE_WAIT: Duration = Duration::from_secs(30);
/// How long what waits for a client is still written after it has ended its side.
const LINGER_WAIT: Duration = Duration::from_secs(1);

/// Serves a client until it goes, or has to.
pub async fn serve(
    hub: Rc<Hub>,
    stream: TcpStream,
    client: ClientAddr,
    outbox: Rc<Outbox>,
    ticket: Ticket,
) {
    let _end = AbortOnPanic;
    let mut connection = Connection {
        hub,
        stream,
        client,
        outbox,
        held: Vec::new(),
        ticket: Some(ticket),
        valid_until: Instant::now() + FIRST_MESSAGE_WAIT,
    };
    let ended = connection.run().await;
    if let Ok(Ended::ByClient) = ended {
        // Whether it is done by then or not, the stream is closed.
        let _ = timeout(LINGER_WAIT, connection.write_all()).await;
    }
    if !connection.outbox.is_over.get() {
        connection.hub.forget(client);
    }
}

struct Connection {
    hub: Rc<Hub>,
    stream: TcpStream,
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
    async fn run(&mut self) -> io::Result<Ended> {
        let deadline = sleep_until(self.valid_until);
        tokio::pin!(deadline);
        while !self.outbox.is_over.get() {
            let waiting = !self.outbox.backlog.borrow().is_empty();
            tokio::select! {
                ready = self.stream.readable() => {
                    ready?;
                    if let Some(ended) = self.read()? {
                        return Ok(ended);
                    }
                }
                ready = self.stream.writable(), if waiting => {
                    ready?;
                    self.write()?;
                }
                () = self.outbox.news.notified(), if !waiting => {}
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
        let scratch = &mut *hub.scratch.borrow_mut();
        let held = self.held.len();
        scratch[..held].copy_from_slice(&self.held);
        let count = match self.stream.try_read(&mut scratch[held..]) {
            Ok(0) => return Ok(Some(Ended::ByClient)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let edge = &mut *hub.edge.borrow_mut();
        let now = edge.shared.clock.now();
        let mut rest = &scratch[..held + count];
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
        edge.flush();
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
        Ok((!self.settle(has_allocation)).then_some(Ended::ByUs))
    }

    /// Writes once, as many messages as go into one call.
    fn write(&self) -> io::Result<()> {
        let mut backlog = self.outbox.backlog.borrow_mut();
        let written = self.stream.try_write_vectored(&backlog.pieces());
        match written {
            Ok(count) => backlog.wrote(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn write_all(&self) -> io::Result<()> {
        while !self.outbox.backlog.borrow().is_empty() {
            self.stream.writable().await?;
            self.write()?;
        }
        Ok(())
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
    edge.make_room();
    let stored = edge.arena.store([message, &[]]);
    let stored = stored.expect("room was made, and no message is longer than a slot");
    let verdict = edge.relay.from_client(now, client, edge.arena.bytes(stored));
    let is_valid = matches!(verdict, Verdict::Control);
    let step = act(verdict, &edge.arena, 0);
    edge.take(now, step);
    is_valid
}
