//! A synthetic TURN client on a blocking socket: UDP, or whatever else is a [`Link`].
//!
//! Its messages are made and read by the `stun` and `turn` crates, which share no code with the
//! relay. It counts every byte that crosses its socket, so that sums over clients can be compared
//! with the relay's counters to the byte.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use stun::attributes::{ATTR_NONCE, ATTR_REALM, ATTR_USERNAME};
use stun::error_code::ErrorCodeAttribute;
use stun::integrity::MessageIntegrity;
use stun::message::{
    CLASS_ERROR_RESPONSE, CLASS_INDICATION, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter as _,
    METHOD_ALLOCATE, METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_REFRESH, METHOD_SEND,
    Message, MessageType, Method, Setter,
};
use stun::textattrs::TextAttribute;
use turn::proto::PROTO_UDP;
use turn::proto::chandata::ChannelData;
use turn::proto::channum::ChannelNumber;
use turn::proto::data::Data;
use turn::proto::lifetime::Lifetime;
use turn::proto::peeraddr::PeerAddress;
use turn::proto::relayaddr::RelayedAddress;
use turn::proto::reqtrans::RequestedTransport;

use crate::counters::Flow;
use crate::{Failure, Outcome};

/// Largest datagram that the client reads, in bytes.
const DATAGRAM_MAX: usize = 65_535;

/// What a TURN server asks for: a user name and its password, of the REST form or not.
#[derive(Clone, Debug)]
pub struct Credential {
    /// `<unix expiry>:<user>`, or a plain name.
    pub username: String,
    /// The password that belongs to it.
    pub password: String,
}

/// What crossed a socket, in bytes above UDP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// From the client.
    pub sent: Flow,
    /// To the client.
    pub received: Flow,
}

/// Payload that a peer sent through the relay.
#[derive(Debug, Eq, PartialEq)]
pub enum Received {
    /// By ChannelData on this channel.
    Channel(u16, Vec<u8>),
    /// By a Data indication from this peer.
    Indication(SocketAddr, Vec<u8>),
}

/// What carries a client's messages to one server, and waits.
pub trait Link {
    /// Sends one message.
    ///
    /// # Errors
    /// The socket's.
    fn send_message(&mut self, message: &[u8], server: SocketAddr) -> io::Result<()>;

    /// Waits for one message.
    ///
    /// # Errors
    /// Nothing came in time, or the socket's.
    fn receive_message(&mut self) -> io::Result<Vec<u8>>;
}

impl Link for UdpSocket {
    fn send_message(&mut self, message: &[u8], server: SocketAddr) -> io::Result<()> {
        self.send_to(message, server).map(drop)
    }

