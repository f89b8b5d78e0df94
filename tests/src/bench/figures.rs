//! From rounds to tables: medians, spreads and ratios.

use super::footprint::Footprint;
use super::overload::Overload;
use super::subject::Subject;
use super::throughput::{Case, FIXED_RATES, Throughput};

/// All that was measured, in order.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Each relay in each case, once a round.
    pub throughput: Vec<(Case, Subject, Throughput)>,
    /// Each relay, once a round.
    pub footprint: Vec<(Subject, Footprint)>,
    /// Each relay, once a round.
    pub overload: Vec<(Subject, Overload)>,
}

impl Figures {
    /// Tables in Markdown of what was measured, which are as good to read on a terminal.
    #[must_use]
    pub fn tables(&self, subjects: &[Subject]) -> String {
        let mut parts = Vec::new();
        if !self.throughput.is_empty() {
            parts.push(self.throughput_table(subjects));
        }
        if !self.footprint.is_empty() {
            parts.push(self.footprint_table(subjects));
        }
        if !self.overload.is_empty() {
            parts.push(self.overload_table(subjects));
        }
        parts.join("\n")
    }

    /// The highest rate found last for this subject in this case, in packets per second.
    #[must_use]
    pub fn last_rate(&self, case: Case, subject: Subject) -> Option<f64> {
        let mut found = self.throughput.iter().rev();
        found.find(|(c, s, _)| *c == case && *s == subject).map(|(_, _, figure)| figure.rate)
    }

    fn throughput_table(&self, subjects: &[Subject]) -> String {
        let fixed = FIXED_RATES.map(|rate| format!("at {:.0},000/s", rate / 1_000.0));
        let mut headings =
            vec!["case", "relay", "1,000 packets/s", "castling is faster by", "µs at maximum"];
        headings.extend(fixed.iter().map(String::as_str));
        headings.extend(["castling uses less by", "MB"]);
        let mut table = Markdown::new(&headings);
        let mut cases: Vec<Case> = Vec::new();
        for (case, _, _) in &self.throughput {
            if !cases.contains(case) {
                cases.push(*case);
            }
        }
        for case in cases {
            let of = |subject: Subject| -> Vec<Throughput> {
                let mine = self.throughput.iter().filter(|(c, s, _)| *c == case && *s == subject);
                mine.map(|(_, _, figure)| *figure).collect()
            };
            let ours = of(Subject::Castling);
            for subject in subjects {
                let theirs = of(*subject);
                if theirs.is_empty() {
                    continue;
                }
                let limit = theirs.iter().any(|figure| figure.generator_limit);
                let rates = Series::of(&theirs, |figure| Some(figure.rate / 1_000.0));
                let rate = format!("{}{}", if limit { "≥ " } else { "" }, rates.show(0));
                let faster = Series::ratios(&ours, &theirs, |figure| Some(figure.rate));
                let highest = Series::of(&theirs, |figure| Some(figure.cpu_ns / 1_000.0));
                let mut row = vec![
                    case.name(),
                    subject.name().to_owned(),
                    rate,
                    times(*subject, &faster, limit),
                ];
                row.push(highest.show(2));
                for at in 0..FIXED_RATES.len() {
                    let fixed = |figure: &Throughput| Some(figure.cpu_ns_fixed[at]? / 1_000.0);
                    row.push(Series::of(&theirs, fixed).show(2));
                }
                let less = Series::ratios(&theirs, &ours, |figure| {
                    figure.cpu_ns_fixed.last().copied().flatten()
                });
                row.push(times(*subject, &less, false));
                row.push(Series::of(&theirs, |figure| Some(figure.resident as f64 / 1e6)).show(1));
                table.row(&row);
            }
        }
        table.text
    }

    fn footprint_table(&self, subjects: &[Subject]) -> String {
        let mut table = Markdown::new(&[
            "relay",
            "idle, MB",
            "5,000 allocations, MB",
            "each, KB",
            "castling is smaller by",
            "allocations/s",
            "castling is faster by",
            "µs each",
            "castling uses less by",
        ]);
        let of = |subject: Subject| -> Vec<Footprint> {
            let mine = self.footprint.iter().filter(|(s, _)| *s == subject);
            mine.map(|(_, figure)| *figure).collect()
        };
        let ours = of(Subject::Castling);
        for subject in subjects {
            let theirs = of(*subject);
            if theirs.is_empty() {
                continue;
            }
            let show = |digits, value: fn(&Footprint) -> f64| {
                Series::of(&theirs, |figure| Some(value(figure))).show(digits)
            };
            let less = |value: fn(&Footprint) -> f64| {
                times(
                    *subject,
                    &Series::ratios(&theirs, &ours, |figure| Some(value(figure))),
                    false,
                )
            };
            let faster = Series::ratios(&ours, &theirs, |figure| Some(figure.per_second));
            table.row(&[
                subject.name().to_owned(),
                show(1, |figure| figure.idle as f64 / 1e6),
                show(1, |figure| figure.loaded as f64 / 1e6),
                show(2, |figure| figure.per_allocation() / 1e3),
                less(Footprint::per_allocation),
                show(0, |figure| figure.per_second),
                times(*subject, &faster, false),
                show(0, |figure| figure.cpu_ns / 1e3),
                less(|figure| figure.cpu_ns),
            ]);
        }
        table.text
    }

