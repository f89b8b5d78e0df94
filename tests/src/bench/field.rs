//! Two namespaces with one cable between them, and a core for each.

use std::net::Ipv4Addr;

use nix::unistd::{Uid, getpid};

use super::cpu::{self, GENERATOR_CORE, RELAY_CORE};
use crate::namespace::{Namespace, remove, remove_leftovers};
use crate::process::installed;
use crate::report::say;
use crate::{Failure, Outcome};

/// Where the relay listens and opens its ports.
pub const RELAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Where clients and peers are.
pub const GENERATOR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The network of both.
pub const NETWORK: &str = "198.51.100.0/24";

/// Our namespaces begin like this, followed by the process that made them.
const PREFIX: &str = "castling-bench-";
/// Turns of real-time threads on one core, in milliseconds. The kernel's default of 100 would let
/// queues run over while one of two threads has its turn.
const SLICE_MS: u32 = 1;
const SLICE_FILE: &str = "/proc/sys/kernel/sched_rr_timeslice_ms";
/// What to write there for the kernel's own default.
const SLICE_DEFAULT: &str = "0";

/// The place of a run. Dropping it removes the namespaces and gives the kernel its setting back.
#[derive(Debug)]
pub struct Field {
    /// The relay's namespace.
    pub relay: Namespace,
    /// The generator's.
    pub generator: Namespace,
    /// Kernel threads that receive for the relay; their time is the relay's, too.
    pub relay_napi: Vec<u32>,
    /// Whether neighbours on the machine have to wait.
    pub realtime: bool,
    slice_before: Option<String>,
}

impl Field {
    /// Builds it. Leftovers of dead processes are removed first.
    ///
    /// # Errors
    /// A tool or a right is missing, in words, or whatever the kernel refuses.
    pub fn build(realtime: bool) -> Outcome<Self> {
        require()?;
        remove_leftovers(PREFIX)?;
        let pid = getpid();
        let relay = Namespace::create(&format!("{PREFIX}{pid}-relay"))?;
        let generator = Namespace::create(&format!("{PREFIX}{pid}-generator"));
        let generator = generator.inspect_err(|_| drop(remove(relay.name())))?;
        // From here on dropping the field cleans up.
        let mut field = Self {
            relay,
            generator,
            relay_napi: Vec::new(),
            realtime: realtime && cpu::realtime_allowed(),
            slice_before: None,
        };
        if !field.realtime {
            say("without real-time priority: other work on this machine disturbs the figures");
        } else if let Ok(before) = std::fs::read_to_string(SLICE_FILE) {
            let ours = SLICE_MS.to_string();
            std::fs::write(SLICE_FILE, &ours)?;
            // Ours already: a run was killed before it could give the setting back.
            let left_behind = before.trim() == ours;
            field.slice_before = Some(if left_behind { SLICE_DEFAULT.to_owned() } else { before });
        }
        field.connect()?;
        Ok(field)
    }

    fn connect(&mut self) -> Outcome<()> {
        // The names of kernel threads have the interface's in them: unique on the machine.
        let pid = getpid();
        let (ours, theirs) = (format!("cb{pid}r"), format!("cb{pid}g"));
        let (relay, generator) = (&self.relay, &self.generator);
        relay.ip(&format!(
            "link add {ours} type veth peer name {theirs} netns {}",
            generator.name()
        ))?;
        self.relay_napi = plug(relay, &ours, RELAY, RELAY_CORE, self.realtime)?;
        // Two sockets for each of 20,000 allocations.
        generator.sysctl(&["net.ipv4.ip_local_port_range=1024 65535"])?;
        let napi = plug(generator, &theirs, GENERATOR, GENERATOR_CORE, self.realtime)?;
        if self.relay_napi.is_empty() || napi.is_empty() {
            say("no NAPI threads: receiving for the relay counts for the generator's core");
        }
        Ok(())
    }

    /// Runs `work` inside the generator's namespace, on its core.
    ///
    /// # Errors
    /// What `work` answers, or the kernel refuses.
    pub fn generate<T: Send>(&self, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
        self.generator.within(|| {
            let thread = nix::unistd::gettid().as_raw().cast_unsigned();
            cpu::pin(thread, GENERATOR_CORE, self.realtime)?;
            work()
        })
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        if let Some(before) = &self.slice_before {
            // Nothing is left to be done about failures here; the text says how to mend them.
            if std::fs::write(SLICE_FILE, before).is_err() {
                say(&format!("{SLICE_FILE} stays at {SLICE_MS}; it was {before}"));
            }
        }
        for namespace in [&self.relay, &self.generator] {
            if let Err(error) = remove(namespace.name()) {
                say(&error.to_string());
            }
        }
    }
}

/// Gives an end of the cable its address and its own receiving thread on `core`.
fn plug(
    namespace: &Namespace,
    device: &str,
    address: Ipv4Addr,
    core: usize,
    realtime: bool,
) -> Outcome<Vec<u32>> {
    // Packets cross one by one as on a wire, even if a program hands the kernel a train of them.
    // GRO on a veth means that it has a NAPI context at all.
    let features = ["gro", "on", "tso", "off", "tx-udp-segmentation", "off"];
    namespace.run("ethtool", &[&["-K", device], &features[..]].concat())?;
    namespace.ip(&format!("addr add {address}/24 dev {device}\nlink set {device} up"))?;
    let switch = format!("/sys/class/net/{device}/threaded");
    let script = format!("test -e {switch} && echo 1 > {switch} || true");
    namespace.run("sh", &["-c", &script])?;
    // Kernels before 5.17 cut the name after 15 bytes.
    let name: String = format!("napi/{device}-").chars().take(15).collect();
    let threads = cpu::kernel_threads(&name)?;
    for thread in &threads {
        cpu::pin(*thread, core, realtime)?;
    }
    Ok(threads)
}

/// What a run needs of this machine.
fn require() -> Outcome<()> {
    if !Uid::effective().is_root() {
        return Err(Failure::new("the benchmark needs root, for namespaces"));
    }
    if std::thread::available_parallelism()?.get() < 2 {
        return Err(Failure::new("the benchmark needs two cores, one for the relay alone"));
    }
    let tools = [
        ("ip", "iproute2"),
        ("ethtool", "ethtool"),
        ("sysctl", "procps"),
        ("taskset", "util-linux"),
        ("chrt", "util-linux"),
        ("setpriv", "util-linux"),
    ];
    match tools.iter().find(|(tool, _)| !installed(tool)) {
        Some((tool, package)) => {
            Err(Failure::new(format!("the benchmark needs {tool} (Debian package {package})")))
        }
        None => Ok(()),
    }
}
