//! Counts the instructions that `relay-proto` takes for each kind of packet, and compares them with
//! the committed ones. Instructions do not depend on what else a machine does, so a small change
//! shows where a clock would say nothing.

mod bench;
mod cases;
mod figures;
mod valgrind;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use cases::Case;
use figures::Figures;

/// The committed figures.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/figures.txt");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        [] => compare(Path::new(FILE)),
        ["--file", file] => compare(Path::new(file)),
        ["--write"] => count().and_then(|figures| write(Path::new(FILE), &figures)),
        ["--write", "--file", file] => count().and_then(|figures| write(Path::new(file), &figures)),
        // Under valgrind: this program runs itself.
        ["--case", name] => run(name),
        _ => Err("usage: instructions [--write] [--file FILE]".to_owned()),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(name: &str) -> Result<ExitCode, String> {
    let case = Case::named(name).ok_or_else(|| format!("there is no case {name}"))?;
    (case.run)();
    Ok(ExitCode::SUCCESS)
}

fn count() -> Result<Figures, String> {
    let counted = cases::ALL.iter().map(|case| Ok((case.name.to_owned(), valgrind::count(case)?)));
    counted.collect::<Result<_, String>>().map(Figures)
}

fn write(file: &Path, figures: &Figures) -> Result<ExitCode, String> {
    let refused = |error| format!("{} cannot be written: {error}", file.display());
    fs::write(file, figures.to_string()).map_err(refused)?;
    print!("{figures}");
    Ok(ExitCode::SUCCESS)
}

fn compare(file: &Path) -> Result<ExitCode, String> {
    let refused = |error| format!("{} cannot be read: {error}", file.display());
    let known = fs::read_to_string(file).map_err(refused)?;
    let known = known.parse().map_err(|line| format!("{}: no figure: {line}", file.display()))?;
    let comparison = figures::compare(&known, &count()?);
    print!("{comparison}");
    if comparison.is_alike() {
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "\nMore than {} % from the committed figures. Find out why; if it is meant to be, \
         `make instructions ARGS=--write` commits to the new ones.",
        figures::CHANGE_PERCENT_MAX
    );
    Ok(ExitCode::FAILURE)
}