    fn overload_table(&self, subjects: &[Subject]) -> String {
        let mut table = Markdown::new(&[
            "relay",
            "offered, % of maximum",
            "carried, % of maximum",
            "flood, % of maximum",
            "calls beside it, %",
            "calls beside strangers, %",
        ]);
        for subject in subjects {
            let mine = self.overload.iter().filter(|(s, _)| s == subject);
            let mine: Vec<_> = mine.map(|(_, figure)| *figure).collect();
            let show = |value: fn(&Overload) -> f64| {
                Series::of(&mine, |figure| Some(value(figure) * 100.0)).show(0)
            };
            if !mine.is_empty() {
                table.row(&[
                    subject.name().to_owned(),
                    show(|figure| figure.offered),
                    show(|figure| figure.goodput),
                    show(|figure| figure.flood),
                    show(|figure| figure.beside_flood),
                    show(|figure| figure.beside_storm),
                ]);
            }
        }
        table.text
    }
}

/// The same figure from several rounds, sorted.
struct Series(Vec<f64>);

impl Series {
    fn of<T>(rounds: &[T], value: impl Fn(&T) -> Option<f64>) -> Self {
        Self::sorted(rounds.iter().filter_map(value).collect())
    }

    /// Ratios of neighbours: what disturbs one round disturbs both.
    fn ratios<T>(above: &[T], below: &[T], value: impl Fn(&T) -> Option<f64>) -> Self {
        let pairs = above.iter().zip(below);
        Self::sorted(pairs.filter_map(|(a, b)| Some(value(a)? / value(b)?)).collect())
    }

    fn sorted(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    fn median(&self) -> Option<f64> {
        let (low, high) =
            (self.0.get(self.0.len().checked_sub(1)? / 2)?, self.0.get(self.0.len() / 2)?);
        Some(f64::midpoint(*low, *high))
    }

    /// `median (least–most)`.
    fn show(&self, digits: usize) -> String {
        match (self.median(), self.0.as_slice()) {
            (Some(median), [least, .., most]) => {
                format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
            }
            (Some(median), _) => format!("{median:.digits$}"),
            (None, _) => "–".to_owned(),
        }
    }
}

/// A ratio, where there is something to compare.
fn times(subject: Subject, ratios: &Series, at_most: bool) -> String {
    if subject == Subject::Castling || ratios.0.is_empty() {
        return String::new();
    }
    format!("{}{} ×", if at_most { "≤ " } else { "" }, ratios.show(2))
}

struct Markdown {
    text: String,
}

impl Markdown {
    fn new(headings: &[&str]) -> Self {
        let mut table = Self { text: String::new() };
        table.row(headings);
        table.row(&headings.iter().map(|_| "---").collect::<Vec<_>>());
        table
    }

    fn row<T: AsRef<str>>(&mut self, cells: &[T]) {
        let cells: Vec<_> = cells.iter().map(AsRef::as_ref).collect();
        self.text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
}

#[cfg(test)]
mod tests {
    use super::super::flows::Way;
    use super::*;

    #[test]
    fn series_show_median_and_spread() {
        let series = |values: &[f64]| Series::of(values, |value| Some(*value)).show(1);
        assert_eq!(series(&[]), "–");
        assert_eq!(series(&[2.0]), "2.0");
        assert_eq!(series(&[9.0, 1.0]), "5.0 (1.0–9.0)");
        assert_eq!(series(&[3.0, 9.0, 1.0]), "3.0 (1.0–9.0)");
    }

    #[test]
    fn overload_is_shown_in_percent() {
        let found = |goodput| Overload {
            offered: 1.96,
            goodput,
            flood: 1.5,
            beside_flood: 0.5,
            beside_storm: 1.0,
        };
        let overload = [0.9, 0.98].map(|goodput| (Subject::Coturn, found(goodput))).to_vec();
        let figures = Figures { overload, ..Figures::default() };
        let row =
            "| coturn | 196 (196–196) | 94 (90–98) | 150 (150–150) | 50 (50–50) | 100 (100–100) |";
        let tables = figures.tables(&[Subject::Castling, Subject::Coturn]);
        assert!(tables.contains(row), "{tables}");
        assert!(!tables.contains("castling"), "{tables}");
    }

    #[test]
    fn ratios_compare_round_by_round() {
        let figure = |rate| Throughput {
            rate,
            generator_limit: false,
            cpu_ns: 2_000.0,
            cpu_ns_fixed: [Some(1e9 / rate), None],
            resident: 5_000_000,
        };
        let case = Case::new(Way::Channels, 100, 8);
        let mut figures = Figures::default();
        for (ours, theirs) in [(300e3, 200e3), (200e3, 100e3), (100e3, 100e3)] {
            figures.throughput.push((case, Subject::Castling, figure(ours)));
            figures.throughput.push((case, Subject::Coturn, figure(theirs)));
        }
        assert_eq!(figures.last_rate(case, Subject::Coturn), Some(100e3));
        let tables = figures.tables(&[Subject::Castling, Subject::Coturn]);
        assert!(tables.contains("| 200 (100–300) |  | 2.00 (2.00–2.00) |"), "{tables}");
        assert!(tables.contains("| 100 (100–200) | 1.50 (1.00–2.00) × |"), "{tables}");
    }
}
