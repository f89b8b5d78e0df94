//! A relay that runs, started alike whichever it is.

use std::io::Write as _;
use std::net::{SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relay_proto::credential;

use super::cpu::{self, RELAY_CORE};
use super::field::{Field, NETWORK, RELAY};
use super::subject::Subject;
use crate::namespace::run;
use crate::process::Program;
use crate::turn_client::Credential;
use crate::{Failure, Outcome};

/// The address of the relay's listener for UDP and TCP.
pub const LISTENER: SocketAddrV4 = SocketAddrV4::new(RELAY, 3478);
/// The address of its listener for TLS.
pub const TLS_LISTENER: SocketAddrV4 = SocketAddrV4::new(RELAY, 5349);

/// Shared secret of all relays: REST credentials, as in production.
const SECRET: &str = "a benchmark's secret, on no network";
const REALM: &str = "castling";
/// First relayed port where the ports above 49,151 are too few.
const MANY_PORTS_FROM: u16 = 10_000;
/// How long the credential of a run is valid.
const CREDENTIAL_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long a relay may take until it answers.
const START_WAIT: Duration = Duration::from_secs(10);
const ANSWER_WAIT: Duration = Duration::from_millis(200);
/// A Binding request without attributes (RFC 8489 §5).
const BINDING: [u8; 20] =
    [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// How a relay is started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Setup {
    /// Cores that it may use, from the first, with a packet thread each.
    pub cores: usize,
    /// Serve TLS.
    pub tls: bool,
    /// Open relayed ports from `MANY_PORTS_FROM` on.
    pub many_ports: bool,
}

impl Setup {
    /// One core, UDP and TCP, the usual ports.
    pub const PLAIN: Self = Self { cores: 1, tls: false, many_ports: false };
}

/// A running relay on its cores. Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    program: Program,
    // Dropped after the program that writes there.
    folder: tempfile::TempDir,
}

impl Relay {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// It ends or stays silent; the text quotes what it printed.
    pub fn start(field: &Field, subject: Subject, setup: Setup) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let mut secret = std::fs::File::create(folder.path().join("secret"))?;
        writeln!(secret, "{SECRET}")?;
        if setup.tls {
            make_certificate(folder.path())?;
        }
        let mut words = cpu::pinned(RELAY_CORE..RELAY_CORE + setup.cores, field.realtime);
        words.push(subject.program()?.display().to_string());
        words.extend(args(subject, setup, folder.path()));
        // Every word but the last command becomes it by exec: the id stays the relay's.
        let first = PathBuf::from(words.remove(0));
        let mut program = Program::start(&field.relay, "relay", &first, &words, folder.path())?;
        program.until(START_WAIT, "it answers", || answers(field, setup).ok())?;
        Ok(Self { program, folder })
    }

    /// The kernel's name for it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// Its certificate, PEM, if it serves TLS.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }
}

/// A credential that every relay of this benchmark takes.
#[must_use]
pub fn credential() -> Credential {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires = (now + CREDENTIAL_TTL).as_secs();
    let credential = credential::mint(SECRET.as_bytes(), "bench", expires);
    Credential { username: credential.username, password: credential.password }
}

fn args(subject: Subject, setup: Setup, folder: &Path) -> Vec<String> {
    let in_folder = |file: &str| folder.join(file).display().to_string();
    let Setup { cores, tls, many_ports } = setup;
    let (certificate, key) = (in_folder("cert.pem"), in_folder("key.pem"));
    let mut words = match subject {
        Subject::Castling => format!(
            "--listen {LISTENER} --stun-alt-port 0 --relay-ip {RELAY} --realm {REALM} \
             --allow-peer {NETWORK} --allocations-per-user 0 --allocations-per-room 0 \
             --max-allocations 0 --workers {cores} --secret-file {} --state-dir {}",
            in_folder("secret"),
            folder.display(),
        ),
        Subject::Coturn | Subject::GivenCoturn => format!(
            "-n --no-cli --no-dtls --listening-ip {RELAY} --relay-ip {RELAY} \
             --realm {REALM} --use-auth-secret --relay-threads {cores} \
             --log-file stdout --simple-log --userdb {} --pidfile {}",
            in_folder("database"),
            in_folder("pid"),
        ),
        Subject::TurnCrate => format!("{LISTENER} {REALM} {}", in_folder("secret")),
    };
    if subject != Subject::TurnCrate && many_ports {
        words.push_str(&format!(" --min-port {MANY_PORTS_FROM}"));
    }
    match subject {
        Subject::Castling if tls => words.push_str(&format!(
            " --listen-tls {TLS_LISTENER} --tls-cert {certificate} --tls-key {key}"
        )),
        Subject::Coturn | Subject::GivenCoturn if tls => {
            let port = TLS_LISTENER.port();
            words.push_str(&format!(
                " --tls-listening-port {port} --cert {certificate} --pkey {key}"
            ));
        }
        Subject::Coturn | Subject::GivenCoturn => words.push_str(" --no-tls"),
        Subject::Castling | Subject::TurnCrate => {}
    }
    let mut args: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
    if subject.is_coturn() {
        args.push(format!("--static-auth-secret={SECRET}"));
    }
    args
}

/// A certificate for the relay's address that signs itself and no other.
fn make_certificate(folder: &Path) -> Outcome<()> {
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=relay"])
        .args(["-addext", &format!("subjectAltName=IP:{RELAY}")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder);
    run(&mut command, "").map(drop)
}

/// Whether the relay answers a Binding request, and listens for TLS if it shall.
fn answers(field: &Field, setup: Setup) -> Outcome<()> {
    field.generator.within(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(ANSWER_WAIT))?;
        socket.connect(LISTENER)?;
        socket.send(&BINDING)?;
        socket.recv(&mut [0; 512])?;
        if setup.tls {
            TcpStream::connect_timeout(&SocketAddr::V4(TLS_LISTENER), ANSWER_WAIT)
                .map_err(|error| Failure::new(format!("TLS: {error}")))?;
        }
        Ok(())
    })
}
