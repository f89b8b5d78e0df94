//! The relays that are compared, started alike.

use std::io::Write as _;
use std::net::{SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relay_proto::credential;

use super::cpu::{self, RELAY_CORE};
use super::field::{Field, NETWORK, RELAY};
use crate::process::{Program, installed, ours, version};
use crate::turn_client::Credential;
use crate::{Failure, Outcome};

/// The address of the relay's listener.
pub const LISTENER: SocketAddrV4 = SocketAddrV4::new(RELAY, 3478);
/// Chooses one relay, by its name, instead of all in turns.
pub const VARIABLE: &str = "RELAY_SUBJECT";

/// Shared secret of both relays: REST credentials, as in production.
const SECRET: &str = "a benchmark's secret, on no network";
const REALM: &str = "castling";
/// How long the credential of a run is valid.
const CREDENTIAL_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long a relay may take until it answers.
const START_WAIT: Duration = Duration::from_secs(10);
const ANSWER_WAIT: Duration = Duration::from_millis(200);
/// A Binding request without attributes (RFC 8489 §5).
const BINDING: [u8; 20] =
    [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// A relay to measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject {
    /// Ours, with one worker.
    Castling,
    /// The `turnserver` on the search path.
    Coturn {
        /// Its relay threads.
        threads: usize,
    },
}

impl Subject {
    /// The relays of a run in the order of their turns: ours, and coturn with one thread and,
    /// unless `one_thread`, with as many as there are cores; or only those that [`VARIABLE`] names.
    ///
    /// # Errors
    /// An unknown name, or a program that is not there.
    pub fn chosen(one_thread: bool) -> Outcome<Vec<Self>> {
        let cores = std::thread::available_parallelism()?.get();
        let mut all = vec![Self::Castling, Self::Coturn { threads: 1 }];
        if !one_thread {
            all.push(Self::Coturn { threads: cores });
        }
        let name = std::env::var(VARIABLE).unwrap_or_default();
        let wanted = |subject: &Self| match name.as_str() {
            "" => true,
            "castling" => *subject == Self::Castling,
            "coturn" => *subject != Self::Castling,
            _ => false,
        };
        let chosen: Vec<_> = all.into_iter().filter(wanted).collect();
        if chosen.is_empty() {
            return Err(Failure::new(format!("{VARIABLE}={name}: castling or coturn")));
        }
        chosen.iter().try_for_each(|subject| subject.program().map(drop))?;
        Ok(chosen)
    }

    /// What tables call it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Castling => "castling".to_owned(),
            Self::Coturn { threads: 1 } => "coturn, 1 thread".to_owned(),
            Self::Coturn { threads } => format!("coturn, {threads} threads"),
        }
    }

    /// What the program says about its version.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn version(self) -> Outcome<String> {
        let line = version(&self.program()?)?;
        Ok(match self {
            Self::Castling => line,
            Self::Coturn { .. } => format!("coturn {line}"),
        })
    }

    fn program(self) -> Outcome<PathBuf> {
        match self {
            Self::Castling => ours("castling-relay").ok_or_else(|| {
                Failure::new("no castling-relay: cargo build --release -p castling-relay makes it")
            }),
            Self::Coturn { .. } if installed("turnserver") => Ok("turnserver".into()),
            Self::Coturn { .. } => {
                Err(Failure::new("no turnserver: Debian package coturn, or RELAY_SUBJECT=castling"))
            }
        }
    }

    fn args(self, folder: &Path) -> Vec<String> {
        let in_folder = |file: &str| folder.join(file).display().to_string();
        let words = match self {
            Self::Castling => format!(
                "--listen {LISTENER} --stun-alt-port 0 --relay-ip {RELAY} --realm {REALM} \
                 --allow-peer {NETWORK} --allocations-per-user 0 --max-allocations 0 --workers 1 \
                 --secret-file {} --state-dir {}",
                in_folder("secret"),
                folder.display(),
            ),
            Self::Coturn { threads } => format!(
                "-n --no-cli --no-tls --no-dtls --listening-ip {RELAY} --relay-ip {RELAY} \
                 --realm {REALM} --use-auth-secret --relay-threads {threads} \
                 --log-file stdout --simple-log --userdb {} --pidfile {}",
                in_folder("database"),
                in_folder("pid"),
            ),
        };
        let mut args: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        if let Self::Coturn { .. } = self {
            args.push(format!("--static-auth-secret={SECRET}"));
        }
        args
    }
}

/// A running relay on its core. Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    program: Program,
    // Dropped after the program that writes there.
    _folder: tempfile::TempDir,
}

impl Relay {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// It ends or stays silent; the text quotes what it printed.
    pub fn start(field: &Field, subject: Subject) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let mut secret = std::fs::File::create(folder.path().join("secret"))?;
        writeln!(secret, "{SECRET}")?;
        let mut words = cpu::pinned(RELAY_CORE, field.realtime);
        words.push(subject.program()?.display().to_string());
        words.extend(subject.args(folder.path()));
        // Every word but the last command becomes it by exec: the id stays the relay's.
        let first = PathBuf::from(words.remove(0));
        let name = if subject == Subject::Castling { "castling-relay" } else { "turnserver" };
        let mut program = Program::start(&field.relay, name, &first, &words, folder.path())?;
        program.until(START_WAIT, "it answers", || answers(field).ok())?;
        Ok(Self { program, _folder: folder })
    }

    /// The kernel's name for it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.program.id()
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

/// Whether the relay answers a Binding request.
fn answers(field: &Field) -> Outcome<()> {
    field.generator.within(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(ANSWER_WAIT))?;
        socket.connect(LISTENER)?;
        socket.send(&BINDING)?;
        Ok(socket.recv(&mut [0; 512]).map(drop)?)
    })
}
