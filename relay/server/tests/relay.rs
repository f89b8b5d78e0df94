//! The real program on loopback: what an operator sees, and what a stranger gets.

mod relay {
    mod control;
    mod equipment;
    mod family;
    mod header;
    mod limits;
    mod proxy;
    mod stream;
    mod tls;
    mod tls_client;
    mod trains;
    mod turn_client;
}

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_castling-relay");
/// Long enough for a loaded machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that runs until it is dropped.
struct Running {
    child: Child,
    turn: SocketAddr,
    tls: Option<SocketAddr>,
    admin: SocketAddr,
    /// What it logs after its addresses, line by line.
    log: Receiver<String>,
}

impl Running {
    fn start(state: &Path, more: &[&str]) -> Self {
        let mut child = relay(state, more).stderr(Stdio::piped()).spawn().expect("started");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let (mut turn, mut tls, mut admin) = (None, None, None);
        while turn.is_none() || admin.is_none() {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).expect("log"), 0, "ended early");
            // Colours are off, so the address is the last word.
            let address = line.trim().rsplit('=').next().and_then(|text| text.parse().ok());
            if line.contains("STUN and TURN") {
                turn = address;
            } else if line.contains("TURN over TLS") {
                tls = address;
            } else if line.contains("metrics") {
                admin = address;
            }
        }
        let (turn, admin) = (turn.expect("address"), admin.expect("address"));
        let (lines, rest) = channel();
        std::thread::spawn(move || {
            // Until the program ends, or nobody reads.
            log.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        Self { child, turn, tls, admin, log: rest }
    }

    fn get(&self, path: &str, host: &str) -> String {
        self.request("GET", path, host)
    }

    /// `host` may be followed by other headers.
    fn request(&self, method: &str, path: &str, host: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }

    fn ask(&self, request: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        socket.send_to(request, self.turn).expect("sent");
        let mut buffer = [0; 2048];
        let (length, _) = socket.recv_from(&mut buffer).expect("answered");
        buffer[..length].to_vec()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn relay(state: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env("NO_COLOR", "1").arg("--state-dir").arg(state);
    command.args(["--relay-ip", "127.0.0.1", "--stun-alt-port", "0"]);
    let has = |flag: &str| more.contains(&flag);
    if !has("--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    if !has("--admin") {
        command.args(["--admin", "127.0.0.1:0"]);
    }
    command.args(more);
    command
}

fn run(state: &Path, more: &[&str]) -> Output {
    relay(state, more).output().expect("started")
}

/// One line on standard error, exit status 2.
fn assert_refused(output: &Output, wanted: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(wanted), "{text:?} lacks {wanted:?}");
    let lines = text.lines().filter(|line| line.starts_with("castling-relay: ")).count();
    assert_eq!(lines, 1, "{text}");
}

fn binding_request() -> Vec<u8> {
    [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], b"transaction1"].concat()
}

#[test]
fn binding_is_answered_and_counted() {
    let state = TempDir::new().expect("directory");
    let relay = Running::start(state.path(), &[]);
    let reply = relay.ask(&binding_request());
    assert_eq!(&reply[..2], [0x01, 0x01]);
    assert_eq!(reply.len(), 32);
    let metrics = relay.get("/metrics", "localhost");
    let line = "relay_requests_total{method=\"binding\",class=\"success\",code=\"0\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    // 20 bytes of payload behind 28 of headers.
    assert!(metrics.contains("relay_wire_bytes_total{direction=\"rx\"} 48"), "{metrics}");
    assert!(metrics.contains("relay_wire_bytes_total{direction=\"tx\"} 60"), "{metrics}");
}

#[test]
fn garbage_is_met_with_silence_and_the_relay_lives() {
    let state = TempDir::new().expect("directory");
    let relay = Running::start(state.path(), &["--workers", "1"]);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let mut seed = 0x2545_F491_4F6C_DD1Du64;
    for length in 0..600 {
        let byte = |_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        };
        let bytes: Vec<u8> = (0..length).map(byte).collect();
        socket.send_to(&bytes, relay.turn).expect("sent");
    }
    assert_eq!(&relay.ask(&binding_request())[..2], [0x01, 0x01]);
    let metrics = relay.get("/metrics", "localhost");
    assert!(metrics.contains("relay_allocations 0"), "{metrics}");
    assert!(metrics.contains("relay_packets_total{leg=\"client\",direction=\"tx\",transport=\"udp\",family=\"ipv4\"} 1\n"), "{metrics}");
}

#[test]
fn allocate_without_credentials_is_challenged_with_twice_its_length_at_most() {
    let state = TempDir::new().expect("directory");
    let relay = Running::start(state.path(), &[]);
    let attribute = [0x00, 0x19, 0x00, 0x04, 17, 0, 0, 0];
    let header = [0, 3, 0, 8, 0x21, 0x12, 0xA4, 0x42];
    let request = [&header[..], b"transaction1", &attribute].concat();
    let reply = relay.ask(&request);
    assert_eq!(&reply[..2], [0x01, 0x13]);
    assert_eq!(&reply[20..28], [0, 9, 0, 4, 0, 0, 4, 1], "401");
    assert_eq!(reply.len(), 2 * request.len());
}

