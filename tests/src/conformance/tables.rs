//! The result of a run as the tables of `docs/conformance.md`.

use std::fmt::Write as _;

use super::probe::{Probe, Report};
use super::record::Ratio;
use super::rows::PARTS;
use super::server::Subject;

/// Summary and tables of servers, each with its name, its version and what it did.
#[must_use]
pub fn tables(probes: &[Probe], reports: &[(String, String, Report)]) -> String {
    let mut text = summary(probes, reports);
    for (prefix, title) in PARTS {
        let rows: Vec<_> =
            probes.iter().enumerate().filter(|(_, probe)| probe.id.starts_with(prefix)).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = write!(text, "\n## {title}\n\n| Row | RFC | Sent | Expected |");
        reports.iter().for_each(|(name, ..)| {
            let _ = write!(text, " {name} |");
        });
        text.push('\n');
        text.push_str(&"|---".repeat(4 + reports.len()));
        text.push_str("|\n");
        for (at, probe) in rows {
            let cells = [probe.id, probe.rfc, probe.stimulus, probe.expected].map(escaped);
            let _ = write!(text, "| {} |", cells.join(" | "));
            for (name, _, report) in reports {
                let _ = write!(text, " {} |", cell(probe, name, report, at));
            }
            text.push('\n');
        }
    }
    text
}

/// How many checks each server passed, and how much it may amplify.
#[must_use]
pub fn summary(probes: &[Probe], reports: &[(String, String, Report)]) -> String {
    let mut text = "| Server | Rules of the RFCs passed | Hardening passed | Largest reply to a \
                    stranger, IPv4 | IPv6 |\n|---|---|---|---|---|\n"
        .to_owned();
    for (_, version, report) in reports {
        let (rules, of_rules) = report.count(probes, |probe| !probe.is_hardening());
        let (hard, of_hard) = report.count(probes, Probe::is_hardening);
        let ratio = |ratio: Option<Ratio>| ratio.map_or("-".to_owned(), |it| format!("{it}"));
        let (v4, v6) = (ratio(report.seen.worst), ratio(report.seen.worst_v6));
        let _ = writeln!(
            text,
            "| {version} | {rules} of {of_rules} | {hard} of {of_hard} | {v4} | {v6} |"
        );
    }
    text
}

fn cell(probe: &Probe, name: &str, report: &Report, at: usize) -> String {
    let ours = Subject::Castling.to_string();
    match (&report.verdicts[at], probe.our_test()) {
        (Some(verdict), _) if verdict.passed => escaped(&verdict.said),
        (Some(verdict), _) => format!("**no:** {}", escaped(&verdict.said)),
        (None, Some((file, test))) if name == ours => {
            let file = file.rsplit('/').next().unwrap_or(file);
            format!("tested by `{file}`, `{test}`")
        }
        (None, _) => "not asked".to_owned(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Verdict;
    use super::*;

    #[test]
    fn every_check_is_a_line_and_failures_are_marked() {
        let probe = |id| Probe::test(id, "8489", "a | b", "silent", ("folder/file.rs", "a_test"));
        let probes = [probe("FRM-01"), probe("AUT-01")];
        let report = Report {
            verdicts: vec![None, Some(Verdict::of(false, "401"))],
            seen: super::super::record::Seen::default(),
        };
        assert_eq!(report.count(&probes, |_| true), (0, 1));
        let reports = [("castling".to_owned(), "castling 1".to_owned(), report)];
        let text = tables(&probes, &reports);
        let line = "| FRM-01 | 8489 | a \\| b | silent | tested by `file.rs`, `a_test` |";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("| AUT-01 | 8489 | a \\| b | silent | **no:** 401 |"), "{text}");
        assert!(text.starts_with("| Server |"));
        assert!(text.contains("| castling 1 | 0 of 1 | 0 of 0 | - | - |"), "{text}");
    }

    #[test]
    fn every_row_belongs_to_a_part() {
        for probe in super::super::rows::all() {
            assert!(PARTS.iter().any(|(prefix, _)| probe.id.starts_with(prefix)), "{}", probe.id);
        }
    }
}
