//! One network namespace: commands, threads and sockets inside it.

use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::{Failure, Outcome};

/// How long a socket of a synthetic client waits for a datagram before the test fails.
const RECEIVE_WAIT: Duration = Duration::from_secs(10);

/// Removes a namespace and everything in it.
///
/// # Errors
/// The kernel keeps it.
pub fn remove(name: &str) -> Outcome<()> {
    run(Command::new("ip").args(["netns", "delete", name]), "")
        .map(drop)
        .map_err(|error| Failure::new(format!("{name} stays behind: {error}")))
}

/// Removes what processes that are gone have left: namespaces named `prefix`, then the process's
/// number.
///
/// # Errors
/// The kernel keeps one.
pub fn remove_leftovers(prefix: &str) -> Outcome<()> {
    let list = run(Command::new("ip").args(["netns", "list"]), "")?;
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let Some(rest) = name.strip_prefix(prefix) else { continue };
        let owner = rest.split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(name)?;
        }
    }
    Ok(())
}

/// A named network namespace. Dropping the value leaves it in place: the laboratory removes it.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace, with loopback up and IPv6 off (no router or neighbour discovery).
    ///
    /// # Errors
    /// The name is taken or the kernel refuses.
    pub fn create(name: &str) -> Outcome<Self> {
        run(Command::new("ip").args(["netns", "add", name]), "")?;
        let made = Self { name: name.to_owned() };
        made.sysctl(&["net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"])?;
        made.ip("link set lo up")?;
        Ok(made)
    }

    /// Its name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a command inside to its end and returns what it printed.
    ///
    /// # Errors
    /// It cannot be started or exits with another status than 0; the text quotes its complaint.
    pub fn run(&self, program: &str, args: &[&str]) -> Outcome<String> {
        run(self.command(program).args(args), "")
    }

    /// Runs `ip` commands inside, one a line.
    ///
    /// # Errors
    /// The first command that fails.
    pub fn ip(&self, batch: &str) -> Outcome<()> {
        run(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), batch).map(drop)
    }

    /// Loads an nftables script inside.
    ///
    /// # Errors
    /// A rule that nftables refuses.
    pub fn nft(&self, script: &str) -> Outcome<()> {
        run(self.command("nft").args(["-f", "-"]), script).map(drop)
    }

    /// Sets kernel parameters of the namespace.
    ///
    /// # Errors
    /// An unknown parameter.
    pub fn sysctl(&self, settings: &[&str]) -> Outcome<()> {
        run(self.command("sysctl").arg("-qw").args(settings), "").map(drop)
    }

    /// Calls `work` on a thread that has entered the namespace. Sockets that it opens stay inside.
    ///
    /// # Errors
    /// The namespace is gone, or what `work` answers.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
        let place = File::open(format!("/run/netns/{}", self.name))?;
        let entered = || {
            setns(&place, CloneFlags::CLONE_NEWNET)
                .map_err(|error| Failure::new(format!("enter {}: {error}", self.name)))?;
            work()
        };
        std::thread::scope(|scope| match scope.spawn(entered).join() {
            Ok(answer) => answer,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// A blocking UDP socket inside, bound to `at`.
    ///
    /// # Errors
    /// The address is taken or not local.
    pub fn udp(&self, at: SocketAddr) -> Outcome<UdpSocket> {
        self.within(|| {
            let socket = UdpSocket::bind(at)?;
            socket.set_read_timeout(Some(RECEIVE_WAIT))?;
            Ok(socket)
        })
    }
}

/// Runs a command to its end with `input` on its standard input.
pub(crate) fn run(command: &mut Command, input: &str) -> Outcome<String> {
    let name = format!("{command:?}");
    let failed = |text: &str| Failure::new(format!("{name}: {}", text.trim()));
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&error.to_string()))?;
    let mut pipe = child.stdin.take().expect("standard input is piped");
    // A program that ends before it has read everything says why on its standard error.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
