//! Documents of `docs/` whose figures are written by a run.

use std::path::{Path, PathBuf};

use crate::{Failure, Outcome};

/// Ends of the part that a run writes.
const BEGIN: &str = "<!-- figures: begin -->";
const END: &str = "<!-- figures: end -->";

/// A document, with its marked part left out.
#[derive(Clone, Debug)]
pub struct Document {
    path: PathBuf,
    before: String,
    after: String,
}

impl Document {
    /// Reads `name` in `docs/`: before a long run, so that nothing is measured in vain.
    ///
    /// # Errors
    /// It cannot be read, or has no marks.
    pub fn open(name: &str) -> Outcome<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        let failed = |text: &str| Failure::new(format!("{}: {text}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&error.to_string()))?;
        let (before, after) =
            around(&text).ok_or_else(|| failed("the marks of the figures are gone"))?;
        Ok(Self { path, before, after })
    }

    /// Writes it with `figures` between the marks; answers where.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, figures: &str) -> Outcome<&Path> {
        std::fs::write(&self.path, joined(&self.before, figures, &self.after))?;
        Ok(&self.path)
    }
}

/// What stands before and after the marked part.
fn around(text: &str) -> Option<(String, String)> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some((before.to_owned(), after.to_owned()))
}

fn joined(before: &str, figures: &str, after: &str) -> String {
    format!("{before}{BEGIN}\n{}\n{END}{after}", figures.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marked_part_of_a_document_changes() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let (before, after) = around(&document).expect("marks");
        let written = joined(&before, "new\n", &after);
        assert_eq!(written, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(around(&written), Some((before, after)));
        assert_eq!(around("no marks"), None);
    }
}
