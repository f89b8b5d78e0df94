//! Starts a browser spec of `tests/browser` and listens to it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use e2e::process::installed;
use e2e::{Failure, Outcome};
use serde_json::Value;

/// Where the specs are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/browser");
/// How long a spec may be silent before it counts as stuck.
const SILENCE: Duration = Duration::from_secs(150);

/// What browser tests lack on this machine, in words.
pub fn missing() -> Option<String> {
    for (tool, package) in [("node", "nodejs"), ("chromium", "chromium")] {
        if !installed(tool) {
            return Some(format!("needs {tool} (Debian package {package})"));
        }
    }
    let modules = Path::new(FOLDER).join("node_modules");
    (!modules.is_dir()).then(|| format!("needs its packages: npm ci --prefix {FOLDER}"))
}

/// A running spec. Dropping it ends it with its browsers.
pub struct Spec {
    child: Child,
    input: Option<ChildStdin>,
    events: Receiver<Value>,
    reader: Option<JoinHandle<()>>,
}

impl Spec {
    /// Starts `file` with `argument` as JSON.
    pub fn start(file: &str, argument: &Value) -> Outcome<Self> {
        let mut command = Command::new("node");
        command.args(["--import", "tsx", file]).arg(argument.to_string()).current_dir(FOLDER);
        Self::listen(&command)
    }

    /// Starts any program that speaks in lines of JSON and stops when its standard input ends.
    pub fn listen(program: &Command) -> Outcome<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program.get_program()).args(program.get_args());
        if let Some(folder) = program.get_current_dir() {
            command.current_dir(folder);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let (tell, events) = channel();
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if tell.send(event).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, input, events, reader: Some(reader) })
    }

    /// The next event; `None` when the spec has ended well.
    pub fn next(&mut self) -> Outcome<Option<Value>> {
        match self.events.recv_timeout(SILENCE) {
            Ok(event) if event["event"] == "failed" => {
                Err(Failure::new(event["text"].as_str().unwrap_or("no reason given")))
            }
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Err(Failure::new("the browser spec is stuck")),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                if status.success() { Ok(None) } else { Err(Failure::new(status.to_string())) }
            }
        }
    }

    /// The events that have arrived; does not wait.
    pub fn arrived(&mut self) -> Outcome<Vec<Value>> {
        let mut events = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            if event["event"] == "failed" {
                return Err(Failure::new(event["text"].as_str().unwrap_or("no reason given")));
            }
            events.push(event);
        }
        Ok(events)
    }

    /// Tells the spec to stop and returns what it still said.
    pub fn stop(mut self) -> Outcome<Vec<Value>> {
        self.input = None;
        let mut last = Vec::new();
        while let Some(event) = self.next()? {
            last.push(event);
        }
        Ok(last)
    }
}

impl Drop for Spec {
    fn drop(&mut self) {
        // Browsers end with the pipes that drive them.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
