//! The simulator: random lives of clients, peers, networks and adversaries around one relay, on
//! a virtual clock, judged by the invariants and by a naive model after every step.
//!
//! `docs/simulation.md` says what is simulated and how a failure is replayed.
#![allow(clippy::wrong_self_convention)] // `from_client` and its kin are the contract's names

#[allow(dead_code)] // the behaviour tests use the rest
#[path = "relay/wire.rs"]
mod wire;

mod sim {
    mod adversary;
    mod budget;
    mod client;
    mod edge;
    mod exhaustive;
    mod invariants;
    mod message;
    mod model;
    mod network;
    mod operation;
    mod opinion;
    mod outside;
    mod plant;
    mod relaying;
    mod requests;
    mod run;
    mod scene;
    mod seeds;
    mod stream;
    mod subject;
    mod tally;
    mod witness;
    mod world;
}
