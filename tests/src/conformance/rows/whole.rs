//! Rows about every reply of a run.

use crate::conformance::attr;
use crate::conformance::probe::Probe;
use crate::conformance::verdict::Verdict;

/// Codes that a TURN server may answer with (RFC 8489 §14.8, RFC 8656 §19).
const CODES: [u16; 13] = [300, 400, 401, 420, 438, 403, 437, 440, 441, 442, 443, 486, 508];

pub const PROBES: &[Probe] = &[
    Probe::run(
        "NAT-05",
        "5780 §7.3, §7.4",
        "any Binding reply of the run",
        "no RESPONSE-ORIGIN, no OTHER-ADDRESS",
        |seen| {
            let names = [
                (attr::RESPONSE_ORIGIN, "RESPONSE-ORIGIN"),
                (attr::OTHER_ADDRESS, "OTHER-ADDRESS"),
            ];
            let found = names.iter().filter(|(kind, _)| seen.binding_attributes.contains(kind));
            let found: Vec<_> = found.map(|(_, name)| *name).collect();
            let said = if found.is_empty() { "neither".to_owned() } else { found.join(", ") };
            Verdict::of(found.is_empty() && !seen.binding_attributes.is_empty(), said)
        },
    ),
    Probe::run(
        "FRM-13",
        "8489 §14.8",
        "every reply of the run",
        "well formed; reason phrase short, class 3 to 6, number 0 to 99",
        |seen| {
            let said: Vec<_> = seen.faults.iter().map(String::as_str).collect();
            let said = if said.is_empty() { "well formed".to_owned() } else { said.join("; ") };
            Verdict::of(seen.faults.is_empty(), said)
        },
    ),
    Probe::run(
        "ERR-01",
        "8656 §19",
        "every error of the run",
        "300, 400, 401, 403, 420, 437, 438, 440 to 443, 486, 508; nothing else",
        |seen| {
            let known = seen.codes.keys().all(|code| CODES.contains(code));
            let list: Vec<_> = seen.codes.keys().map(u16::to_string).collect();
            Verdict::of(known && !list.is_empty(), list.join(", "))
        },
    ),
];
