//! The program itself: its one line, its mistakes, its end.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::school::{SECRET, request};

fn program(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_castling-signaling"));
    command.current_dir(folder).env_clear().args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A program that runs, and is gone with the test whatever happens.
struct Running {
    child: Child,
    address: String,
    rest: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut child = program(folder, args).spawn().expect("started");
        let mut rest = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        rest.read_line(&mut line).expect("a line");
        let address = line.trim_end().strip_prefix("Castling is ready: http://");
        let address = address.unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { child, address, rest }
    }

    /// Ends it with a signal: its status, and what else it printed.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill");
        assert!(sent.success());
        let status = self.child.wait().expect("ended");
        let mut printed = String::new();
        self.rest.read_to_string(&mut printed).expect("text");
        (status.code(), printed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program that should end by itself; one that does not is ended, with status 124.
fn run(folder: &Path, args: &[&str]) -> Output {
    let own = program(folder, args);
    let mut command = Command::new("timeout");
    command.current_dir(folder).env_clear().arg("20").arg(own.get_program()).args(own.get_args());
    command.output().expect("run")
}

fn one_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn a_mistake_is_one_line_that_names_its_key_and_status_2() {
    let folder = tempfile::tempdir().expect("folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    write("secret", SECRET).expect("secret");
    write("short", "secret").expect("secret");
    write("bad.toml", "lisen = 'x'").expect("settings");
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let busy = busy.local_addr().expect("address").to_string();
    let cases: [(&[&str], &str); 13] = [
        (&["--lisen", "x"], "--lisen"),
        (&["--config", "bad.toml"], "lisen"),
        (&["--config", "none.toml"], "none.toml"),
        (&["--listen", "8080"], "listen: \"8080\""),
        (&["--listen", &busy], &format!("listen: {busy}")),
        (&["--admin", "0.0.0.0:0"], "admin: "),
        (&["--admin-token-file", "none"], "admin-token-file: none"),
        (&["--max-sockets-per-ip", "63"], "max-sockets-per-ip: "),
        (&["--max-sockets", "0"], "max-sockets: "),
        (&["--trusted-proxy", "10.0.0.0/99"], "trusted-proxy: "),
        (&["--web-root", "none"], "web-root: none"),
        (&["--secret-file", "none"], "secret-file: none"),
        (&["--secret-file", "short"], "secret-file: short"),
    ];
    for (args, wanted) in cases {
        let mut line = vec!["--relay", "turn:relay.example"];
        if !args.contains(&"--secret-file") {
            line.extend(["--secret-file", "secret"]);
        }
        if !args.contains(&"--admin") {
            line.extend(["--admin", "127.0.0.1:0"]);
        }
        line.extend(args);
        let output = run(folder.path(), &line);
        let text = one_line(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(wanted), "{args:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_relay_that_is_none_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("secret"), SECRET).expect("secret");
    let args = ["--secret-file", "secret", "--relay", "http://relay.example"];
    let output = run(folder.path(), &args);
    assert_eq!(output.status.code(), Some(2));
    assert!(one_line(&output).contains("relay: \"http://relay.example\""));
}

#[test]
fn a_mistake_of_the_embedded_relay_is_named_with_its_prefix() {
    let folder = tempfile::tempdir().expect("folder");
    let busy = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let busy = busy.local_addr().expect("address").to_string();
    let free = ["--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--relay.admin=127.0.0.1:0"];
    let cases: [(&[&str], &str); 6] = [
        (&["--secret-file", "none"], "castling-signaling: secret-file: none"),
        (&["--relay.secret-file", "none"], "relay.secret-file: none"),
        (&["--relay.min-port", "80"], "relay.min-port: 80"),
        (&["--relay.listen", &busy], &format!("relay.listen: {busy}: another program")),
        (&["--relay.workers", "many"], "relay.workers: \"many\""),
        (&["--relay.allow-peer", "10.0.0.1/8"], "relay.allow-peer: "),
    ];
    for (args, wanted) in cases {
        let output = run(folder.path(), &[&free[..], args].concat());
        let text = one_line(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(wanted), "{args:?}: {text}");
    }
}

#[test]
fn checked_settings_are_printed_without_starting() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("secret"), SECRET).expect("secret");
    let args = ["--check", "--secret-file", "secret", "--relay", "turn:relay.example"];
    let output = run(folder.path(), &args);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("relay = [\"turn:relay.example\"]"), "{text}");
    assert!(text.contains("listen = \"127.0.0.1:8080\""), "{text}");
    assert!(!text.contains(SECRET), "{text}");
}

#[tokio::test]
async fn a_running_program_prints_its_address_and_ends_on_a_signal() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("secret"), SECRET).expect("secret");
    let args = [
        "--relay=turn:relay.example",
        "--secret-file=secret",
        "--listen=127.0.0.1:0",
        "--admin=127.0.0.1:0",
    ];
    for signal in ["-TERM", "-INT"] {
        let running = Running::start(folder.path(), &args);
        let at = running.address.parse().expect("an address");
        assert_eq!(request(at, "GET", "/healthz", "").await.status, 200);
        assert_eq!(running.end(signal), (Some(0), String::new()), "{signal}");
    }
}
