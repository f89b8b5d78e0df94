//! What the operator orders while calls go on: reload, kick, drain, signals.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use relay_proto::attribute as attr;
use relay_proto::credential;
use relay_proto::stun::Method;
use tempfile::TempDir;

use super::equipment::{metric, peer};
use super::turn_client::{TurnClient, USER, channel_data, is_success};
use crate::{PATIENCE, Running};

const CHANNEL: u16 = 0x4000;
/// Long after any test.
const EXPIRES: u64 = 4_000_000_000;
const OLD: &str = "the old secret of these tests";
const NEW: &str = "the new secret of these tests";
/// Time between two looks at an awaited condition.
const LOOK: Duration = Duration::from_millis(10);

/// A relay with files that tests change under it. Its peers are on 127.0.0.2.
struct School {
    relay: Running,
    folder: TempDir,
}

impl School {
    fn start(more: &[&str]) -> Self {
        let folder = TempDir::new().expect("directory");
        let file = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
        let (config, secret) = (file("relay.toml"), file("secret"));
        write(config.as_ref(), "allow-peer = ['127.0.0.2/32']\n");
        write(secret.as_ref(), OLD);
        let files = ["--config", &config, "--secret-file", &secret, "--user", USER];
        let relay = Running::start(folder.path(), &[&files, more].concat());
        Self { relay, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn client(&self, secret: &str, user: &str) -> TurnClient {
        let made = credential::mint(secret.as_bytes(), user, EXPIRES);
        TurnClient::over_udp(self.relay.turn).with(&made.username, &made.password)
    }

    fn metric(&self, name: &str) -> u64 {
        metric(&self.relay, name)
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.metric(&format!("relay_dropped_packets_total{{reason=\"{reason}\"}}"))
    }

    /// Waits until so many reloads have gone this way.
    fn await_reloads(&self, result: &str, count: u64) {
        let name = format!("relay_reloads_total{{result=\"{result}\"}}");
        await_that(&name, || (self.metric(&name) == count).then_some(()));
    }

    fn signal(&self, name: &str) {
        let pid = self.relay.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill").success());
    }

    /// The answer of the admin address: status and body.
    fn order(&self, method: &str, path: &str) -> (u16, serde_json::Value) {
        let answer = self.relay.request(method, path, "localhost");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("number");
        (status, serde_json::from_str(body).expect("JSON"))
    }

    /// The next line of the log that has this text.
    fn logged(&self, text: &str) -> String {
        loop {
            let line = self.relay.log.recv_timeout(PATIENCE).expect(text);
            if line.contains(text) {
                return line;
            }
        }
    }

    fn await_end(&mut self) -> ExitStatus {
        await_that("the program's end", || self.relay.child.try_wait().expect("a child"))
    }
}

fn write(path: &Path, text: &str) {
    let aside = path.with_extension("new");
    fs::write(&aside, text).expect("written");
    fs::rename(aside, path).expect("moved");
}

fn await_that<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(LOOK);
    }
}

fn refresh(client: &mut TurnClient, seconds: u32) -> bool {
    let request =
        client.request(Method::Refresh, |w| w.attribute(attr::LIFETIME, &seconds.to_be_bytes()));
    client.send(&request);
    is_success(&client.next().expect("answered"))
}

/// Everything that the client sent before is decided when this returns.
fn settle(client: &mut TurnClient) {
    let request = client.binding();
    client.send(&request);
    assert!(is_success(&client.next().expect("answered")));
}

fn reaches(client: &mut TurnClient, peer: &UdpSocket) {
    client.send(&channel_data(CHANNEL, b"to the peer!"));
    let mut buffer = [0; 64];
    let (length, relayed) = peer.recv_from(&mut buffer).expect("received");
    assert_eq!(&buffer[..length], b"to the peer!");
    peer.send_to(b"and back", relayed).expect("sent");
    assert_eq!(client.next().expect("received"), channel_data(CHANNEL, b"and back"));
}

