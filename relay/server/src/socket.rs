//! Everything that needs the kernel's own calls: the only module with `unsafe`.
//!
//! Each unsafe block is a system call or the reading of what one wrote; every buffer's length is
//! passed beside its pointer.
#![allow(unsafe_code)] // recvmmsg, sendmmsg, epoll and getifaddrs have no safe form in std

mod batch;
mod class;
mod epoll;
mod errors;
mod name;
mod receive;
mod send;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

pub use batch::Outgoing;
pub use class::report_class;
pub use epoll::{Epoll, Waker};
pub use errors::next_error;
pub use receive::{Arena, Span};
pub use send::Sender;

/// Receive buffer that a listener asks for, in bytes.
const LISTENER_BUFFER_LEN: usize = 4 << 20;
/// Connections that the kernel keeps until they are accepted.
const STREAM_BACKLOG: libc::c_int = 256;

/// Binds a listener; with `shared`, several of them may have the same address.
///
/// # Errors
/// What the kernel says: the address is taken, foreign, or of a family that the host lacks.
pub fn bind_listener(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = open(address, shared)?;
    // A host that forbids large buffers still works, with less room for bursts.
    let _ = socket.set_recv_buffer_size(LISTENER_BUFFER_LEN);
    let _ = socket.set_send_buffer_size(LISTENER_BUFFER_LEN);
    if address.ip().is_unspecified() {
        report_destinations(socket.as_fd(), address.is_ipv4())?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Binds a listener for connections.
///
/// # Errors
/// As [`bind_listener`].
pub fn bind_stream_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier relay that are closing do not keep a new one from its port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(STREAM_BACKLOG)?;
    Ok(socket.into())
}

/// Binds a relayed port: it fragments freely, and reports what the network says.
///
/// # Errors
/// What the kernel says: the port is taken, or descriptors have run out.
pub fn bind_relayed(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(address, false)?;
    if address.is_ipv4() {
        class::fragment_freely(socket.as_fd())?;
    }
    class::report_errors(socket.as_fd(), address.is_ipv4())?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn open(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(shared)?;
    // Datagrams of one flow and one length may arrive as one; kernels before 5.0 do without.
    let _ = set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1);
    Ok(socket)
}

/// Whether the kernel cuts a message into datagrams; one before 4.18 would send it whole.
fn kernel_cuts_trains() -> bool {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).is_ok_and(|probe| {
        // A length of 0 is the default: every message is one datagram.
        set_option(probe.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
    })
}

/// Makes the kernel say which of our addresses a datagram was for, so that the reply comes from it.
fn report_destinations(socket: BorrowedFd<'_>, v4: bool) -> io::Result<()> {
    if v4 {
        set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    }
}

/// Sets an option that is one number.
fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` outlives the call, and its size is given.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The control messages that the kernel wrote: level, type, and where their data is.
fn control_messages(
    header: &libc::msghdr,
) -> impl Iterator<Item = (libc::c_int, libc::c_int, *const u8)> {
    // SAFETY: the kernel wrote whole control messages, as long as `msg_controllen` says; `header`
    // is borrowed for as long as they are walked through.
    let first = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: as above; `at` is one of them.
    let next = move |at: &*mut libc::cmsghdr| unsafe { libc::CMSG_NXTHDR(header, *at) };
    let there = |at: &*mut libc::cmsghdr| !at.is_null();
    let all =
        std::iter::successors(Some(first).filter(there), move |at| Some(next(at)).filter(there));
    // SAFETY: as above.
    all.map(|at| unsafe {
        let message = at.read_unaligned();
        (message.cmsg_level, message.cmsg_type, libc::CMSG_DATA(at).cast_const())
    })
}

/// Forgets the error that the next call on the socket would report.
fn take_error(socket: BorrowedFd<'_>) {
    let mut error: libc::c_int = 0;
    let mut length = size_of_val(&error) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `error`.
    unsafe {
        let value = (&raw mut error).cast();
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            value,
            &raw mut length,
        );
    }
}

/// Datagrams that the kernel threw away because the socket's buffer was full, since it was opened.
pub fn dropped_by_kernel(socket: BorrowedFd<'_>) -> u64 {
    const SK_MEMINFO_VARS: usize = 9;
    const SK_MEMINFO_DROPS: usize = 8;
    let mut info = [0u32; SK_MEMINFO_VARS];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `info`.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done == 0 { info[SK_MEMINFO_DROPS].into() } else { 0 }
}

/// Every address of every interface.
pub fn interface_addresses() -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the kernel's list is only read, and freed once.
    unsafe {
        if libc::getifaddrs(&raw mut first) != 0 {
            return found;
        }
        let mut at = first;
        while let Some(entry) = at.as_ref() {
            if let Some(address) = name::read_sockaddr(entry.ifa_addr) {
                found.push(address.ip());
            }
            at = entry.ifa_next;
        }
        libc::freeifaddrs(first);
    }
    found
}

/// Raises the soft limit of open files to the hard one, and says what it is now.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return 1024;
        }
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
            limit = raised;
        }
    }
    limit.rlim_cur
}
