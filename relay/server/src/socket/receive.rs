//! Receiving many datagrams with one call.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::name::Name;

/// Room for one datagram, or for a train of them: neither is longer.
const SLOT_LEN: usize = 1 << 16;
/// Room for the control messages that are asked for (destination, class and segment length),
/// aligned for their headers.
type Control = [u64; 12];

/// Slots for datagrams, filled from sockets and emptied together.
///
/// A slot takes one datagram, or a train: datagrams of one sender and one length, of which the last
/// may be shorter, which the kernel hands over as one (`UDP_GRO`). A slot's memory is 64 KiB, of
/// which the kernel gives only the pages that were written to.
pub struct Arena {
    bytes: Raw<u8>,
    names: Raw<Name>,
    controls: Raw<Control>,
    vectors: Raw<libc::iovec>,
    headers: Raw<libc::mmsghdr>,
    used: usize,
}

/// What one slot received: a datagram, or a train.
#[derive(Clone, Copy)]
pub struct Received {
    /// Who sent it.
    pub from: SocketAddr,
    /// Which of our addresses it was for, if the listener has several.
    pub local: Option<IpAddr>,
    /// Its traffic class: DSCP and ECN; 0 unless the socket reports it.
    pub class: u8,
    /// All its bytes.
    whole: Span,
    /// Length of each datagram but the last, in bytes.
    segment: usize,
}

impl Received {
    /// Where its datagrams lie, in the order of arrival; there is at least one.
    pub fn datagrams(self) -> impl Iterator<Item = Span> {
        let Span { start, length } = self.whole;
        // An empty datagram is a datagram.
        let count = length.div_ceil(self.segment).max(1);
        (0..count).map(move |at| {
            let from = at * self.segment;
            Span { start: start + from, length: self.segment.min(length - from) }
        })
    }
}

/// Where a piece of a datagram lies in an [`Arena`].
#[derive(Clone, Copy, Debug)]
pub struct Span {
    start: usize,
    length: usize,
}

impl Span {
    /// How many bytes it covers.
    #[must_use]
    pub const fn length(self) -> usize {
        self.length
    }
}

impl Arena {
    /// How many datagrams or trains fit.
    pub const SLOTS: usize = 64;

    /// An arena with all slots empty.
    #[must_use]
    pub fn new() -> Self {
        let arena = Self {
            bytes: Raw::new(vec![0; Self::SLOTS * SLOT_LEN]),
            names: Raw::new(vec![Name::empty(); Self::SLOTS]),
            controls: Raw::new(vec![[0; 12]; Self::SLOTS]),
            vectors: Raw::new(vec![
                libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
                Self::SLOTS
            ]),
            headers: Raw::zeroed(Self::SLOTS),
            used: 0,
        };
        (0..Self::SLOTS).for_each(|slot| arena.prepare(slot));
        arena
    }

    /// How many more datagrams or trains fit.
    #[must_use]
    pub const fn free(&self) -> usize {
        Self::SLOTS - self.used
    }

    /// Empties all slots; spans of before mean nothing any more.
    pub fn clear(&mut self) {
        (0..self.used).for_each(|slot| self.prepare(slot));
        self.used = 0;
    }

    /// Receives what `socket` has, as far as it fits, and says into which slots.
    ///
    /// # Errors
    /// What the kernel says; nothing to read is an empty range.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<Range<usize>> {
        let first = self.used;
        let room = self.free() as libc::c_uint;
        // SAFETY: `room` headers from `first` on are prepared: their pointers lead to memory that
        // this arena owns and that nothing else refers to while it is borrowed mutably.
        let count = unsafe {
            let headers = self.headers.at(first);
            libc::recvmmsg(socket.as_raw_fd(), headers, room, 0, std::ptr::null_mut())
        };
        match usize::try_from(count) {
            Ok(count) => self.used += count,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => {}
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
        Ok(first..self.used)
    }

    /// Puts bytes that came another way into a slot of their own; `None` if there is no room.
    pub fn store(&mut self, parts: [&[u8]; 2]) -> Option<Span> {
        let length = parts[0].len() + parts[1].len();
        if self.free() == 0 || length > SLOT_LEN {
            return None;
        }
        let start = self.used * SLOT_LEN;
        self.used += 1;
        let mut at = start;
        for part in parts {
            // SAFETY: the slot is this arena's and long enough; `part` is not in it, as no
            // reference into the arena lives while it is borrowed mutably.
            unsafe { self.bytes.at(at).copy_from_nonoverlapping(part.as_ptr(), part.len()) };
            at += part.len();
        }
        Some(Span { start, length })
    }

    /// What a slot received; `None` if it is no IP datagram.
    #[must_use]
    pub fn received(&self, slot: usize) -> Option<Received> {
        assert!(slot < self.used, "only received slots are looked at");
        // SAFETY: the kernel has filled the slot's header and name, and nothing writes to them
        // while the arena is borrowed.
        let (header, name) = unsafe { (*self.headers.at(slot), *self.names.at(slot)) };
        let length = (header.msg_len as usize).min(SLOT_LEN);
        let whole = Span { start: slot * SLOT_LEN, length };
        let Annotations { local, class, segment } = annotations(&header.msg_hdr);
        // What is no train is one segment.
        let segment = segment.unwrap_or(length).max(1);
        Some(Received { from: name.read()?, local, class, whole, segment })
    }