#[test]
fn secret_is_rotated_without_a_restart_and_calls_go_on() {
    let school = School::start(&[]);
    let (socket, _) = peer();
    let mut early = school.client(OLD, "maths.ana");
    early.allocate();
    early.bind(CHANNEL, socket.local_addr().expect("address"));
    assert_eq!(school.client(NEW, "maths.ben").try_allocate(), Err(401));
    write(&school.file("secret"), &format!("{NEW}\n{OLD}\n"));
    school.await_reloads("success", 1);
    for secret in [NEW, OLD] {
        assert!(school.client(secret, "maths.ben").try_allocate().is_ok(), "both verify");
    }
    write(&school.file("secret"), NEW);
    school.await_reloads("success", 2);
    assert_eq!(school.client(OLD, "maths.cleo").try_allocate(), Err(401));
    assert!(school.client(NEW, "maths.cleo").try_allocate().is_ok());
    assert!(refresh(&mut early, 600), "the allocation keeps its own key");
    reaches(&mut early, &socket);
}

/// F18.
#[test]
fn secret_file_that_cannot_be_used_keeps_the_old_secrets_and_says_so_once() {
    let school = School::start(&[]);
    write(&school.file("secret"), "short\n");
    school.await_reloads("failure", 1);
    let line = school.logged("not reloaded");
    assert!(line.contains("WARN") && line.contains("secret-file") && !line.contains("short\\n"));
    fs::remove_file(school.file("secret")).expect("removed");
    school.await_reloads("failure", 2);
    assert!(school.logged("not reloaded").contains("No such file"));
    assert!(school.client(OLD, "maths.ana").try_allocate().is_ok());
    write(&school.file("secret"), NEW);
    school.await_reloads("success", 1);
    assert_eq!(school.metric("relay_reloads_total{result=\"failure\"}"), 2);
    assert!(school.client(NEW, "maths.ana").try_allocate().is_ok());
}

/// F18.
#[test]
fn typo_in_the_file_rejects_the_whole_reload() {
    let school = School::start(&[]);
    let (socket, _) = peer();
    let mut client = school.client(OLD, "maths.ana");
    client.allocate();
    client.bind(CHANNEL, socket.local_addr().expect("address"));
    write(&school.file("relay.toml"), "deny-peer = ['127.0.0.0/8']\nalow-peer = []\n");
    school.signal("-HUP");
    school.await_reloads("failure", 1);
    let line = school.logged("not reloaded");
    assert!(
        line.contains("WARN") && line.contains("alow-peer: there is no such setting"),
        "{line}"
    );
    reaches(&mut client, &socket);
    let (status, answer) = school.order("POST", "/api/v1/reload");
    assert_eq!(status, 422);
    let why = answer["error"].as_str().expect("text");
    assert!(why.contains("alow-peer"), "{why}");
}

/// PRM-10.
#[test]
fn reload_narrows_the_policy_of_a_running_call_and_names_what_needs_a_restart() {
    let school = School::start(&[]);
    let (socket, _) = peer();
    let mut client = school.client(OLD, "maths.ana");
    let relayed = client.allocate();
    client.bind(CHANNEL, socket.local_addr().expect("address"));
    reaches(&mut client, &socket);
    write(&school.file("relay.toml"), "allow-peer = []\nworkers = 1\nrealm = 'other'\n");
    school.signal("-HUP");
    school.await_reloads("success", 1);
    let line = school.logged("need a restart");
    assert!(line.contains("realm, workers"), "{line}");
    client.send(&channel_data(CHANNEL, b"to the peer!"));
    settle(&mut client);
    assert_eq!(school.dropped("peer_denied"), 1);
    socket.send_to(b"and back", relayed).expect("sent");
    await_that("a drop", || (school.dropped("peer_denied") == 2).then_some(()));
    write(&school.file("relay.toml"), "allow-peer = ['127.0.0.2/32']\n");
    let (status, answer) = school.order("POST", "/api/v1/reload");
    assert_eq!((status, &answer["restart_needed"]), (200, &serde_json::json!([])));
    reaches(&mut client, &socket);
}

#[test]
fn reload_changes_limits_and_static_users() {
    let school = School::start(&[]);
    let mut client = school.client(OLD, "maths.ana");
    client.allocate();
    write(&school.file("relay.toml"), "allocations-per-user = 1\n");
    assert_eq!(school.order("POST", "/api/v1/reload").0, 200);
    assert_eq!(school.client(OLD, "maths.ana").try_allocate(), Err(486));
    assert!(refresh(&mut client, 600));
    write(&school.file("relay.toml"), "allocations-per-user = 2\nmax-bps = 8000000\n");
    assert_eq!(school.order("POST", "/api/v1/reload").0, 200);
    assert!(school.client(OLD, "maths.ana").try_allocate().is_ok());
}

