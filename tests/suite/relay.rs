//! The relay under test, alone in the server's namespace.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use e2e::Outcome;
use e2e::lab::{Lab, SERVER};
use e2e::namespace::Namespace;
use e2e::process::{Program, installed, ours};
use e2e::scrape::{self, Metrics};
use e2e::turn_client::{Allocation, Credential};
use relay_proto::credential;

/// Where clients find the relay.
pub const TURN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(SERVER), 3478);
/// Where it serves its metrics, inside its namespace.
pub const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9641);
/// The shared secret of these tests.
pub const SECRET: &str = "north-of-the-board";
/// How long a program may take until it answers.
const START_WAIT: Duration = Duration::from_secs(10);
/// Lifetime of the credentials of synthetic clients, in seconds.
const CREDENTIAL_SECS: u64 = 600;

/// Whose relay carries the traffic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject {
    /// Ours.
    Castling,
    /// Debian's coturn, chosen by `RELAY_SUBJECT=coturn`: it proves the harness, not our counters.
    Coturn,
}

impl Subject {
    /// The subject that the environment names.
    pub fn chosen() -> Self {
        match std::env::var("RELAY_SUBJECT").as_deref() {
            Ok("coturn") => Self::Coturn,
            Ok("castling") | Err(_) => Self::Castling,
            Ok(other) => panic!("RELAY_SUBJECT={other}: castling or coturn"),
        }
    }

    /// The program, or why there is none.
    pub fn program(self) -> Result<PathBuf, String> {
        match self {
            Self::Castling => ours("castling-relay").ok_or_else(|| {
                "castling-relay is not built: cargo build -p castling-relay".to_owned()
            }),
            Self::Coturn if installed("turnserver") => Ok("turnserver".into()),
            Self::Coturn => Err("needs turnserver (Debian package coturn)".to_owned()),
        }
    }
}

/// A running relay.
pub struct Relay {
    subject: Subject,
    server: Namespace,
    program: Program,
    _state: tempfile::TempDir,
}

impl Relay {
    /// Starts `subject` in the laboratory's server and waits until it answers.
    pub fn start(lab: &Lab, subject: Subject, program: &Path) -> Outcome<Self> {
        Self::start_with(lab, subject, program, &[])
    }

    /// As [`Relay::start`], with `more` on the command line of ours.
    pub fn start_with(lab: &Lab, subject: Subject, program: &Path, more: &[&str]) -> Outcome<Self> {
        let state = tempfile::tempdir()?;
        let secret = state.path().join("secret");
        std::fs::write(&secret, format!("{SECRET}\n"))?;
        let address = SERVER.to_string();
        let text = match subject {
            Subject::Castling => format!(
                "{} --listen {TURN} --relay-ip {address} --secret-file {} --allow-peer \
                 203.0.113.0/24 --admin {ADMIN} --state-dir {}",
                more.join(" "),
                secret.display(),
                state.path().display(),
            ),
            Subject::Coturn => format!(
                "-n --no-cli --no-tls --no-dtls --no-rfc5780 --no-software-attribute --log-file stdout \
                 --listening-ip {address} --relay-ip {address} --realm castling \
                 --use-auth-secret --static-auth-secret {SECRET} --pidfile {}",
                state.path().join("pid").display(),
            ),
        };
        let args: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let server = lab.server().clone();
        let mut program = Program::start(&server, "relay", program, &args, state.path())?;
        program.until(START_WAIT, "ready to answer", || match subject {
            Subject::Castling => scrape::get(&server, ADMIN, "/healthz").ok().map(drop),
            Subject::Coturn => {
                let listening = server.run("ss", &["-Huln", "sport = :3478"]).ok()?;
                (!listening.is_empty()).then_some(())
            }
        })?;
        Ok(Self { subject, server, program, _state: state })
    }

    /// The kernel's name for its process.
    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// Lines that it has printed.
    pub fn log_lines(&self) -> usize {
        self.program.log().lines().count()
    }

    /// What the relay says it counted; `None` for subjects that count otherwise.
    pub fn metrics(&self) -> Option<Metrics> {
        match self.subject {
            Subject::Castling => Some(scrape::metrics(&self.server, ADMIN).expect("metrics")),
            Subject::Coturn => None,
        }
    }
}

/// A fresh allocation of a client in `namespace`, whose socket is bound to `at`.
pub fn allocate(namespace: &Namespace, at: Ipv4Addr, user: &str) -> Outcome<Allocation> {
    Allocation::open(namespace.udp((at, 0).into())?, TURN, mint(user))
}

/// A REST credential under [`SECRET`].
pub fn mint(user: &str) -> Credential {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let made = credential::mint(SECRET.as_bytes(), user, now + CREDENTIAL_SECS);
    Credential { username: made.username, password: made.password }
}
