//! Rules of the repository that a machine can check: which crate may use which, where clocks and
//! sockets may appear, and what must not stay in a source file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::report::skip;

/// Our crates, each with those of ours that it may use. Tests may use all.
const ARROWS: [(&str, &[&str]); 6] = [
    ("relay/proto", &[]),
    ("relay/instructions", &["relay-proto"]),
    ("bandwidth-model", &[]),
    ("relay/server", &["relay-proto", "bandwidth-model", "relay-xdp"]),
    ("signaling", &["castling-relay", "relay-proto", "bandwidth-model"]),
    ("relay/xdp", &["relay-proto"]),
];

/// Names of our crates, however they depend on each other.
const OURS: [&str; 6] =
    ["relay-proto", "castling-relay", "relay-xdp", "castling-signaling", "bandwidth-model", "e2e"];

/// Independent implementations that judge ours: never part of what we ship.
const ORACLES: [&str; 7] = [
    "turn",
    "stun",
    "webrtc-util",
    "stun-proto",
    "stun-types",
    "turn-client-proto",
    "turn-server-proto",
];

/// All that the protocol core may use: arithmetic and bytes, nothing that touches the world.
const CORE_DEPENDENCIES: [&str; 8] =
    ["base64ct", "crc32fast", "foldhash", "hmac", "md-5", "sha1", "sha2", "subtle"];

/// Folders and files that take everything as arguments.
const PURE: [&str; 4] = [
    "relay/proto/src/",
    "bandwidth-model/src/",
    "signaling/src/room.rs",
    "signaling/src/session.rs",
];

/// Files of pure folders that talk to the world on purpose.
const NOT_PURE: [&str; 1] = ["bandwidth-model/src/main.rs"];

/// What pure code must not name: clocks, threads, files, sockets, the environment, own entropy.
const WORLDLY: [&str; 12] = [
    "std::time::Instant",
    "Instant::now",
    "SystemTime",
    "std::thread",
    "thread::",
    "std::fs",
    "std::env",
    "UdpSocket",
    "TcpStream",
    "getrandom",
    "println!",
    "tokio::",
];

/// What the top level may show. Everything else there begins with a dot.
const TOP_LEVEL: [&str; 16] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "bandwidth-model",
    "docs",
    "grafana",
    "relay",
    "signaling",
    "systemd",
    "tests",
    "web",
];

#[test]
fn crates_depend_only_along_the_arrows() {
    for (folder, allowed) in ARROWS {
        let Some(manifest) = manifest(folder) else { continue };
        for used in dependencies(&manifest, "dependencies") {
            let fine = !OURS.contains(&used.as_str()) || allowed.contains(&used.as_str());
            assert!(fine, "{folder}/Cargo.toml: {used} is against the arrows");
        }
    }
}

#[test]
fn oracles_are_for_tests_alone() {
    for (folder, _) in ARROWS {
        let Some(manifest) = manifest(folder) else { continue };
        for kind in ["dependencies", "build-dependencies"] {
            let used = dependencies(&manifest, kind);
            let oracle = used.iter().find(|name| ORACLES.contains(&name.as_str()));
            assert_eq!(oracle, None, "{folder}/Cargo.toml: [{kind}]");
        }
    }
}

#[test]
fn the_core_depends_on_arithmetic_alone() {
    let manifest = manifest("relay/proto").expect("the core's manifest");
    let used = dependencies(&manifest, "dependencies");
    let other = used.iter().find(|name| !CORE_DEPENDENCIES.contains(&name.as_str()));
    assert_eq!(other, None, "relay/proto/Cargo.toml");
}

#[test]
fn every_crate_takes_the_common_version_and_lints() {
    for folder in ARROWS.iter().map(|(folder, _)| *folder).chain(["tests"]) {
        let Some(manifest) = manifest(folder) else { continue };
        let inherits = |table: &str, key: &str| {
            let value = manifest.get(table).and_then(|table| table.get(key));
            let value = value.and_then(|value| value.get("workspace").or(Some(value)));
            value.and_then(toml::Value::as_bool) == Some(true)
        };
        assert!(inherits("lints", "workspace"), "{folder}/Cargo.toml: [lints]");
        for key in ["version", "edition", "rust-version", "license"] {
            assert!(inherits("package", key), "{folder}/Cargo.toml: {key}");
        }
    }
}

