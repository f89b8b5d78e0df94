//! Known traffic: what clients sent is what the relay counted, what its interface carried and what
//! the model predicted, to the byte.
//!
//! Every cell is a room of `people`, `blocked` of whom use the relay on all their links. On each
//! link both ends send the same number of datagrams of one length. Links between two people that
//! are not blocked go past the relay and must not count.

use std::net::{SocketAddr, UdpSocket};

use bandwidth_model::Room;
use e2e::counters::{self, Flow, Interface};
use e2e::lab::{Lab, Network};
use e2e::report::{Table, say, skip};
use e2e::scrape::Metrics;
use e2e::turn_client::{Allocation, Received};

use crate::laboratory_turn;
use crate::relay::{Relay, Subject, allocate};

/// Bytes of IPv4 and UDP headers on each datagram.
const UDP_IPV4: u64 = 28;
/// Datagrams in each direction of each link.
const DATAGRAMS: u64 = 192;
/// Datagrams sent before they are read again: socket buffers hold them all.
const BATCH: u64 = 16;
/// The channel that every allocation binds to its one peer.
const CHANNEL: u16 = 0x4001;

/// How a blocked person's datagrams are framed between client and relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    /// 4 bytes, unpadded over UDP.
    Channel,
    /// Send and Data indications: 36 bytes, and the DATA attribute is padded to 4.
    Indication,
}

impl Framing {
    fn bytes(self, length: u64) -> u64 {
        match self {
            Self::Channel => 4,
            Self::Indication => 36 + (4 - length % 4) % 4,
        }
    }
}

/// One test room.
#[derive(Clone, Copy, Debug)]
struct Cell {
    people: u64,
    blocked: u64,
    /// Payload of each datagram, in bytes.
    length: u64,
    framing: Framing,
}

const CELLS: [Cell; 9] = [
    cell(3, 0, 1000, Framing::Channel),
    cell(2, 1, 1000, Framing::Channel),
    cell(2, 1, 160, Framing::Indication),
    cell(2, 2, 1200, Framing::Channel),
    cell(2, 2, 997, Framing::Indication),
    cell(3, 1, 1, Framing::Channel),
    cell(3, 2, 333, Framing::Indication),
    cell(4, 2, 1372, Framing::Channel),
    cell(5, 5, 100, Framing::Channel),
];

const fn cell(people: u64, blocked: u64, length: u64, framing: Framing) -> Cell {
    Cell { people, blocked, length, framing }
}

#[test]
fn known_traffic_is_counted_to_the_byte() {
    let Some(_turn) = laboratory_turn("transfer") else { return };
    let subject = Subject::chosen();
    let program = match subject.program() {
        Ok(program) => program,
        Err(reason) => return skip("transfer", &reason),
    };
    let mut table = Table::new(&[
        "P,T",
        "bytes",
        "framing",
        "K",
        "relay K1+K2",
        "rx model",
        "kernel",
        "relay",
        "tx model",
        "kernel",
        "relay",
        "difference",
    ]);
    for cell in CELLS {
        let lab = Lab::build(&vec![Network::Public; cell.people as usize]).expect("laboratory");
        let relay = Relay::start(&lab, subject, &program).expect("relay");
        let run = Run::make(&lab, &relay, cell);
        run.check(cell);
        table.row(run.row(cell));
    }
    say(&format!("transfer through {subject:?}, {DATAGRAMS} datagrams each way per link\n{table}"));
}

#[test]
fn wrong_models_are_found_out() {
    let Some(_turn) = laboratory_turn("transfer controls") else { return };
    let program = match Subject::chosen().program() {
        Ok(program) => program,
        Err(reason) => return skip("transfer controls", &reason),
    };
    let cell = cell(3, 1, 500, Framing::Channel);
    let lab = Lab::build(&[Network::Public; 3]).expect("laboratory");
    let relay = Relay::start(&lab, Subject::chosen(), &program).expect("relay");
    let run = Run::make(&lab, &relay, cell);
    let measured = run.data_kernel.rx.bytes;
    assert_eq!(measured, wire_bytes(cell));
    let one_more_blocked = Cell { blocked: cell.blocked + 1, ..cell };
    assert_ne!(measured, wire_bytes(one_more_blocked), "K from T+1");
    let payload = 2 * links(cell).relayed() * DATAGRAMS * cell.length;
    assert_ne!(measured, payload, "no headers");
    assert_ne!(measured, wire_bytes(cell) / 2, "K·b instead of 2·K·b");
}

