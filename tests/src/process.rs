//! Programs under test: started in a namespace, watched, and ended by their own process id.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::namespace::Namespace;
use crate::{Failure, Outcome};

/// Time between two looks at an awaited condition.
const LOOK: Duration = Duration::from_millis(20);
/// How long a program may take to end after each `TERM` before the next one, and before it is
/// killed. A relay with live allocations drains after the first and ends after the second.
const END_WAITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];
/// Lines of a log that a failure quotes.
const QUOTED_LINES: usize = 20;

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `path` inside `namespace`; what it prints goes to `<folder>/<name>.log`.
    ///
    /// The kernel kills it when the thread that started it ends, so nothing outlives a test.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        namespace: &Namespace,
        name: &str,
        path: &Path,
        args: &[String],
        folder: &Path,
    ) -> Outcome<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let mut command = Command::new("setpriv");
        let inside = namespace.command(path);
        command.args(["--pdeathsig", "KILL"]).arg(inside.get_program()).args(inside.get_args());
        let command = command.args(args).stdin(Stdio::null()).stderr(output.try_clone()?);
        let child = command
            .stdout(output)
            .spawn()
            .map_err(|error| Failure::new(format!("{name}: {error}")))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Everything that it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The kernel's name for it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` answers something, as long as the program lives.
    ///
    /// # Errors
    /// The program ended or `limit` passed; the text quotes the end of its log.
    pub fn until<T>(
        &mut self,
        limit: Duration,
        what: &str,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Outcome<T> {
        let start = Instant::now();
        loop {
            if let Some(answer) = ready() {
                return Ok(answer);
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(self.complaint(&format!("ended with {status} before {what}")));
            }
            if start.elapsed() > limit {
                return Err(self.complaint(&format!("{what}: not within {limit:?}")));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn complaint(&self, text: &str) -> Failure {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n  ");
        Failure::new(format!("{} {text}\n  {tail}", self.name))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        for wait in END_WAITS {
            let _ = kill(pid, Signal::SIGTERM);
            if until(wait, || self.child.try_wait().ok().flatten()).is_some() {
                return;
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `condition` answers something; `None` after `limit`.
pub fn until<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        match condition() {
            Some(answer) => return Some(answer),
            None if start.elapsed() > limit => return None,
            None => std::thread::sleep(LOOK),
        }
    }
}

/// Whether a tool is on the search path.
#[must_use]
pub fn installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(tool).is_file())
}

/// Our program `name`: in `CASTLING_BIN_DIR`, else built beside this program or test, else in the
/// other profile's folder.
#[must_use]
pub fn ours(name: &str) -> Option<PathBuf> {
    let given = std::env::var_os("CASTLING_BIN_DIR").map(PathBuf::from);
    // Tests are in a folder inside the one of programs.
    let own = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    let beside = own.and_then(|own| match own.ends_with("deps") {
        true => own.parent().map(Path::to_owned),
        false => Some(own),
    });
    let target = beside.as_deref().and_then(Path::parent).map(Path::to_owned);
    let others =
        ["release", "debug"].map(|profile| target.as_ref().map(|target| target.join(profile)));
    let folders: Vec<PathBuf> = match given {
        Some(folder) => vec![folder],
        None => beside.into_iter().chain(others.into_iter().flatten()).collect(),
    };
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// What a program says about its version: the last line of it that says anything.
///
/// # Errors
/// It cannot be run.
pub fn version(program: &Path) -> Outcome<String> {
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    Ok(line.unwrap_or_default().to_owned())
}
