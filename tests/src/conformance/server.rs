//! The servers that are probed, each with the settings that a group of rows needs.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::message::{BINDING, Draft};
use super::site::{Family, PEER_NETWORKS, RELAY, RELAY_V6, STUN_PORT, Site, TLS_PORT, TURN_PORT};
use crate::process::{Program, installed, ours, version};
use crate::scrape::{self, Metrics};
use crate::{Failure, Outcome};

/// Chooses the server, as everywhere in these tests.
pub const VARIABLE: &str = "RELAY_SUBJECT";
/// REST credentials of every server.
pub const SECRET: &str = "a prober's secret, on no network";
/// Authentication realm of every server.
pub const REALM: &str = "castling";
/// A static user and its password, for servers that have such users beside REST credentials.
pub const USER: (&str, &str) = ("ana", "of no network either");
/// Allocations of one user where [`Setup::Quota`] asks for a limit.
pub const QUOTA: usize = 2;
/// Where [`Setup::Drain`] sends clients.
pub const ALTERNATE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9)), 3478);
/// The only relayed port of [`Setup::OnePort`]: an odd one.
pub const ONLY_PORT: u16 = 50_001;

const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9641);
/// How long a server may take until it answers.
const START_WAIT: Duration = Duration::from_secs(10);
const ANSWER_WAIT: Duration = Duration::from_millis(500);

/// Which server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Subject {
    /// Ours.
    Castling,
    /// A `turnserver` of the coturn project.
    Coturn(PathBuf),
}

impl Subject {
    /// Reads a name: `castling`, `coturn`, or the path of a turnserver.
    ///
    /// # Errors
    /// A path where nothing is.
    pub fn parse(name: &str) -> Outcome<Self> {
        match name {
            "castling" => Ok(Self::Castling),
            "coturn" => Ok(Self::Coturn("turnserver".into())),
            path if Path::new(path).is_file() => Ok(Self::Coturn(path.into())),
            _ => Err(Failure::new(format!("{VARIABLE}={name}: castling, coturn or a file"))),
        }
    }

    /// The program, or why there is none.
    ///
    /// # Errors
    /// It is not built or not installed.
    pub fn program(&self) -> Outcome<PathBuf> {
        match self {
            Self::Castling => ours("castling-relay").ok_or_else(|| {
                Failure::new("castling-relay is not built: cargo build -p castling-relay")
            }),
            Self::Coturn(path) if path.is_file() || installed(&path.to_string_lossy()) => {
                Ok(path.clone())
            }
            Self::Coturn(_) => Err(Failure::new("needs turnserver (Debian package coturn)")),
        }
    }

    /// What it says about its version.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn version(&self) -> Outcome<String> {
        let line = version(&self.program()?)?;
        Ok(match self {
            Self::Castling => line,
            Self::Coturn(_) => format!("coturn {line}"),
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Castling { "castling" } else { "coturn" })
    }
}

/// The settings of a server for a group of rows; each is one start of the program.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Setup {
    /// Both families, the peers' documentation networks opened.
    Open,
    /// Nothing but addresses and a secret: the policy that an operator gets who sets nothing.
    Default,
    /// A relayed address of IPv4 only.
    Ipv4Only,
    /// One relayed port, [`ONLY_PORT`].
    OnePort,
    /// [`QUOTA`] allocations a user.
    Quota,
    /// A certificate, and TLS on [`TLS_PORT`].
    Tls,
    /// As [`Setup::Open`], from a file that is changed while the server runs.
    Reload,
    /// With [`ALTERNATE`] for the clients of new allocations.
    Drain,
}

impl Setup {
    /// Every set-up, in the order of a run.
    pub const ALL: [Self; 8] = [
        Self::Open,
        Self::Default,
        Self::Ipv4Only,
        Self::OnePort,
        Self::Quota,
        Self::Tls,
        Self::Reload,
        Self::Drain,
    ];
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    subject: Subject,
    program: Program,
    // Dropped after the program that writes there.
    folder: tempfile::TempDir,
}

impl Server {
    /// Starts `subject` and waits until it listens.
    ///
    /// # Errors
    /// It ends or stays silent; the text quotes what it printed.
    pub fn start(site: &Site, subject: &Subject, setup: Setup) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("secret"), format!("{SECRET}\n"))?;
        write_peers(folder.path(), &PEER_NETWORKS)?;
        if setup == Setup::Tls {
            make_certificate(folder.path())?;
        }
        let args = match subject {
            Subject::Castling => castling(folder.path(), setup),
            Subject::Coturn(_) => coturn(folder.path(), setup),
        };
        let path = subject.program()?;
        let name = subject.to_string();
        let mut program = Program::start(&site.server, &name, &path, &args, folder.path())?;
        program.until(START_WAIT, "it answers", || answers(site, setup).ok())?;
        Ok(Self { subject: subject.clone(), program, folder })
    }

    /// Which server this is.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// All that it printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.program.log()
    }

    /// What it counted; `None` for a server that counts otherwise.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics(&self, site: &Site) -> Outcome<Option<Metrics>> {
        match self.subject {
            Subject::Castling => scrape::metrics(&site.server, ADMIN).map(Some),
            Subject::Coturn(_) => Ok(None),
        }
    }

    /// Takes the opened networks back from a server of [`Setup::Reload`] while it runs.
    ///
    /// # Errors
    /// It has no way to do so, or refuses.
    pub fn close_peers(&self, site: &Site) -> Outcome<()> {
        if self.subject != Subject::Castling {
            return Err(Failure::new("peers cannot be closed while it runs"));
        }
        write_peers(self.folder.path(), &[])?;
        self.post(site, "/api/v1/reload")
    }

    /// Tells it to end once its allocations have. Others than ours are told at their start.
    ///
    /// # Errors
    /// It refuses.
    pub fn drain(&self, site: &Site) -> Outcome<()> {
        match self.subject {
            Subject::Castling => {
                self.post(site, "/api/v1/drain")?;
                // Every worker answers a scrape, after the order before it.
                self.metrics(site).map(drop)
            }
            Subject::Coturn(_) => Ok(()),
        }
    }

    fn post(&self, site: &Site, path: &str) -> Outcome<()> {
        scrape::post(&site.server, ADMIN, path).map(drop)
    }
}

