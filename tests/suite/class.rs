//! A class: `castling-signaling` with its embedded relay in the server's namespace.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use e2e::Outcome;
use e2e::lab::{Lab, SERVER};
use e2e::process::{Program, ours};
use e2e::scrape;

/// Where the page and the WebSocket are.
pub const WEB: SocketAddr = SocketAddr::new(IpAddr::V4(SERVER), 8080);
/// Where the embedded relay serves its metrics, inside the namespace.
pub const RELAY_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9641);
/// The server's secret where it has no relay of its own.
const SECRET: &str = "south-of-the-board";
/// How long the program may take until it answers.
const START_WAIT: Duration = Duration::from_secs(10);

/// The running server of a class.
pub struct Class {
    program: Program,
    _state: tempfile::TempDir,
}

impl Class {
    /// Starts the server and waits until it answers: with its embedded relay, or handing out the
    /// URL of `another` relay, whose secret it does not know.
    pub fn start(lab: &Lab, another: Option<&str>) -> Outcome<Self> {
        let state = tempfile::tempdir()?;
        let relay = match another {
            Some(url) => {
                let secret = state.path().join("secret");
                std::fs::write(&secret, format!("{SECRET}\n"))?;
                format!("--relay {url} --secret-file {}", secret.display())
            }
            None => format!(
                "--relay.listen {SERVER}:3478 --relay.relay-ip {SERVER} \
                 --relay.allow-peer 203.0.113.0/24"
            ),
        };
        let text = format!("--listen {WEB} --state-dir {} {relay}", state.path().display());
        let args: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let server = lab.server().clone();
        let path = program().expect("the caller has looked");
        let mut program = Program::start(&server, "signaling", &path, &args, state.path())?;
        program.until(START_WAIT, "answers", || scrape::get(&server, WEB, "/healthz").ok())?;
        Ok(Self { program, _state: state })
    }

    /// What the server said so far.
    pub fn log(&self) -> String {
        self.program.log()
    }
}

/// The server's program, or why there is none.
pub fn program() -> Result<PathBuf, String> {
    ours("castling-signaling").ok_or_else(|| {
        "castling-signaling is not built: cargo build -p castling-signaling".to_owned()
    })
}
