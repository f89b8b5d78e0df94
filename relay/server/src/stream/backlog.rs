//! What waits to be written to a stream's client: bounded, and the oldest media goes first.

use std::collections::VecDeque;
use std::io::IoSlice;

use relay_proto::relay::Relay;
use relay_proto::{AllocationId, ClientAddr, DropReason};

use crate::edge::Forward;

/// Most bytes of media that wait for one client: half a second of 4 Mbit/s.
pub const BACKLOG_LEN_MAX: usize = 256 << 10;
/// How long media waits at most, in milliseconds: what is later is of no use to a call, and what
/// comes after it would be late too.
pub const BACKLOG_AGE_MAX_MS: u64 = 200;
/// Room for replies beside it, so that media never pushes one out, in bytes.
const REPLIES_LEN_MAX: usize = 16 << 10;
/// Most messages of one write.
const WRITE_MESSAGES_MAX: usize = 64;

/// Messages in the order of their arrival. The first may have been written in part.
#[derive(Default)]
pub struct Backlog {
    messages: VecDeque<Message>,
    /// Bytes of all messages, whether or not they were written.
    length: usize,
    /// Bytes of the first message that were written.
    written: usize,
}

struct Message {
    bytes: Box<[u8]>,
    /// `None` for a reply.
    media: Option<Media>,
}

/// A payload as the relay has counted it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Media {
    via: AllocationId,
    to: ClientAddr,
    framing: usize,
    payload: usize,
    /// When it came, in milliseconds of the clock.
    at_ms: u64,
}

impl Media {
    /// Tells the relay that it was dropped after all.
    pub fn take_back(self, relay: &mut Relay, reason: DropReason) {
        relay.unsent_to_client(self.via, self.to, self.framing, self.payload, reason);
    }
}

impl Backlog {
    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Adds a payload that came at `now_ms`. Older ones make room for it, and `dropped` hears of
    /// each.
    pub fn push(&mut self, now_ms: u64, forward: &Forward<'_>, mut dropped: impl FnMut(Media)) {
        self.drop_stale(now_ms, &mut dropped);
        let Forward { via, to, parts, .. } = *forward;
        let [head, payload, pad] = parts;
        let bytes = parts.concat().into_boxed_slice();
        while self.length + bytes.len() > BACKLOG_LEN_MAX {
            let Some(at) = self.oldest() else { break };
            self.drop_at(at).into_iter().for_each(&mut dropped);
        }
        let framing = head.len() + pad.len();
        let media = Some(Media { via, to, framing, payload: payload.len(), at_ms: now_ms });
        self.add(Message { bytes, media });
    }

    /// Drops what has waited for longer than [`BACKLOG_AGE_MAX_MS`].
    pub fn drop_stale(&mut self, now_ms: u64, mut dropped: impl FnMut(Media)) {
        while let Some(at) = self.oldest() {
            let media = self.messages[at].media.filter(|it| now_ms > it.at_ms + BACKLOG_AGE_MAX_MS);
            if media.is_none() {
                return;
            }
            self.drop_at(at).into_iter().for_each(&mut dropped);
        }
    }

    /// Adds a reply; `false` if the client has left too many unread.
    pub fn push_reply(&mut self, bytes: &[u8]) -> bool {
        let fits = self.length + bytes.len() <= BACKLOG_LEN_MAX + REPLIES_LEN_MAX;
        if fits {
            self.add(Message { bytes: bytes.into(), media: None });
        }
        fits
    }

    /// The bytes to be written next, in as many pieces as there are messages.
    pub fn pieces(&self) -> Vec<IoSlice<'_>> {
        let messages = self.messages.iter().take(WRITE_MESSAGES_MAX);
        let skip = std::iter::once(self.written).chain(std::iter::repeat(0));
        messages.zip(skip).map(|(message, skip)| IoSlice::new(&message.bytes[skip..])).collect()
    }

    /// The first `count` bytes were written.
    pub fn wrote(&mut self, count: usize) {
        self.written += count;
        while let Some(first) = self.messages.front() {
            let length = first.bytes.len();
            if self.written < length {
                return;
            }
            self.written -= length;
            self.length -= length;
            self.messages.pop_front();
        }
    }

    /// Everything that was not written in whole, when the stream is at its end.
    pub fn into_unwritten(self) -> impl Iterator<Item = Media> {
        self.messages.into_iter().filter_map(|message| message.media)
    }

    fn add(&mut self, message: Message) {
        self.length += message.bytes.len();
        self.messages.push_back(message);
    }

    /// The oldest payload of which nothing was written: a message that was begun must be ended, or
    /// the client loses the framing.
    fn oldest(&self) -> Option<usize> {
        let begun = usize::from(self.written > 0);
        (begun..self.messages.len()).find(|at| self.messages[*at].media.is_some())
    }

    fn drop_at(&mut self, at: usize) -> Option<Media> {
        let message = self.messages.remove(at)?;
        self.length -= message.bytes.len();
        message.media
    }
}

