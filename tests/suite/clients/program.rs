//! The programs that drive clients of other projects: where they are and what they say.

use std::path::Path;

use e2e::namespace::Namespace;
use e2e::process::installed;
use e2e::report::{say, skip};
use e2e::{Failure, Outcome};
use serde_json::{Value, json};

use super::Transport;
use crate::browser::{self, Spec};
use crate::certificate::{Certificate, TLS_PORT};
use crate::relay::{TURN, mint};

/// Where the scripts are, and what npm installed for them.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");
/// What `install.sh` made beside them.
const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/clients");

/// A client of another project. Each program takes its task as JSON, tells in one line what was
/// exchanged, and ends when its standard input does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Program {
    Aioice,
    Chromium,
    Firefox,
    NodeDatachannel,
    TurnCrate,
    Werift,
}

/// Why a client cannot run here.
pub struct Missing {
    reason: String,
    /// Nobody can be blamed: its registry did not answer.
    excused: bool,
}

/// A client whose payloads have all come back, and which keeps its allocations until told.
pub struct Exchanged {
    pub version: String,
    pub payloads: u64,
    /// Type of the local candidate in use, of both ends.
    pub candidates: Vec<String>,
    spec: Spec,
}

impl Program {
    /// Its name as its own project writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aioice => "aioice",
            Self::Chromium => "Chromium",
            Self::Firefox => "Firefox",
            Self::NodeDatachannel => "node-datachannel",
            Self::TurnCrate => "the turn crate",
            Self::Werift => "werift",
        }
    }

    /// Why it cannot run here; `None` if it can.
    pub fn missing(self) -> Option<Missing> {
        let (registry, file) = match self {
            Self::TurnCrate => return None,
            Self::Chromium => return browser::missing().map(Missing::ours),
            Self::Firefox => {
                let lacking = (!installed("firefox-esr"))
                    .then(|| "needs firefox-esr (Debian package firefox-esr)".to_owned());
                return browser::missing().or(lacking).map(Missing::ours);
            }
            Self::Aioice => ("pypi", Path::new(INSTALLED).join("venv/.castling-lock")),
            Self::NodeDatachannel | Self::Werift => {
                ("npm", Path::new(SCRIPTS).join("node_modules/.castling-lock"))
            }
        };
        if file.is_file() {
            return None;
        }
        let told =
            std::fs::read_to_string(Path::new(INSTALLED).join(format!("{registry}.missing")));
        let reason = told.unwrap_or_else(|_| format!("needs {SCRIPTS}/install.sh to have run"));
        let excused = reason.starts_with("unreachable");
        Some(Missing { reason: reason.trim().to_owned(), excused })
    }

    /// Runs it inside `namespace` until its payloads have been exchanged over `transport`.
    /// Over TLS it believes in `certificate`, or, of the browsers, in anything.
    pub fn start(
        self,
        namespace: &Namespace,
        transport: Transport,
        certificate: &Certificate,
    ) -> Outcome<Exchanged> {
        let credential = mint("room.ana");
        let task = json!({
            "browser": self.name().to_lowercase(),
            "namespace": namespace.name(),
            "server": TURN.ip(),
            "port": if transport == Transport::Tls { TLS_PORT } else { TURN.port() },
            "transport": transport.label(),
            "username": credential.username,
            "password": credential.password,
        });
        let script = |program: &Path, file: &str| {
            // Python and Node each have their own way to learn of one more authority.
            let authority = certificate.chain().display().to_string();
            let mut command = namespace.command("env");
            command.arg(format!("SSL_CERT_FILE={authority}"));
            command.arg(format!("NODE_EXTRA_CA_CERTS={authority}"));
            command.arg(program).arg(file).arg(task.to_string()).current_dir(SCRIPTS);
            Spec::listen(&command)
        };
        let mut spec = match self {
            // Browsers are driven from outside.
            Self::Chromium | Self::Firefox => Spec::start("pair.ts", &task)?,
            Self::Aioice => {
                script(&Path::new(INSTALLED).join("venv/bin/python"), "aioice_pair.py")?
            }
            Self::NodeDatachannel => script(Path::new("node"), "node_datachannel.mjs")?,
            Self::Werift => script(Path::new("node"), "werift.mjs")?,
            Self::TurnCrate => {
                let mut command = namespace.command(env!("CARGO_BIN_EXE_turn_crate_client"));
                command.arg(task.to_string());
                Spec::listen(&command)?
            }
        };
        while let Some(event) = spec.next()? {
            if event["event"] == "exchanged" {
                return Exchanged::read(&event, spec)
                    .ok_or_else(|| Failure::new(format!("cannot be understood: {event}")));
            }
        }
        Err(Failure::new("ended without a word"))
    }
}

impl Missing {
    /// Something that this repository's own set-up installs.
    fn ours(reason: String) -> Self {
        Self { reason, excused: false }
    }

    /// Says it. With `CASTLING_E2E=require` the test fails, unless the registry was the reason.
    pub fn tell(&self, test: &str) {
        if self.excused {
            return say(&format!("skipped: {test}: {}", self.reason));
        }
        skip(test, &self.reason);
    }
}

impl Exchanged {
    /// Has the client close as its users would.
    pub fn close(self) -> Outcome<()> {
        self.spec.stop().map(drop)
    }

    fn read(event: &Value, spec: Spec) -> Option<Self> {
        let candidates = event["candidates"].as_array()?.iter();
        Some(Self {
            version: event["version"].as_str()?.to_owned(),
            payloads: event["payloads"].as_u64()?,
            candidates: candidates
                .map(|it| it.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
            spec,
        })
    }
}
