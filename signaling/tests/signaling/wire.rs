//! The wire contract: golden files and the TypeScript types of the page.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use castling_signaling::protocol::{self, ClientMessage, LinkBody, ServerMessage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ts_rs::TS;

/// Set to `1`, the test writes the TypeScript file instead of comparing it.
const WRITE: &str = "CASTLING_WRITE_WIRE";

#[test]
fn every_message_kind_has_a_golden_file_that_survives_a_round_trip() {
    check::<ClientMessage>("client-");
    check::<ServerMessage>("server-");
}

#[test]
fn typescript_types_are_those_of_the_protocol() {
    let at = root().join("../web/src/wire/protocol.ts");
    let wanted = typescript();
    if std::env::var(WRITE).is_ok_and(|value| value == "1") {
        std::fs::create_dir_all(at.parent().expect("a folder")).expect("folder");
        std::fs::write(&at, &wanted).expect("written");
    }
    let found = std::fs::read_to_string(&at).expect("web/src/wire/protocol.ts");
    assert!(found == wanted, "{} is stale; {WRITE}=1 cargo test writes it", at.display());
}

/// Reads all files of one direction; what a file says twice is one kind, what no file says fails.
fn check<M: DeserializeOwned + Serialize + TS>(prefix: &str) {
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("tests/wire")).expect("golden files") {
        let path = entry.expect("entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
        if !name.starts_with(prefix) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("golden file");
        let golden: Value = serde_json::from_str(&text).expect(&name);
        let message: M = serde_json::from_value(golden.clone()).expect(&name);
        assert_eq!(serde_json::to_value(&message).expect(&name), golden, "{name}");
        let tag = |key| golden.get(key).and_then(Value::as_str).map(|tag| format!("-{tag}"));
        let kind = tag("t").expect("tag") + &tag("kind").unwrap_or_default();
        assert_eq!(name, format!("{}{kind}.json", prefix.trim_end_matches('-')));
        seen.insert(kind);
    }
    let config = ts_rs::Config::default();
    let links = tags(&LinkBody::inline(&config), "kind");
    let mut wanted = tags(&M::inline(&config), "t");
    wanted.remove("-link");
    wanted.extend(links.iter().map(|kind| format!("-link{kind}")));
    assert!(wanted.len() > links.len(), "the declaration of {prefix} could not be read");
    assert_eq!(seen, wanted, "golden files of {prefix}");
}

/// The values of `key` in a TypeScript union, each behind a dash.
fn tags(union: &str, key: &str) -> BTreeSet<String> {
    let open = format!("\"{key}\": \"");
    let rest = union.split(&open).skip(1);
    rest.filter_map(|part| Some(format!("-{}", part.split_once('"')?.0))).collect()
}

fn typescript() -> String {
    let mut out =
        String::from("// Generated from signaling/src/protocol.rs by its test; do not edit.\n");
    out.push_str(&format!("\nexport const VERSION = {};\n", protocol::VERSION));
    declare::<ClientMessage>(&mut out);
    declare::<ServerMessage>(&mut out);
    declare::<LinkBody>(&mut out);
    declare::<protocol::Candidate>(&mut out);
    declare::<protocol::LinkState>(&mut out);
    declare::<protocol::Media>(&mut out);
    declare::<protocol::Peer>(&mut out);
    declare::<protocol::Ice>(&mut out);
    declare::<protocol::IceServer>(&mut out);
    declare::<protocol::LeftReason>(&mut out);
    declare::<protocol::ErrorCode>(&mut out);
    out
}

fn declare<T: TS>(out: &mut String) {
    let docs = T::docs().unwrap_or_default();
    let declaration = T::decl(&ts_rs::Config::default());
    for line in format!("\n{}\nexport {declaration}", docs.trim_end()).lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}
