//! Waiting for many sockets at once, and being woken while waiting.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Most sockets that one wait reports.
const EVENTS_MAX: usize = 256;

/// A set of sockets with a token each.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a plain system call; the descriptor is ours alone.
        let fd = unsafe { owned(libc::epoll_create1(libc::EPOLL_CLOEXEC)) }?;
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX] })
    }

    /// Reports `token` whenever `socket` has something to read. Closing the socket removes it.
    ///
    /// # Errors
    /// The kernel's memory for watches has run out.
    pub fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        let socket = socket.as_fd().as_raw_fd();
        // SAFETY: `event` outlives the call.
        let done = unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, socket, &raw mut event)
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits until a socket is readable or the time is over; says how many tokens there are.
    pub fn wait(&mut self, timeout: Duration) -> usize {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let room = EVENTS_MAX as libc::c_int;
        // SAFETY: the kernel writes at most `room` events into a vector of that length.
        let count = unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), room, timeout_ms)
        };
        // A signal ends the wait early, which is as good as a timeout.
        usize::try_from(count).unwrap_or(0)
    }

    /// The set as tokio sees it: readable when anything in it is. Call inside a runtime.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn watch(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let own = self.fd.try_clone()?;
        // SAFETY: an owned descriptor stays open, and stays the same, until it is dropped.
        unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }.map_err(Into::into)
    }

    /// Whether the network has said something about what this socket sent.
    pub fn has_error(&self, at: usize) -> bool {
        self.events[at].events & libc::EPOLLERR as u32 != 0
    }

    /// One of the tokens that the last wait reported.
    pub fn token(&self, at: usize) -> u64 {
        self.events[at].u64
    }
}

/// Wakes a thread that waits in [`Epoll::wait`].
pub struct Waker {
    fd: OwnedFd,
}

impl Waker {
    /// A waker that nobody has used.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a plain system call; the descriptor is ours alone.
        let fd = unsafe { owned(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }?;
        Ok(Self { fd })
    }

    /// Ends the wait of whoever watches this waker.
    pub fn wake(&self) {
        let one = 1u64;
        // SAFETY: eight bytes are written from `one`. A full counter wakes just as well.
        unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), size_of_val(&one)) };
    }

    /// Forgets that it was woken.
    pub fn reset(&self) {
        let mut count = 0u64;
        // SAFETY: at most eight bytes are read into `count`.
        unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), size_of_val(&count)) };
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// # Safety
/// `fd` is the result of a system call that makes a descriptor.
unsafe fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: promised by the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
