//! Which machine and programs the figures come from.

use super::subject::Subject;
use crate::Outcome;

/// One line about cores, kernel and the versions of `subjects`.
///
/// # Errors
/// A program cannot be asked for its version.
pub fn describe(subjects: &[Subject]) -> Outcome<String> {
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let info = std::fs::read_to_string("/proc/cpuinfo")?;
    let value = |key: &str| {
        let line = info.lines().find(|line| line.starts_with(key))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let model = value("model name").unwrap_or_else(|| "unknown processor".to_owned());
    let flags = value("flags").unwrap_or_default();
    let place = if flags.split(' ').any(|flag| flag == "hypervisor") {
        "virtual machine"
    } else {
        "machine"
    };
    let mut versions = Vec::new();
    for subject in subjects {
        let version = subject.version()?;
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    let (kernel, versions) = (kernel.trim(), versions.join(", "));
    Ok(format!("{place} with {cores} cores ({model}), Linux {kernel}; {versions}"))
}
