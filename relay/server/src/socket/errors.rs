//! What the network says about datagrams that were sent: the kernel's queue of errors.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use relay_proto::IcmpError;

use super::name::Name;

/// Room for the error, its sender's address and what else the socket reports.
type Control = [u64; 32];

/// One error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reported {
    /// Who the datagram was for; the port is 0 if the kernel itself refused it.
    pub peer: Option<SocketAddr>,
    /// What an ICMP message said, or would have: the kernel itself refuses what is too long for
    /// the first link.
    pub error: Option<IcmpError>,
}

/// Takes the oldest error of a socket; `None` if there is none.
pub fn next_error(socket: BorrowedFd<'_>) -> Option<Reported> {
    let mut name = Name::empty();
    let mut control: Control = [0; 32];
    // SAFETY: all-zero bytes are a valid `msghdr` that points nowhere.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = Name::LEN;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of::<Control>() as _;
    // SAFETY: `header` leads to `name` and `control`, whose lengths it gives, and to no buffer for
    // the datagram itself, which is not wanted.
    let read = unsafe {
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags)
    };
    if read < 0 {
        return None;
    }
    Some(Reported { peer: name.read(), error: error_of(&header) })
}

fn error_of(header: &libc::msghdr) -> Option<IcmpError> {
    super::control_messages(header).find_map(|(level, kind, data)| {
        let is_error = matches!(
            (level, kind),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        );
        if !is_error {
            return None;
        }
        // SAFETY: the kernel puts this structure into control messages of this kind.
        let error = unsafe { data.cast::<libc::sock_extended_err>().read_unaligned() };
        let (kind, code) = match (error.ee_origin, error.ee_errno as i32) {
            (libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6, _) => {
                (error.ee_type, error.ee_code)
            }
            (libc::SO_EE_ORIGIN_LOCAL, libc::EMSGSIZE) => IcmpError::TOO_LONG_V4,
            _ => return None,
        };
        Some(IcmpError { kind, code, mtu: error.ee_info })
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;
    use std::time::{Duration, Instant};

    use super::super::{Outgoing, Sender, bind_relayed};
    use super::*;

    /// A port of loopback that nobody listens on.
    fn nobody() -> SocketAddr {
        UdpSocket::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("address")
    }

    fn wait_for_error(socket: BorrowedFd<'_>) -> Reported {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if let Some(reported) = next_error(socket) {
                return reported;
            }
            std::thread::yield_now();
        }
        panic!("no error was reported");
    }

    #[test]
    fn unreachable_port_is_reported_with_its_peer() {
        let socket = bind_relayed(([127, 0, 0, 1], 0).into()).expect("bound");
        let to = nobody();
        let packet = Outgoing { to, from: None, class: 0, parts: [b"x", b"", b""] };
        Sender::new().send(socket.as_fd(), std::iter::once(packet), |_, _| panic!("sent"));
        let error = Some(IcmpError { kind: 3, code: 3, mtu: 0 });
        assert_eq!(wait_for_error(socket.as_fd()), Reported { peer: Some(to), error });
        assert_eq!(next_error(socket.as_fd()), None);
    }

    #[test]
    fn pending_error_costs_the_next_datagram_nothing() {
        let socket = bind_relayed(([127, 0, 0, 1], 0).into()).expect("bound");
        let peer = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let (bad, good) = (nobody(), peer.local_addr().expect("address"));
        let mut sender = Sender::new();
        // In one call, and each in a call of its own.
        for count in [5, 1] {
            for some in [bad, good, bad, good, good].chunks(count) {
                let packets = some.iter().map(|to| Outgoing {
                    to: *to,
                    from: None,
                    class: 0,
                    parts: [b"x", b"", b""],
                });
                sender.send(socket.as_fd(), packets, |at, error| panic!("{at}: {error}"));
            }
        }
        for _ in 0..6 {
            assert_eq!(peer.recv_from(&mut [0; 4]).expect("received").0, 1);
        }
    }
}
