//! The table of checks on the wire: ours passes all of them, and the document that is made of them
//! names tests that exist.

use std::path::Path;

use e2e::conformance::probe::run;
use e2e::conformance::server::{Subject, VARIABLE};
use e2e::conformance::site::{Site, missing};
use e2e::conformance::{oracle, rows, tables};
use e2e::report::{say, skip};

use crate::laboratory_turn;

/// Largest reply to a stranger, against its request; over IPv6 a Binding reply is 44 B for 20 B.
const AMPLIFICATION_MAX: f64 = 2.0;
const AMPLIFICATION_V6_MAX: f64 = 2.2;
/// A run has more answers of the server than this.
const MESSAGES_MIN: usize = 500;

#[test]
fn every_row_passes_on_the_wire() {
    let Some(_turn) = laboratory_turn("conformance") else { return };
    if let Some(reason) = missing() {
        return skip("conformance", &reason);
    }
    let name = std::env::var(VARIABLE).unwrap_or_else(|_| "castling".to_owned());
    let subject = Subject::parse(&name).expect("a server");
    let version = match subject.version() {
        Ok(version) => version,
        Err(reason) => return skip("conformance", &reason.to_string()),
    };
    let site = Site::build().expect("namespaces");
    let probes = rows::all();
    let folder = tempfile::tempdir().expect("temporary folder");
    let start = || oracle::Capture::start(&site, folder.path()).expect("a capture");
    let capture = oracle::is_there().then(start);
    let report = run(&site, &subject, &probes, false).expect("a run");
    let seen = report.seen.clone();
    let failed: Vec<_> = probes
        .iter()
        .zip(&report.verdicts)
        .filter_map(|(probe, verdict)| {
            let verdict = verdict.as_ref().filter(|verdict| !verdict.passed)?;
            Some(format!(
                "{}: {}: expected {}, got {}",
                probe.id, probe.stimulus, probe.expected, verdict.said
            ))
        })
        .collect();
    say(&tables::summary(&probes, &[(subject.to_string(), version, report)]));
    if subject != Subject::Castling {
        // Others prove the checks, not themselves.
        return say(&failed.join("\n"));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    match capture.map(oracle::Capture::judge).transpose().expect("tshark reads its own file") {
        None => say("conformance: without Wireshark's opinion (Debian package tshark)"),
        Some(opinion) => {
            assert!(opinion.messages > MESSAGES_MIN, "only {} messages", opinion.messages);
            assert!(opinion.wrong.is_empty(), "Wireshark: {}", opinion.wrong.join("\n"));
            assert!(opinion.wrong_on_purpose > 0, "Wireshark does not see what is wrong");
            say(&format!("Wireshark: {} messages, none of them wrong", opinion.messages));
        }
    }
    let worst = [(seen.worst, AMPLIFICATION_MAX), (seen.worst_v6, AMPLIFICATION_V6_MAX)];
    for (worst, most) in worst {
        let worst = worst.expect("strangers were answered");
        assert!(worst.value() <= most, "a stranger got {worst}");
    }
}

#[test]
fn rows_that_tests_of_ours_check_name_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate of the workspace");
    for probe in rows::all() {
        let Some((file, name)) = probe.our_test() else { continue };
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        let named = text.contains(&format!("fn {name}()"));
        assert!(named, "{}: {file} has no test {name}", probe.id);
    }
}