#[test]
fn health_and_metrics_are_for_loopback_names_only() {
    let state = TempDir::new().expect("directory");
    let relay = Running::start(state.path(), &[]);
    assert!(relay.get("/healthz", "127.0.0.1:9641").starts_with("HTTP/1.1 200"));
    assert!(relay.get("/healthz", "[::1]:9641").starts_with("HTTP/1.1 200"));
    assert!(relay.get("/metrics", "evil.example").starts_with("HTTP/1.1 403"));
    assert!(relay.get("/other", "localhost").starts_with("HTTP/1.1 404"));
}

#[test]
fn admin_address_off_loopback_needs_a_token() {
    let state = TempDir::new().expect("directory");
    assert_refused(&run(state.path(), &["--admin", "0.0.0.0:0"]), "--admin-token-file");
    let token = state.path().join("token");
    fs::write(&token, "0123456789abcdef\n").expect("written");
    let token = token.to_str().expect("text");
    let relay =
        Running::start(state.path(), &["--admin", "127.0.0.1:0", "--admin-token-file", token]);
    assert!(relay.get("/metrics", "localhost").starts_with("HTTP/1.1 401"));
    let header = "localhost\r\nAuthorization: Bearer 0123456789abcdef";
    assert!(relay.get("/metrics", header).starts_with("HTTP/1.1 200"));
    let header = "localhost\r\nAuthorization: Bearer 0123456789abcdeg";
    assert!(relay.get("/metrics", header).starts_with("HTTP/1.1 401"));
}

#[test]
fn secret_is_made_once_and_for_its_owner_only() {
    let state = TempDir::new().expect("directory");
    let secret = state.path().join("turn-secret");
    drop(Running::start(state.path(), &[]));
    let first = fs::read(&secret).expect("made");
    assert_eq!(fs::metadata(&secret).expect("made").permissions().mode() & 0o777, 0o600);
    assert!(first.len() > 40);
    // Killed like that, it starts again with the same secret and leaves nothing beside it.
    drop(Running::start(state.path(), &[]));
    assert_eq!(fs::read(&secret).expect("kept"), first);
    assert_eq!(fs::read_dir(state.path()).expect("directory").count(), 1);
}

#[test]
fn bad_settings_are_one_line_and_exit_status_2() {
    let state = TempDir::new().expect("directory");
    let path = |name: &str| state.path().join(name).to_str().expect("text").to_owned();
    fs::write(path("toml"), "lisen = '0.0.0.0:3478'\n").expect("written");
    fs::write(path("short"), "short\n").expect("written");
    fs::write(path("empty"), "\n\n").expect("written");
    for (arguments, wanted) in [
        (vec!["--config", &path("toml")], "lisen: there is no such setting"),
        (vec!["--secret-file", &path("missing")], "missing: No such file"),
        (vec!["--secret-file", &path("short")], "16 bytes or more"),
        (vec!["--secret-file", &path("empty")], "holds no secret"),
        (vec!["--allow-peer", "10.0.0.1/8"], "allow-peer: \"10.0.0.1/8\""),
        (vec!["--min-port", "60000", "--max-port", "50000"], "min-port"),
        (vec!["--user", "ana"], "NAME:PASSWORD"),
        (vec!["--workers", "0"], "workers"),
        (vec!["--max-session", "599"], "max-session"),
        (vec!["--expiry-mode", "never"], "expiry-mode"),
        (vec!["--external-ip", "2001:db8::1"], "external-ip"),
        (vec!["--listen", "192.0.2.1:3478"], "no such address"),
    ] {
        assert_refused(&run(state.path(), &arguments), wanted);
    }
    assert_refused(&run(state.path(), &["--lisen", "1"]), "command line: unexpected argument");
}

#[test]
fn busy_port_is_refused_even_by_another_relay() {
    let state = TempDir::new().expect("directory");
    let relay = Running::start(state.path(), &[]);
    let taken = relay.turn.to_string();
    let wanted = format!("listen: {taken}: another program uses this port");
    assert_refused(&run(state.path(), &["--listen", &taken]), &wanted);
    let taken = relay.admin.to_string();
    let wanted = format!("admin: {taken}: another program uses this port");
    assert_refused(&run(state.path(), &["--admin", &taken]), &wanted);
}

#[test]
fn check_prints_the_settings_without_secrets() {
    let state = TempDir::new().expect("directory");
    let output = run(state.path(), &["--check", "--user", "ana:geheim", "--realm", "school"]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success());
    assert!(text.contains("realm = \"school\""), "{text}");
    assert!(text.contains("user = [\"(hidden)\"]"), "{text}");
    assert!(!text.contains("geheim"), "{text}");
}

#[test]
fn credential_is_what_the_secret_says() {
    let state = TempDir::new().expect("directory");
    let secret = state.path().join("secret");
    fs::write(&secret, "0123456789abcdef\nsecond-secret-of-the-list\n").expect("written");
    let arguments = ["credential", "--user", "room.peer", "--ttl", "60", "--secret-file"];
    let output = Command::new(PROGRAM).args(arguments).arg(&secret).output().expect("started");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let username = json["username"].as_str().expect("text");
    let wanted = relay_proto::credential::password(b"0123456789abcdef", username);
    assert_eq!(json["password"], wanted);
    assert_eq!(username, format!("{}:room.peer", json["expires"]));
}
