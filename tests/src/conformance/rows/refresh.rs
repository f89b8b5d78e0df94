//! REF: Refresh.

use std::time::Duration;

use super::allocate::at_most_an_hour;
use crate::Outcome;
use crate::conformance::attr;
use crate::conformance::message::{CREATE_PERMISSION, Draft, IPV6, REFRESH};
use crate::conformance::probe::Probe;
use crate::conformance::server::Setup::Open;
use crate::conformance::trial::Trial;
use crate::conformance::verdict::Verdict;

pub const PROBES: &[Probe] = &[
    Probe::wire("REF-01", "8656 §5, §8.2", "Refresh without allocation", "437", Open, |trial| {
        let mut client = trial.client()?;
        client.login()?;
        Ok(client.request(Draft::request(REFRESH))?.error(&[437]))
    }),
    Probe::wire(
        "REF-02",
        "8656 §8.2",
        "Refresh LIFETIME 0, then CreatePermission",
        "success with LIFETIME 0, then 437",
        Open,
        |trial| {
            let client = trial.allocated()?;
            let gone = client.request(end())?.success_if(|reply| reply.lifetime() == Some(0));
            let peer = trial.peer()?.address;
            let then = client.request(Draft::request(CREATE_PERMISSION).peer(peer))?;
            Ok(gone.and(then.error(&[437])))
        },
    ),
    Probe::wire(
        "REF-03",
        "8656 §8.2",
        "REQUESTED-ADDRESS-FAMILY of another family",
        "443",
        Open,
        |trial| {
            let draft = Draft::request(REFRESH).with(attr::REQUESTED_ADDRESS_FAMILY, &IPV6);
            Ok(trial.allocated()?.request(draft)?.error(&[443]))
        },
    ),
    Probe::wire(
        "REF-04",
        "8656 §8.2",
        "LIFETIME 0xFFFFFFFF",
        "3600, 1800 or 600 granted",
        Open,
        |trial| {
            let draft = Draft::request(REFRESH).lifetime(u32::MAX);
            Ok(at_most_an_hour(&trial.allocated()?.request(draft)?))
        },
    ),
    Probe::wire(
        "REF-05",
        "8656 §8.2",
        "relayed socket 0.2 s after deletion",
        "closed",
        Open,
        |trial| closed_after(trial, Duration::from_millis(200)),
    ),
    Probe::wire(
        "REF-06",
        "8656 §8.2",
        "relayed socket 3 s after deletion",
        "closed",
        Open,
        |trial| closed_after(trial, Duration::from_secs(3)),
    ),
];

fn end() -> Draft {
    Draft::request(REFRESH).lifetime(0)
}

/// Passes if the relayed port is no longer bound so long after the allocation was given back.
fn closed_after(trial: &Trial<'_>, wait: Duration) -> Outcome<Verdict> {
    let client = trial.allocated()?;
    let port = client.relayed()?.port();
    if !is_bound(trial, port)? {
        return Ok(Verdict::of(false, "no socket while the allocation lives"));
    }
    client.request(end())?.succeeded("Refresh")?;
    // The row names the time.
    std::thread::sleep(wait);
    let bound = is_bound(trial, port)?;
    Ok(Verdict::of(!bound, if bound { "still bound" } else { "closed" }))
}

/// Whether a UDP socket on the relay's host has this port.
pub fn is_bound(trial: &Trial<'_>, port: u16) -> Outcome<bool> {
    let filter = format!("sport = :{port}");
    Ok(!trial.site.server.run("ss", &["-Hanu", &filter])?.trim().is_empty())
}
