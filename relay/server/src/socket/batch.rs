//! Datagrams as `sendmmsg` wants them, those of one flow and one length as one message.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::class::DSCP_BITS;
use super::name::Name;

/// Most datagrams of one call, and of one train: the kernel cuts no message into more.
pub const BATCH: usize = 64;
/// Pieces of one datagram: head, payload, padding. A train has `BATCH * PARTS` at most, which is
/// far below the kernel's 1,024 for one message.
const PARTS: usize = 3;
/// Most bytes of a train: all of it must fit into one IP packet before it is cut.
const TRAIN_LEN_MAX: usize = 65_000;
/// Longest datagram of a train, in bytes. A longer one would not fit an Ethernet link with its
/// IPv6 and UDP headers, and the kernel cuts no train into what it must then fragment.
const SEGMENT_LEN_MAX: usize = 1_452;
/// Room for source address, traffic class and segment length, aligned for their headers.
type Control = [u64; 12];

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

impl Outgoing<'_> {
    fn length(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }
}

/// The arrays that the kernel reads, kept so that they need no making.
///
/// A message is one datagram, or a train of them: all but the last have the same length, the last
/// may be shorter, and the kernel cuts them apart (`UDP_SEGMENT`, udp(7)).
pub struct Batch {
    names: Vec<Name>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
    messages: Vec<Message>,
    vectors: Vec<libc::iovec>,
    /// Where the pieces of each datagram begin, and where those of the last end.
    starts: Vec<usize>,
}

/// What can be told of a message without its datagrams.
struct Message {
    to: SocketAddr,
    from: Option<IpAddr>,
    class: u8,
    /// Its first datagram, and how many there are.
    first: usize,
    count: usize,
    /// Length of each datagram but the last, and of all, in bytes.
    segment: usize,
    length: usize,
    /// The last one is shorter: nothing comes behind it.
    is_complete: bool,
    /// How long the control messages are that a single datagram needs, too.
    control_len: usize,
}

impl Message {
    fn takes(&self, packet: &Outgoing<'_>) -> bool {
        let length = packet.length();
        // The kernel would not notice an empty datagram at the end.
        let fits = (1..=self.segment).contains(&length)
            && self.segment <= SEGMENT_LEN_MAX
            && self.length + length <= TRAIN_LEN_MAX;
        fits && !self.is_complete
            && self.to == packet.to
            && self.from == packet.from
            && (self.class ^ packet.class) & DSCP_BITS == 0
    }
}

impl Batch {
    /// A batch without messages.
    pub fn new() -> Self {
        Self {
            names: vec![Name::empty(); BATCH],
            controls: vec![[0; 12]; BATCH],
            // SAFETY: all-zero bytes are a valid `mmsghdr` that points nowhere.
            headers: (0..BATCH).map(|_| unsafe { std::mem::zeroed() }).collect(),
            messages: Vec::with_capacity(BATCH),
            vectors: Vec::with_capacity(BATCH * PARTS),
            starts: Vec::with_capacity(BATCH + 1),
        }
    }

    /// Replaces what is in it by the next datagrams, in order, and says how many that are; with
    /// `trains`, neighbours that can leave as one message do.
    pub fn fill<'a>(
        &mut self,
        packets: &mut impl Iterator<Item = Outgoing<'a>>,
        trains: bool,
    ) -> usize {
        self.messages.clear();
        self.vectors.clear();
        self.starts.clear();
        for packet in packets.take(BATCH) {
            let position = self.starts.len();
            self.starts.push(self.vectors.len());
            for part in packet.parts.iter().filter(|part| !part.is_empty()) {
                let iov_base = part.as_ptr().cast_mut().cast();
                self.vectors.push(libc::iovec { iov_base, iov_len: part.len() });
            }
            match self.messages.last_mut().filter(|last| trains && last.takes(&packet)) {
                Some(message) => {
                    message.count += 1;
                    message.length += packet.length();
                    message.is_complete = packet.length() < message.segment;
                }
                None => self.begin_message(position, &packet),
            }
        }
        let count = self.starts.len();
        self.starts.push(self.vectors.len());
        (0..self.messages.len()).for_each(|at| self.finish_message(at));
        count
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// The positions of a message's datagrams.
    pub fn datagrams(&self, at: usize) -> Range<usize> {
        let Message { first, count, .. } = self.messages[at];
        first..first + count
    }

    /// Sends messages from this one on, in order, and says how many were sent.
    ///
    /// # Errors
    /// Why the first of them was not.
    ///
    /// # Safety
    /// The pieces of what [`Batch::fill`] was given still live.
    pub unsafe fn send(&mut self, socket: BorrowedFd<'_>, at: usize) -> io::Result<usize> {
        let headers = &mut self.headers[at..self.messages.len()];
        let count = headers.len() as libc::c_uint;
        // SAFETY: `finish_message` has led the headers to arrays of this batch, which have not
        // changed since, and those to the pieces, which live as the caller says.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Sends one datagram of a train alone.
    ///
    /// # Errors
    /// Why it was not sent.
    ///
    /// # Safety
    /// As [`Batch::send`].
    pub unsafe fn send_alone(
        &mut self,
        socket: BorrowedFd<'_>,
        at: usize,
        datagram: usize,
    ) -> io::Result<()> {
        let mut header = self.headers[at].msg_hdr;
        let pieces = self.starts[datagram]..self.starts[datagram + 1];
        header.msg_iovlen = pieces.len() as _;
        header.msg_iov = self.vectors[pieces].as_mut_ptr();
        // The segment length is the last of the control messages.
        header.msg_controllen = self.messages[at].control_len as _;
        // SAFETY: as in `send`; the pieces are those of this datagram.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn begin_message(&mut self, first: usize, packet: &Outgoing<'_>) {
        let Outgoing { to, from, class, .. } = *packet;
        let control = &mut self.controls[self.messages.len()];
        let mut control_len = 0;
        if let Some(from) = from {
            control_len = write_source(control, from);
        }
        if class & DSCP_BITS != 0 {
            control_len += write_class(control, control_len, to.is_ipv4(), class & DSCP_BITS);
        }
        let length = packet.length();
        self.messages.push(Message {
            to,
            from,
            class,
            first,
            count: 1,
            segment: length,
            length,
            is_complete: false,
            control_len,
        });
    }

    /// Leads a header to what is in its message.
    fn finish_message(&mut self, at: usize) {
        let Message { to, first, count, segment, mut control_len, .. } = self.messages[at];
        if count > 1 {
            let segment = u16::try_from(segment).expect("at most SEGMENT_LEN_MAX");
            let (level, kind) = (libc::SOL_UDP, libc::UDP_SEGMENT);
            control_len += write_control(&mut self.controls[at], control_len, level, kind, segment);
        }
        let pieces = self.starts[first]..self.starts[first + count];
        let header = &mut self.headers[at].msg_hdr;
        header.msg_namelen = self.names[at].write(to);
        header.msg_name = (&raw mut self.names[at]).cast();
        header.msg_iovlen = pieces.len() as _;
        header.msg_iov = self.vectors[pieces].as_mut_ptr();
        header.msg_control = (&raw mut self.controls[at]).cast();
        header.msg_controllen = control_len as _;
    }
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
    assert!(is_inside && at.is_multiple_of(align_of::<Control>()), "room for three messages");
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
