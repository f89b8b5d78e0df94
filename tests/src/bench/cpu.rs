//! Where threads run, and what they used.

use std::ops::Range;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::gettid;

use crate::namespace::run;
use crate::{Failure, Outcome};

/// Core of the relay and of everything that receives for it.
pub const RELAY_CORE: usize = 0;
/// Core of the load generator and of everything that receives for it.
pub const GENERATOR_CORE: usize = 1;
/// Real-time priority of all four threads: equal, so that they share their core in turns.
const PRIORITY: &str = "10";
/// Priority of what stands for other machines.
const ELSEWHERE_PRIORITY: &str = "20";

/// Ties a thread to a core; with `realtime`, neighbours on the machine wait for it.
///
/// # Errors
/// The thread is gone, or the kernel refuses.
pub fn pin(thread: u32, core: usize, realtime: bool) -> Outcome<()> {
    let thread = thread.to_string();
    run(Command::new("taskset").args(["-pc", &core.to_string(), &thread]), "")?;
    if realtime {
        run(Command::new("chrt").args(["--rr", "-p", PRIORITY, &thread]), "")?;
    }
    Ok(())
}

/// The beginning of a command line whose rest then runs pinned as by [`pin`], to one core or more.
#[must_use]
pub fn pinned(cores: Range<usize>, realtime: bool) -> Vec<String> {
    let cores: Vec<_> = cores.map(|core| core.to_string()).collect();
    let cores = cores.join(",");
    let mut words = vec!["taskset", "-c", &cores];
    if realtime {
        words.extend(["chrt", "--rr", PRIORITY]);
    }
    words.into_iter().map(str::to_owned).collect()
}

/// Gives all threads of a process real-time priority, so that other work on the machine waits.
///
/// # Errors
/// The process is gone, or the kernel refuses.
pub fn prefer(process: u32) -> Outcome<()> {
    let process = process.to_string();
    let args = ["--all-tasks", "--rr", "-p", PRIORITY, &process];
    run(Command::new("chrt").args(args), "").map(drop)
}

/// Lets the calling thread go before those of [`prefer`], where that may be had: it plays a part of
/// the world that is elsewhere, and would not wait for this machine.
pub fn be_elsewhere() {
    let thread = gettid().to_string();
    let _ = run(Command::new("chrt").args(["--fifo", "-p", ELSEWHERE_PRIORITY, &thread]), "");
}

/// Whether real-time priority may be had here.
#[must_use]
pub fn realtime_allowed() -> bool {
    run(Command::new("chrt").args(["--rr", PRIORITY, "true"]), "").is_ok()
}

/// Allows this process, and with it the relays that it starts, as many descriptors as its hard limit
/// says; says how many.
///
/// # Errors
/// The kernel refuses.
pub fn raise_descriptor_limit() -> Outcome<usize> {
    let failed = |error| Failure::new(format!("descriptors: {error}"));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed)?;
    Ok(usize::try_from(hard).unwrap_or(usize::MAX))
}

/// Time that all threads of a process have spent on a core, in nanoseconds.
///
/// # Errors
/// The process is gone, or the kernel keeps no such figure.
pub fn used_ns(process: u32) -> Outcome<u64> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"))
        .map_err(|error| Failure::new(format!("process {process}: {error}")))?;
    let mut sum = 0;
    for thread in threads {
        let path = thread?.path().join("schedstat");
        // A thread that ends meanwhile has taken its time with it.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        sum += first.ok_or_else(|| Failure::new(format!("{}: {text:?}", path.display())))?;
    }
    Ok(sum)
}

/// Memory of a process that is in RAM, in bytes.
///
/// # Errors
/// The process is gone.
pub fn resident(process: u32) -> Outcome<u64> {
    status_bytes(process, "VmRSS:")
}

/// The most that [`resident`] ever was.
///
/// # Errors
/// The process is gone.
pub fn resident_peak(process: u32) -> Outcome<u64> {
    status_bytes(process, "VmHWM:")
}

fn status_bytes(process: u32, field: &str) -> Outcome<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))
        .map_err(|error| Failure::new(format!("process {process}: {error}")))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| Failure::new(format!("no {field} of {process}")))
}

/// The kernel's threads whose names begin with `prefix`.
///
/// # Errors
/// `/proc` cannot be read.
pub fn kernel_threads(prefix: &str) -> Outcome<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that ends meanwhile has no name any more.
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with(prefix) {
            found.push(id);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_busy_process_uses_time_and_memory() {
        let mut busy = Command::new("yes").stdout(Stdio::null()).spawn().unwrap();
        let before = used_ns(busy.id()).unwrap();
        // Ends as soon as the program is loaded and has had any time at all.
        while used_ns(busy.id()).unwrap() == before || resident(busy.id()).unwrap() < 100_000 {
            std::thread::yield_now();
        }
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(used_ns(busy.id()).is_err());
        assert!(used_ns(u32::MAX).is_err());
    }
}