#[test]
fn pure_code_names_nothing_of_the_world() {
    let Some(files) = tracked("tidy: pure code") else { return };
    for file in files.iter().filter(|file| is_pure(file)) {
        let text = read(file);
        // Tests of pure code may do as they like; they come last in a file.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            let named = WORLDLY.iter().find(|word| line.contains(**word));
            assert_eq!(named, None, "{file}:{}", number + 1);
        }
    }
}

#[test]
fn the_mesh_names_no_page() {
    let Some(files) = tracked("tidy: mesh") else { return };
    for file in files.iter().filter(|file| file.starts_with("web/src/mesh/")) {
        for (number, line) in read(file).lines().enumerate() {
            let imports = line.contains("from \"");
            let page = ["preact", "/ui/", "/devices/"].iter().any(|name| line.contains(name));
            assert!(!(imports && page), "{file}:{}: {line}", number + 1);
            let dom = ["document.", "window."].iter().any(|name| line.contains(name));
            let comment = line.trim_start().starts_with(['*', '/']);
            assert!(!dom || comment, "{file}:{}: {line}", number + 1);
        }
    }
}

#[test]
fn nothing_is_left_undone_in_the_sources() {
    let Some(files) = tracked("tidy: leftovers") else { return };
    // Taken apart here, so that this file does not accuse itself.
    let leftovers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("#[ig", "nore"),
        concat!("it.sk", "ip("),
        concat!("test.sk", "ip("),
        concat!("describe.sk", "ip("),
        concat!("it.on", "ly("),
        concat!("test.on", "ly("),
        concat!("describe.on", "ly("),
        concat!("@ts-", "ignore"),
    ];
    let sources = files.iter().filter(|file| {
        let kind = Path::new(file).extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        ["rs", "ts", "tsx", "c", "h", "sh", "css"].contains(&kind)
    });
    for file in sources {
        for (number, line) in read(file).lines().enumerate() {
            let found = leftovers.iter().find(|word| line.contains(**word));
            assert_eq!(found, None, "{file}:{}", number + 1);
        }
    }
}

#[test]
fn the_top_level_shows_what_the_architecture_lists() {
    let Some(files) = tracked("tidy: top level") else { return };
    let top: BTreeSet<_> = files.iter().filter_map(|file| file.split('/').next()).collect();
    let other: Vec<_> = top
        .iter()
        .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(name))
        .filter(|name| !name.starts_with("LICENSE"))
        .collect();
    assert!(other.is_empty(), "not in the list: {other:?}");
    assert!(top.contains("Cargo.lock"), "the lock file is committed");
    for folder in files.iter().filter_map(|file| file.strip_suffix("package.json")) {
        let lock = format!("{folder}package-lock.json");
        assert!(files.contains(&lock), "{lock} is committed");
    }
}

fn is_pure(file: &str) -> bool {
    let inside = PURE.iter().any(|place| file.starts_with(place));
    inside && file.ends_with(".rs") && !NOT_PURE.contains(&file)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate of the workspace").to_owned()
}

/// The files that the repository keeps, or `None` after saying why `test` is skipped.
fn tracked(test: &str) -> Option<Vec<String>> {
    let listed = Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z"]).output();
    match listed {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8(output.stdout).expect("our file names are UTF-8");
            let files = text.split_terminator('\0').map(str::to_owned);
            Some(files.filter(|file| root().join(file).is_file()).collect())
        }
        _ => {
            skip(test, "needs git and a clone of the repository");
            None
        }
    }
}

fn read(file: &str) -> String {
    let bytes = std::fs::read(root().join(file)).expect("a file of the repository");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The manifest of a crate; `None` if there is no such crate yet.
fn manifest(folder: &str) -> Option<toml::Table> {
    let path = root().join(folder).join("Cargo.toml");
    let text = std::fs::read_to_string(&path).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Names of all dependencies of a kind, those of single targets included.
fn dependencies(manifest: &toml::Table, kind: &str) -> Vec<String> {
    let names = |table: &toml::Table| {
        let list = table.get(kind).and_then(toml::Value::as_table);
        list.into_iter().flat_map(|list| list.keys().cloned()).collect::<Vec<_>>()
    };
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let of_targets = targets.into_iter().flat_map(|targets| targets.values());
    let of_targets = of_targets.filter_map(toml::Value::as_table).flat_map(names);
    names(manifest).into_iter().chain(of_targets).collect()
}
