//! TURN clients of other projects through our relay, relay-only.
//!
//! Each sends payloads of many lengths and has every one echoed before the next. Its candidates must
//! be relayed ones; the relay must see one link and only allocations over the transport that was
//! asked for, refuse nothing, and count every UDP packet that the kernel counts.

mod mixed;
mod program;
mod udp;
mod verdict;

use e2e::framings::{self, Framings};
use e2e::lab::{Lab, Network};
use e2e::report::{Table, say, skip};

use crate::certificate::Certificate;
use crate::laboratory_turn;
use crate::relay::{Relay, Subject};
use program::Program;
use verdict::Verdict;

/// Transport between a client and the relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    /// Its name in metrics, and in what clients are told.
    fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// What a client puts its payload into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wrapping {
    Channels,
    Indications,
}

impl Wrapping {
    /// Packets that came in and went out in it.
    fn of(self, framings: &Framings) -> [u64; 2] {
        match self {
            Self::Channels => framings.channel,
            Self::Indications => framings.indication,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Channels => Self::Indications,
            Self::Indications => Self::Channels,
        }
    }
}

/// One client, and what is expected of it.
struct Client {
    program: Program,
    transports: &'static [Transport],
    wrapping: Wrapping,
    /// Whether its allocations over UDP have ended when it has closed. Browsers say so on their way
    /// out and may be gone before it is sent; those that say nothing leave them to expire.
    gives_back: bool,
}

impl Client {
    /// Whether its allocations end when it closes: a connection takes its allocation with it.
    fn ends(&self, transport: Transport) -> bool {
        self.gives_back || transport != Transport::Udp
    }
}

#[test]
fn two_aioice_agents_meet_at_the_relay() {
    check(&Client {
        program: Program::Aioice,
        transports: &Transport::ALL,
        wrapping: Wrapping::Channels,
        gives_back: true,
    });
}

#[test]
fn two_connections_of_chromium_meet_at_the_relay() {
    check(&Client {
        program: Program::Chromium,
        transports: &Transport::ALL,
        wrapping: Wrapping::Channels,
        gives_back: false,
    });
}

#[test]
fn two_connections_of_firefox_meet_at_the_relay() {
    check(&Client {
        program: Program::Firefox,
        transports: &Transport::ALL,
        wrapping: Wrapping::Indications,
        gives_back: false,
    });
}

#[test]
fn two_node_datachannel_connections_meet_at_the_relay() {
    check(&Client {
        program: Program::NodeDatachannel,
        // libjuice, which it is built with, has no other.
        transports: &[Transport::Udp],
        wrapping: Wrapping::Channels,
        gives_back: false,
    });
}

#[test]
fn two_clients_of_the_turn_crate_meet_at_the_relay() {
    check(&Client {
        program: Program::TurnCrate,
        // The crate leaves streams to its caller.
        transports: &[Transport::Udp],
        wrapping: Wrapping::Channels,
        gives_back: true,
    });
}

#[test]
fn two_werift_connections_meet_at_the_relay() {
    check(&Client {
        program: Program::Werift,
        transports: &Transport::ALL,
        wrapping: Wrapping::Channels,
        gives_back: false,
    });
}

fn check(client: &Client) {
    let name = client.program.name();
    if let Some(missing) = client.program.missing() {
        return missing.tell(name);
    }
    let mut table = Table::new(&Verdict::HEADINGS);
    for transport in client.transports {
        let title = format!("{name} over {}", transport.label());
        let Some(_turn) = laboratory_turn(&title) else { return };
        let program = match Subject::Castling.program() {
            Ok(program) => program,
            Err(reason) => return skip(&title, &reason),
        };
        let lab = Lab::build(&[Network::Public]).expect("laboratory");
        framings::watch(lab.server()).expect("counters");
        let certificate = Certificate::make().expect("certificate");
        let more = certificate.flags();
        let more: &[&str] = if *transport == Transport::Tls { &[&more] } else { &[] };
        let relay = Relay::start_with(&lab, Subject::Castling, &program, more).expect("relay");
        let verdict = client
            .program
            .start(lab.client(0), *transport, &certificate)
            .and_then(|running| Verdict::of(&lab, &relay, running, client.ends(*transport)))
            .unwrap_or_else(|error| panic!("{title}: {error}"));
        verdict.check(&title, client, *transport);
        table.row(verdict.row(&title));
    }
    say(&format!("{table}"));
}
