//! Instructions by case: a file of them, and how two of them differ.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// How far a figure may be from the committed one, in percent.
pub const CHANGE_PERCENT_MAX: u64 = 3;

const HEADER: &str = "\
# Instructions of relay-proto for one round of each case: relay/instructions/src/cases.rs.
# `make instructions` compares, `make instructions ARGS=--write` replaces.
";

/// Instructions of one round, by the name of the case.
#[derive(Debug, Eq, PartialEq)]
pub struct Figures(pub BTreeMap<String, u64>);

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        self.0.iter().try_for_each(|(name, count)| writeln!(f, "{name:<20} {count:>8}"))
    }
}

impl FromStr for Figures {
    /// The line that is no figure.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let figure = |line: &str| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.trim().parse().ok()?))
        };
        lines.map(|line| figure(line).ok_or(line.to_owned())).collect::<Result<_, _>>().map(Self)
    }
}

/// Each case in two versions.
pub struct Comparison(BTreeMap<String, Row>);

/// What was known of a case and what was counted; one of them may be missing.
struct Row {
    known: Option<u64>,
    counted: Option<u64>,
}

/// Puts the figures of two versions side by side.
pub fn compare(known: &Figures, counted: &Figures) -> Comparison {
    let names = known.0.keys().chain(counted.0.keys());
    let row = |name: &String| Row {
        known: known.0.get(name).copied(),
        counted: counted.0.get(name).copied(),
    };
    Comparison(names.map(|name| (name.clone(), row(name))).collect())
}

impl Comparison {
    /// Whether the same cases are in both, and none is more than [`CHANGE_PERCENT_MAX`] away.
    pub fn is_alike(&self) -> bool {
        self.0.values().all(Row::is_alike)
    }
}

impl Row {
    fn is_alike(&self) -> bool {
        let both = self.known.zip(self.counted);
        both.is_some_and(|(known, it)| known.abs_diff(it) * 100 <= known * CHANGE_PERCENT_MAX)
    }

    fn change(&self) -> String {
        let both = self.known.zip(self.counted);
        let percent = |(known, counted)| (counted as f64 / known as f64 - 1.0) * 100.0;
        both.map(percent).map_or(String::new(), |it| format!("{it:+.1} %"))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<20} {:>9} {:>9} {:>9}", "instructions", "committed", "counted", "change")?;
        let number = |it: Option<u64>| it.map_or("none".to_owned(), |it| it.to_string());
        for (name, row) in &self.0 {
            let (known, counted, change) = (number(row.known), number(row.counted), row.change());
            let mark = if row.is_alike() { "" } else { "  !" };
            writeln!(f, "{name:<20} {known:>9} {counted:>9} {change:>9}{mark}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rows: &[(&str, u64)]) -> Figures {
        Figures(rows.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
    }

    #[test]
    fn figures_survive_their_file() {
        let some = figures(&[("channel_up", 300), ("send", 12_345)]);
        assert_eq!(some.to_string().parse(), Ok(some));
    }

    #[test]
    fn line_without_a_number_is_named() {
        assert_eq!("channel_up many".parse::<Figures>(), Err("channel_up many".to_owned()));
    }

    #[test]
    fn three_percent_either_way_are_alike() {
        let known = figures(&[("send", 1_000)]);
        for (counted, alike) in [(970, true), (1_030, true), (969, false), (1_031, false)] {
            let comparison = compare(&known, &figures(&[("send", counted)]));
            assert_eq!(comparison.is_alike(), alike, "{counted}");
        }
    }

    #[test]
    fn case_that_is_new_or_gone_is_a_difference() {
        let (less, more) = (figures(&[("send", 1)]), figures(&[("send", 1), ("data", 1)]));
        assert!(!compare(&less, &more).is_alike());
        assert!(!compare(&more, &less).is_alike());
        assert!(compare(&more, &more).is_alike());
    }
}
