//! Harness of the whole-system tests.
//!
//! [`lab`] builds networks out of namespaces, [`process`] runs programs in them, [`turn_client`]
//! makes known traffic, [`scrape`] and [`counters`] read what the relay and the kernel counted.
//! [`flood`] forges datagrams of strangers. [`mod@bench`] compares the speed and memory of relays,
//! [`conformance`] what they answer.

pub mod bench;
pub mod conformance;
pub mod counters;
pub mod document;
pub mod flood;
pub mod framings;
pub mod lab;
pub mod namespace;
pub mod process;
pub mod report;
pub mod scrape;
pub mod turn_client;

/// Why a part of the harness could not do its work; the text is for the person who runs the tests.
#[derive(Clone, Debug)]
pub struct Failure(String);

impl Failure {
    /// A failure that says `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// What the harness answers.
pub type Outcome<T> = Result<T, Failure>;
