//! What this host is: its addresses, its limits, its clock.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use relay_proto::Now;
use relay_proto::address::Family;

use crate::socket;

/// The address that this host uses towards the internet, if it has a route there.
///
/// No packet is sent: a UDP socket that is connected only looks its route up.
#[must_use]
pub fn route_out(family: Family) -> Option<IpAddr> {
    // Addresses that are globally routed; which ones does not matter.
    let (from, to): (IpAddr, IpAddr) = match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(9, 9, 9, 9).into()),
        Family::V6 => {
            let to = Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe);
            (Ipv6Addr::UNSPECIFIED.into(), to.into())
        }
    };
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Every address of every interface of this host.
#[must_use]
pub fn own_ips() -> Vec<IpAddr> {
    socket::interface_addresses()
}

/// How many files and sockets this process may have open, raised as far as it may.
#[must_use]
pub fn descriptor_limit() -> u64 {
    socket::raise_descriptor_limit()
}

/// Both clocks of a server, read together.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// This moment.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Now { mono_ms, unix_s }
    }
}
