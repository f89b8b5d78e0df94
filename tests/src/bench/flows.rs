//! Allocations and the sockets on both sides of them.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use super::field::{Field, GENERATOR};
use super::kernel::{self, Receiver};
use super::packet::{Train, Wrap};
use super::ready::Ready;
use super::server::{LISTENER, Relay, credential};
use super::stream::Stream;
use super::throughput::{Case, Leg};
use crate::turn_client::{Allocation, Link};
use crate::{Failure, Outcome};

/// Allocations of a throughput measurement, unless the case is about their number.
pub const ALLOCATIONS: usize = 20;
/// The channel of the first allocation.
pub const CHANNEL: u16 = 0x4000;
/// Channels of the allocations, in turns: each has one. Those that begin with the stamp of bare
/// payloads, 0x43, stay out of it.
const CHANNELS: std::ops::Range<u16> = CHANNEL..0x4300;
/// Up to so many allocations have a peer's socket each.
const OWN_PEERS_MAX: usize = 5_000;
/// More of them share so many, to leave descriptors for clients.
const SHARED_PEERS: usize = 500;
/// Up to so many sockets are all asked for packets; of more, those are that have some.
const ASKED_MAX: usize = 64;
/// Room for what arrives while the generator sends, in bytes of kernel memory per socket.
const RECEIVE_BUFFER_LEN: usize = 4 << 20;

/// The way that packets take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Client to peer by ChannelData, and back.
    Channels,
    /// Client to peer by Send indications, and back by Data indications.
    Indications,
    /// From client to client by ChannelData, through the allocations of both.
    RelayToRelay,
}

impl Way {
    /// What tables call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Channels => "channels",
            Self::Indications => "indications",
            Self::RelayToRelay => "relay to relay",
        }
    }
}

/// What a flow sends and receives over.
#[derive(Debug)]
pub enum Socket {
    /// A peer's, and where it sends; connected there if nothing is said.
    Peer(Arc<UdpSocket>, Option<SocketAddr>),
    /// A client's, connected to the relay's listener, with its allocation.
    Client(Box<Allocation>),
    /// A client's connection, with its allocation.
    Stream(Box<Allocation<Stream>>),
}

/// One socket that sends, and what.
#[derive(Debug)]
pub struct Flow {
    socket: Socket,
    train: Train,
}

impl Flow {
    fn new(socket: Socket, case: Case, wrap: Wrap) -> Outcome<Self> {
        let train = Train::new(wrap, case.payload_len, case.burst);
        let datagrams = match &socket {
            Socket::Peer(socket, _) => Some(&**socket),
            Socket::Client(client) => Some(client.link()),
            Socket::Stream(_) => None,
        };
        if let Some(socket) = datagrams {
            kernel::tune(socket, train.datagram_len(), RECEIVE_BUFFER_LEN)?;
        }
        Ok(Self { socket, train })
    }

    /// Sends the whole train, stamped. One call: the kernel cuts it up before the wire.
    ///
    /// # Errors
    /// The socket's.
    pub fn send(&mut self, run: u16, window: u32) -> io::Result<()> {
        let bytes = self.train.stamped(run, window);
        match &mut self.socket {
            Socket::Peer(socket, None) => socket.send(bytes).map(drop),
            Socket::Peer(socket, Some(to)) => socket.send_to(bytes, *to).map(drop),
            Socket::Client(client) => client.link().send(bytes).map(drop),
            Socket::Stream(client) => client.link_mut().push(bytes),
        }
    }

    /// Calls `each` with everything that has arrived.
    ///
    /// # Errors
    /// The socket's.
    pub fn receive(&mut self, receiver: &mut Receiver, each: impl FnMut(&[u8])) -> io::Result<()> {
        match &mut self.socket {
            Socket::Peer(socket, _) => drain(socket, receiver, each),
            Socket::Client(client) => drain(client.link(), receiver, each),
            Socket::Stream(client) => client.link_mut().pull(each),
        }
    }
}

fn drain(
    socket: &UdpSocket,
    receiver: &mut Receiver,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut count = kernel::BATCH;
    while count == kernel::BATCH {
        count = receiver.receive(socket, &mut each)?;
    }
    Ok(())
}

/// Somebody who sends besides the flows, and never reads what comes back.
#[derive(Debug)]
pub struct Intruder {
    /// Connected to the relay's listener; made for datagrams of one length.
    pub socket: UdpSocket,
    /// A train of them.
    pub bytes: Vec<u8>,
    /// How many they are.
    pub count: usize,
}

/// Everything that one measurement sends and receives over. Every socket does both.
#[derive(Debug)]
pub struct Flows {
    /// Clients and peers in turns, so that both directions carry the same.
    pub list: Vec<Flow>,
    /// Sends, too, if there is one.
    pub intruder: Option<Intruder>,
    ready: Option<Ready>,
    found: Vec<usize>,
}

