//! Whole-system tests, one binary.
//!
//! Tests that need what this machine lacks print `skipped: …` and return; with
//! `CASTLING_E2E=require` they fail instead. Tests that use a laboratory run one after the other.

mod addresses;
mod browser;
mod call;
mod calls;
mod certificate;
mod class;
mod clients;
mod conformance;
mod family;
mod flood;
mod header;
mod laboratory;
mod nat;
mod page;
mod refusals;
mod relay;
mod series;
mod tidy;
mod transfer;
mod uclient;

use std::sync::{Mutex, MutexGuard, PoisonError};

use e2e::lab;
use e2e::report::skip;

/// Two cores cannot run two laboratories at once without disturbing what they measure.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The right to build a laboratory, or `None` after saying why `test` is skipped.
fn laboratory_turn(test: &str) -> Option<MutexGuard<'static, ()>> {
    if let Some(reason) = lab::missing() {
        skip(test, &reason);
        return None;
    }
    // A test that failed while it held the lock has removed its laboratory on its way out.
    Some(ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner))
}
