//! What a whole run saw, whichever check asked: rows about every reply are judged by it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::attr;
use super::message::{BINDING, Class};
use super::reply::Reply;

/// All that rows about every reply need. Shared by the clients of a run.
#[derive(Debug, Default)]
pub struct Record {
    seen: Mutex<Seen>,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Error codes, and how often.
    pub codes: BTreeMap<u16, usize>,
    /// Rules that some reply broke.
    pub faults: BTreeSet<String>,
    /// Attributes of Binding replies.
    pub binding_attributes: BTreeSet<u16>,
    /// The largest reply to an unauthenticated datagram, against its request.
    pub worst: Option<Ratio>,
    /// The same for requests over IPv6, whose Binding reply is longer by the address.
    pub worst_v6: Option<Ratio>,
}

/// How much longer a reply is than its request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ratio {
    /// Bytes of the request.
    pub request: usize,
    /// Bytes of the reply.
    pub reply: usize,
}

impl Ratio {
    /// Reply divided by request.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "datagrams are shorter than 2^16")]
    pub fn value(self) -> f64 {
        self.reply as f64 / self.request as f64
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ({} B for {} B)", self.value(), self.reply, self.request)
    }
}

impl Record {
    /// Everything so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Notes a reply.
    pub fn note(&self, reply: &Reply) {
        let mut seen = self.lock();
        if let Some(code) = reply.code() {
            *seen.codes.entry(code).or_default() += 1;
        }
        seen.faults.extend(reply.faults.iter().cloned());
        if reply.method == BINDING && matches!(reply.class, Class::Success | Class::Error) {
            let kinds = reply.kinds();
            seen.binding_attributes.extend(kinds.iter().filter(|kind| **kind != attr::ERROR_CODE));
        }
    }

    /// Notes a reply to a datagram that proves nothing about its source.
    pub fn note_unverified(&self, request: usize, reply: usize, is_v6: bool) {
        let ratio = Ratio { request, reply };
        let mut seen = self.lock();
        let worst = if is_v6 { &mut seen.worst_v6 } else { &mut seen.worst };
        if worst.is_none_or(|worst| worst.value() < ratio.value()) {
            *worst = Some(ratio);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Notes are whole at any time.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
