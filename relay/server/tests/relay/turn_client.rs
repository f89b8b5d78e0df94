//! A TURN client on a real socket, of either transport.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};

use relay_proto::attribute as attr;
use relay_proto::credential::{LongTermKey, long_term_key};
use relay_proto::framing::{Trust, split_first};
use relay_proto::stun::{Class, Message, Method, TransactionId, Writer};

use crate::PATIENCE;

/// The static user of these tests, as on the command line.
pub const USER: &str = "ana:a-long-password";

/// A stream towards the relay.
pub trait Stream: Read + Write {
    /// Says that nothing more will be written.
    fn end(&mut self);
}

impl Stream for TcpStream {
    fn end(&mut self) {
        self.shutdown(Shutdown::Write).expect("ended");
    }
}

/// A socket towards the relay.
enum Socket {
    Udp(UdpSocket),
    Stream { stream: Box<dyn Stream>, held: Vec<u8> },
}

pub struct TurnClient {
    socket: Socket,
    username: String,
    key: LongTermKey,
    nonce: Vec<u8>,
}

impl TurnClient {
    pub fn over_udp(to: SocketAddr) -> Self {
        let any = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(any).expect("bound");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        socket.connect(to).expect("connected");
        Self::new(Socket::Udp(socket))
    }

    pub fn over_tcp(to: SocketAddr) -> Self {
        Self::on(TcpStream::connect(to).expect("connected"))
    }

