//! Runs this program inside valgrind, one case at a time.

use std::env;
use std::io;
use std::process::Command;

use crate::cases::{Case, ROUNDS};

/// Only what happens inside this function is counted.
const COUNTED: &str = "--toggle-collect=*bench::counted*";

/// Instructions that one round of a case takes.
pub fn count(case: &Case) -> Result<u64, String> {
    let itself = env::current_exe().map_err(|error| format!("cannot find itself: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", COUNTED])
        .arg(itself)
        .args(["--case", case.name])
        // The environment lies on the stack, and must not be longer on one machine than another.
        .env_clear()
        .envs(env::var_os("PATH").map(|path| ("PATH", path)))
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                "valgrind is not installed; on Debian: apt-get install valgrind".to_owned()
            }
            _ => format!("valgrind cannot be run: {error}"),
        })?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{} failed inside valgrind:\n{said}", case.name));
    }
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    let collected = collected.and_then(|(_, number)| number.trim().parse::<u64>().ok());
    match collected {
        Some(collected) if collected > 0 => Ok(collected / ROUNDS),
        _ => Err(format!("valgrind counted nothing of {}:\n{said}", case.name)),
    }
}