impl Flows {
    /// Opens the allocations of `case` on `relay` and what it needs on them.
    ///
    /// # Errors
    /// The relay refuses or stays silent.
    pub fn open(field: &Field, relay: &Relay, case: Case) -> Outcome<Self> {
        let list = if case.leg == Leg::Udp {
            let connect = || {
                let socket = field.generator.udp((GENERATOR, 0).into())?;
                socket.connect(LISTENER)?;
                open(socket, LISTENER)
            };
            let clients = (0..case.allocations).map(|_| connect()).collect::<Outcome<_>>()?;
            connect_all(field, case, clients, |client| Ok(Socket::Client(Box::new(client))))?
        } else {
            let certificate = (case.leg == Leg::Tls).then(|| relay.certificate());
            let connect = || Stream::connect(certificate.as_deref());
            let connect = || open(field.generator.within(connect)?, LISTENER);
            let clients = (0..case.allocations).map(|_| connect()).collect::<Outcome<_>>()?;
            connect_all(field, case, clients, |client| {
                client.link().stop_waiting()?;
                Ok(Socket::Stream(Box::new(client)))
            })?
        };
        let ready = (list.len() > ASKED_MAX).then(|| watch(&list)).transpose()?;
        let found = (0..list.len()).collect();
        Ok(Self { list, intruder: None, ready, found })
    }

    /// Calls `each` with everything that has arrived anywhere.
    ///
    /// # Errors
    /// A socket's.
    pub fn receive(&mut self, receiver: &mut Receiver, mut each: impl FnMut(&[u8])) -> Outcome<()> {
        if let Some(ready) = &mut self.ready {
            ready.look(&mut self.found)?;
        }
        for number in &self.found {
            self.list[*number].receive(receiver, &mut each)?;
        }
        Ok(())
    }
}

/// A client with a new allocation.
pub fn open<L: Link>(link: L, server: SocketAddrV4) -> Outcome<Allocation<L>> {
    Allocation::open(link, server.into(), credential())
}

/// Gives every client its way, and makes flows of clients and peers.
fn connect_all<L: Link>(
    field: &Field,
    case: Case,
    clients: Vec<Allocation<L>>,
    finish: impl Fn(Allocation<L>) -> Outcome<Socket>,
) -> Outcome<Vec<Flow>> {
    let relayed: Vec<_> = clients.iter().map(Allocation::relayed).collect();
    let peers = peers(field, case)?;
    let mut list = Vec::new();
    for (at, (mut client, channel)) in clients.into_iter().zip(CHANNELS.cycle()).enumerate() {
        // Neighbours in the list are partners: 0 and 1, 2 and 3.
        let peer = (case.way != Way::RelayToRelay).then(|| &peers[at % peers.len()]);
        let other = peer.map_or(Ok(relayed[at ^ 1]), |peer| peer.local_addr())?;
        let wrap = if case.way == Way::Indications {
            client.permit(other)?;
            Wrap::Indication(v4(other)?)
        } else {
            client.bind(channel, other)?;
            Wrap::Channel(channel)
        };
        list.push(Flow::new(finish(client)?, case, wrap)?);
        if let Some(peer) = peer {
            let shared = peers.len() < relayed.len();
            if !shared {
                peer.connect(relayed[at])?;
            }
            let socket = Socket::Peer(peer.clone(), shared.then_some(relayed[at]));
            list.push(Flow::new(socket, case, Wrap::Bare)?);
        }
    }
    Ok(list)
}

fn peers(field: &Field, case: Case) -> Outcome<Vec<Arc<UdpSocket>>> {
    let count = match case.allocations {
        _ if case.way == Way::RelayToRelay => 0,
        many if many > OWN_PEERS_MAX => SHARED_PEERS,
        few => few,
    };
    (0..count).map(|_| Ok(Arc::new(field.generator.udp((GENERATOR, 0).into())?))).collect()
}

fn watch(list: &[Flow]) -> Outcome<Ready> {
    let ready = Ready::new()?;
    let mut shared = HashSet::new();
    for (number, flow) in list.iter().enumerate() {
        match &flow.socket {
            // Whichever of its flows is asked, a peer's socket gives all that has arrived.
            Socket::Peer(socket, _) if !shared.insert(socket.as_raw_fd()) => {}
            Socket::Peer(socket, _) => ready.add(socket, number)?,
            Socket::Client(client) => ready.add(client.link(), number)?,
            Socket::Stream(client) => ready.add(client.link().socket(), number)?,
        }
    }
    Ok(ready)
}

fn v4(address: SocketAddr) -> Outcome<SocketAddrV4> {
    match address {
        SocketAddr::V4(v4) => Ok(v4),
        SocketAddr::V6(v6) => Err(Failure::new(format!("{v6}: the benchmark uses IPv4"))),
    }
}
