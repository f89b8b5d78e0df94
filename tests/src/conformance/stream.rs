//! A client on a byte stream: TCP, or TLS by OpenSSL's own client.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::attr;
use super::client::{Incoming, incoming, judge};
use super::message::{Draft, HEADER_LEN, Session};
use super::record::Record;
use super::reply::Reply;
use super::trial::ARRIVAL_WAIT;
use super::verdict::Answer;
use crate::{Failure, Outcome};

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// A connection to a server.
pub struct Stream {
    writer: Box<dyn Write>,
    chunks: Receiver<Vec<u8>>,
    held: Vec<u8>,
    tcp: Option<TcpStream>,
    child: Option<Child>,
    record: Arc<Record>,
    /// Its user, and what the last challenge said.
    pub session: Session,
}

impl Stream {
    /// Connects from `from`, whose port may be 0.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(
        from: SocketAddr,
        to: SocketAddr,
        session: Session,
        record: Arc<Record>,
    ) -> Outcome<Self> {
        let domain = socket2::Domain::for_address(to);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&to.into(), ARRIVAL_WAIT)?;
        socket.set_tcp_nodelay(true)?;
        let tcp = TcpStream::from(socket);
        let (writer, reader) = (Box::new(tcp.try_clone()?), tcp.try_clone()?);
        Ok(Self {
            writer,
            chunks: pump(reader),
            held: Vec::new(),
            tcp: Some(tcp),
            child: None,
            record,
            session,
        })
    }

    /// Connects with TLS, offering these protocols by ALPN, separated by commas.
    ///
    /// # Errors
    /// OpenSSL cannot be run.
    pub fn tls(
        to: SocketAddr,
        protocols: Option<&str>,
        session: Session,
        record: Arc<Record>,
    ) -> Outcome<Self> {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-connect", &to.to_string()]);
        if let Some(protocols) = protocols {
            command.args(["-alpn", protocols]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let writer = child.stdin.take().expect("standard input is piped");
        let reader = child.stdout.take().expect("standard output is piped");
        Ok(Self {
            writer: Box::new(writer),
            chunks: pump(reader),
            held: Vec::new(),
            tcp: None,
            child: Some(child),
            record,
            session,
        })
    }

    /// Its own address, over TCP.
    ///
    /// # Errors
    /// There is none.
    pub fn address(&self) -> Outcome<SocketAddr> {
        let tcp = self.tcp.as_ref().ok_or_else(|| Failure::new("no TCP socket"))?;
        Ok(tcp.local_addr()?)
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.writer.write_all(bytes)?;
        self.writer.flush()?;
        Ok(())
    }

    /// Ends the client's side; the server may still answer.
    ///
    /// # Errors
    /// The kernel's.
    pub fn finish(&self) -> Outcome<()> {
        if let Some(tcp) = &self.tcp {
            tcp.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    /// Sends a message and reads its answer.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn ask(&mut self, draft: &Draft) -> Outcome<Answer> {
        self.send(draft.bytes())?;
        self.answer_to(draft)
    }

    /// Reads the answer to a message that was sent.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn answer_to(&mut self, draft: &Draft) -> Outcome<Answer> {
        let bytes = match self.frame(ARRIVAL_WAIT)? {
            Frame::Whole(bytes) => bytes,
            Frame::Closed => return Ok(Answer::Closed),
            Frame::Nothing => return Ok(Answer::Silent),
        };
        let Some(mut reply) = Reply::read(&bytes) else { return Ok(Answer::Strange(bytes)) };
        judge(&mut reply, draft);
        self.record.note(&reply);
        Ok(Answer::Reply(Box::new(reply)))
    }

    /// Signs a request for this client's user and asks.
    ///
    /// # Errors
    /// As [`Stream::ask`].
    pub fn request(&mut self, draft: Draft) -> Outcome<Answer> {
        let draft = draft.signed(&self.session);
        self.ask(&draft)
    }

    /// Asks for realm and nonce.
    ///
    /// # Errors
    /// There is no challenge.
    pub fn login(&mut self) -> Outcome<Reply> {
        let answer = self.ask(&Draft::allocate())?;
        self.session.challenged(&answer)
    }

    /// Opens an allocation for UDP and IPv4; its relayed address.
    ///
    /// # Errors
    /// The server refuses.
    pub fn allocate(&mut self) -> Outcome<SocketAddr> {
        self.login()?;
        let granted = self.request(Draft::allocate())?.succeeded("Allocate")?;
        let relayed = granted.address(attr::XOR_RELAYED_ADDRESS);
        relayed.ok_or_else(|| Failure::new("no relayed address"))
    }

    /// The next payload from a peer and the bytes that brought it, padding included.
    ///
    /// # Errors
    /// It does not come.
    pub fn hear(&mut self) -> Outcome<(Incoming, Vec<u8>)> {
        match self.frame(ARRIVAL_WAIT)? {
            Frame::Whole(bytes) => Ok((incoming(&bytes)?, bytes)),
            _ => Err(Failure::new("nothing reaches the client")),
        }
    }

    /// Whether the server closes the connection within `wait`, whatever it sends before.
    pub fn closes_within(&mut self, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.chunks.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    /// The next message: STUN, or ChannelData with its padding (RFC 8656 §12.5).
    fn frame(&mut self, wait: Duration) -> Outcome<Frame> {
        let end = Instant::now() + wait;
        loop {
            if let Some(length) = frame_len(&self.held).filter(|length| *length <= self.held.len())
            {
                let rest = self.held.split_off(length);
                return Ok(Frame::Whole(std::mem::replace(&mut self.held, rest)));
            }
            match self.chunks.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.held.extend(chunk),
                Err(RecvTimeoutError::Disconnected) => return Ok(Frame::Closed),
                Err(RecvTimeoutError::Timeout) => return Ok(Frame::Nothing),
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(tcp) = &self.tcp {
            // Ends the reader's thread, too. It may be closed already.
            let _ = tcp.shutdown(Shutdown::Both);
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What OpenSSL's client says about a handshake that offers these protocols.
///
/// # Errors
/// OpenSSL cannot be run.
pub fn handshake(to: SocketAddr, protocols: &str) -> Outcome<String> {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &to.to_string(), "-alpn", protocols])
        .stdin(Stdio::null())
        .output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

enum Frame {
    Whole(Vec<u8>),
    Closed,
    Nothing,
}

/// Length of the message that begins here, `None` while that is unknown.
fn frame_len(held: &[u8]) -> Option<usize> {
    let [first, _, l0, l1, ..] = held else { return None };
    let length = usize::from(u16::from_be_bytes([*l0, *l1]));
    Some(if *first >= 0x40 { 4 + length.next_multiple_of(4) } else { HEADER_LEN + length })
}

/// Reads on a thread of its own until the end, so that waiting can have a limit.
fn pump(mut reader: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length) = reader.read(&mut buffer) {
            let ended = length == 0 || sender.send(buffer[..length].to_vec()).is_err();
            if ended {
                break;
            }
        }
    });
    receiver
}