    pub fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_nodelay(true).expect("no delay");
        Self::inside(stream)
    }

    pub fn inside(stream: impl Stream + 'static) -> Self {
        Self::new(Socket::Stream { stream: Box::new(stream), held: Vec::new() })
    }

    fn new(socket: Socket) -> Self {
        let (name, password) = USER.split_once(':').expect("name and password");
        let key = long_term_key(name, "castling", password);
        Self { socket, username: name.to_owned(), key, nonce: Vec::new() }
    }

    /// The same socket with another credential.
    pub fn with(mut self, username: &str, password: &str) -> Self {
        self.key = long_term_key(username, "castling", password);
        username.clone_into(&mut self.username);
        self
    }

    /// Asks for an allocation; the error code if there is none.
    pub fn try_allocate(&mut self) -> Result<SocketAddr, u16> {
        Ok(self.try_allocate_with(|w| w)?[0])
    }

    /// The same with more attributes, and all the relayed addresses.
    pub fn try_allocate_with(
        &mut self,
        more: impl FnOnce(Writer<'_>) -> Writer<'_>,
    ) -> Result<Vec<SocketAddr>, u16> {
        let transport = |w: Writer<'_>| finish(w.attribute(attr::REQUESTED_TRANSPORT, &UDP));
        let challenge = self.message(Method::Allocate, Class::Request, transport);
        let challenge = self.ask(&challenge);
        let challenge = Message::parse(&challenge).expect("STUN");
        self.nonce = challenge.attribute(attr::NONCE).expect("nonce").to_vec();
        let request =
            self.request(Method::Allocate, |w| more(w.attribute(attr::REQUESTED_TRANSPORT, &UDP)));
        let answer = self.ask(&request);
        let answer = Message::parse(&answer).expect("STUN");
        if let Some(error) = answer.attribute(attr::ERROR_CODE) {
            return Err(u16::from(error[2]) * 100 + u16::from(error[3]));
        }
        let relayed = answer.attributes().filter(|(kind, _)| *kind == attr::XOR_RELAYED_ADDRESS);
        Ok(relayed.map(|(_, value)| answer.unxor(value).expect("address")).collect())
    }

    /// Allocates, and says which relayed address it got.
    pub fn allocate(&mut self) -> SocketAddr {
        self.try_allocate().expect("allocated")
    }

    /// The socket of a client over UDP.
    pub fn udp(&self) -> &UdpSocket {
        let Socket::Udp(socket) = &self.socket else { panic!("not over UDP") };
        socket
    }

    pub fn permit(&mut self, peer: SocketAddr) {
        let request =
            self.request(Method::CreatePermission, |w| w.xor_address(attr::XOR_PEER_ADDRESS, peer));
        assert!(is_success(&self.ask(&request)));
    }

    /// A Send indication, with DONT-FRAGMENT if it is to stay `whole`.
    pub fn indicate(&mut self, peer: SocketAddr, payload: &[u8], whole: bool) {
        let bytes = self.message(Method::Send, Class::Indication, |w| {
            let w = w.xor_address(attr::XOR_PEER_ADDRESS, peer).attribute(attr::DATA, payload);
            finish(if whole { w.attribute(attr::DONT_FRAGMENT, &[]) } else { w });
        });
        self.send(&bytes);
    }

    pub fn bind(&mut self, number: u16, peer: SocketAddr) {
        let request = self.bind_request(number, peer);
        assert!(is_success(&self.ask(&request)));
    }

    pub fn bind_request(&mut self, number: u16, peer: SocketAddr) -> Vec<u8> {
        self.request(Method::ChannelBind, |w| {
            let [high, low] = number.to_be_bytes();
            w.attribute(attr::CHANNEL_NUMBER, &[high, low, 0, 0])
                .xor_address(attr::XOR_PEER_ADDRESS, peer)
        })
    }

    /// A request with the client's credentials.
    pub fn request(
        &mut self,
        method: Method,
        fill: impl FnOnce(Writer<'_>) -> Writer<'_>,
    ) -> Vec<u8> {
        let (key, nonce, name) = (self.key, self.nonce.clone(), self.username.clone());
        self.message(method, Class::Request, |w| {
            let w = fill(w).attribute(attr::USERNAME, name.as_bytes());
            let w = w.attribute(attr::REALM, b"castling").attribute(attr::NONCE, &nonce);
            finish(w.integrity(&key));
        })
    }

    pub fn binding(&mut self) -> Vec<u8> {
        self.message(Method::Binding, Class::Request, finish)
    }

    fn message(&mut self, method: Method, class: Class, fill: impl FnOnce(Writer<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        fill(Writer::new(&mut bytes, method, class, transaction_id()));
        bytes
    }

    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.send(request);
        self.next().expect("answered")
    }

    pub fn send(&mut self, bytes: &[u8]) {
        match &mut self.socket {
            Socket::Udp(socket) => assert_eq!(socket.send(bytes).expect("sent"), bytes.len()),
            Socket::Stream { stream, .. } => {
                stream.write_all(bytes).expect("sent");
                stream.flush().expect("sent");
            }
        }
    }

    /// The next message with its padding; `None` at the end of the stream.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 65_536];
        let (stream, held) = match &mut self.socket {
            Socket::Udp(socket) => {
                let length = socket.recv(&mut buffer).expect("received");
                return Some(buffer[..length].to_vec());
            }
            Socket::Stream { stream, held } => (stream, held),
        };
        loop {
            if let Some((message, rest)) = split_first(held, Trust::Client).expect("framed") {
                let (message, rest) = (message.to_vec(), rest.to_vec());
                *held = rest;
                return Some(message);
            }
            match stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => held.extend_from_slice(&buffer[..length]),
                // What the relay did not read when it closed resets the stream.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Says that nothing more will be sent.
    pub fn end(&mut self) {
        let Socket::Stream { stream, .. } = &mut self.socket else {
            panic!("datagrams have no end")
        };
        stream.end();
    }
}

/// Never the same twice: clients of a test may be given the same port one after the other, and
/// a repeated id would pass for a retransmission.
fn transaction_id() -> TransactionId {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    let mut id = *b"test        ";
    id[4..].copy_from_slice(&DRAWN.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    id
}

const UDP: [u8; 4] = [attr::TRANSPORT_UDP, 0, 0, 0];

fn finish(writer: Writer<'_>) {
    writer.finish();
}

pub fn is_success(bytes: &[u8]) -> bool {
    Message::parse(bytes).expect("STUN").class == Class::Success
}

/// ChannelData, padded for a stream.
pub fn channel_data(number: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a datagram");
    let mut bytes = [&number.to_be_bytes(), &length.to_be_bytes(), payload].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
