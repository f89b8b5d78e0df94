//! A server on loopback and people who talk to it.

use std::net::SocketAddr;
use std::time::Duration;

use castling_relay::settings::{Settings, command};
use castling_signaling::Server;
use castling_signaling::config::{Config, PROGRAM, flags};
use castling_signaling::protocol::{
    ClientMessage, ErrorCode, LinkBody, Media, Peer, ServerMessage, VERSION,
};
use castling_signaling::socket::Timing;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// A wait that never ends is a failure; nothing is expected to take this long.
const PATIENCE: Duration = Duration::from_secs(20);

pub const MEDIA: Media = Media { mic: true, cam: false };
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A running server and the folder that it keeps its state in.
pub struct School {
    pub server: Server,
    _folder: tempfile::TempDir,
}

impl School {
    /// A server that hands out a stand-alone relay, with more flags if any.
    pub async fn open(more: &[&str]) -> Self {
        Self::stand_alone(more, Timing::default()).await
    }

    /// The same, and time runs otherwise.
    pub async fn timed(timing: Timing) -> Self {
        Self::stand_alone(&[], timing).await
    }

    /// Both.
    pub async fn stand_alone(more: &[&str], timing: Timing) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, SECRET).expect("secret");
        let secret = secret.display().to_string();
        let mut args = vec!["--secret-file", &secret];
        args.push("--relay=turn:relay.example:3478?transport=udp");
        args.extend(more);
        let args: Vec<_> = args.into_iter().map(str::to_owned).collect();
        Self::with(folder, &args, timing).await
    }

    /// A server with these flags; the folder lives as long as it does.
    pub async fn with(folder: tempfile::TempDir, args: &[String], timing: Timing) -> Self {
        let config = Config { timing, ..config(args).expect("settings") };
        let server = castling_signaling::start(config).await.expect("server");
        Self { server, _folder: folder }
    }

    /// A WebSocket with this `Origin`, or the status of its refusal.
    pub async fn try_connect(&self, origin: Option<&str>) -> Result<Person, u16> {
        let stream = TcpStream::connect(self.server.address()).await.expect("connected");
        let headers: Vec<_> = origin.map(|origin| ("origin", origin)).into_iter().collect();
        self.upgrade(stream, &headers).await
    }

    /// A WebSocket of the server's own page that comes through a proxy.
    pub async fn connect_from(&self, address: &str) -> Person {
        let stream = TcpStream::connect(self.server.address()).await.expect("connected");
        let origin = format!("http://{}", self.server.address());
        let headers = [("origin", &*origin), ("x-forwarded-for", address)];
        self.upgrade(stream, &headers).await.expect("own origin")
    }

    /// A WebSocket of somebody for whom the kernel keeps little.
    pub async fn connect_with_buffer(&self, bytes: u32) -> Person {
        let socket = TcpSocket::new_v4().expect("socket");
        socket.set_recv_buffer_size(bytes).expect("buffer size");
        let stream = socket.connect(self.server.address()).await.expect("connected");
        let origin = format!("http://{}", self.server.address());
        self.upgrade(stream, &[("origin", &origin)]).await.expect("own origin")
    }

    async fn upgrade(
        &self,
        stream: TcpStream,
        headers: &[(&'static str, &str)],
    ) -> Result<Person, u16> {
        let address = self.server.address();
        let mut request = format!("ws://{address}/ws").into_client_request().expect("request");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(Person { socket }),
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
                Err(answer.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A WebSocket of the server's own page.
    pub async fn connect(&self) -> Person {
        let origin = format!("http://{}", self.server.address());
        self.try_connect(Some(&origin)).await.expect("own origin")
    }

    /// Somebody who is in the room.
    pub async fn enter(&self, room: &str, name: &str) -> (Person, Welcome) {
        let mut person = self.connect().await;
        person.say(&hello(room, name)).await;
        let welcome = person.welcome().await;
        (person, welcome)
    }

    /// Status, head and body of an answer; `more` are header lines.
    pub async fn get(&self, path: &str, more: &str) -> Answer {
        request(self.server.address(), "GET", path, more).await
    }
}

/// The configuration that these arguments yield, on free ports.
pub fn config(args: &[String]) -> Result<Config, String> {
    let flags = flags();
    let free = ["--listen=127.0.0.1:0", "--admin=127.0.0.1:0"].map(str::to_owned);
    let given = |flag: &str| args.iter().any(|arg| arg.starts_with(&flag[..8]));
    let free = free.into_iter().filter(|flag| !given(flag));
    let line = std::iter::once("test".to_owned()).chain(free).chain(args.iter().cloned());
    let matches = command(PROGRAM, "", &flags).try_get_matches_from(line).expect("flags");
    let settings = Settings::load(&matches, &flags, |_| None, PROGRAM);
    settings.and_then(|settings| Config::from_settings(&settings)).map_err(|e| e.to_string())
}

/// What a person is told first.
#[derive(Debug)]
pub struct Welcome {
    pub you: String,
    pub key: String,
    pub room: String,
    pub peers: Vec<Peer>,
    pub ice: castling_signaling::protocol::Ice,
}

/// One end of a WebSocket.
pub struct Person {
    socket: WebSocketStream<TcpStream>,
}

impl Person {
    pub async fn say(&mut self, message: &ClientMessage) {
        self.send(&serde_json::to_string(message).expect("message")).await;
    }

    pub async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("sent");
    }

    pub async fn send_frame(&mut self, frame: Message) -> bool {
        self.socket.send(frame).await.is_ok()
    }

    /// The next message of the server.
    pub async fn hear(&mut self) -> ServerMessage {
        match self.frame().await {
            Message::Text(text) => serde_json::from_str(&text).expect("a message"),
            other => panic!("not a message: {other:?}"),
        }
    }

    pub async fn welcome(&mut self) -> Welcome {
        match self.hear().await {
            ServerMessage::Welcome { you, key, room, peers, ice, .. } => {
                Welcome { you, key, room, peers, ice }
            }
            other => panic!("not a welcome: {other:?}"),
        }
    }

    /// The refusal that comes next, and its sentence.
    pub async fn refusal(&mut self) -> (ErrorCode, String) {
        match self.hear().await {
            ServerMessage::Error { code, text } => (code, text),
            other => panic!("not a refusal: {other:?}"),
        }
    }

    /// The code with which the server closes, whatever it said before.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.frame().await {
                return frame.expect("a code").code.into();
            }
        }
    }

    /// Says goodbye with a code and waits until the connection is closed.
    pub async fn leave(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.socket.send(Message::Close(Some(frame))).await.expect("sent");
        while let Ok(Some(Ok(_))) = timeout(PATIENCE, self.socket.next()).await {}
    }

    async fn frame(&mut self) -> Message {
        loop {
            let frame = timeout(PATIENCE, self.socket.next()).await.expect("in time");
            match frame.expect("open").expect("whole") {
                Message::Ping(_) | Message::Pong(_) => {}
                other => return other,
            }
        }
    }
}

pub fn hello(room: &str, name: &str) -> ClientMessage {
    ClientMessage::Hello { v: VERSION, room: room.to_owned(), name: name.to_owned(), media: MEDIA }
}

pub fn link(to: &str, body: LinkBody) -> ClientMessage {
    ClientMessage::Link { to: to.to_owned(), epoch: 1, body }
}

pub fn offer() -> LinkBody {
    LinkBody::Offer { sdp: "v=0".to_owned() }
}

pub fn answer() -> LinkBody {
    LinkBody::Answer { sdp: "v=0".to_owned() }
}

/// What an HTTP server said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of a header, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        let pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map_or("", |(_, value)| value)
    }
}

/// One request on a connection of its own. The path goes out as it is.
pub async fn request(at: SocketAddr, method: &str, path: &str, more: &str) -> Answer {
    let host = if more.to_lowercase().contains("host:") {
        String::new()
    } else {
        format!("Host: {at}\r\n")
    };
    let text = format!("{method} {path} HTTP/1.1\r\n{host}{more}Connection: close\r\n\r\n");
    let mut stream = TcpStream::connect(at).await.expect("connected");
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("in time").expect("answer");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
