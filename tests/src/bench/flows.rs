//! Allocations and the sockets on both sides of them.

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};

use super::field::{Field, GENERATOR};
use super::kernel;
use super::packet::{Train, Wrap};
use super::subject::{LISTENER, credential};
use super::throughput::Case;
use crate::turn_client::Allocation;
use crate::{Failure, Outcome};

/// Allocations of a throughput measurement.
pub const ALLOCATIONS: usize = 20;
/// The channel of the first; the others follow. RFC 8656 §12 ends them at 0x4FFF.
pub const CHANNEL: u16 = 0x4000;
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

/// One socket that sends, and what.
#[derive(Debug)]
pub struct Flow {
    /// Connected to the relay's listener or to a relayed port.
    pub socket: UdpSocket,
    /// What it sends, again and again.
    pub train: Train,
}

impl Flow {
    fn new(socket: UdpSocket, case: Case, wrap: Wrap) -> Outcome<Self> {
        let train = Train::new(wrap, case.payload_len, case.burst);
        kernel::tune(&socket, train.datagram_len(), RECEIVE_BUFFER_LEN)?;
        Ok(Self { socket, train })
    }
}

/// Everything that one measurement sends and receives over. Every socket does both.
#[derive(Debug)]
pub struct Flows {
    /// Clients and peers in turns, so that both directions carry the same.
    pub list: Vec<Flow>,
    // An allocation ends with its client.
    _allocations: Vec<Allocation>,
}

impl Flows {
    /// Opens [`ALLOCATIONS`] and what `case` needs on them.
    ///
    /// # Errors
    /// The relay refuses or stays silent.
    pub fn open(field: &Field, case: Case) -> Outcome<Self> {
        let mut clients = Vec::new();
        for _ in 0..ALLOCATIONS {
            let socket = field.generator.udp((GENERATOR, 0).into())?;
            socket.connect(LISTENER)?;
            let allocation = Allocation::open(socket.try_clone()?, LISTENER.into(), credential())?;
            clients.push((socket, allocation));
        }
        let list = match case.way {
            Way::RelayToRelay => between_clients(case, &mut clients)?,
            Way::Channels | Way::Indications => with_peers(field, case, &mut clients)?,
        };
        let allocations = clients.into_iter().map(|(_, allocation)| allocation).collect();
        Ok(Self { list, _allocations: allocations })
    }
}

type Client = (UdpSocket, Allocation);

fn with_peers(field: &Field, case: Case, clients: &mut [Client]) -> Outcome<Vec<Flow>> {
    let mut list = Vec::new();
    for ((client, allocation), channel) in clients.iter_mut().zip(CHANNEL..) {
        let peer = field.generator.udp((GENERATOR, 0).into())?;
        peer.connect(allocation.relayed())?;
        let at = v4(peer.local_addr()?)?;
        let wrap = if case.way == Way::Channels {
            allocation.bind(channel, at.into())?;
            Wrap::Channel(channel)
        } else {
            allocation.permit(at.into())?;
            Wrap::Indication(at)
        };
        list.push(Flow::new(client.try_clone()?, case, wrap)?);
        list.push(Flow::new(peer, case, Wrap::Bare)?);
    }
    Ok(list)
}

fn between_clients(case: Case, clients: &mut [Client]) -> Outcome<Vec<Flow>> {
    let mut list = Vec::new();
    let relayed: Vec<_> = clients.iter().map(|(_, allocation)| allocation.relayed()).collect();
    for (at, ((client, allocation), channel)) in clients.iter_mut().zip(CHANNEL..).enumerate() {
        // Neighbours in the list are partners: 0 and 1, 2 and 3.
        allocation.bind(channel, relayed[at ^ 1])?;
        list.push(Flow::new(client.try_clone()?, case, Wrap::Channel(channel))?);
    }
    Ok(list)
}

fn v4(address: SocketAddr) -> Outcome<SocketAddrV4> {
    match address {
        SocketAddr::V4(v4) => Ok(v4),
        SocketAddr::V6(v6) => Err(Failure::new(format!("{v6}: the benchmark uses IPv4"))),
    }
}
