//! Allocations and the sockets on both sides of them.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};

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
    /// Connected to the relay's listener or to a relayed port.
    Udp(UdpSocket),
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
        if let Socket::Udp(socket) = &socket {
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
            Socket::Udp(socket) => socket.send(bytes).map(drop),
            Socket::Stream(client) => client.link_mut().push(bytes),
        }
    }

    /// Calls `each` with everything that has arrived.
    ///
    /// # Errors
    /// The socket's.
    pub fn receive(
        &mut self,
        receiver: &mut Receiver,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        match &mut self.socket {
            Socket::Udp(socket) => {
                let mut count = kernel::BATCH;
                while count == kernel::BATCH {
                    count = receiver.receive(socket, &mut each)?;
                }
                Ok(())
            }
            Socket::Stream(client) => client.link_mut().pull(each),
        }
    }
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
    // An allocation ends with its client.
    _allocations: Vec<Allocation>,
}

impl Flows {
    /// Opens the allocations of `case` on `relay` and what it needs on them.
    ///
    /// # Errors
    /// The relay refuses or stays silent.
    pub fn open(field: &Field, relay: &Relay, case: Case) -> Outcome<Self> {
        let mut made = Made { list: Vec::new(), allocations: Vec::new() };
        let sockets = (0..case.allocations).map(|_| field.generator.udp((GENERATOR, 0).into()));
        if case.leg == Leg::Udp {
            let mut clients = Vec::new();
            for socket in sockets {
                let socket = socket?;
                socket.connect(LISTENER)?;
                clients.push(open(socket, LISTENER)?);
            }
            made.connect(field, case, clients, |mut client| {
                let socket = client.link_mut().try_clone()?;
                Ok((Socket::Udp(socket), Some(client)))
            })?;
        } else {
            let certificate = (case.leg == Leg::Tls).then(|| relay.certificate());
            let connect = || Stream::connect(certificate.as_deref());
            let mut clients = Vec::new();
            for _ in 0..case.allocations {
                clients.push(open(field.generator.within(connect)?, LISTENER)?);
            }
            made.connect(field, case, clients, |mut client| {
                client.link_mut().stop_waiting()?;
                Ok((Socket::Stream(Box::new(client)), None))
            })?;
        }
        let Made { list, allocations } = made;
        let ready = (list.len() > ASKED_MAX).then(|| watch(&list)).transpose()?;
        let found = (0..list.len()).collect();
        Ok(Self { list, intruder: None, ready, found, _allocations: allocations })
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

struct Made {
    list: Vec<Flow>,
    allocations: Vec<Allocation>,
}

impl Made {
    /// Gives every client its way, and makes flows of clients and peers.
    fn connect<L: Link>(
        &mut self,
        field: &Field,
        case: Case,
        clients: Vec<Allocation<L>>,
        finish: impl Fn(Allocation<L>) -> Outcome<(Socket, Option<Allocation>)>,
    ) -> Outcome<()> {
        let relayed: Vec<_> = clients.iter().map(Allocation::relayed).collect();
        for (at, (mut client, channel)) in clients.into_iter().zip(CHANNELS.cycle()).enumerate() {
            let mut peer = None;
            let wrap = if case.way == Way::RelayToRelay {
                // Neighbours in the list are partners: 0 and 1, 2 and 3.
                client.bind(channel, relayed[at ^ 1])?;
                Wrap::Channel(channel)
            } else {
                let socket = field.generator.udp((GENERATOR, 0).into())?;
                socket.connect(relayed[at])?;
                let address = v4(socket.local_addr()?)?;
                peer = Some(socket);
                if case.way == Way::Channels {
                    client.bind(channel, address.into())?;
                    Wrap::Channel(channel)
                } else {
                    client.permit(address.into())?;
                    Wrap::Indication(address)
                }
            };
            let (socket, allocation) = finish(client)?;
            self.allocations.extend(allocation);
            self.list.push(Flow::new(socket, case, wrap)?);
            if let Some(peer) = peer {
                self.list.push(Flow::new(Socket::Udp(peer), case, Wrap::Bare)?);
            }
        }
        Ok(())
    }
}

fn watch(list: &[Flow]) -> Outcome<Ready> {
    let ready = Ready::new()?;
    for (number, flow) in list.iter().enumerate() {
        match &flow.socket {
            Socket::Udp(socket) => ready.add(socket, number)?,
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