#[cfg(test)]
mod tests {
    use relay_proto::Transport;

    use super::*;

    fn push(backlog: &mut Backlog, payload: &[u8]) -> Vec<usize> {
        push_at(backlog, 0, payload)
    }

    fn push_at(backlog: &mut Backlog, now_ms: u64, payload: &[u8]) -> Vec<usize> {
        let to = ClientAddr {
            remote: ([192, 0, 2, 1], 1).into(),
            local: None,
            listener: 0,
            transport: Transport::Tcp,
        };
        let via = AllocationId::from_token(1);
        let mut dropped = Vec::new();
        let forward = Forward { via, to, class: 0, parts: [b"head", payload, b"\0"] };
        backlog.push(now_ms, &forward, |media| dropped.push(media.payload));
        dropped
    }

    fn bytes(backlog: &Backlog) -> Vec<u8> {
        backlog.pieces().iter().flat_map(|piece| piece.to_vec()).collect()
    }

    #[test]
    fn bytes_come_out_in_order_however_they_are_written() {
        let mut backlog = Backlog::default();
        assert!(push(&mut backlog, b"one").is_empty());
        assert!(backlog.push_reply(b"reply"));
        assert_eq!(bytes(&backlog), b"headone\0reply");
        backlog.wrote(5);
        assert_eq!(bytes(&backlog), b"ne\0reply");
        backlog.wrote(4);
        assert_eq!(bytes(&backlog), b"eply");
        backlog.wrote(4);
        assert!(backlog.is_empty());
        assert_eq!(backlog.length, 0);
    }

    #[test]
    fn the_oldest_media_makes_room_but_neither_replies_nor_what_was_begun() {
        let mut backlog = Backlog::default();
        let quarter = vec![1; BACKLOG_LEN_MAX / 4 - 5];
        assert!(backlog.push_reply(b"reply"));
        assert!(push(&mut backlog, &quarter[5..]).is_empty());
        for _ in 1..4 {
            assert!(push(&mut backlog, &quarter).is_empty());
        }
        assert_eq!(push(&mut backlog, b"new"), [quarter.len() - 5]);
        assert_eq!(backlog.messages.len(), 5);
        // The reply is out, and the next message is begun.
        backlog.wrote(6);
        assert_eq!(push(&mut backlog, &quarter), [quarter.len()]);
        assert_eq!(backlog.messages[0].bytes.len(), quarter.len() + 5);
        assert!(bytes(&backlog).starts_with(b"ead"));
    }

    #[test]
    fn media_that_is_late_is_dropped_unless_it_was_begun() {
        let mut backlog = Backlog::default();
        assert!(backlog.push_reply(b"reply"));
        for (at_ms, payload) in [(0, &b"old"[..]), (0, b"older"), (100, b"young")] {
            assert!(push_at(&mut backlog, at_ms, payload).is_empty());
        }
        // The reply is out, and the first payload is begun.
        backlog.wrote(6);
        assert!(push_at(&mut backlog, BACKLOG_AGE_MAX_MS, b"new").is_empty());
        assert_eq!(push_at(&mut backlog, BACKLOG_AGE_MAX_MS + 1, b"newer"), [5]);
        assert_eq!(bytes(&backlog), b"eadold\0headyoung\0headnew\0headnewer\0");
        backlog.wrote(7);
        let mut dropped = 0;
        backlog.drop_stale(BACKLOG_AGE_MAX_MS + 101, |_| dropped += 1);
        assert_eq!((dropped, bytes(&backlog)), (1, b"headnew\0headnewer\0".to_vec()));
        assert_eq!(backlog.length, bytes(&backlog).len());
    }

    #[test]
    fn replies_have_room_of_their_own_and_an_end() {
        let mut backlog = Backlog::default();
        push(&mut backlog, &vec![1; BACKLOG_LEN_MAX - 5]);
        let replies = (0..1_000).take_while(|_| backlog.push_reply(&[0; 100])).count();
        assert_eq!(replies, REPLIES_LEN_MAX / 100);
        assert_eq!(backlog.into_unwritten().count(), 1, "replies are no media");
    }
}
