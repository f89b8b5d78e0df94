//! What the relay does on the wire, as sentences. Names of modules follow the protocol's parts;
//! rows of the conformance table stand beside the tests that hold them.

mod relay {
    mod algorithms;
    mod allocate;
    mod auth;
    mod budget;
    mod channel;
    mod corpus;
    mod counters;
    mod data;
    mod dual;
    mod framing;
    mod hairpin;
    mod header;
    mod limits;
    mod model;
    mod operator;
    mod oracle;
    mod oracle_sha256;
    mod permission;
    mod properties;
    mod refresh;
    mod stream;
    /// Shared with the fuzzer.
    #[path = "../../fuzz/src/targets/mod.rs"]
    mod targets;
    mod vectors;
    mod walk;
    mod wire;
    mod world;
}