    fn receive_message(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; DATAGRAM_MAX];
        let (length, _) = self.recv_from(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// One allocation on a TURN server, with the socket it belongs to.
#[derive(Debug)]
pub struct Allocation<L = UdpSocket> {
    socket: L,
    server: SocketAddr,
    credential: Credential,
    realm: String,
    nonce: String,
    relayed: SocketAddr,
    tally: Tally,
}

impl<L: Link> Allocation<L> {
    /// Allocates over `socket`, answering the server's challenge (RFC 8489 §9.2, RFC 8656 §7).
    ///
    /// # Errors
    /// No answer, or a refusal: the text has the error code.
    pub fn open(socket: L, server: SocketAddr, credential: Credential) -> Outcome<Self> {
        let mut client = Self {
            socket,
            server,
            credential,
            realm: String::new(),
            nonce: String::new(),
            relayed: server,
            tally: Tally::default(),
        };
        let ask: Vec<Box<dyn Setter>> = vec![Box::new(RequestedTransport { protocol: PROTO_UDP })];
        let challenge = client.exchange(METHOD_ALLOCATE, &ask)?;
        client.realm = text(&challenge, ATTR_REALM)?;
        client.nonce = text(&challenge, ATTR_NONCE)?;
        let granted = client.request(METHOD_ALLOCATE, ask)?;
        let mut relayed = RelayedAddress::default();
        relayed.get_from(&granted).map_err(|error| Failure::new(error.to_string()))?;
        client.relayed = SocketAddr::new(relayed.ip, relayed.port);
        Ok(client)
    }

    /// The relayed transport address.
    #[must_use]
    pub fn relayed(&self) -> SocketAddr {
        self.relayed
    }

    /// The socket, to look at.
    #[must_use]
    pub fn link(&self) -> &L {
        &self.socket
    }

    /// The socket, to send on without asking the client.
    pub fn link_mut(&mut self) -> &mut L {
        &mut self.socket
    }

    /// What crossed the socket so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Permits `peer` to send (RFC 8656 §10).
    ///
    /// # Errors
    /// As [`Allocation::open`].
    pub fn permit(&mut self, peer: SocketAddr) -> Outcome<()> {
        self.request(METHOD_CREATE_PERMISSION, vec![Box::new(address(peer))]).map(drop)
    }

    /// Binds `channel`, 0x4000 to 0x4FFF, to `peer` (RFC 8656 §12).
    ///
    /// # Errors
    /// As [`Allocation::open`].
    pub fn bind(&mut self, channel: u16, peer: SocketAddr) -> Outcome<()> {
        let with: Vec<Box<dyn Setter>> =
            vec![Box::new(ChannelNumber(channel)), Box::new(address(peer))];
        self.request(METHOD_CHANNEL_BIND, with).map(drop)
    }

    /// Gives the allocation back (RFC 8656 §8).
    ///
    /// # Errors
    /// As [`Allocation::open`].
    pub fn close(&mut self) -> Outcome<()> {
        self.request(METHOD_REFRESH, vec![Box::new(Lifetime(Duration::ZERO))]).map(drop)
    }

    /// Sends `payload` by ChannelData.
    ///
    /// # Errors
    /// The socket's.
    pub fn send_channel(&mut self, channel: u16, payload: &[u8]) -> Outcome<()> {
        // Not ChannelData::encode of the oracle: that pads, which UDP does not need (RFC 8656
        // §12.5), and the bytes of this test are counted.
        let length = u16::try_from(payload.len()).map_err(|_| Failure::new("payload too long"))?;
        let mut bytes = channel.to_be_bytes().to_vec();
        bytes.extend(length.to_be_bytes());
        bytes.extend(payload);
        self.send(&bytes)
    }

    /// Sends `payload` to `peer` by a Send indication (RFC 8656 §11.1).
    ///
    /// # Errors
    /// The socket's.
    pub fn send_indication(&mut self, peer: SocketAddr, payload: &[u8]) -> Outcome<()> {
        let with: [Box<dyn Setter>; 2] = [Box::new(address(peer)), Box::new(Data(payload.into()))];
        let message = build(MessageType::new(METHOD_SEND, CLASS_INDICATION), &with)?;
        self.send(&message.raw)
    }

    /// Waits for the next payload from a peer.
    ///
    /// # Errors
    /// Nothing came in time, or something else than ChannelData or a Data indication.
    pub fn receive(&mut self) -> Outcome<Received> {
        let raw = self.receive_datagram()?;
        if ChannelData::is_channel_data(&raw) {
            let mut data = ChannelData { raw, ..ChannelData::default() };
            data.decode().map_err(|error| Failure::new(error.to_string()))?;
            return Ok(Received::Channel(data.number.0, data.data));
        }
        let message = decode(raw)?;
        let (mut peer, mut data) = (PeerAddress::default(), Data::default());
        peer.get_from(&message)
            .and_then(|()| data.get_from(&message))
            .map_err(|error| Failure::new(format!("{}: {error}", message.typ)))?;
        Ok(Received::Indication(SocketAddr::new(peer.ip, peer.port), data.0))
    }

    /// An authenticated request that must succeed.
    fn request(&mut self, method: Method, mut with: Vec<Box<dyn Setter>>) -> Outcome<Message> {
        let Credential { username, password } = self.credential.clone();
        let realm = self.realm.clone();
        with.push(Box::new(TextAttribute::new(ATTR_USERNAME, username.clone())));
        with.push(Box::new(TextAttribute::new(ATTR_REALM, realm.clone())));
        with.push(Box::new(TextAttribute::new(ATTR_NONCE, self.nonce.clone())));
        let integrity = MessageIntegrity::new_long_term_integrity(username, realm, password);
        with.push(Box::new(integrity.clone()));
        let mut answer = self.exchange(method, &with)?;
        if answer.typ.class == CLASS_SUCCESS_RESPONSE {
            let wrong = |error| Failure::new(format!("{method} answer: {error}"));
            integrity.check(&mut answer).map_err(wrong)?;
            return Ok(answer);
        }
        let mut code = ErrorCodeAttribute::default();
        let _ = code.get_from(&answer);
        Err(Failure::new(format!("{method} refused: {}", code.code.0)))
    }

    /// Sends a request and waits for its answer, success or error. Laboratories lose nothing.
    fn exchange(&mut self, method: Method, with: &[Box<dyn Setter>]) -> Outcome<Message> {
        let request = build(MessageType::new(method, CLASS_REQUEST), with)?;
        self.send(&request.raw)?;
        let answer = decode(self.receive_datagram()?)?;
        let fits = answer.transaction_id == request.transaction_id
            && answer.typ.method == method
            && [CLASS_SUCCESS_RESPONSE, CLASS_ERROR_RESPONSE].contains(&answer.typ.class);
        if !fits {
            return Err(Failure::new(format!("{} is no answer to {}", answer.typ, request.typ)));
        }
        Ok(answer)
    }

    fn send(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.socket.send_message(bytes, self.server)?;
        self.tally.sent.add(bytes.len());
        Ok(())
    }

    fn receive_datagram(&mut self) -> Outcome<Vec<u8>> {
        let message = self
            .socket
            .receive_message()
            .map_err(|error| Failure::new(format!("nothing from {}: {error}", self.server)))?;
        self.tally.received.add(message.len());
        Ok(message)
    }
}

fn address(peer: SocketAddr) -> PeerAddress {
    PeerAddress { ip: peer.ip(), port: peer.port() }
}

fn build(kind: MessageType, with: &[Box<dyn Setter>]) -> Outcome<Message> {
    let mut message = Message::new();
    let failed = |error: stun::Error| Failure::new(format!("{kind}: {error}"));
    message.new_transaction_id().map_err(failed)?;
    message.set_type(kind);
    message.write_header();
    for setter in with {
        setter.add_to(&mut message).map_err(failed)?;
    }
    Ok(message)
}

fn decode(raw: Vec<u8>) -> Outcome<Message> {
    let mut message = Message { raw, ..Message::new() };
    message.decode().map_err(|error| Failure::new(format!("not STUN: {error}")))?;
    Ok(message)
}

fn text(message: &Message, attribute: stun::attributes::AttrType) -> Outcome<String> {
    TextAttribute::get_from_as(message, attribute)
        .map(|found| found.text)
        .map_err(|error| Failure::new(format!("{}: {attribute}: {error}", message.typ)))
}
