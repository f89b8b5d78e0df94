//! System calls that have no safe form: many datagrams at once, large buffers, signals.
#![allow(unsafe_code)] // std and nix offer none of these safely, and a call for every packet would
// make the generator slower than the relays that it measures

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Most datagrams of one call.
pub const BATCH: usize = 64;
/// Longest datagram that is read whole, in bytes; longer ones are cut.
const DATAGRAM_MAX: usize = 2_048;

/// Sends `copies` times the same bytes over a connected socket; says how many the kernel took.
///
/// # Errors
/// The kernel took none, and why.
pub fn send_copies(socket: &UdpSocket, bytes: &[u8], copies: usize) -> io::Result<usize> {
    if copies == 1 {
        return socket.send(bytes).map(|_| 1);
    }
    let mut vector =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero bytes are a valid header that points nowhere.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_iov = &raw mut vector;
    header.msg_hdr.msg_iovlen = 1;
    let mut headers = [header; BATCH];
    let count = copies.min(BATCH) as libc::c_uint;
    // SAFETY: the first `count` headers all lead to `vector` and through it to `bytes`, which
    // outlive the call and are only read by it.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Gives a socket a receive buffer beyond the host's limit, as root may.
///
/// # Errors
/// The kernel refuses.
pub fn ask_receive_buffer(socket: &UdpSocket, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: `bytes` outlives the call, and its size is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
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

/// Buffers for one batch of received datagrams.
pub struct Receiver {
    buffers: Box<[[u8; DATAGRAM_MAX]; BATCH]>,
}

impl Receiver {
    /// Empty buffers.
    #[must_use]
    pub fn new() -> Self {
        Self { buffers: Box::new([[0; DATAGRAM_MAX]; BATCH]) }
    }

    /// Reads at most [`BATCH`] waiting datagrams from a non-blocking socket and calls `each` with
    /// every one; says how many there were.
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
        // SAFETY: all-zero bytes are valid headers that point nowhere.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for ((header, vector), buffer) in
            headers.iter_mut().zip(&mut vectors).zip(self.buffers.iter_mut())
        {
            *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: DATAGRAM_MAX };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every header leads to a vector and through it to a buffer of the given length,
        // all of which outlive the call and are used by nothing else meanwhile.
        let count = unsafe {
            let flags = libc::MSG_DONTWAIT;
            let room = BATCH as libc::c_uint;
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                room,
                flags,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
        };
        for (header, buffer) in headers.iter().zip(self.buffers.iter()).take(count) {
            each(&buffer[..(header.msg_len as usize).min(DATAGRAM_MAX)]);
        }
        Ok(count)
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
    fn every_copy_arrives_whole() {
        let (a, b) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        a.connect(b.local_addr().unwrap()).unwrap();
        assert_eq!(send_copies(&a, b"one", 1).unwrap(), 1);
        assert_eq!(send_copies(&a, b"eight", 8).unwrap(), 8);
        let mut seen = Vec::new();
        let mut receiver = Receiver::new();
        assert_eq!(receiver.receive(&b, |bytes| seen.push(bytes.to_vec())).unwrap(), 9);
        assert_eq!(seen[0], b"one");
        assert!(seen[1..].iter().all(|bytes| bytes == b"eight"));
        assert_eq!(receiver.receive(&b, |_| panic!("nothing waits")).unwrap(), 0);
    }
}
