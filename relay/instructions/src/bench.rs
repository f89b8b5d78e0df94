//! One relay, with an edge that opens every port at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use relay_proto::attribute as attr;
use relay_proto::auth::{Credentials, ExpiryMode};
use relay_proto::credential::{self, LongTermKey};
use relay_proto::policy::{PeerPolicy, RelayIp};
use relay_proto::stun::{Class, Message, Method, TransactionId, Writer};
use relay_proto::{
    AllocationId, ClientAddr, Effect, Keys, Now, Relay, RelayAddr, Settings, Transport,
};

const REALM: &str = "castling";
const SECRET: &[u8] = b"counts for nothing outside";
const PORTS: (u16, u16) = (49_152, 65_535);

/// Runs `work`; valgrind counts what happens here and nothing else.
#[inline(never)]
pub fn counted(work: &mut dyn FnMut()) {
    work();
}

/// A relay, its time and its edge.
pub struct Bench {
    pub relay: Relay,
    pub now: Now,
    /// The port that was opened last.
    pub opened: Option<(AllocationId, RelayAddr)>,
    next_port: u16,
    next_id: u64,
}

/// A client with a credential and a nonce.
pub struct Client {
    pub addr: ClientAddr,
    username: String,
    key: LongTermKey,
    nonce: Vec<u8>,
}

impl Bench {
    pub fn new() -> Self {
        let ip = [203, 0, 113, 1].into();
        let settings = Settings {
            credentials: Credentials::new(REALM.to_owned(), vec![SECRET.to_vec()], BTreeMap::new()),
            policy: PeerPolicy {
                relay_ips: vec![RelayIp { local: ip, external: ip }],
                relay_ports: PORTS.0..=PORTS.1,
                service_ports: vec![3478],
                own_ips: vec![ip],
                allow: vec!["198.51.100.0/24".parse().expect("a network")],
                deny: vec![],
            },
            permissions_max: 64,
            channels_max: 64,
            expiry_mode: ExpiryMode::New,
            session_s_max: None,
            rfc5766_channels: false,
            strict_channels: false,
            rate_max: None,
        };
        Self {
            relay: Relay::new(settings, &Keys { nonce: [1; 32], seed: [2; 32] }),
            now: Now { mono_ms: 5_001_234, unix_s: 1_800_000_000 },
            opened: None,
            next_port: PORTS.0,
            next_id: 0,
        }
    }

    /// A client at this port that has asked for its nonce.
    pub fn client(&mut self, port: u16) -> Client {
        let expires = self.now.unix_s + 3_600;
        let made = credential::mint(SECRET, &format!("maths.{port}"), expires);
        let key = credential::long_term_key(&made.username, REALM, &made.password);
        let addr = client_addr(port);
        let mut client = Client { addr, username: made.username, key, nonce: Vec::new() };
        let asked = self.message(Method::Allocate, Class::Request, allocate);
        self.relay.from_client(self.now, addr, &asked);
        let Some(Effect::Reply { bytes, .. }) = self.relay.next_effect() else {
            panic!("a challenge was expected");
        };
        let reply = Message::parse(bytes).expect("whole");
        client.nonce = reply.attribute(attr::NONCE).expect("a nonce").to_vec();
        client
    }

    /// A client with an allocation.
    pub fn member(&mut self, port: u16) -> (Client, AllocationId, RelayAddr) {
        let client = self.client(port);
        let asked = self.request(&client, Method::Allocate, allocate);
        self.perform(client.addr, &asked);
        let (id, relayed) = self.opened.take().expect("a port was asked for");
        (client, id, relayed)
    }

    /// Gives `number` to a peer.
    pub fn bind(&mut self, client: &Client, number: u16, peer: SocketAddr) {
        let [high, low] = number.to_be_bytes();
        let asked = self.request(client, Method::ChannelBind, |writer| {
            writer
                .attribute(attr::CHANNEL_NUMBER, &[high, low, 0, 0])
                .xor_address(attr::XOR_PEER_ADDRESS, peer)
        });
        self.perform(client.addr, &asked);
    }

    /// Lets a peer through.
    pub fn permit(&mut self, client: &Client, peer: SocketAddr) {
        let asked = self.request(client, Method::CreatePermission, |writer| {
            writer.xor_address(attr::XOR_PEER_ADDRESS, peer)
        });
        self.perform(client.addr, &asked);
    }

    /// Has a request answered, which must succeed.
    pub fn perform(&mut self, from: ClientAddr, bytes: &[u8]) {
        self.relay.from_client(self.now, from, bytes);
        assert_eq!(self.drain(), Some(Class::Success), "the request was answered");
    }

    /// Does what the relay wants; the class of its last reply.
    pub fn drain(&mut self) -> Option<Class> {
        let mut replied = None;
        while let Some(effect) = self.relay.next_effect() {
            let id = match effect {
                Effect::Reply { bytes, .. } => {
                    // C0 tells an error from a success (RFC 8489 §5).
                    let is_error = bytes.get(1).is_some_and(|byte| byte & 0x10 != 0);
                    replied = Some(if is_error { Class::Error } else { Class::Success });
                    continue;
                }
                Effect::ClosePort { .. } => continue,
                Effect::OpenPort { id, .. } => id,
            };
            let relayed = RelayAddr(([203, 0, 113, 1], self.next_port).into());
            self.next_port = self.next_port.checked_add(1).unwrap_or(PORTS.0);
            self.opened = Some((id, relayed));
            self.relay.port_opened(id, relayed);
        }
        replied
    }

    /// A request with credentials.
    pub fn request(
        &mut self,
        client: &Client,
        method: Method,
        fill: impl FnOnce(Writer<'_>) -> Writer<'_>,
    ) -> Vec<u8> {
        self.message(method, Class::Request, |writer| {
            fill(writer)
                .attribute(attr::USERNAME, client.username.as_bytes())
                .attribute(attr::REALM, REALM.as_bytes())
                .attribute(attr::NONCE, &client.nonce)
                .integrity(&client.key)
        })
    }

    /// A message without credentials.
    pub fn message(
        &mut self,
        method: Method,
        class: Class,
        fill: impl FnOnce(Writer<'_>) -> Writer<'_>,
    ) -> Vec<u8> {
        self.next_id += 1;
        let mut id: TransactionId = *b"instructions";
        id[4..].copy_from_slice(&self.next_id.to_be_bytes());
        let mut bytes = Vec::new();
        fill(Writer::new(&mut bytes, method, class, id)).finish();
        bytes
    }
}

/// What Allocate asks for: UDP to peers (RFC 8656 §7.1).
pub fn allocate(writer: Writer<'_>) -> Writer<'_> {
    writer.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
}

fn client_addr(port: u16) -> ClientAddr {
    ClientAddr {
        remote: ([192, 0, 2, 1], port).into(),
        local: None,
        listener: 0,
        transport: Transport::Udp,
    }
}
