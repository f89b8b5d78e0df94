//! Sending many datagrams with one call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::class::{DSCP_BITS, fragment_freely, never_fragment};
use super::name::Name;

/// Most datagrams of one call.
const BATCH: usize = 64;
/// Pieces of one datagram: head, payload, padding.
const PARTS: usize = 3;
/// Room for source address and traffic class, aligned for their headers.
type Control = [u64; 8];

/// A datagram to send.
pub struct Outgoing<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// From which of our addresses; `None` where the socket has only one.
    pub from: Option<IpAddr>,
    /// The traffic class whose DSCP it is to have; ECN is not passed on (RFC 8656 §14).
    pub class: u8,
    /// Its pieces, in order.
    pub parts: [&'a [u8]; PARTS],
}

/// The arrays that `sendmmsg` reads, kept so that they need no making.
pub struct Sender {
    names: Vec<Name>,
    controls: Vec<Control>,
    vectors: Vec<[libc::iovec; PARTS]>,
    headers: Vec<libc::mmsghdr>,
    /// The socket's mode is not the usual one.
    is_whole: bool,
}

impl Sender {
    /// A sender that has sent nothing.
    #[must_use]
    pub fn new() -> Self {
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            names: vec![Name::empty(); BATCH],
            controls: vec![[0; 8]; BATCH],
            vectors: vec![[nothing; PARTS]; BATCH],
            // SAFETY: all-zero bytes are a valid `mmsghdr` that points nowhere.
            headers: (0..BATCH).map(|_| unsafe { std::mem::zeroed() }).collect(),
            is_whole: false,
        }
    }

    /// Sends datagrams from one socket, in order; `refused` hears the position of each that the
    /// kernel did not take, and why.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        packets: impl Iterator<Item = Outgoing<'a>>,
        mut refused: impl FnMut(usize, &io::Error),
    ) {
        let mut packets = packets.peekable();
        let mut sent_before = 0;
        while packets.peek().is_some() {
            // The pieces live for `'a`, which is longer than this call.
            let count = packets.by_ref().take(BATCH).enumerate().map(|(at, packet)| {
                self.fill(at, &packet);
            });
            let count = count.count();
            self.flush(socket, count, |at, error| refused(sent_before + at, error));
            sent_before += count;
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

    fn flush(
        &mut self,
        socket: BorrowedFd<'_>,
        count: usize,
        mut refused: impl FnMut(usize, &io::Error),
    ) {
        let mut at = 0;
        let mut again = None;
        while at < count {
            let rest = (count - at) as libc::c_uint;
            // SAFETY: headers `at..count` were filled by `fill` for this call; what they point to
            // outlives it.
            let sent = unsafe {
                let first = self.headers.as_mut_ptr().add(at);
                libc::sendmmsg(socket.as_raw_fd(), first, rest, 0)
            };
            match usize::try_from(sent) {
                Ok(sent) if sent > 0 => at += sent,
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    // A full buffer has no room for the rest either.
                    error if error.kind() == io::ErrorKind::WouldBlock => {
                        (at..count).for_each(|at| refused(at, &error));
                        return;
                    }
                    // What the network said about an earlier datagram is told with the next, which
                    // is not sent then (ip(7), IP_RECVERR).
                    error if !self.is_whole && again != Some(at) && may_be_older(&error) => {
                        again = Some(at);
                    }
                    error => {
                        refused(at, &error);
                        at += 1;
                    }
                },
            }
        }
    }

    fn fill(&mut self, at: usize, packet: &Outgoing<'_>) {
        let vectors = &mut self.vectors[at];
        let mut parts = 0;
        for part in packet.parts.iter().filter(|part| !part.is_empty()) {
            let base = part.as_ptr().cast_mut().cast();
            vectors[parts] = libc::iovec { iov_base: base, iov_len: part.len() };
            parts += 1;
        }
        let name_len = self.names[at].write(packet.to);
        let mut control_len = 0;
        if let Some(from) = packet.from {
            control_len = write_source(&mut self.controls[at], from);
        }
        if packet.class & DSCP_BITS != 0 {
            let (v4, class) = (packet.to.is_ipv4(), packet.class & DSCP_BITS);
            control_len += write_class(&mut self.controls[at], control_len, v4, class);
        }
        let header = &mut self.headers[at].msg_hdr;
        header.msg_name = (&raw mut self.names[at]).cast();
        header.msg_namelen = name_len;
        header.msg_iov = vectors.as_mut_ptr();
        header.msg_iovlen = parts as _;
        header.msg_control = (&raw mut self.controls[at]).cast();
        header.msg_controllen = control_len as _;
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether an ICMP message may have caused the error (ip(7), icmp(7)).
fn may_be_older(error: &io::Error) -> bool {
    !matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM | libc::EINVAL))
}

/// Writes the control message that chooses the source address; says how long it is.
fn write_source(control: &mut Control, from: IpAddr) -> usize {
    match from {
        IpAddr::V4(ip) => {
            let address = libc::in_addr { s_addr: ip.to_bits().to_be() };
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: address,
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            write_control(control, 0, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        IpAddr::V6(ip) => {
            let ipi6_addr = libc::in6_addr { s6_addr: ip.octets() };
            let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
            write_control(control, 0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

/// Writes the control message that chooses the traffic class; says how long it is.
fn write_class(control: &mut Control, at: usize, v4: bool, class: u8) -> usize {
    let (level, kind) =
        if v4 { (libc::IPPROTO_IP, libc::IP_TOS) } else { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) };
    write_control(control, at, level, kind, libc::c_int::from(class))
}

/// Writes a control message `at` bytes from the beginning, behind another; says how long it is.
fn write_control<T>(control: &mut Control, at: usize, level: i32, kind: i32, data: T) -> usize {
    let length = size_of::<T>() as libc::c_uint;
    // SAFETY: both are plain arithmetic.
    let (space, whole) = unsafe { (libc::CMSG_SPACE(length), libc::CMSG_LEN(length)) };
    let is_inside = at + space as usize <= size_of::<Control>();
    assert!(is_inside && at.is_multiple_of(align_of::<Control>()), "room for two messages");
    // SAFETY: `control` is aligned for a header at this place, and has room for it and the data, as
    // asserted.
    unsafe {
        let header: *mut libc::cmsghdr = control.as_mut_ptr().byte_add(at).cast();
        (*header).cmsg_len = whole as _;
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(data);
    }
    space as usize
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    use super::super::bind_relayed;
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
}
