//! Sending many datagrams with few calls.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use super::batch::{BATCH, Batch, Outgoing};
use super::class::{fragment_freely, never_fragment};

/// Datagrams that leave one by one after the kernel has refused to cut a train. A host that never
/// cuts any is asked rarely, and one whose route has changed is asked again.
const APART_AFTER_REFUSAL: usize = 4096;

/// Sends datagrams; those of one flow and one length go to the kernel as one message.
pub struct Sender {
    batch: Batch,
    /// The socket's mode is not the usual one.
    is_whole: bool,
    /// The kernel can cut trains at all.
    can_cut: bool,
    /// Datagrams that are still to leave one by one.
    apart: usize,
}

impl Sender {
    /// A sender that has sent nothing.
    #[must_use]
    pub fn new() -> Self {
        let can_cut = super::kernel_cuts_trains();
        Self { batch: Batch::new(), is_whole: false, can_cut, apart: 0 }
    }

    /// Sends datagrams from one socket, in order; `refused` hears the position of each that the
    /// kernel did not take, and why.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        mut packets: impl Iterator<Item = Outgoing<'a>>,
        mut refused: impl FnMut(usize, &io::Error),
    ) {
        let mut sent_before = 0;
        loop {
            let trains = self.can_cut && self.apart == 0;
            // The pieces live for `'a`, which is longer than this call.
            let count = self.batch.fill(&mut packets, trains);
            if count == 0 {
                return;
            }
            self.apart = self.apart.saturating_sub(count);
            self.flush(socket, |at, error| refused(sent_before + at, error));
            sent_before += count;
            if count < BATCH {
                return;
            }
        }
    }

    /// As [`Sender::send`] with DF set, from an IPv4 port. Linux has no such choice for a single
    /// datagram, so the socket changes its mode for as long as this takes.
    pub fn send_whole<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        packets: impl Iterator<Item = Outgoing<'a>>,
        mut refused: impl FnMut(usize, &io::Error),
    ) {
        // An error that waits would look like one of these datagrams'.
        super::take_error(socket);
        let changed = never_fragment(socket);
        if let Err(error) = &changed {
            return packets.enumerate().for_each(|(at, _)| refused(at, error));
        }
        self.is_whole = true;
        self.send(socket, packets, refused);
        self.is_whole = false;
        if let Err(error) = fragment_freely(socket) {
            tracing::warn!(%error, "a relayed port keeps DF set");
        }
    }

    fn flush(&mut self, socket: BorrowedFd<'_>, mut refused: impl FnMut(usize, &io::Error)) {
        let mut at = 0;
        let mut again = None;
        while at < self.batch.len() {
            // SAFETY: called by `send` alone, where the pieces live on.
            let error = match unsafe { self.batch.send(socket, at) } {
                Ok(sent) => {
                    at += sent;
                    continue;
                }
                Err(error) => error,
            };
            let datagrams = self.batch.datagrams(at);
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                // A full buffer has no room for the rest either.
                io::ErrorKind::WouldBlock => {
                    let last = self.batch.datagrams(self.batch.len() - 1);
                    (datagrams.start..last.end).for_each(|at| refused(at, &error));
                    return;
                }
                // What the network said about an earlier datagram is told with the next, which
                // is not sent then (ip(7), IP_RECVERR).
                _ if self.may_be_older(&error) && again != Some(at) => again = Some(at),
                _ if datagrams.len() > 1 && !is_out_of_room(&error) => {
                    if may_be_uncut(&error) {
                        self.apart = APART_AFTER_REFUSAL;
                    }
                    self.send_apart(socket, at, datagrams, &mut refused);
                    at += 1;
                }
                _ => {
                    datagrams.for_each(|at| refused(at, &error));
                    at += 1;
                }
            }
        }
    }

    /// Sends the datagrams of a train one by one: each has its own fate.
    fn send_apart(
        &mut self,
        socket: BorrowedFd<'_>,
        message: usize,
        datagrams: Range<usize>,
        mut refused: impl FnMut(usize, &io::Error),
    ) {
        for at in datagrams {
            let mut again = true;
            // SAFETY: called by `flush` alone, as above.
            while let Err(error) = unsafe { self.batch.send_alone(socket, message, at) } {
                let is_retried = again && self.may_be_older(&error);
                if is_retried {
                    again = false;
                } else if error.kind() != io::ErrorKind::Interrupted {
                    refused(at, &error);
                    break;
                }
            }
        }
    }

    /// Whether an ICMP message about an earlier datagram may have caused the error (ip(7), icmp(7)).
    fn may_be_older(&self, error: &io::Error) -> bool {
        !self.is_whole
            && !is_out_of_room(error)
            && !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EAGAIN | libc::EINTR))
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the kernel had no memory for a message, or a queue behind it was full.
fn is_out_of_room(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// Whether the kernel may have refused to cut a train: its way out computes no checksums, or is too
/// narrow, or the socket forbids it.
fn may_be_uncut(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr, UdpSocket};
    use std::os::fd::AsFd as _;

    use super::super::{Arena, bind_listener, bind_relayed, set_option};
    use super::*;

    #[test]
    fn pieces_arrive_as_one_datagram_from_the_chosen_address() {
        let socket = bind_relayed(([0, 0, 0, 0], 0).into()).expect("bound");
        let peer = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let to = peer.local_addr().expect("address");
        let ip: IpAddr = [127, 0, 0, 1].into();
        let packets = (0..BATCH as u8 + 2).map(|_| Outgoing {
            to,
            from: Some(ip),
            class: 0,
            parts: [b"he", b"", b"ad"],
        });
        Sender::new().send(socket.as_fd(), packets, |at, error| panic!("{at}: {error}"));
        for _ in 0..BATCH + 2 {
            let mut buffer = [0; 16];
            let (length, source) = peer.recv_from(&mut buffer).expect("received");
            assert_eq!(&buffer[..length], b"head");
            assert_eq!(source.ip(), ip);
        }
    }

    #[test]
    fn refused_datagrams_are_named_and_the_others_sent() {
        let socket = bind_relayed(([127, 0, 0, 1], 0).into()).expect("bound");
        let peer = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let good = peer.local_addr().expect("address");
        // A socket on loopback has no route to another network.
        let bad = ([192, 0, 2, 1], 9).into();
        let packets = [good, bad, good, bad].map(|to| Outgoing {
            to,
            from: None,
            class: 0,
            parts: [b"x", b"", b""],
        });
        let mut refused = Vec::new();
        Sender::new().send(socket.as_fd(), packets.into_iter(), |at, _| refused.push(at));
        assert_eq!(refused, [1, 3]);
        for _ in 0..2 {
            assert_eq!(peer.recv_from(&mut [0; 4]).expect("received").0, 1);
        }
    }

    /// A relayed port and a listener to send to, of loopback.
    fn pair() -> (UdpSocket, UdpSocket, SocketAddr) {
        let socket = bind_relayed(([127, 0, 0, 1], 0).into()).expect("bound");
        let listener = bind_listener(([127, 0, 0, 1], 0).into(), false).expect("bound");
        let to = listener.local_addr().expect("address");
        (socket, listener, to)
    }

    /// Head and payload of `number`, which tell it from others as far as they are long enough.
    fn pieces(number: usize, length: usize) -> [Vec<u8>; 2] {
        let bytes: Vec<u8> = (0..length).map(|at| (number * 31 + at) as u8).collect();
        let (head, payload) = bytes.split_at(length.min(4));
        [head.to_vec(), payload.to_vec()]
    }

    /// Sends datagrams of these lengths and says which were refused.
    fn send(
        sender: &mut Sender,
        socket: &UdpSocket,
        to: SocketAddr,
        datagrams: &[[Vec<u8>; 2]],
    ) -> Vec<usize> {
        let mut refused = Vec::new();
        let packets = datagrams.iter().map(|[head, payload]| Outgoing {
            to,
            from: None,
            class: 0,
            parts: [head, payload, b""],
        });
        sender.send(socket.as_fd(), packets, |at, _| refused.push(at));
        refused
    }

    /// Takes `count` datagrams: their bytes in order, and how many came in each slot.
    fn receive(listener: &UdpSocket, count: usize) -> (Vec<Vec<u8>>, Vec<usize>) {
        let (mut all, mut slots) = (Vec::new(), Vec::new());
        let mut arena = Arena::new();
        while all.len() < count {
            let taken = arena.receive(listener.as_fd()).expect("received");
            assert!(!taken.is_empty(), "{} of {count} arrived", all.len());
            for slot in taken {
                let received = arena.received(slot).expect("datagram");
                let datagrams = received.datagrams().map(|span| arena.bytes(span).to_vec());
                let before = all.len();
                all.extend(datagrams);
                slots.push(all.len() - before);
            }
            arena.clear();
        }
        assert!(arena.receive(listener.as_fd()).expect("nothing").is_empty());
        (all, slots)
    }

    fn bytes(datagrams: &[[Vec<u8>; 2]]) -> Vec<Vec<u8>> {
        datagrams.iter().map(|parts| parts.concat()).collect()
    }

    #[test]
    fn equal_datagrams_leave_as_one_and_arrive_as_they_were() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let address: SocketAddr = address.parse().expect("address");
            let socket = bind_relayed(address).expect("bound");
            let listener = bind_listener(address, false).expect("bound");
            let to = listener.local_addr().expect("address");
            let datagrams: Vec<_> = (0..BATCH).map(|number| pieces(number, 700)).collect();
            assert!(send(&mut Sender::new(), &socket, to, &datagrams).is_empty());
            let (received, slots) = receive(&listener, BATCH);
            assert_eq!(received, bytes(&datagrams), "{address}");
            assert_eq!(slots, [BATCH], "{address}");
        }
    }

    #[test]
    fn trains_end_where_lengths_change() {
        let (socket, listener, to) = pair();
        let lengths = [200, 200, 90, 200, 200, 201, 0, 0, 5, 5, 0, 5, 1_453, 1_453, 7, 7, 7, 3];
        let numbered = lengths.iter().enumerate();
        let datagrams: Vec<_> = numbered.map(|(number, length)| pieces(number, *length)).collect();
        assert!(send(&mut Sender::new(), &socket, to, &datagrams).is_empty());
        let (received, slots) = receive(&listener, lengths.len());
        assert_eq!(received, bytes(&datagrams));
        assert_eq!(slots, [3, 2, 1, 1, 1, 2, 1, 1, 1, 1, 4]);
    }

    #[test]
    fn trains_end_where_an_ip_packet_is_full() {
        let (socket, listener, to) = pair();
        let datagrams: Vec<_> = (0..BATCH).map(|number| pieces(number, 1_400)).collect();
        assert!(send(&mut Sender::new(), &socket, to, &datagrams).is_empty());
        let (received, slots) = receive(&listener, BATCH);
        assert_eq!(received, bytes(&datagrams));
        assert_eq!(slots, [46, 18]);
    }

    #[test]
    fn trains_are_of_one_destination_and_one_class() {
        let (socket, listener, to) = pair();
        let other = bind_listener(([127, 0, 0, 1], 0).into(), false).expect("bound");
        super::super::report_class(listener.as_fd(), true).expect("reported");
        let ways = [(to, 0), (to, 1), (to, 0xB8), (to, 0xBB), (to, 0)];
        let other_way = (other.local_addr().expect("address"), 0);
        let packets = ways.into_iter().chain([other_way; 2]).chain([ways[0]]);
        let packets =
            packets.map(|(to, class)| Outgoing { to, from: None, class, parts: [b"x", b"", b""] });
        Sender::new().send(socket.as_fd(), packets, |at, error| panic!("{at}: {error}"));
        let mut arena = Arena::new();
        let slots = arena.receive(listener.as_fd()).expect("received");
        let received = slots.map(|slot| arena.received(slot).expect("datagram"));
        let seen: Vec<_> = received.map(|it| (it.class, it.datagrams().count())).collect();
        assert_eq!(seen, [(0, 2), (0xB8, 2), (0, 1), (0, 1)]);
        assert_eq!(receive(&other, 2).1, [2]);
    }

    #[test]
    fn trains_have_a_source_a_class_and_a_destination() {
        let both: [(IpAddr, IpAddr); 2] = [
            ([0, 0, 0, 0].into(), [127, 0, 0, 1].into()),
            ([0; 16].into(), std::net::Ipv6Addr::LOCALHOST.into()),
        ];
        for (any, ip) in both {
            let socket = bind_listener((any, 0).into(), false).expect("bound");
            let listener = bind_listener((any, 0).into(), false).expect("bound");
            super::super::report_class(listener.as_fd(), ip.is_ipv4()).expect("reported");
            let to = (ip, listener.local_addr().expect("address").port()).into();
            let packet =
                |_| Outgoing { to, from: Some(ip), class: 0xB8, parts: [b"he", b"a", b"d"] };
            let packets = (0..3).map(packet);
            Sender::new().send(socket.as_fd(), packets, |at, error| panic!("{at}: {error}"));
            let mut arena = Arena::new();
            assert_eq!(arena.receive(listener.as_fd()).expect("received"), 0..1);
            let received = arena.received(0).expect("datagram");
            assert_eq!((received.from.ip(), received.local), (ip, Some(ip)));
            assert_eq!(received.class, 0xB8);
            let datagrams: Vec<_> = received.datagrams().map(|span| arena.bytes(span)).collect();
            assert_eq!(datagrams, [b"head"; 3]);
        }
    }

    #[test]
    fn refused_train_is_sent_one_by_one() {
        let (socket, listener, to) = pair();
        // The kernel cuts no train whose checksums it may not write.
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).expect("set");
        let datagrams: Vec<_> = (0..5).map(|number| pieces(number, 64 - number / 4)).collect();
        let mut sender = Sender::new();
        assert!(send(&mut sender, &socket, to, &datagrams).is_empty());
        let (received, slots) = receive(&listener, 5);
        assert_eq!(received, bytes(&datagrams));
        assert_eq!(slots, [1; 5]);
        // It is not asked again soon, but not never.
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 0).expect("set");
        let mut rounds = 0;
        while {
            assert!(send(&mut sender, &socket, to, &datagrams).is_empty());
            rounds += 1;
            receive(&listener, 5).1 == [1; 5]
        } {}
        assert_eq!(rounds, APART_AFTER_REFUSAL.div_ceil(5) + 1);
    }

    #[test]
    fn each_datagram_of_a_refused_train_is_named_once() {
        let socket = bind_relayed(([127, 0, 0, 1], 0).into()).expect("bound");
        let nowhere = ([192, 0, 2, 1], 9).into();
        let datagrams: Vec<_> = (0..BATCH + 3).map(|number| pieces(number, 100)).collect();
        let refused = send(&mut Sender::new(), &socket, nowhere, &datagrams);
        assert_eq!(refused, (0..BATCH + 3).collect::<Vec<_>>());
    }
}
