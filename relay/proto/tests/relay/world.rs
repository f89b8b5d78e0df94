//! Clients, peers and the edge for one relay, on a clock that only tests move.

use std::net::SocketAddr;

use relay_proto::attribute::{self as attr, ReservationToken};
use relay_proto::auth::{Credentials, ExpiryMode};
use relay_proto::credential::{self, LongTermKey};
use relay_proto::policy::{PeerPolicy, RelayIp};
use relay_proto::request::PortWish;
use relay_proto::stun::{Class, Method, TransactionId, Writer};
use relay_proto::{
    AllocationId, ClientAddr, Effect, Family, Keys, More, Now, PeerAddr, PortFailure, Relay,
    RelayAddr, Settings, Verdict,
};

pub use super::wire::*;

pub const REALM: &str = "castling";
pub const SECRET: &[u8] = b"a secret for tests only";
pub const STATIC_USER: (&str, &str) = ("static", "pass word");
/// What relayed ports are bound to, and what clients are told.
pub const LOCAL_IP: &str = "10.0.0.5";
pub const EXTERNAL_IP: &str = "203.0.113.1";
pub const RELAY_IP_V6: &str = "2001:db8:0:1::1";
pub const LISTENER_PORT: u16 = 3478;
/// Where the clock starts.
pub const START: Now = Now { mono_ms: 5_001_234, unix_s: 1_800_000_000 };
/// How the edge answers when it is to open a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ports {
    Open,
    Fail(PortFailure),
    /// One family cannot be had.
    FailOf(Family, PortFailure),
    /// The next one fails, those after it open.
    FailOnce(PortFailure),
    /// The answer is given later, by the test.
    Wait,
}

/// A port that the relay asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opened {
    pub id: AllocationId,
    pub family: Family,
    pub wish: PortWish,
    pub user: String,
    pub client: ClientAddr,
    pub is_second: bool,
    pub relayed: Option<RelayAddr>,
}

/// A TURN client with a credential and a nonce.
#[derive(Clone, Debug)]
pub struct Client {
    pub addr: ClientAddr,
    pub username: String,
    pub key: LongTermKey,
    pub nonce: Vec<u8>,
}

/// An allocation as its client knows it.
#[derive(Clone, Copy, Debug)]
pub struct Relayed {
    pub id: AllocationId,
    pub addr: RelayAddr,
}

pub struct World {
    pub relay: Relay,
    pub now: Now,
    pub ports: Ports,
    pub opened: Vec<Opened>,
    pub closed: Vec<AllocationId>,
    /// Of which family each of `closed` was.
    pub closed_families: Vec<Family>,
    next_port: u16,
    reserved: Vec<(ReservationToken, u16)>,
    next_id: u64,
}

pub fn settings() -> Settings {
    let network = |text: &str| text.parse().expect("network");
    let relay_ip = |local, external| RelayIp { local: ip(local), external: ip(external) };
    Settings {
        credentials: Credentials::new(
            REALM.to_owned(),
            vec![b"the secret of tomorrow".to_vec(), SECRET.to_vec()],
            [(STATIC_USER.0.to_owned(), STATIC_USER.1.to_owned())].into(),
        ),
        policy: PeerPolicy {
            relay_ips: vec![relay_ip(LOCAL_IP, EXTERNAL_IP), relay_ip(RELAY_IP_V6, RELAY_IP_V6)],
            relay_ports: 49152..=65535,
            service_ports: vec![LISTENER_PORT, LISTENER_PORT + 1],
            own_ips: vec![ip(LOCAL_IP), ip(RELAY_IP_V6)],
            // Documentation networks, where peers of tests live.
            allow: vec![network("198.51.100.0/24"), network("2001:db8:9::/48")],
            deny: vec![],
        },
        permissions_max: 64,
        channels_max: 64,
        expiry_mode: ExpiryMode::New,
        session_s_max: None,
        rfc5766_channels: false,
        strict_channels: false,
        rate_max: None,
    }
}