    /// The bytes of a span.
    #[must_use]
    pub fn bytes(&self, span: Span) -> &[u8] {
        assert!(span.start + span.length <= self.used * SLOT_LEN, "spans end with `clear`");
        // SAFETY: the range is inside the arena, initialised since `new`, and nothing writes to
        // it while the arena is borrowed.
        unsafe { std::slice::from_raw_parts(self.bytes.at(span.start), span.length) }
    }

    /// Where a part of a received datagram lies.
    #[must_use]
    pub fn span(&self, part: &[u8]) -> Span {
        if part.is_empty() {
            return Span { start: 0, length: 0 };
        }
        let start = part.as_ptr().addr().wrapping_sub(self.bytes.at(0).addr());
        let inside = start.checked_add(part.len()).is_some_and(|end| end <= self.used * SLOT_LEN);
        assert!(inside, "the part is of a datagram in this arena");
        Span { start, length: part.len() }
    }

    /// Makes a slot ready for the kernel.
    fn prepare(&self, slot: usize) {
        // SAFETY: all five arrays have `SLOTS` entries (`bytes` that many of `SLOT_LEN`), and the
        // pointers written lead into arrays that live as long as the headers.
        unsafe {
            self.vectors.at(slot).write(libc::iovec {
                iov_base: self.bytes.at(slot * SLOT_LEN).cast(),
                iov_len: SLOT_LEN,
            });
            let header = &mut (*self.headers.at(slot)).msg_hdr;
            header.msg_name = self.names.at(slot).cast();
            header.msg_namelen = Name::LEN;
            header.msg_iov = self.vectors.at(slot);
            header.msg_iovlen = 1;
            header.msg_control = self.controls.at(slot).cast();
            header.msg_controllen = size_of::<Control>() as _;
            header.msg_flags = 0;
        }
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

/// What the kernel says beside a datagram, as far as it is asked to.
#[derive(Default)]
struct Annotations {
    /// The address that it was for.
    local: Option<IpAddr>,
    /// Its traffic class.
    class: u8,
    /// If it is a train: the length of each datagram but the last, in bytes.
    segment: Option<usize>,
}

fn annotations(header: &libc::msghdr) -> Annotations {
    let mut all = Annotations::default();
    for (level, kind, data) in super::control_messages(header) {
        // SAFETY: the kernel puts these types into control messages of these kinds.
        unsafe {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    let ip = Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr));
                    all.local = Some(ip.into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    all.local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => all.class = data.read(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let [low, ..] = data.cast::<libc::c_int>().read_unaligned().to_le_bytes();
                    all.class = low;
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let segment = data.cast::<libc::c_int>().read_unaligned();
                    all.segment = usize::try_from(segment).ok();
                }
                _ => {}
            }
        }
    }
    all
}

/// An array that the kernel writes to: reached by pointers only, so that no reference to it is
/// ever alive when it does.
struct Raw<T> {
    items: *mut [T],
}

impl<T> Raw<T> {
    fn new(items: Vec<T>) -> Self {
        Self { items: Box::into_raw(items.into_boxed_slice()) }
    }

    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.items.len(), "inside the array");
        self.items.cast::<T>().wrapping_add(index)
    }
}

impl Raw<libc::mmsghdr> {
    fn zeroed(count: usize) -> Self {
        // SAFETY: all-zero bytes are a valid `mmsghdr` that points nowhere.
        Self::new((0..count).map(|_| unsafe { std::mem::zeroed() }).collect())
    }
}

impl<T> Drop for Raw<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a box, and this is its only owner.
        drop(unsafe { Box::from_raw(self.items) });
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    use super::super::bind_listener;
    use super::*;

    #[test]
    fn datagrams_arrive_with_source_and_destination() {
        let listener = bind_listener(([0, 0, 0, 0], 0).into(), false).expect("bound");
        let port = listener.local_addr().expect("address").port();
        let client = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let mut arena = Arena::new();
        for round in 0..3u8 {
            for byte in 0..5u8 {
                client.send_to(&[round, byte], ("127.0.0.1", port)).expect("sent");
            }
            let slots = arena.receive(listener.as_fd()).expect("received");
            assert_eq!(slots, 0..5);
            for (slot, byte) in slots.zip(0..) {
                let received = arena.received(slot).expect("datagram");
                assert_eq!(received.from, client.local_addr().expect("address"));
                assert_eq!(received.local, Some([127, 0, 0, 1].into()));
                assert_eq!(received.datagrams().count(), 1);
                let bytes = arena.bytes(received.whole);
                assert_eq!(bytes, [round, byte]);
                let span = arena.span(&bytes[1..]);
                assert_eq!(arena.bytes(span), [byte]);
            }
            arena.clear();
        }
        assert_eq!(arena.receive(listener.as_fd()).expect("nothing"), 0..0);
    }

    #[test]
    fn full_arena_takes_no_more() {
        let listener = bind_listener(([127, 0, 0, 1], 0).into(), false).expect("bound");
        let address = listener.local_addr().expect("address");
        let client = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let mut arena = Arena::new();
        for _ in 0..Arena::SLOTS + 3 {
            client.send_to(b"x", address).expect("sent");
        }
        assert_eq!(arena.receive(listener.as_fd()).expect("received"), 0..Arena::SLOTS);
        assert_eq!(arena.free(), 0);
        assert!(arena.store([b"y", b""]).is_none());
        arena.clear();
        assert_eq!(arena.receive(listener.as_fd()).expect("received"), 0..3);
        let span = arena.store([b"ab", b"c"]).expect("room");
        assert_eq!(arena.bytes(span), b"abc");
    }
}
