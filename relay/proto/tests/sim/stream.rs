//! Clients over TCP: what they write arrives in order, in parts of any size, and at any time.

use std::collections::VecDeque;

use relay_proto::Transport;
use relay_proto::framing::{self, Trust};

use super::invariants as check;
use super::model::{Expected, who};
use super::network::Event;
use super::world::World;

/// One client's connection, as the edge and the simulation see it.
#[derive(Debug, Default)]
pub struct Stream {
    /// Counts connections, so that what an old one carried is not mixed with a new one's.
    pub connection: u64,
    /// Read by the edge, but no whole message yet.
    buffer: Vec<u8>,
    /// Messages that were written and not read yet.
    written: VecDeque<Vec<u8>>,
    /// When the last part arrives, and the last message for the client: neither overtakes.
    up_ms: u64,
    pub down_ms: u64,
    /// Something was written that is no message.
    is_garbled: bool,
}

impl World {
    /// Writes a message, padded (RFC 8656 §12.5), in parts.
    pub fn write(&mut self, client: usize, message: &[u8]) {
        let mut message = message.to_vec();
        message.resize(message.len().next_multiple_of(4), 0);
        self.streams[client].written.push_back(message.clone());
        self.write_parts(client, &message);
    }

    fn write_parts(&mut self, client: usize, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = match self.network.random.below(3) {
                0 => 1 + self.network.random.below(rest.len()),
                1 => rest.len().min(1 + self.network.random.below(8)),
                _ => rest.len(),
            };
            let (part, more) = rest.split_at(length);
            rest = more;
            let at_ms = self.now.mono_ms + self.network.delay_ms();
            let stream = &mut self.streams[client];
            stream.up_ms = stream.up_ms.max(at_ms);
            let (at_ms, connection) = (stream.up_ms, stream.connection);
            self.network.push(at_ms, Event::Chunk { client, connection, bytes: part.to_vec() });
        }
    }

    /// The edge reads a part and hands on what has become whole.
    pub fn chunk(&mut self, client: usize, connection: u64, bytes: &[u8]) {
        if self.streams[client].connection != connection {
            return;
        }
        self.streams[client].buffer.extend_from_slice(bytes);
        loop {
            let from = self.clients[client].addr;
            let is_known = self.subject.is_client(self.now, from);
            let trust = if is_known { Trust::Client } else { Trust::Stranger };
            let stream = &mut self.streams[client];
            let (message, used) = match framing::split_first(&stream.buffer, trust) {
                Ok(None) => return,
                Ok(Some((message, rest))) => (message.to_vec(), stream.buffer.len() - rest.len()),
                Err(_) => {
                    // A whole message may be too long for a stranger, but is no garbage.
                    let rest = std::mem::take(&mut stream.buffer);
                    let too_long = stream.written.front().is_some_and(|it| it.len() > 1_500);
                    assert!(stream.is_garbled || too_long, "I-19: a message was taken for garbage");
                    return self.broken(client, &rest);
                }
            };
            stream.buffer.drain(..used);
            let written = stream.written.pop_front();
            if !stream.is_garbled {
                check::i19_split_changes_nothing(written.as_deref(), &message);
            }
            self.at_relay(from, &message, false);
            if self.streams[client].connection != connection {
                return;
            }
        }
    }

    /// Writes what is no message; the edge must see it within one read.
    pub fn garble(&mut self, client: usize) {
        if self.clients[client].addr.transport != Transport::Udp {
            self.streams[client].is_garbled = true;
            self.write_parts(client, b"GET / HTTP/1.1\r\n\r\n");
        }
    }

    fn broken(&mut self, client: usize, rest: &[u8]) {
        let from = self.clients[client].addr;
        self.tally.heard_client(from, rest.len());
        self.tally.dropped(relay_proto::DropReason::Malformed);
        self.subject.stream_broken(from, rest);
        self.hang_up(client);
    }

    /// The stream ends, and with it its allocation (RFC 8656 §5).
    pub fn hang_up(&mut self, client: usize) {
        let addr = self.clients[client].addr;
        if addr.transport == Transport::Udp {
            return;
        }
        let mut expected = Expected::default();
        self.model.end(who(addr), 2, &mut expected);
        self.subject.client_closed(addr);
        self.seen.grants.remove(&who(addr));
        self.settle(expected, None);
        self.last = self.finish();
        self.lose_stream(client);
    }

    /// The client begins a stream anew, and knows nothing more.
    pub fn lose_stream(&mut self, client: usize) {
        if self.clients[client].addr.transport == Transport::Udp {
            return;
        }
        let connection = self.streams[client].connection + 1;
        self.streams[client] = Stream { connection, ..Stream::default() };
        let addr = self.fresh(self.clients[client].addr);
        self.clients[client].restart(addr);
    }
}
