//! A client's leg over TCP or TLS: it waits while the allocation is made, and never afterwards.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::SockRef;

use super::server::{LISTENER, TLS_LISTENER};
use crate::turn_client::Link;
use crate::{Failure, Outcome};

/// Room in the kernel for what is not sent yet, in bytes: a few milliseconds at full rate. What does
/// not fit is lost, as media that nobody waits for.
const SEND_BUFFER_LEN: usize = 64 << 10;
/// How long the relay may take to answer a request.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Longest read, in bytes.
const READ_MAX: usize = 64 << 10;
/// Reads of one look at a connection.
const READS_MAX: usize = 16;
/// STUN's header, in bytes (RFC 8489 §5), and that of ChannelData (RFC 8656 §12.4).
const STUN_HEADER_LEN: usize = 20;
const CHANNEL_HEADER_LEN: usize = 4;

/// A connection to the relay, and what waits on both sides of it.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
    unsent: Vec<u8>,
    unread: Vec<u8>,
    chunk: Vec<u8>,
}

impl Stream {
    /// Connects; with the `certificate` of the relay, a PEM file, by TLS.
    ///
    /// # Errors
    /// The relay refuses, or is another one.
    pub fn connect(certificate: Option<&Path>) -> Outcome<Self> {
        let to = if certificate.is_some() { TLS_LISTENER } else { LISTENER };
        let mut tcp = TcpStream::connect(to)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(ANSWER_WAIT))?;
        SockRef::from(&tcp).set_send_buffer_size(SEND_BUFFER_LEN)?;
        let mut tls = certificate.map(client).transpose()?.map(Box::new);
        if let Some(tls) = &mut tls {
            while tls.is_handshaking() {
                tls.complete_io(&mut tcp)?;
            }
        }
        let chunk = vec![0; READ_MAX];
        Ok(Self { tcp, tls, unsent: Vec::new(), unread: Vec::new(), chunk })
    }

    /// From now on [`Stream::push`] and [`Stream::pull`] may be used, and the waiting calls of
    /// [`Link`] not.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn stop_waiting(&self) -> Outcome<()> {
        Ok(self.tcp.set_nonblocking(true)?)
    }

    /// The socket below, to be told when there is something to read.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// Sends `bytes`, unless some before them still wait: then they are lost.
    ///
    /// # Errors
    /// The connection's.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.flush()?;
        if !self.waits() {
            self.queue(bytes)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Reads what is there and calls `each` with every message.
    ///
    /// # Errors
    /// The connection's, also if the relay ended it.
    pub fn pull(&mut self, each: impl FnMut(&[u8])) -> io::Result<()> {
        for _ in 0..READS_MAX {
            match self.read() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let done = messages(&self.unread, each);
        self.unread.drain(..done);
        self.flush()
    }

    fn waits(&self) -> bool {
        self.tls.as_ref().map_or(!self.unsent.is_empty(), |tls| tls.wants_write())
    }

    fn queue(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes),
            None => self.unsent.write_all(bytes),
        }
    }

    /// Writes as much as fits.
    fn flush(&mut self) -> io::Result<()> {
        while self.waits() {
            let written = match &mut self.tls {
                Some(tls) => tls.write_tls(&mut self.tcp),
                None => self.tcp.write(&self.unsent).inspect(|count| {
                    self.unsent.drain(..*count);
                }),
            };
            match written {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One read, which waits if the socket does.
    fn read(&mut self) -> io::Result<()> {
        let ended = || Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the relay closed"));
        let Some(tls) = &mut self.tls else {
            let count = self.tcp.read(&mut self.chunk)?;
            self.unread.extend(&self.chunk[..count]);
            return if count == 0 { ended() } else { Ok(()) };
        };
        if tls.read_tls(&mut self.tcp)? == 0 {
            return ended();
        }
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let room = self.unread.len();
        self.unread.resize(room + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut self.unread[room..])
    }
}

impl Link for Stream {
    fn send_message(&mut self, message: &[u8], _: SocketAddr) -> io::Result<()> {
        self.queue(message)?;
        self.flush()
    }

    fn receive_message(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(length) = message_len(&self.unread).filter(|len| *len <= self.unread.len())
            {
                return Ok(self.unread.drain(..length).collect());
            }
            self.read()?;
        }
    }
}

fn client(certificate: &Path) -> Outcome<ClientConnection> {
    let wrong = |error: &dyn std::fmt::Display| Failure::new(format!("TLS: {error}"));
    let certificate = CertificateDer::from_pem_file(certificate).map_err(|error| wrong(&error))?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).map_err(|error| wrong(&error))?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::from(std::net::IpAddr::from(*TLS_LISTENER.ip()));
    ClientConnection::new(Arc::new(config), name).map_err(|error| wrong(&error))
}

/// Calls `each` with every whole message at the start of `bytes`; says how long they are together.
fn messages(bytes: &[u8], mut each: impl FnMut(&[u8])) -> usize {
    let mut done = 0;
    while let Some(length) = message_len(&bytes[done..]) {
        let Some(message) = bytes.get(done..done + length) else { break };
        each(message);
        done += length;
    }
    done
}

/// Length on the stream of the message that begins here, padding included (RFC 8656 §12.5).
fn message_len(bytes: &[u8]) -> Option<usize> {
    let [first, _, high, low, ..] = bytes else { return None };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    Some(match first >> 6 {
        0b01 => (CHANNEL_HEADER_LEN + length).next_multiple_of(4),
        _ => STUN_HEADER_LEN + length,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_wherever_the_stream_is_cut() {
        let channel = [0x40, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0];
        let mut binding = [0; 24];
        binding[3] = 4;
        let bytes = [&channel[..], &binding, &channel].concat();
        for cut in 0..=bytes.len() {
            let mut seen = Vec::new();
            let done = messages(&bytes[..cut], |message| seen.push(message.to_vec()));
            let ends = [0, 12, 36, 48];
            assert_eq!(done, *ends.iter().rfind(|end| **end <= cut).unwrap(), "cut at {cut}");
            assert_eq!(seen.concat(), &bytes[..done]);
        }
    }
}