/// F19, I-22.
#[test]
fn kicked_user_is_cut_off_over_every_transport_and_its_credential_is_dead() {
    let school = School::start(&[]);
    let made = credential::mint(OLD.as_bytes(), "school/maths.ana", EXPIRES);
    let over = |client: TurnClient| client.with(&made.username, &made.password);
    let mut udp = over(TurnClient::over_udp(school.relay.turn));
    let mut tcp = over(TurnClient::over_tcp(school.relay.turn));
    let mut other = school.client(OLD, "school/maths.ben");
    let (socket, _) = peer();
    let at = socket.local_addr().expect("address");
    let ports: Vec<SocketAddr> = [&mut udp, &mut tcp, &mut other]
        .map(|client| {
            let relayed = client.allocate();
            client.bind(CHANNEL, at);
            relayed
        })
        .into();
    let (status, answer) = school.order("DELETE", "/api/v1/users/school%2Fmaths.ana");
    assert_eq!((status, &answer["allocations"]), (200, &2.into()));
    assert_eq!(answer["revoked_until"], EXPIRES, "as long as its credential would have been good");
    // Nobody is there any more: the kernel says so to whoever sends.
    for port in &ports[..2] {
        let socket = UdpSocket::bind("127.0.0.2:0").expect("bound");
        socket.connect(port).expect("connected");
        let _ = socket.send(b"hello?");
        let closed = await_that("a refusal", || socket.send(b"hello?").err());
        assert_eq!(closed.kind(), ErrorKind::ConnectionRefused);
    }
    udp.send(&channel_data(CHANNEL, b"to the peer!"));
    settle(&mut udp);
    assert_eq!(school.dropped("no_allocation"), 1);
    assert_eq!(tcp.next(), None, "the stream is closed");
    assert_eq!(udp.try_allocate(), Err(401));
    let renewed = credential::mint(OLD.as_bytes(), "school/maths.ana", EXPIRES - 1);
    let renewed =
        TurnClient::over_tcp(school.relay.turn).with(&renewed.username, &renewed.password);
    assert_eq!({ renewed }.try_allocate(), Err(401));
    reaches(&mut other, &socket);
    let name = "relay_allocations_closed_total{reason=\"kicked\"}";
    assert_eq!(school.metric(name), 2);
    assert_eq!(school.metric("relay_auth_failures_total{reason=\"revoked\"}"), 2);
    assert_eq!(school.metric("relay_conservation_errors_total"), 0);
}

/// I-22: what waits for a client that takes nothing is never sent.
#[test]
fn kicked_client_that_reads_nothing_is_cut_off_too() {
    let school = School::start(&["--workers", "1"]);
    let stream = TcpStream::connect(school.relay.turn).expect("connected");
    // So little that the relay's socket takes nothing more while the backlog is full.
    socket2::SockRef::from(&stream).set_recv_buffer_size(4_096).expect("a small buffer");
    let made = credential::mint(OLD.as_bytes(), "maths.ana", EXPIRES);
    let mut client = TurnClient::on(stream.try_clone().expect("descriptor"))
        .with(&made.username, &made.password);
    let relayed = client.allocate();
    let (socket, _) = peer();
    client.bind(CHANNEL, socket.local_addr().expect("address"));
    // Once each payload costs an older one, neither the kernel nor the client takes any more.
    let mut dropped = 0;
    await_that("a stream that stands still", || {
        for _ in 0..64 {
            socket.send_to(&[7; 1_200], relayed).expect("sent");
        }
        let before = std::mem::replace(&mut dropped, school.dropped("tcp_backlog"));
        (dropped >= before + 64).then_some(())
    });
    assert_eq!(school.order("DELETE", "/api/v1/users/maths.ana").0, 200);
    let end = await_that("an end", || stream.take_error().expect("a socket"));
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    assert_eq!(school.metric("relay_conservation_errors_total"), 0);
}

