//! A client's stream of bytes, in the clear or inside TLS, without ever waiting.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::time::Duration;

use rustls::ServerConnection;
use tokio::net::TcpStream;

use super::backlog::Backlog;
use super::overhead::Overhead;

/// Most bytes of TLS that one read takes. What they open, after the rest of a record and behind
/// the rest of a message, still fits where streams are read into.
pub const SEALED_LEN: usize = 16 << 10;

/// A stream to a client.
pub enum Pipe {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<Tls>),
}

/// What a read has brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrived {
    /// Bytes for the framing.
    pub length: usize,
    /// What comes after them.
    pub next: Next,
}

/// What comes after the bytes of a read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// More, some time.
    More,
    /// Nothing: the client has ended its side.
    End,
    /// Nothing that can be understood: TLS has failed, and [`Pipe::close`] tells the client why.
    Broken,
}

impl Pipe {
    /// Waits until there is something to read.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket().readable().await
    }

    /// Waits until something can be written.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket().writable().await
    }

    /// Reads once into `bytes`; `sealed` is room for what is still to be opened.
    ///
    /// # Errors
    /// The kernel's; that nothing is there is none.
    pub fn read(&mut self, bytes: &mut [u8], sealed: &mut [u8]) -> io::Result<Arrived> {
        match self {
            Self::Plain(socket) => Ok(match ready(socket.try_read(bytes))? {
                None => Arrived { length: 0, next: Next::More },
                Some(0) => Arrived { length: 0, next: Next::End },
                Some(length) => Arrived { length, next: Next::More },
            }),
            Self::Tls(tls) => tls.read(bytes, sealed),
        }
    }

    /// Writes once, as many messages as go into one call.
    ///
    /// # Errors
    /// The kernel's; that there is no room is none.
    pub fn write(&mut self, backlog: &mut Backlog) -> io::Result<()> {
        match self {
            Self::Plain(socket) => {
                let written = ready(socket.try_write_vectored(&backlog.pieces()))?;
                backlog.wrote(written.unwrap_or(0));
                Ok(())
            }
            Self::Tls(tls) => tls.write(backlog),
        }
    }

    /// Whether bytes wait that are in the backlog no longer.
    pub fn holds_bytes(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.session.wants_write(),
        }
    }

    /// Bytes received and sent since this was last asked that belong to no message.
    pub fn overhead(&mut self) -> Option<(usize, usize)> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => Some(tls.overhead.take()),
        }
    }

    /// Says goodbye, or what was wrong, if that can be said at once.
    pub fn close(&mut self) {
        if let Self::Tls(tls) = self {
            tls.session.send_close_notify();
            // Whoever does not hear it sees the end of TCP.
            let _ = tls.flush();
        }
    }

    /// Ends the stream without another byte, those included that the kernel still holds.
    pub fn abort(&self) {
        // Where the kernel refuses, the stream ends in order, which is all that is left to do.
        let _ = socket2::SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }
}

/// TLS without I/O, and the socket beside it.
///
/// Only as much is encrypted as goes out with one call, so that whatever waits longer is still
/// media in the backlog, where the oldest makes room for the newest.
pub struct Tls {
    socket: TcpStream,
    session: ServerConnection,
    overhead: Overhead,
}

impl Tls {
    /// A connection whose handshake is to come.
    pub fn new(socket: TcpStream, session: ServerConnection) -> Self {
        Self { socket, session, overhead: Overhead::default() }
    }

    fn read(&mut self, bytes: &mut [u8], sealed: &mut [u8]) -> io::Result<Arrived> {
        let count = match ready(self.socket.try_read(sealed))? {
            None => return Ok(Arrived { length: 0, next: Next::More }),
            Some(0) => return Ok(Arrived { length: 0, next: Next::End }),
            Some(count) => count,
        };
        let arrived = self.open(&sealed[..count], bytes);
        self.overhead.opened(&sealed[..count], arrived.length);
        Ok(arrived)
    }

    fn open(&mut self, mut sealed: &[u8], bytes: &mut [u8]) -> Arrived {
        let mut length = 0;
        while !sealed.is_empty() {
            let opened = self.session.read_tls(&mut sealed).and_then(|count| {
                let state = self.session.process_new_packets().map_err(io::Error::other)?;
                let end = length + state.plaintext_bytes_to_read();
                let room = bytes.get_mut(length..end).filter(|_| count > 0);
                let room = room.ok_or(io::ErrorKind::InvalidData)?;
                self.session.reader().read_exact(room)?;
                Ok((end, state.peer_has_closed()))
            });
            match opened {
                Ok((end, false)) => length = end,
                // Whatever follows the goodbye means nothing (RFC 8446 §6.1).
                Ok((end, true)) => return Arrived { length: end, next: Next::End },
                Err(error) => {
                    tracing::debug!(%error, "TLS");
                    return Arrived { length, next: Next::Broken };
                }
            }
        }
        Arrived { length, next: Next::More }
    }

    fn write(&mut self, backlog: &mut Backlog) -> io::Result<()> {
        if !self.session.wants_write() {
            let taken = self.seal(&backlog.pieces())?;
            self.overhead.sealed(taken);
            backlog.wrote(taken);
        }
        self.flush()
    }

    /// Seals each message by itself, as many as there is room for: a client can open it as soon
    /// as it is there, and some take a record for a message.
    fn seal(&mut self, messages: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = 0;
        for message in messages {
            let count = self.session.writer().write(message)?;
            taken += count;
            if count < message.len() {
                break;
            }
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match ready(self.session.write_tls(&mut Socket(&self.socket)))? {
                None => break,
                Some(count) => self.overhead.wrote(count),
            }
        }
        Ok(())
    }
}

/// A socket as rustls writes to it.
struct Socket<'a>(&'a TcpStream);

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `None` if it would have to wait.
fn ready(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
