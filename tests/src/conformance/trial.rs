//! What a check may use: clients, peers, and the server as far as an operator sees it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64ct::{Base64, Encoding as _};

use super::client::Client;
use super::message::{Session, hmac_sha1};
use super::record::Record;
use super::server::{SECRET, Server};
use super::site::{Family, Site, TURN_PORT};
use crate::{Failure, Outcome};

/// Lifetime of credentials, in seconds.
const CREDENTIAL_S: u64 = 3_600;
/// How long anything that must arrive may take.
pub const ARRIVAL_WAIT: Duration = Duration::from_secs(2);
/// Largest UDP payload.
const DATAGRAM_MAX: usize = 65_535;

/// One server under test, seen from a thread inside the site's world.
#[derive(Debug)]
pub struct Trial<'a> {
    /// Both namespaces.
    pub site: &'a Site,
    /// The program.
    pub server: &'a Server,
    /// What the run has seen so far.
    pub record: Arc<Record>,
    serial: &'a AtomicU16,
}

impl<'a> Trial<'a> {
    /// A trial of `server`; `serial` numbers the clients of the whole run.
    #[must_use]
    pub fn new(
        site: &'a Site,
        server: &'a Server,
        record: Arc<Record>,
        serial: &'a AtomicU16,
    ) -> Self {
        Self { site, server, record, serial }
    }

    /// A client of a user and a prefix that the server has never seen.
    ///
    /// # Errors
    /// The kernel's.
    pub fn client(&self) -> Outcome<Client> {
        self.client_to(Family::V4.relay(TURN_PORT))
    }

    /// The same, with another listener of the server.
    ///
    /// # Errors
    /// The kernel's.
    pub fn client_to(&self, server: SocketAddr) -> Outcome<Client> {
        let family = if server.is_ipv4() { Family::V4 } else { Family::V6 };
        let nth = self.serial.fetch_add(1, Ordering::Relaxed);
        Client::at((family.client(nth), 0).into(), server, user(nth), self.record.clone())
    }

    /// A client at an address of the caller's choice, for `session`'s user.
    ///
    /// # Errors
    /// The address is taken.
    pub fn client_at(&self, at: SocketAddr, session: Session) -> Outcome<Client> {
        Client::at(at, Family::V4.relay(TURN_PORT), session, self.record.clone())
    }

    /// A client that holds an allocation of IPv4.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn allocated(&self) -> Outcome<Client> {
        let mut client = self.client()?;
        client.allocate()?;
        Ok(client)
    }

    /// A user that the server has never seen.
    #[must_use]
    pub fn user(&self) -> Session {
        user(self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// A peer, on an address that [`Setup::Open`](super::server::Setup::Open) opens.
    ///
    /// # Errors
    /// The kernel's.
    pub fn peer(&self) -> Outcome<Peer> {
        Peer::at((Family::V4.peer(), 0).into())
    }

    /// A peer over IPv6.
    ///
    /// # Errors
    /// The kernel's.
    pub fn peer_v6(&self) -> Outcome<Peer> {
        Peer::at((Family::V6.peer(), 0).into())
    }

    /// Packets that our relay dropped for this reason; 0 for other servers.
    ///
    /// # Errors
    /// It does not answer.
    pub fn dropped(&self, reason: &str) -> Outcome<u64> {
        let metrics = self.server.metrics(self.site)?;
        let name = "relay_dropped_packets_total";
        metrics.map_or(Ok(0), |metrics| metrics.count(name, &[("reason", reason)]))
    }
}

/// The credential of a user whom nobody else is.
fn user(nth: u16) -> Session {
    credential(&format!("room{nth}.peer"))
}

/// A credential for `name`, good for an hour.
#[must_use]
pub fn credential(name: &str) -> Session {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let username = format!("{}:{name}", now + CREDENTIAL_S);
    Session { password: password(&username), username, ..Session::default() }
}

/// The password that belongs to a user name.
#[must_use]
pub fn password(username: &str) -> String {
    Base64::encode_string(&hmac_sha1(SECRET.as_bytes(), username.as_bytes()))
}

/// Somebody whom clients talk to through the relay.
#[derive(Debug)]
pub struct Peer {
    socket: UdpSocket,
    /// Where it is.
    pub address: SocketAddr,
}

impl Peer {
    /// A peer at this address; port 0 is any.
    ///
    /// # Errors
    /// The address is taken.
    pub fn at(at: SocketAddr) -> Outcome<Self> {
        let socket = UdpSocket::bind(at).map_err(|error| Failure::new(format!("{at}: {error}")))?;
        Ok(Self { address: socket.local_addr()?, socket })
    }

    /// Its address alone.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, to: SocketAddr, payload: &[u8]) -> Outcome<()> {
        self.socket.send_to(payload, to)?;
        Ok(())
    }

    /// The next datagram and where it came from; `None` after `wait`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn next(&self, wait: Duration) -> Outcome<Option<(Vec<u8>, SocketAddr)>> {
        receive(&self.socket, wait)
    }

    /// The next datagram, which must come.
    ///
    /// # Errors
    /// It does not come.
    pub fn hear(&self) -> Outcome<(Vec<u8>, SocketAddr)> {
        self.next(ARRIVAL_WAIT)?.ok_or_else(|| Failure::new("nothing reaches the peer"))
    }
}

/// The next datagram at a socket; `None` after `wait`.
///
/// # Errors
/// The kernel's.
pub fn receive(socket: &UdpSocket, wait: Duration) -> Outcome<Option<(Vec<u8>, SocketAddr)>> {
    socket.set_read_timeout(Some(wait))?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    match socket.recv_from(&mut buffer) {
        Ok((length, from)) => {
            buffer.truncate(length);
            Ok(Some((buffer, from)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}