pub fn keys() -> Keys {
    Keys { nonce: [1; 32], seed: [2; 32] }
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        Self {
            relay: Relay::new(settings, &keys()),
            now: START,
            ports: Ports::Open,
            opened: Vec::new(),
            closed: Vec::new(),
            closed_families: Vec::new(),
            next_port: 50_001,
            reserved: Vec::new(),
            next_id: 0,
        }
    }

    /// Lets time pass without the relay's being told.
    pub fn pass_ms(&mut self, ms: u64) {
        let unix_ms = self.now.unix_s * 1000 + self.now.mono_ms % 1000 + ms;
        self.now = Now { mono_ms: self.now.mono_ms + ms, unix_s: unix_ms / 1000 };
    }

    pub fn tick(&mut self) {
        while self.relay.tick(self.now) == More::Yes {}
        assert_eq!(self.drain(), [], "a tick answers nobody");
    }

    /// A client with a REST credential that is good for an hour.
    pub fn client(&mut self, port: u16, user: &str) -> Client {
        self.client_until(port, user, self.now.unix_s + 3600)
    }

    pub fn client_until(&mut self, port: u16, user: &str, expires: u64) -> Client {
        let made = credential::mint(SECRET, user, expires);
        self.client_at(client_addr(port), &made.username, &made.password)
    }

    /// A client that has asked for its nonce.
    pub fn client_at(&mut self, addr: ClientAddr, username: &str, password: &str) -> Client {
        let key = credential::long_term_key(username, REALM, password);
        let mut client = Client { addr, username: username.to_owned(), key, nonce: Vec::new() };
        self.renew_nonce(&mut client);
        client
    }

    pub fn renew_nonce(&mut self, client: &mut Client) {
        let bytes = self.message(Method::Refresh, Class::Request, |w| {
            w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        });
        let reply = self.reply(client.addr, &bytes);
        assert_eq!(reply.code(), 401);
        client.nonce = reply.attribute(attr::NONCE).expect("401 carries a nonce");
    }

    pub fn transaction_id(&mut self) -> TransactionId {
        self.next_id += 1;
        let mut id = *b"test        ";
        id[4..].copy_from_slice(&self.next_id.to_be_bytes());
        id
    }

    /// A message without credentials.
    pub fn message(
        &mut self,
        method: Method,
        class: Class,
        fill: impl FnOnce(Writer<'_>) -> Writer<'_>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        fill(Writer::new(&mut out, method, class, self.transaction_id())).finish();
        out
    }

    /// A request with credentials.
    pub fn request(
        &mut self,
        client: &Client,
        method: Method,
        fill: impl FnOnce(Writer<'_>) -> Writer<'_>,
    ) -> Vec<u8> {
        self.message(method, Class::Request, |w| {
            fill(w)
                .attribute(attr::USERNAME, client.username.as_bytes())
                .attribute(attr::REALM, REALM.as_bytes())
                .attribute(attr::NONCE, &client.nonce)
                .integrity(&client.key)
        })
    }

    pub fn indication(&mut self, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
        self.message(Method::Send, Class::Indication, |w| {
            w.xor_address(attr::XOR_PEER_ADDRESS, to).attribute(attr::DATA, payload)
        })
    }

    /// Feeds a datagram and plays the edge until nothing is left to do.
    pub fn replies(&mut self, from: ClientAddr, bytes: &[u8]) -> Vec<Reply> {
        match self.relay.from_client(self.now, from, bytes) {
            Verdict::Control | Verdict::Drop(_) => {}
            media => panic!("media was not expected: {media:?}"),
        }
        self.drain()
    }

    /// The one reply to a datagram, which goes to its source and has its transaction id.
    pub fn reply(&mut self, from: ClientAddr, bytes: &[u8]) -> Reply {
        let replies = self.replies(from, bytes);
        let [reply] = &replies[..] else { panic!("one reply, not {replies:?}") };
        assert_eq!(reply.to, from);
        assert_eq!(reply.bytes[8..20], bytes[8..20], "transaction id");
        reply.clone()
    }

    /// Asks with credentials; the reply is signed unless it refuses the credentials.
    pub fn ask(
        &mut self,
        client: &Client,
        method: Method,
        fill: impl FnOnce(Writer<'_>) -> Writer<'_>,
    ) -> Reply {
        let bytes = self.request(client, method, fill);
        let reply = self.reply(client.addr, &bytes);
        match reply.code() {
            401 | 438 => {
                assert_eq!(reply.attribute(attr::REALM).as_deref(), Some(REALM.as_bytes()));
                assert!(reply.attribute(attr::NONCE).is_some());
            }
            // Turned away before the integrity is looked at, or after it.
            400 if reply.message().integrity().is_none() => {}
            _ => assert!(reply.message().verify(&client.key), "signed with the client's key"),
        }
        reply
    }

    pub fn ask_allocate(
        &mut self,
        client: &Client,
        fill: impl FnOnce(Writer<'_>) -> Writer<'_>,
    ) -> Reply {
        self.ask(client, Method::Allocate, |w| {
            fill(w.attribute(attr::REQUESTED_TRANSPORT, &[attr::TRANSPORT_UDP, 0, 0, 0]))
        })
    }

    pub fn allocate(&mut self, client: &Client) -> Relayed {
        let reply = self.ask_allocate(client, |w| w);
        assert_eq!(reply.code(), 0);
        self.last_opened()
    }

    pub fn allocate_v6(&mut self, client: &Client) -> Relayed {
        let reply = self
            .ask_allocate(client, |w| w.attribute(attr::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]));
        assert_eq!(reply.code(), 0);
        self.last_opened()
    }

    pub fn last_opened(&self) -> Relayed {
        let last = self.opened.last().expect("a port");
        Relayed { id: last.id, addr: last.relayed.expect("open") }
    }

    pub fn refresh(&mut self, client: &Client, lifetime_s: u32) -> Reply {
        self.ask(client, Method::Refresh, |w| {
            w.attribute(attr::LIFETIME, &lifetime_s.to_be_bytes())
        })
    }

    pub fn permit(&mut self, client: &Client, peers: &[SocketAddr]) -> u16 {
        let reply = self.ask(client, Method::CreatePermission, |w| {
            peers.iter().fold(w, |w, &peer| w.xor_address(attr::XOR_PEER_ADDRESS, peer))
        });
        reply.code()
    }

    pub fn bind(&mut self, client: &Client, number: u16, peer: SocketAddr) -> u16 {
        let [high, low] = number.to_be_bytes();
        let reply = self.ask(client, Method::ChannelBind, |w| {
            w.attribute(attr::CHANNEL_NUMBER, &[high, low, 0, 0])
                .xor_address(attr::XOR_PEER_ADDRESS, peer)
        });
        reply.code()
    }

    pub fn client_sends<'b>(&mut self, client: &Client, bytes: &'b [u8]) -> Verdict<'b> {
        self.relay.from_client(self.now, client.addr, bytes)
    }

    pub fn peer_sends<'b>(
        &mut self,
        at: Relayed,
        from: SocketAddr,
        bytes: &'b [u8],
    ) -> Verdict<'b> {
        self.relay.from_peer(self.now, at.id, PeerAddr(from), bytes)
    }

    /// Whether `payload` reaches `to` by a Send indication.
    pub fn sends(&mut self, client: &Client, to: SocketAddr) -> bool {
        let bytes = self.indication(to, b"payload");
        matches!(self.client_sends(client, &bytes), Verdict::ToPeer { to: at, .. } if at.0 == to)
    }

    /// Whether a datagram of this peer reaches the client.
    pub fn hears(&mut self, at: Relayed, from: SocketAddr) -> bool {
        matches!(self.peer_sends(at, from, b"payload"), Verdict::ToClient { .. })
    }

    /// Plays the edge: answers for ports, collects replies.
    pub fn drain(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        loop {
            let asked = match self.relay.next_effect() {
                None => return replies,
                Some(Effect::Reply { to, bytes }) => {
                    replies.push(Reply { to, bytes: bytes.to_vec() });
                    continue;
                }
                Some(Effect::ClosePort { id, family }) => {
                    self.closed.push(id);
                    self.closed_families.push(family);
                    continue;
                }
                Some(Effect::OpenPort { id, family, wish, user, client, is_second, .. }) => {
                    let (user, relayed) = (user.to_owned(), None);
                    Opened { id, family, wish, user, client, is_second, relayed }
                }
            };
            self.open(asked);
        }
    }

    fn open(&mut self, mut asked: Opened) {
        let id = asked.id;
        let found = match self.ports {
            Ports::Wait => None,
            Ports::Fail(why) => Some(Err(why)),
            Ports::FailOf(family, why) if family == asked.family => Some(Err(why)),
            Ports::FailOnce(why) => {
                self.ports = Ports::Open;
                Some(Err(why))
            }
            Ports::Open | Ports::FailOf(..) => Some(self.find_port(asked.wish)),
        };
        match found {
            Some(Ok(port)) => {
                let ip = match asked.family {
                    Family::V4 => ip(EXTERNAL_IP),
                    Family::V6 => ip(RELAY_IP_V6),
                };
                let relayed = RelayAddr(SocketAddr::new(ip, port));
                asked.relayed = Some(relayed);
                self.relay.port_opened(id, relayed);
            }
            Some(Err(why)) => self.relay.port_failed(id, why),
            None => {}
        }
        self.opened.push(asked);
    }

    fn find_port(&mut self, wish: PortWish) -> Result<u16, PortFailure> {
        let even = self.next_port.next_multiple_of(2);
        let (port, next) = match wish {
            PortWish::Any => (self.next_port, self.next_port + 1),
            PortWish::Even => (even, even + 1),
            PortWish::EvenAndNext(token) => {
                self.reserved.push((token, even + 1));
                (even, even + 2)
            }
            PortWish::Reserved(token) => {
                let at = self.reserved.iter().position(|(kept, _)| *kept == token);
                let (_, port) = self.reserved.remove(at.ok_or(PortFailure::Capacity)?);
                (port, self.next_port)
            }
        };
        self.next_port = next;
        Ok(port)
    }
}
