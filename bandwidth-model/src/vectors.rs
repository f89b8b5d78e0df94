//! Runs a file of test vectors against the model.
//!
//! The file is CSV (RFC 4180) with the columns of [`COLUMNS`]. Each row names a function, its
//! inputs as a JSON object and the expected number. The same file tests every implementation of
//! the model, so a decimal means exactly what it says: 0.1 is one tenth.

mod compare;
mod csv;
mod functions;
mod inputs;

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;

use crate::error::ModelError;
use compare::{Expected, Number};
use inputs::Inputs;

/// The columns of a vectors file, in order. `output`, `unit` and `source` are for readers.
pub const COLUMNS: [&str; 9] = [
    "id",
    "function",
    "inputs_json",
    "output",
    "expected",
    "expected_exact",
    "unit",
    "rel_tol",
    "source",
];
/// Most rows in a file.
pub const ROWS_MAX: usize = 100_000;
/// Largest tolerance a row may ask for; with more, a test would say little.
pub const REL_TOL_MAX: f64 = 0.05;

/// The result of a whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// One outcome per row, in the order of the file.
    pub outcomes: Vec<Outcome>,
}

/// The result of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The row's `id`.
    pub id: String,
    /// The row's `function`.
    pub function: String,
    /// Why it failed; `None` if it passed.
    pub failure: Option<Failure>,
}

/// Why a row failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The model has no function of that name.
    UnknownFunction,
    /// `inputs_json` is not a JSON object.
    InputsNotAnObject,
    /// An input that the function needs is missing.
    MissingInput(String),
    /// An input that the function has no use for; passing would hide that it was ignored.
    UnusedInput(String),
    /// An input of the wrong kind or range.
    WrongInput {
        /// Its name.
        name: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// `expected`, `expected_exact` or `rel_tol` is not a number or out of range.
    WrongExpectation(&'static str),
    /// The model refuses these numbers.
    Refused(ModelError),
    /// The model's number is not the expected one.
    Differs {
        /// What the model says.
        computed: String,
        /// What the row says.
        expected: String,
    },
}

/// Why a file could not be run at all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FileError {
    /// The first line does not hold [`COLUMNS`].
    Header,
    /// No rows: a test that tests nothing.
    Empty,
    /// More than [`ROWS_MAX`] rows.
    TooManyRows,
    /// A row without the right number of fields, or with a stray quotation mark.
    Row {
        /// Line on which the row starts, from 1.
        line: usize,
    },
    /// Two rows of the same id.
    RepeatedId(String),
}

/// Runs all rows of a vectors file.
///
/// # Errors
/// If the text is not a vectors file. Rows that fail are outcomes, not errors.
pub fn run(text: &str) -> Result<Report, FileError> {
    let mut rows = csv::rows(text)?.into_iter();
    if rows.next().is_none_or(|header| header != COLUMNS) {
        return Err(FileError::Header);
    }
    let mut ids = BTreeSet::new();
    let mut outcomes = Vec::new();
    for [id, function, inputs, _output, expected, exact, _unit, rel_tol, _source] in rows {
        if !ids.insert(id.clone()) {
            return Err(FileError::RepeatedId(id));
        }
        let failure = check(&function, &inputs, &expected, &exact, &rel_tol).err();
        outcomes.push(Outcome { id, function, failure });
    }
    if outcomes.is_empty() { Err(FileError::Empty) } else { Ok(Report { outcomes }) }
}

impl Report {
    /// How many rows passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.failure.is_none()).count()
    }

    /// Whether all did.
    #[must_use]
    pub fn all_passed(&self) -> bool {
        self.passed() == self.outcomes.len()
    }
}

fn check(
    function: &str,
    inputs: &str,
    expected: &str,
    exact: &str,
    rel_tol: &str,
) -> Result<(), Failure> {
    let compute = functions::named(function).ok_or(Failure::UnknownFunction)?;
    let expected = Expected::parse(expected, exact, rel_tol)?;
    let mut inputs = Inputs::parse(inputs)?;
    let computed: Number = compute(&mut inputs)?;
    inputs.finish()?;
    expected.check(computed)
}

/// Each failing row with its reason, then "n of m rows pass".
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Outcome { id, function, failure } in &self.outcomes {
            if let Some(failure) = failure {
                writeln!(f, "{id} ({function}) fails: {failure}")?;
            }
        }
        write!(f, "{} of {} rows pass", self.passed(), self.outcomes.len())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownFunction => write!(f, "the model has no such function"),
            Self::InputsNotAnObject => write!(f, "inputs_json is not a JSON object"),
            Self::MissingInput(name) => write!(f, "input {name:?} is missing"),
            Self::UnusedInput(name) => write!(f, "input {name:?} is not used"),
            Self::WrongInput { name, expected } => write!(f, "input {name:?} is not {expected}"),
            Self::WrongExpectation(column) => write!(f, "column {column} is not usable"),
            Self::Refused(error) => write!(f, "{error}"),
            Self::Differs { computed, expected } => {
                write!(f, "computed {computed}, expected {expected}")
            }
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => write!(f, "the first line is not {}", COLUMNS.join(",")),
            Self::Empty => write!(f, "there are no rows"),
            Self::TooManyRows => write!(f, "more than {ROWS_MAX} rows"),
            Self::Row { line } => {
                write!(f, "the row on line {line} is not {} fields", COLUMNS.len())
            }
            Self::RepeatedId(id) => write!(f, "two rows have the id {id:?}"),
        }
    }
}

impl Error for FileError {}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Self::Refused(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_a_row() {
        let files =
            [include_str!("../tests/vectors.csv"), include_str!("../tests/vectors_own.csv")];
        let rows: Vec<_> = files.into_iter().flat_map(|file| csv::rows(file).unwrap()).collect();
        for name in functions::names() {
            assert!(rows.iter().any(|row| row[1] == name), "{name}");
        }
    }

    /// A runner that cannot fail proves nothing.
    #[test]
    fn every_row_fails_when_its_expectation_moves() {
        let rows = csv::rows(include_str!("../tests/vectors.csv")).unwrap();
        for [id, function, inputs, _, expected, exact, _, rel_tol, _] in rows.into_iter().skip(1) {
            assert_eq!(check(&function, &inputs, &expected, &exact, &rel_tol), Ok(()), "{id}");
            let number: f64 = expected.parse().unwrap();
            for moved in [number * 1.02 + 1e-6, number * 0.98 - 1e-6] {
                let outcome = check(&function, &inputs, &moved.to_string(), "", &rel_tol);
                assert!(matches!(outcome, Err(Failure::Differs { .. })), "{id}: {moved}");
            }
        }
    }
}
