//! What a run tells its reader: tables, and why something was skipped.

use std::io::Write as _;

/// Set this variable to `require` and a skipped test fails.
pub const REQUIRE: &str = "CASTLING_E2E";

/// Prints past the test runner, which keeps the output of passing tests to itself.
pub fn say(text: &str) {
    // A closed terminal is no reason for a test to fail.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Says that a test did not run. The caller returns.
///
/// # Panics
/// If skips are not allowed in this run.
pub fn skip(test: &str, reason: &str) {
    let required = std::env::var(REQUIRE).is_ok_and(|value| value == "require");
    assert!(!required, "{test} cannot run here: {reason}");
    say(&format!("skipped: {test}: {reason}"));
}

/// `measured` against `expected`, in per cent of `expected`.
#[must_use]
pub fn difference_percent(measured: f64, expected: f64) -> f64 {
    if expected == 0.0 {
        return if measured == 0.0 { 0.0 } else { f64::INFINITY };
    }
    (measured / expected - 1.0) * 100.0
}

/// A table with aligned columns: text to the left, numbers to the right.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|text| (*text).to_owned()).collect()] }
    }

    /// Appends a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if column == 0 {
                    line.push_str(&format!("{cell:<width$}"));
                } else {
                    line.push_str(&format!("  {cell:>width$}"));
                }
            }
            writeln!(f, "  {}", line.trim_end())?;
        }
        Ok(())
    }
}
