//! The client's side of TLS, which counts what its socket carries, and certificates to verify.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::turn_client::{Stream, TurnClient};
use crate::PATIENCE;

/// A certificate on disk, as an operator has one.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    /// A new certificate in a folder; returns it in the form that clients see.
    pub fn make(folder: &Path) -> (Self, CertificateDer<'static>) {
        let pair = Self { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
        let made = pair.renew();
        (pair, made)
    }

    /// Replaces both files, each in one step.
    pub fn renew(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["turn.example".to_owned()]);
        let made = made.expect("a certificate");
        for (file, text) in
            [(&self.certificate, made.cert.pem()), (&self.key, made.signing_key.serialize_pem())]
        {
            let aside = file.with_extension("new");
            std::fs::write(&aside, text).expect("written");
            std::fs::rename(aside, file).expect("renamed");
        }
        made.cert.der().clone()
    }

    /// The flags with which a relay serves it.
    pub fn flags(&self) -> [&str; 6] {
        let [certificate, key] =
            [&self.certificate, &self.key].map(|path| path.to_str().expect("text"));
        ["--tls-cert", certificate, "--tls-key", key, "--listen-tls", "127.0.0.1:0"]
    }
}

/// What the client's socket has carried.
#[derive(Clone, Debug, Default)]
pub struct Carried(Rc<Cell<(u64, u64)>>);

impl Carried {
    /// Bytes sent and received.
    pub fn bytes(&self) -> (u64, u64) {
        self.0.get()
    }
}

/// A TCP stream that counts, and may write one byte at a time.
#[derive(Debug)]
pub struct Counted {
    stream: TcpStream,
    carried: Carried,
    drips: bool,
}

impl Read for Counted {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(bytes)?;
        let (sent, received) = self.carried.0.get();
        self.carried.0.set((sent, received + count as u64));
        Ok(count)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = if self.drips { bytes.len().min(1) } else { bytes.len() };
        let count = self.stream.write(&bytes[..most])?;
        let (sent, received) = self.carried.0.get();
        self.carried.0.set((sent + count as u64, received));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

pub type TlsStream = StreamOwned<ClientConnection, Counted>;

impl Stream for TlsStream {
    fn end(&mut self) {
        self.conn.send_close_notify();
        self.flush().expect("ended");
    }
}

/// How a client speaks TLS.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Protocols that it asks for.
    pub alpn: &'static [&'static str],
    /// Nothing newer than TLS 1.2.
    pub only_1_2: bool,
    /// Every byte is a segment of its own.
    pub drips: bool,
}

/// TLS inside `stream`, with the handshake done.
pub fn handshake(mut stream: TcpStream, options: Options) -> io::Result<TlsStream> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[_] =
        if options.only_1_2 { &[&rustls::version::TLS12] } else { rustls::ALL_VERSIONS };
    let any = Arc::new(AnyServer(provider.signature_verification_algorithms));
    let mut config = config(provider, versions, any);
    config.alpn_protocols = options.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("turn.example").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a configuration");
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.flush()?;
    let stream = Counted { stream, carried: Carried::default(), drips: options.drips };
    let mut stream = StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

fn config(
    provider: Arc<CryptoProvider>,
    versions: &[&'static rustls::SupportedProtocolVersion],
    verifier: Arc<AnyServer>,
) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_protocol_versions(versions).expect("versions");
    config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
}

/// What a client says first.
pub fn client_hello() -> Vec<u8> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let any = Arc::new(AnyServer(provider.signature_verification_algorithms));
    let config = config(provider, rustls::ALL_VERSIONS, any);
    let name = ServerName::try_from("turn.example").expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("a configuration");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("written");
    bytes
}

/// A new connection to the relay.
pub fn connect(to: SocketAddr) -> TlsStream {
    let stream = TcpStream::connect(to).expect("connected");
    handshake(stream, Options::default()).expect("a handshake")
}

/// A TURN client over TLS, and what its socket carries.
pub fn over_tls(to: SocketAddr) -> (TurnClient, Carried) {
    client_on(connect(to))
}

/// A TURN client on a TLS stream, and what its socket carries.
pub fn client_on(stream: TlsStream) -> (TurnClient, Carried) {
    let carried = stream.sock.carried.clone();
    (TurnClient::inside(stream), carried)
}

/// Tests make their certificates themselves, and compare the one they got where it matters; that
/// its key signed the handshake is verified as by any client.
#[derive(Debug)]
struct AnyServer(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
