//! The relays that are compared: which there are, and what a run takes of them.

use std::path::PathBuf;

use super::throughput::Case;
use crate::process::{installed, ours, version};
use crate::{Failure, Outcome};

/// Chooses relays by name or path, separated by commas, instead of all.
pub const VARIABLE: &str = "RELAY_SUBJECT";
/// The relays of a run, in the order of their turns.
const DEFAULT: [Subject; 3] = [Subject::Castling, Subject::Coturn, Subject::TurnCrate];

/// So many of them in a quick run.
const QUICK: usize = 2;

/// A relay to measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject {
    /// Ours.
    Castling,
    /// The `turnserver` on the search path.
    Coturn,
    /// The `turnserver` whose path [`VARIABLE`] has.
    GivenCoturn,
    /// The server of the `turn` crate, in a small program of ours.
    TurnCrate,
}

impl Subject {
    /// The relays of a run: ours, coturn and, unless it is `quick`, the `turn` crate's; or those that
    /// [`VARIABLE`] names.
    ///
    /// # Errors
    /// An unknown name, or a program that is not there.
    pub fn chosen(quick: bool) -> Outcome<Vec<Self>> {
        let mut chosen = parse(&std::env::var(VARIABLE).unwrap_or_default())?;
        if quick && chosen == DEFAULT {
            chosen.truncate(QUICK);
        }
        chosen.iter().try_for_each(|subject| subject.program().map(drop))?;
        Ok(chosen)
    }

    /// What tables call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Castling => "castling",
            Self::Coturn => "coturn",
            Self::GivenCoturn => "given coturn",
            Self::TurnCrate => "turn crate",
        }
    }

    /// What the program says about its version.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn version(self) -> Outcome<String> {
        let line = version(&self.program()?)?;
        Ok(match self {
            Self::Castling | Self::TurnCrate => line,
            Self::Coturn | Self::GivenCoturn => format!("{} {line}", self.name()),
        })
    }

    /// Whether it is measured in `case`. The `turn` crate's server has neither streams nor workers,
    /// and of the rest it does the most telling cases only, to spare time.
    #[must_use]
    pub fn takes(self, case: Case) -> bool {
        self != Self::TurnCrate || case.is_telling()
    }

    /// Whether it is coturn, of any version.
    #[must_use]
    pub const fn is_coturn(self) -> bool {
        matches!(self, Self::Coturn | Self::GivenCoturn)
    }

    /// Where its program is.
    ///
    /// # Errors
    /// Nowhere; the text says how to get it.
    pub fn program(self) -> Outcome<PathBuf> {
        let missing = |text: &str| Failure::new(format!("{text}, or choose others by {VARIABLE}"));
        match self {
            Self::Castling => ours("castling-relay").ok_or_else(|| {
                missing("no castling-relay: cargo build --release -p castling-relay makes it")
            }),
            Self::TurnCrate => ours("turn_crate_server").ok_or_else(|| {
                missing("no turn_crate_server: cargo build --release -p e2e --bins makes it")
            }),
            Self::Coturn if installed("turnserver") => Ok("turnserver".into()),
            Self::Coturn => Err(missing("no turnserver: Debian package coturn")),
            Self::GivenCoturn => {
                let names = std::env::var(VARIABLE).unwrap_or_default();
                let path = names.split(',').find(|name| is_path(name)).map(PathBuf::from);
                let there = path.filter(|path| path.is_file());
                there.ok_or_else(|| missing(&format!("no program {names}")))
            }
        }
    }
}

fn parse(names: &str) -> Outcome<Vec<Subject>> {
    if names.is_empty() {
        return Ok(DEFAULT.to_vec());
    }
    let wrong = |text: &str| Err(Failure::new(format!("{VARIABLE}={names}: {text}")));
    let mut chosen = Vec::new();
    for name in names.split(',') {
        let subject = match name {
            "castling" => Subject::Castling,
            "coturn" => Subject::Coturn,
            "turn-crate" => Subject::TurnCrate,
            path if is_path(path) => Subject::GivenCoturn,
            _ => return wrong("castling, coturn, turn-crate or the path of a turnserver"),
        };
        if chosen.contains(&subject) {
            return wrong("a relay twice");
        }
        chosen.push(subject);
    }
    Ok(chosen)
}

fn is_path(name: &str) -> bool {
    name.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_are_chosen_by_name_and_path() {
        assert_eq!(parse("").unwrap(), DEFAULT);
        assert_eq!(parse("coturn").unwrap(), [Subject::Coturn]);
        let three = [Subject::Castling, Subject::GivenCoturn, Subject::TurnCrate];
        assert_eq!(parse("castling,/opt/turnserver,turn-crate").unwrap(), three);
        for names in ["pion", "castling,", "coturn,coturn", "/opt/a,/opt/b"] {
            assert!(parse(names).unwrap_err().to_string().contains(names), "{names}");
        }
    }
}
