//! libFuzzer's entry: the environment variable `FUZZ_TARGET` names what is tried.
#![no_main]

use std::sync::LazyLock;

#[allow(dead_code)] // targets need a part of it
#[path = "../../tests/relay/wire.rs"]
pub mod wire;

#[allow(dead_code)] // as above
#[path = "../../tests/relay/world.rs"]
mod world;

mod targets;

static CHECK: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = targets::ALL.iter().find(|(target, _)| *target == name);
    found.unwrap_or_else(|| panic!("FUZZ_TARGET={name}: no such target")).1
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| CHECK(bytes));