#[test]
fn kicked_room_is_everybody_in_it_on_every_thread() {
    let school = School::start(&["--workers", "2"]);
    let mut clients: Vec<_> =
        (0..16).map(|at| school.client(OLD, &format!("maths.pupil-{at}"))).collect();
    for client in &mut clients {
        client.allocate();
    }
    let mut art = school.client(OLD, "art.ana");
    art.allocate();
    let (status, answer) = school.order("DELETE", "/api/v1/rooms/maths?for=60");
    assert_eq!((status, &answer["allocations"]), (200, &16.into()));
    assert_eq!(school.metric("relay_allocations"), 1);
    assert!(refresh(&mut art, 600));
    for client in &mut clients {
        assert_eq!(client.try_allocate(), Err(401));
    }
}

/// ALC-24.
#[test]
fn drained_relay_sends_new_clients_away_and_ends_when_the_last_one_goes() {
    let mut school = School::start(&["--alternate-server", "127.0.0.1:3478"]);
    let mut client = school.client(OLD, "maths.ana");
    let (socket, _) = peer();
    client.allocate();
    client.bind(CHANNEL, socket.local_addr().expect("address"));
    let (status, answer) = school.order("POST", "/api/v1/drain");
    assert_eq!((status, &answer["allocations"]), (200, &1.into()));
    assert_eq!(school.metric("relay_draining"), 1);
    assert_eq!(school.client(OLD, "maths.ben").try_allocate(), Err(300));
    assert!(refresh(&mut client, 600));
    reaches(&mut client, &socket);
    write(&school.file("secret"), NEW);
    school.await_reloads("success", 1);
    assert_eq!(school.client(NEW, "maths.ben").try_allocate(), Err(300), "a reload ends no drain");
    assert!(refresh(&mut client, 0));
    assert!(school.await_end().success());
}

#[test]
fn term_drains_and_a_second_one_ends_at_once() {
    let mut school = School::start(&[]);
    let mut client = school.client(OLD, "maths.ana");
    client.allocate();
    school.signal("-TERM");
    await_that("a drain", || (school.metric("relay_draining") == 1).then_some(()));
    assert_eq!(school.client(OLD, "maths.ben").try_allocate(), Err(508));
    write(&school.file("relay.toml"), "alternate-server = ['127.0.0.1:3478']\n");
    assert_eq!(school.order("POST", "/api/v1/reload").0, 200);
    assert_eq!(school.client(OLD, "maths.ben").try_allocate(), Err(300), "an alternate is there");
    assert!(refresh(&mut client, 600));
    assert_eq!(school.relay.child.try_wait().expect("a child"), None);
    school.signal("-TERM");
    assert!(school.await_end().success());
}

#[test]
fn int_and_a_used_up_limit_end_at_once() {
    for (limit, signals) in [("600", &["-INT"][..]), ("0", &["-TERM"]), ("600", &["-TERM", "-INT"])]
    {
        let mut school = School::start(&["--drain-limit", limit]);
        school.client(OLD, "maths.ana").allocate();
        for (at, signal) in signals.iter().enumerate() {
            school.signal(signal);
            if at + 1 < signals.len() {
                await_that("a drain", || (school.metric("relay_draining") == 1).then_some(()));
            }
        }
        assert!(school.await_end().success(), "{signals:?}");
    }
}

#[test]
fn orders_are_taken_from_this_host_only_and_in_their_own_form() {
    let school = School::start(&[]);
    let status = |method: &str, path: &str, headers: &str| {
        let answer = school.relay.request(method, path, headers);
        answer.split(' ').nth(1).expect("a status").to_owned()
    };
    let drain = "/api/v1/drain";
    assert_eq!(status("POST", drain, "localhost\r\nOrigin: http://evil.example"), "403");
    assert_eq!(status("POST", drain, "localhost\r\nOrigin: null"), "403");
    assert_eq!(status("POST", drain, "evil.example"), "403");
    assert_eq!(status("GET", drain, "localhost"), "405");
    assert_eq!(status("POST", "/api/v1/users/ana", "localhost"), "405");
    assert_eq!(status("DELETE", "/api/v1/users/", "localhost"), "404");
    assert_eq!(status("DELETE", "/api/v1/users/%FF", "localhost"), "400");
    assert_eq!(status("DELETE", "/api/v1/users/ana?for=ever", "localhost"), "400");
    assert_eq!(status("POST", "/api/v1/other", "localhost"), "404");
    assert_eq!(status("POST", "/metrics", "localhost"), "405");
    assert_eq!(school.metric("relay_draining"), 0);
    assert_eq!(status("POST", drain, "localhost\r\nOrigin: http://localhost"), "200");
}
