//! What Wireshark thinks of a run, where it is installed: another reader of the same packets.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::site::{DEVICE, STUN_PORT, Site, TURN_PORT};
use crate::process::{Program, installed};
use crate::{Failure, Outcome};

/// How long the capture may take to begin.
const START_WAIT: Duration = Duration::from_secs(10);
/// What Wireshark calls wrong. It does not verify signatures.
const WRONG: &str = "_ws.malformed || stun.att.crc32.bad || stun.wrong_msglen || \
                     stun.long_attribute || stun.unknown_attribute";

/// A capture of all that crosses the cable of a site.
#[derive(Debug)]
pub struct Capture {
    program: Program,
    file: PathBuf,
}

/// What it found.
#[derive(Debug)]
pub struct Opinion {
    /// STUN messages from the server.
    pub messages: usize,
    /// Those that are wrong, a line each.
    pub wrong: Vec<String>,
    /// Wrong ones from clients: checks send them on purpose, so there are some.
    pub wrong_on_purpose: usize,
}

/// Whether there is a Wireshark to ask.
#[must_use]
pub fn is_there() -> bool {
    installed("tshark") && installed("dumpcap")
}

impl Capture {
    /// Begins to capture into a file of `folder`.
    ///
    /// # Errors
    /// The program does not begin.
    pub fn start(site: &Site, folder: &Path) -> Outcome<Self> {
        let file = folder.join("run.pcapng");
        let args = ["-q", "-i", DEVICE, "-w"].map(str::to_owned);
        let args = [&args[..], &[file.display().to_string()]].concat();
        let path = Path::new("dumpcap");
        let mut program = Program::start(&site.world, "dumpcap", path, &args, folder)?;
        program.until(START_WAIT, "it captures", || {
            let size = std::fs::metadata(&file).map_or(0, |file| file.len());
            (size > 0).then_some(())
        })?;
        Ok(Self { program, file })
    }

    /// Ends the capture and reads it.
    ///
    /// # Errors
    /// `tshark` fails.
    pub fn judge(self) -> Outcome<Opinion> {
        let Self { program, file } = self;
        drop(program);
        let ports = [("udp", TURN_PORT), ("udp", STUN_PORT), ("tcp", TURN_PORT)];
        let from = ports.map(|(kind, port)| format!("{kind}.srcport == {port}")).join(" || ");
        let to = ports.map(|(kind, port)| format!("{kind}.dstport == {port}")).join(" || ");
        let list = |filter: &str| -> Outcome<Vec<String>> {
            let mut command = Command::new("tshark");
            command.arg("-r").arg(&file).args(["-Y", filter]);
            for (kind, port) in ports {
                command.args(["-d", &format!("{kind}.port=={port},stun")]);
            }
            let output = command.output()?;
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(Failure::new(format!("tshark: {text}")));
            }
            Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
        };
        Ok(Opinion {
            messages: list(&format!("({from}) && stun"))?.len(),
            wrong: list(&format!("({from}) && ({WRONG})"))?,
            wrong_on_purpose: list(&format!("({to}) && ({WRONG})"))?.len(),
        })
    }
}
