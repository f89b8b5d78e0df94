//! Which of many sockets have something to read.

use std::os::fd::AsFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::{Failure, Outcome};

/// Sockets named by one look.
const EVENTS_MAX: usize = 256;

/// Names sockets by the numbers that they were added with.
#[derive(Debug)]
pub struct Ready {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Ready {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new() -> Outcome<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        Ok(Self { epoll, events: vec![EpollEvent::empty(); EVENTS_MAX] })
    }

    /// Watches `socket` as long as it is open.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add(&self, socket: impl AsFd, number: usize) -> Outcome<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
        self.epoll.add(socket, event).map_err(failed)
    }

    /// Writes into `numbers` which sockets are ready, at most `EVENTS_MAX`; does not wait.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn look(&mut self, numbers: &mut Vec<usize>) -> Outcome<()> {
        let count = self.epoll.wait(&mut self.events, EpollTimeout::ZERO).map_err(failed)?;
        numbers.clear();
        numbers.extend(self.events[..count].iter().filter_map(|e| usize::try_from(e.data()).ok()));
        Ok(())
    }
}

fn failed(error: nix::Error) -> Failure {
    Failure::new(format!("epoll: {error}"))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn only_sockets_with_something_to_read_are_named() {
        let sockets = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut ready = Ready::new().unwrap();
        for (socket, number) in sockets.iter().zip(7..) {
            ready.add(socket, number).unwrap();
        }
        let mut numbers = vec![99];
        ready.look(&mut numbers).unwrap();
        assert!(numbers.is_empty());
        sockets[0].send_to(b"hello", sockets[1].local_addr().unwrap()).unwrap();
        ready.look(&mut numbers).unwrap();
        assert_eq!(numbers, [8]);
    }
}
