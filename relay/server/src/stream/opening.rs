//! What comes before a connection's first message: a proxy's header, and whether it is TLS.
//!
//! Nothing is read that belongs to what follows.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use relay_proto::policy::Cidr;
use relay_proto::{ClientAddr, Transport};
use tokio::net::TcpStream;

use super::proxy::{self, Refused, Source};
use crate::tls::Certificates;

/// The first byte of a TLS connection: a record of the handshake (RFC 8446 §5.1). No STUN message
/// begins with it (RFC 8489 §5), and no proxy's header.
const TLS_HANDSHAKE: u8 = 0x16;

/// How connections may begin.
#[derive(Debug, Default)]
pub struct Doors {
    /// The certificate, if TLS is served.
    pub certificates: Option<Arc<Certificates>>,
    /// Whose connections begin with the header of a proxy, and must.
    pub trusted_proxies: Vec<Cidr>,
}

/// A connection as the kernel gave it.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// Who connected.
    pub remote: SocketAddr,
    /// The address of ours.
    pub local: IpAddr,
    /// Number of the listener.
    pub listener: u16,
}

/// A connection of which it is known whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// The client.
    pub client: ClientAddr,
    /// Bytes of the proxy's header.
    pub header: usize,
}

/// Why a connection was given up before it was known whose it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unopened {
    /// It had to begin with a proxy's header and did not: the proxy's mistake, or its neighbour's.
    Refused,
    /// It has ended.
    Gone,
}

impl From<Refused> for Unopened {
    fn from(_: Refused) -> Self {
        Self::Refused
    }
}

impl From<io::Error> for Unopened {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl Doors {
    /// Whether a connection from here begins with the header of a proxy.
    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(ip))
    }

    /// Waits until it is known who the client is and whether it speaks TLS.
    ///
    /// # Errors
    /// The stream has ended, or begins with no header although it must.
    pub async fn open(&self, stream: &TcpStream, accepted: Accepted) -> Result<Opened, Unopened> {
        let Accepted { remote, local, listener } = accepted;
        let mut opened = Opened {
            client: ClientAddr { remote, local: Some(local), listener, transport: Transport::Tcp },
            header: 0,
        };
        if self.trusts(remote.ip()) {
            let (source, length) = read_header(stream).await?;
            opened.header = length;
            if let Source::Client { remote, local } = source {
                (opened.client.remote, opened.client.local) = (remote, Some(local));
            }
        }
        if self.certificates.is_some() {
            let mut first = [0];
            if stream.peek(&mut first).await? == 0 {
                return Err(Unopened::Gone);
            }
            if first == [TLS_HANDSHAKE] {
                opened.client.transport = Transport::Tls;
            }
        }
        Ok(opened)
    }
}

/// Reads a proxy's header, and nothing after it.
async fn read_header(stream: &TcpStream) -> Result<(Source, usize), Unopened> {
    let (mut header, mut have) = (Vec::new(), 0);
    loop {
        let wanted = proxy::length(&header[..have])?;
        if have == wanted {
            return Ok((proxy::source(&header)?, have));
        }
        header.resize(wanted, 0);
        stream.readable().await?;
        match stream.try_read(&mut header[have..]) {
            Ok(0) => return Err(Unopened::Gone),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}
