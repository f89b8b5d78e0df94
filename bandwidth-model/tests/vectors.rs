//! The vectors file that every implementation of the model is tested on.

use std::io::{Write as _, stderr};

use bandwidth_model::vectors::{self, Failure, FileError};

const VECTORS: &str = include_str!("vectors.csv");
const ROWS: usize = 254;

#[test]
fn every_row_passes() {
    let report = vectors::run(VECTORS).unwrap();
    // Written past the test harness, which would swallow the count of a passing test.
    writeln!(stderr(), "vectors.csv: {report}").unwrap();
    assert_eq!(report.outcomes.len(), ROWS);
    assert!(report.all_passed(), "\n{report}");
}

/// Rows for what the shared file leaves out, computed by walking over people and seconds.
#[test]
fn every_row_of_our_own_passes() {
    let report = vectors::run(include_str!("vectors_own.csv")).unwrap();
    assert!(report.all_passed(), "\n{report}");
}

#[test]
fn a_wrong_number_names_its_row() {
    let text = VECTORS.replace(r#""{""P"":5,""T"":2}",K,7,7,"#, r#""{""P"":5,""T"":2}",K,8,8,"#);
    let report = vectors::run(&text).unwrap();
    assert_eq!(report.passed(), ROWS - 1);
    let printed = report.to_string();
    assert!(printed.starts_with("links_relayed-9 (links_relayed) fails: computed 7, expected 8"));
    assert!(printed.ends_with("253 of 254 rows pass"), "{printed}");
}

#[test]
fn rows_that_cannot_be_honoured_fail() {
    let failure = |function: &str, inputs: &str| {
        let header = vectors::COLUMNS.join(",");
        let inputs = inputs.replace('"', "\"\"");
        let text = format!("{header}\nrow-1,{function},\"{inputs}\",K,1,1,links,0,test\n");
        vectors::run(&text).unwrap().outcomes.remove(0).failure
    };
    let input = |name: &str| name.to_owned();
    assert_eq!(failure("links_lost", "{}"), Some(Failure::UnknownFunction));
    assert_eq!(failure("links_total", "[2]"), Some(Failure::InputsNotAnObject));
    assert_eq!(failure("links_total", "{}"), Some(Failure::MissingInput(input("P"))));
    let unused = failure("links_total", r#"{"P":2,"Q":1}"#);
    assert_eq!(unused, Some(Failure::UnusedInput(input("Q"))));
    assert_eq!(failure("links_total", r#"{"P":2,"case":"label"}"#), None);
    for people in ["-1", "1.5", "\"two\"", "null", "[2]"] {
        let failure = failure("links_total", &format!(r#"{{"P":{people}}}"#));
        assert!(matches!(failure, Some(Failure::WrongInput { .. })), "{people}: {failure:?}");
    }
    let refused = failure("links_relayed", r#"{"P":2,"T":3}"#);
    assert!(matches!(refused, Some(Failure::Refused(_))), "{refused:?}");
}

#[test]
fn other_files_are_refused() {
    let header = vectors::COLUMNS.join(",");
    let row = "a,links_total,\"{\"\"P\"\":2}\",S,1,1,links,0,test";
    assert_eq!(vectors::run(""), Err(FileError::Header));
    assert_eq!(vectors::run("id,function\n"), Err(FileError::Row { line: 1 }));
    assert_eq!(vectors::run(&header), Err(FileError::Empty));
    let twice = format!("{header}\n{row}\n{row}\n");
    assert_eq!(vectors::run(&twice), Err(FileError::RepeatedId("a".to_owned())));
}