/// Links by the number of allocations that they use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Links {
    one_sided: u64,
    two_sided: u64,
}

impl Links {
    fn relayed(self) -> u64 {
        self.one_sided + self.two_sided
    }
}

/// The model's K1 and K2.
fn links(cell: Cell) -> Links {
    let room = Room::new(cell.people, cell.blocked).expect("T of P people");
    Links { one_sided: room.one_sided().count(), two_sided: room.two_sided().count() }
}

/// The model's wire bytes of the data in each direction: 2·K·b, with the framing of each leg.
fn wire_bytes(cell: Cell) -> u64 {
    let links = links(cell);
    let plain = cell.length + UDP_IPV4;
    let client = plain + cell.framing.bytes(cell.length);
    DATAGRAMS * (links.one_sided * (client + plain) + links.two_sided * 2 * client)
}

/// What was counted in one run of a cell.
struct Run {
    /// By the clients, from start to end: all they exchanged with the relay.
    clients: Legs,
    /// By the kernel, from start to end and for the data alone.
    kernel: Interface,
    data_kernel: Interface,
    /// By the relay, from start to end; before and after the data.
    before: Option<Metrics>,
    after: Option<Metrics>,
}

/// Both legs of the relay as the other ends saw them, in bytes above UDP.
#[derive(Clone, Copy, Debug, Default)]
struct Legs {
    client_rx: Flow,
    client_tx: Flow,
    peer_rx: Flow,
    peer_tx: Flow,
}

impl Run {
    fn make(lab: &Lab, relay: &Relay, cell: Cell) -> Self {
        let start = counters::interface(lab.server()).expect("counters");
        let mut room = open(lab, cell);
        let before = relay.metrics();
        let kernel_before = counters::interface(lab.server()).expect("counters");
        for from in (0..DATAGRAMS).step_by(BATCH as usize) {
            for (index, link) in room.iter_mut().enumerate() {
                link.exchange(index as u64, from..from + BATCH, cell);
            }
        }
        let end = counters::interface(lab.server()).expect("counters");
        let after = relay.metrics();
        let mut clients = Legs::default();
        for link in &room {
            link.account(&mut clients);
        }
        Self { clients, kernel: end - start, data_kernel: end - kernel_before, before, after }
    }

    /// Every counter against every other.
    fn check(&self, cell: Cell) {
        let wire = |flow: Flow| flow.bytes + UDP_IPV4 * flow.packets;
        let Legs { client_rx, client_tx, peer_rx, peer_tx } = self.clients;
        assert_eq!(wire(client_rx) + wire(peer_rx), self.kernel.rx.bytes, "{cell:?}: kernel rx");
        assert_eq!(wire(client_tx) + wire(peer_tx), self.kernel.tx.bytes, "{cell:?}: kernel tx");
        assert_eq!(self.data_kernel.rx.bytes, wire_bytes(cell), "{cell:?}: model rx");
        assert_eq!(self.data_kernel.tx.bytes, wire_bytes(cell), "{cell:?}: model tx");
        let (Some(before), Some(after)) = (&self.before, &self.after) else { return };
        for (leg, direction, flow) in [
            ("client", "rx", client_rx),
            ("client", "tx", client_tx),
            ("peer", "rx", peer_rx),
            ("peer", "tx", peer_tx),
        ] {
            let labels =
                [("leg", leg), ("direction", direction), ("transport", "udp"), ("family", "ipv4")];
            assert_eq!(
                count(after, "relay_bytes_total", &labels),
                flow.bytes,
                "{cell:?} {labels:?}"
            );
            let packets = count(after, "relay_packets_total", &labels);
            assert_eq!(packets, flow.packets, "{cell:?} {labels:?}");
        }
        for (direction, kernel) in [("rx", self.kernel.rx), ("tx", self.kernel.tx)] {
            let relay = wire_total(after, direction);
            assert_eq!(relay, kernel.bytes, "{cell:?}: relay_wire_bytes_total {direction}");
            let data = relay - wire_total(before, direction);
            assert_eq!(data, wire_bytes(cell), "{cell:?}: data {direction}");
        }
        let links = links(cell);
        let hairpin = 2 * links.two_sided * DATAGRAMS;
        assert_eq!(count(after, "relay_hairpin_packets_total", &[]), hairpin, "{cell:?}");
        assert_eq!(
            count(after, "relay_hairpin_bytes_total", &[]),
            hairpin * cell.length,
            "{cell:?}"
        );
        assert_eq!(relay_links(after), links, "{cell:?}: relay_links");
        assert_eq!(after.sum("relay_dropped_packets_total", &[]).unwrap_or(0.0), 0.0, "{cell:?}");
    }

