//! System calls that have no safe form: many datagrams at once, large buffers, signals.
#![allow(unsafe_code)] // std and nix offer none of these safely, and a call for every packet would
// make the generator slower than the relays that it measures

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Most reads of one call.
pub const BATCH: usize = 64;
/// Longest read in bytes: a train that the kernel made of equal datagrams, or one datagram.
const READ_MAX: usize = 65_535;
/// Room for the one control message that is asked for, aligned for its header.
type Control = [u64; 4];

/// Makes a socket of the generator cheap to use, so that the generator is not the limit.
///
/// What it sends is cut into datagrams of `datagram_len` bytes behind the socket, before the
/// wire. What it receives may come in trains, which [`Receiver`] takes apart. Its receive buffer
/// is `buffer_len` bytes of kernel memory, beyond the host's limit, as root may ask for.
///
/// # Errors
/// The kernel refuses.
pub fn tune(socket: &UdpSocket, datagram_len: usize, buffer_len: usize) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_SEGMENT, datagram_len)?;
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, buffer_len)
}

/// Lets a socket have `buffer_len` bytes of kernel memory on their way, beyond the host's limit, so
/// that it alone can send more than a relay takes.
///
/// # Errors
/// The kernel refuses.
pub fn widen(socket: &UdpSocket, buffer_len: usize) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, buffer_len)
}

fn set(socket: &UdpSocket, level: i32, option: i32, value: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(value).map_err(io::Error::other)?;
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` outlives the call, and its size is given.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on INT and TERM do not end this process: [`interrupted`] reports them.
///
/// # Errors
/// The kernel refuses.
pub fn catch_interrupts() -> io::Result<()> {
    extern "C" fn note(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which any thread may do at any time.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Whether a signal was caught.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Buffers for one batch of reads.
pub struct Receiver {
    buffers: Vec<Vec<u8>>,
}

impl Receiver {
    /// Empty buffers.
    #[must_use]
    pub fn new() -> Self {
        Self { buffers: vec![vec![0; READ_MAX]; BATCH] }
    }

    /// Makes at most [`BATCH`] reads from a socket without waiting, and calls `each` with every
    /// datagram; says how many reads there were.
    ///
    /// # Errors
    /// What the kernel says, except that nothing waits.
    pub fn receive(
        &mut self,
        socket: &UdpSocket,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<usize> {
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut vectors = [nothing; BATCH];
        let mut controls = [Control::default(); BATCH];
        // SAFETY: all-zero bytes are valid headers that point nowhere.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        let parts = vectors.iter_mut().zip(&mut controls).zip(&mut self.buffers);
        for (header, ((vector, control), buffer)) in headers.iter_mut().zip(parts) {
            *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of::<Control>() as _;
        }
        // SAFETY: every header leads to a vector and through it to a buffer of the given length,
        // and to a control of the given length; all outlive the call and nothing else uses them
        // meanwhile.
        let count = unsafe {
            let (first, room) = (headers.as_mut_ptr(), BATCH as libc::c_uint);
            let (flags, no_timeout) = (libc::MSG_DONTWAIT, std::ptr::null_mut());
            libc::recvmmsg(socket.as_raw_fd(), first, room, flags, no_timeout)
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
        };
        for (header, buffer) in headers.iter().zip(&self.buffers).take(count) {
            let train = &buffer[..(header.msg_len as usize).min(READ_MAX)];
            let length = datagram_len(&header.msg_hdr).unwrap_or(READ_MAX);
            train.chunks(length.max(1)).for_each(&mut each);
        }
        Ok(count)
    }
}

/// Length of the datagrams of a train, the last of which may be shorter; `None` for a single one.
fn datagram_len(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel wrote whole control messages, as long as `msg_controllen` says, and the
    // one of UDP_GRO holds an int.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header).as_ref()?;
        let ours = (message.cmsg_level, message.cmsg_type) == (libc::SOL_UDP, libc::UDP_GRO);
        let length = || libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned();
        ours.then(length).and_then(|length| usize::try_from(length).ok())
    }
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_arrives_as_the_datagrams_that_it_was_made_of() {
        let [a, b] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        a.connect(b.local_addr().unwrap()).unwrap();
        set(&a, libc::SOL_UDP, libc::UDP_SEGMENT, 5).unwrap();
        let mut receiver = Receiver::new();
        for trains in [false, true] {
            set(&b, libc::SOL_UDP, libc::UDP_GRO, trains.into()).unwrap();
            a.send(b"onceTwicethird").unwrap();
            a.send(b"one").unwrap();
            let mut seen = Vec::new();
            receiver.receive(&b, |bytes| seen.push(bytes.to_vec())).unwrap();
            assert_eq!(seen, [&b"onceT"[..], b"wicet", b"hird", b"one"], "in trains: {trains}");
            assert_eq!(receiver.receive(&b, |_| panic!("nothing waits")).unwrap(), 0);
        }
    }
}