/// The settings file of [`Setup::Reload`].
fn write_peers(folder: &Path, networks: &[&str]) -> Outcome<()> {
    let text = format!("allow-peer = {networks:?}\n");
    Ok(std::fs::write(folder.join("peers.toml"), text)?)
}

fn castling(folder: &Path, setup: Setup) -> Vec<String> {
    let in_folder = |file: &str| folder.join(file).display().to_string();
    let v4 = Family::V4.relay(TURN_PORT);
    let v6 = Family::V6.relay(TURN_PORT);
    let mut text = format!(
        "--listen {v4} --listen {v6} --stun-alt-port {STUN_PORT} --relay-ip {RELAY} \
         --realm {REALM} --workers 2 --admin {ADMIN} --secret-file {} --state-dir {}",
        in_folder("secret"),
        folder.display(),
    );
    if setup != Setup::Ipv4Only {
        text.push_str(&format!(" --relay-ip {RELAY_V6}"));
    }
    text.push_str(&match setup {
        Setup::OnePort => format!(" --min-port {ONLY_PORT} --max-port {ONLY_PORT}"),
        Setup::Quota => format!(" --allocations-per-user {QUOTA}"),
        Setup::Tls => format!(
            " --listen-tls {} --tls-cert {} --tls-key {}",
            Family::V4.relay(TLS_PORT),
            in_folder("cert.pem"),
            in_folder("key.pem"),
        ),
        Setup::Reload => format!(" --config {}", in_folder("peers.toml")),
        Setup::Drain => format!(" --alternate-server {ALTERNATE}"),
        Setup::Open | Setup::Default | Setup::Ipv4Only => String::new(),
    });
    let mut args = words(&text);
    args.extend(["--user".to_owned(), format!("{}:{}", USER.0, USER.1)]);
    if !matches!(setup, Setup::Default | Setup::Reload) {
        for network in PEER_NETWORKS {
            args.extend(["--allow-peer".to_owned(), network.to_owned()]);
        }
    }
    args
}

/// As Debian's own settings file has it, with the addresses and credentials of these checks.
fn coturn(folder: &Path, setup: Setup) -> Vec<String> {
    let in_folder = |file: &str| folder.join(file).display().to_string();
    let mut text = format!(
        "-n --no-rfc5780 --no-stun-backward-compatibility --response-origin-only-with-rfc5780 \
         --no-cli --no-dtls --listening-ip {RELAY} --listening-ip {RELAY_V6} --relay-ip {RELAY} \
         --realm {REALM} --use-auth-secret --log-file stdout --simple-log \
         --userdb {} --pidfile {}",
        in_folder("database"),
        in_folder("pid"),
    );
    if setup != Setup::Ipv4Only {
        text.push_str(&format!(" --relay-ip {RELAY_V6}"));
    }
    text.push_str(&match setup {
        Setup::OnePort => format!(" --min-port {ONLY_PORT} --max-port {ONLY_PORT}"),
        Setup::Quota => format!(" --user-quota {QUOTA}"),
        Setup::Tls => format!(" --cert {} --pkey {}", in_folder("cert.pem"), in_folder("key.pem")),
        Setup::Drain => format!(" --alternate-server {ALTERNATE}"),
        Setup::Open | Setup::Default | Setup::Ipv4Only | Setup::Reload => String::new(),
    });
    if setup != Setup::Tls {
        text.push_str(" --no-tls");
    }
    let mut args = words(&text);
    args.push(format!("--static-auth-secret={SECRET}"));
    args
}

/// Whether it answers over UDP and listens for TLS, if it shall.
fn answers(site: &Site, setup: Setup) -> Outcome<()> {
    site.world.within(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(ANSWER_WAIT))?;
        socket.connect(Family::V4.relay(TURN_PORT))?;
        socket.send(Draft::request(BINDING).bytes())?;
        socket.recv(&mut [0; 512])?;
        if setup == Setup::Tls {
            TcpStream::connect_timeout(&Family::V4.relay(TLS_PORT), ANSWER_WAIT)?;
        }
        Ok(())
    })
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A certificate for the relay's address that signs itself.
fn make_certificate(folder: &Path) -> Outcome<()> {
    let alternative = format!("subjectAltName=IP:{RELAY}");
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=relay", "-addext", &alternative])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("openssl req: {}", String::from_utf8_lossy(&output.stderr))))
}