    fn row(&self, cell: Cell) -> Vec<String> {
        let model = wire_bytes(cell);
        let data = |direction: &str| {
            let (before, after) = (self.before.as_ref()?, self.after.as_ref()?);
            Some(wire_total(after, direction) - wire_total(before, direction))
        };
        let relay = |direction: &str| data(direction).map_or("-".into(), |bytes| bytes.to_string());
        let k = self.after.as_ref().map(relay_links);
        let differences = [self.data_kernel.rx.bytes, self.data_kernel.tx.bytes]
            .into_iter()
            .chain(data("rx"))
            .chain(data("tx"))
            .map(|measured| measured.abs_diff(model));
        vec![
            format!("{},{}", cell.people, cell.blocked),
            cell.length.to_string(),
            format!("{:?}", cell.framing).to_lowercase(),
            links(cell).relayed().to_string(),
            k.map_or("-".into(), |links| format!("{}+{}", links.one_sided, links.two_sided)),
            model.to_string(),
            self.data_kernel.rx.bytes.to_string(),
            relay("rx"),
            model.to_string(),
            self.data_kernel.tx.bytes.to_string(),
            relay("tx"),
            differences.max().unwrap_or_default().to_string(),
        ]
    }
}

fn count(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> u64 {
    metrics.count(name, labels).expect("a metric of the relay")
}

fn wire_total(metrics: &Metrics, direction: &str) -> u64 {
    count(metrics, "relay_wire_bytes_total", &[("direction", direction)])
}

fn relay_links(metrics: &Metrics) -> Links {
    let kind = |kind| count(metrics, "relay_links", &[("kind", kind)]);
    Links { one_sided: kind("one_sided"), two_sided: kind("two_sided") }
}

/// The two ends of one link.
struct Link {
    ends: [End; 2],
    relayed: bool,
}

/// One end of a link, with a socket of its own as every `RTCPeerConnection` has.
enum End {
    /// Sends plain UDP to `peer`.
    Plain { socket: UdpSocket, peer: SocketAddr, sent: Flow, received: Flow },
    /// Uses an allocation that talks to `peer`.
    Allocated { allocation: Allocation, peer: SocketAddr, framing: Framing },
}

/// Makes all links of the room: allocations first, since each needs the other end's address.
fn open(lab: &Lab, cell: Cell) -> Vec<Link> {
    let people = 0..cell.people as usize;
    let pairs = people.clone().flat_map(|i| people.clone().skip(i + 1).map(move |j| (i, j)));
    pairs
        .map(|(i, j)| {
            let mut ends = [i, j].map(|person| End::open(lab, person, cell));
            let addresses = [ends[0].address(), ends[1].address()];
            ends[0].meet(addresses[1]);
            ends[1].meet(addresses[0]);
            let relayed = ends.iter().any(|end| matches!(end, End::Allocated { .. }));
            Link { ends, relayed }
        })
        .collect()
}

impl Link {
    /// Both ends send the datagrams numbered `range`; each must get the other's, whole.
    fn exchange(&mut self, link: u64, range: std::ops::Range<u64>, cell: Cell) {
        for number in range.clone() {
            for (side, end) in self.ends.iter_mut().enumerate() {
                end.send(&payload(cell, link, side, number));
            }
        }
        for number in range {
            for (side, end) in self.ends.iter_mut().enumerate() {
                let wanted = payload(cell, link, 1 - side, number);
                assert!(end.receive() == wanted, "{cell:?}: datagram {number} of link {link}");
            }
        }
    }

    fn account(&self, legs: &mut Legs) {
        for end in self.ends.iter().filter(|_| self.relayed) {
            match end {
                End::Plain { sent, received, .. } => {
                    legs.peer_rx += *sent;
                    legs.peer_tx += *received;
                }
                End::Allocated { allocation, .. } => {
                    legs.client_rx += allocation.tally().sent;
                    legs.client_tx += allocation.tally().received;
                }
            }
        }
    }
}

impl End {
    fn open(lab: &Lab, person: usize, cell: Cell) -> Self {
        let (namespace, at) = (lab.client(person), Lab::public_address(person));
        let unknown = SocketAddr::from((at, 0));
        if (person as u64) < cell.blocked {
            let user = format!("room.{person}");
            let allocation = allocate(namespace, at, &user).expect("allocation");
            return Self::Allocated { allocation, peer: unknown, framing: cell.framing };
        }
        let socket = namespace.udp(unknown).expect("socket");
        Self::Plain { socket, peer: unknown, sent: Flow::default(), received: Flow::default() }
    }

    /// Where the other end sends to.
    fn address(&self) -> SocketAddr {
        match self {
            Self::Plain { socket, .. } => socket.local_addr().expect("bound"),
            Self::Allocated { allocation, .. } => allocation.relayed(),
        }
    }

    fn meet(&mut self, other: SocketAddr) {
        match self {
            Self::Plain { peer, .. } => *peer = other,
            Self::Allocated { allocation, peer, framing } => {
                *peer = other;
                match framing {
                    Framing::Channel => allocation.bind(CHANNEL, other).expect("bound"),
                    Framing::Indication => allocation.permit(other).expect("permitted"),
                }
            }
        }
    }

    fn send(&mut self, payload: &[u8]) {
        match self {
            Self::Plain { socket, peer, sent, .. } => {
                socket.send_to(payload, *peer).expect("sent");
                sent.add(payload.len());
            }
            Self::Allocated { allocation, framing: Framing::Channel, .. } => {
                allocation.send_channel(CHANNEL, payload).expect("sent");
            }
            Self::Allocated { allocation, peer, framing: Framing::Indication } => {
                allocation.send_indication(*peer, payload).expect("sent");
            }
        }
    }

    fn receive(&mut self) -> Vec<u8> {
        match self {
            Self::Plain { socket, peer, received, .. } => {
                let mut buffer = vec![0; 2048];
                let (length, source) = socket.recv_from(&mut buffer).expect("arrives");
                assert_eq!(source, *peer, "source of a relayed datagram");
                received.add(length);
                buffer.truncate(length);
                buffer
            }
            Self::Allocated { allocation, peer, framing } => {
                match (allocation.receive().expect("arrives"), framing) {
                    (Received::Channel(CHANNEL, payload), Framing::Channel) => payload,
                    (Received::Indication(source, payload), Framing::Indication) => {
                        assert_eq!(source, *peer, "peer of an indication");
                        payload
                    }
                    (other, framing) => panic!("{other:?} with {framing:?}"),
                }
            }
        }
    }
}

/// Differs by link, side and number, as far as its length allows.
fn payload(cell: Cell, link: u64, side: usize, number: u64) -> Vec<u8> {
    let seed = link * 31 + side as u64 * 17 + number * 7;
    (0..cell.length).map(|at| (seed + at) as u8).collect()
}
