//! What was carried, and why something was not.

use crate::address::{ClientAddr, Family, Transport};

/// Packets and their transport bytes: what the socket carries, IP and UDP headers apart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Count {
    /// Datagrams.
    pub packets: u64,
    /// Bytes of the datagrams' payload.
    pub bytes: u64,
}

impl Count {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes as u64);
    }

    /// Takes back what [`Count::add`] counted: the kernel refused to send it.
    pub(crate) fn take_back(&mut self, bytes: usize) {
        self.packets = self.packets.wrapping_sub(1);
        self.bytes = self.bytes.wrapping_sub(bytes as u64);
    }

    /// Adds another count.
    pub fn merge(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

/// One leg of the relay, by direction as the relay sees it, each by [`Family::index`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Leg {
    /// Received.
    pub rx: [Count; 2],
    /// Sent.
    pub tx: [Count; 2],
}

impl Leg {
    fn merge(&mut self, other: &Self) {
        let pairs = self.rx.iter_mut().zip(other.rx).chain(self.tx.iter_mut().zip(other.tx));
        pairs.for_each(|(mine, theirs)| mine.merge(theirs));
    }
}

/// Everything that crossed the relay's sockets, and what was delivered in process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    /// Between clients and the relay: media, requests and replies, whoever sent them. Each by
    /// [`Transport::index`]; over a stream a packet is a message, and TLS's own bytes are bytes.
    pub client: [Leg; Transport::ALL.len()],
    /// Between the relay and peers.
    pub peer: Leg,
    /// Payload from one allocation to another of this server, which uses no socket between them.
    pub hairpin: Count,
    /// Packets refused, by [`DropReason::index`].
    pub dropped: [u64; DropReason::ALL.len()],
}

impl Traffic {
    /// Adds another worker's traffic.
    pub fn merge(&mut self, other: &Self) {
        let legs = self.client.iter_mut().zip(&other.client);
        legs.for_each(|(mine, theirs)| mine.merge(theirs));
        self.peer.merge(&other.peer);
        self.hairpin.merge(other.hairpin);
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine = mine.wrapping_add(theirs);
        }
    }

    /// Counts bytes of a client's stream that belong to no message.
    pub(crate) fn stream_overhead(&mut self, client: ClientAddr, received: usize, sent: usize) {
        let family = Family::of(&client.remote.ip()).index();
        let Leg { rx, tx } = &mut self.client[client.transport.index()];
        rx[family].merge(Count { packets: 0, bytes: received as u64 });
        tx[family].merge(Count { packets: 0, bytes: sent as u64 });
    }

    /// Bytes of the IP packets that were received and sent: what a provider bills.
    ///
    /// Of streams only what they carry is known here: their segments, acknowledgements and
    /// repetitions are the kernel's, and their headers are missing from the sum.
    #[must_use]
    pub fn wire_bytes(&self) -> (u64, u64) {
        let [udp, tcp, tls] = &self.client;
        let sum = |side: fn(&Leg) -> [Count; 2]| {
            let datagrams = [udp, &self.peer]
                .into_iter()
                .flat_map(|leg| side(leg).into_iter().zip(Family::ALL))
                .map(|(count, family)| count.bytes + count.packets * family.udp_header_bytes());
            let streams = [tcp, tls].into_iter().flat_map(side);
            datagrams.chain(streams.map(|count| count.bytes)).sum()
        };
        (sum(|leg| leg.rx), sum(|leg| leg.tx))
    }
}

/// What one allocation carried: payload, without framing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Carried {
    /// From the client, whether or not it reached the peer.
    pub from_client: Count,
    /// Sent on to peers through a socket.
    pub to_peers: Count,
    /// Sent on to another allocation of this server.
    pub to_relay: Count,
    /// From the client, but refused.
    pub to_peers_dropped: Count,
    /// From peers and from other allocations, whether or not it reached the client.
    pub from_peers: Count,
    /// Sent on to the client.
    pub to_client: Count,
    /// For the client, but refused.
    pub to_client_dropped: Count,
}

impl Carried {
    /// A payload came from the client and goes nowhere.
    pub(crate) fn refused_from_client(&mut self, bytes: usize) {
        self.from_client.add(bytes);
        self.to_peers_dropped.add(bytes);
    }

    /// Whether every packet went somewhere: sent on, or dropped with a reason.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        let mut out = self.to_peers;
        out.merge(self.to_relay);
        out.merge(self.to_peers_dropped);
        let mut back = self.to_client;
        back.merge(self.to_client_dropped);
        out == self.from_client && back == self.from_peers
    }
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// Why a packet was refused. The word is the metric's label and the manual's line.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl DropReason {
            /// Every reason, in the order of [`DropReason::index`].
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$name),+];

            /// The label in `relay_dropped_packets_total{reason}`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// Position in a table by reason.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

drop_reasons! {
    /// Not STUN, not ChannelData, or not whole.
    Malformed = "malformed",
    /// The client has no allocation.
    NoAllocation = "no_allocation",
    /// The peer's address has no permission.
    NoPermission = "no_permission",
    /// No channel has this number.
    NoChannel = "no_channel",
    /// The peer policy forbids the address.
    PeerDenied = "peer_denied",
    /// A relayed port of ours that is not open.
    RelayPortClosed = "relay_port_closed",
    /// Its allocation or channel has expired.
    Expired = "expired",
    /// A quota is used up.
    Quota = "quota",
    /// Its source's prefix has had all the replies that unverified requests get.
    RateLimited = "rate_limited",
    /// Above the allowed bit rate.
    Shaped = "shaped",
    /// Longer than a datagram can be with its framing.
    TooBig = "too_big",
    /// A slow stream client's queue is full.
    TcpBacklog = "tcp_backlog",
    /// The ring between two workers is full.
    RingFull = "ring_full",
    /// A socket buffer of the kernel is full.
    SocketBuffer = "socket_buffer",
    /// The kernel refused to send towards this address.
    SendError = "send_error",
}
