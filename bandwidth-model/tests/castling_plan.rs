//! The program as people and scripts run it.

use std::process::{Command, Output};

use bandwidth_model::{Class, Plan, class};

const EVERY_ANSWER: [(&str, &str); 7] = [
    ("people", "5"),
    ("relayed", "2"),
    ("video", "1Mbit"),
    ("audio", "24kbit"),
    ("hours", "1.5"),
    ("meetings", "40"),
    ("blocked-share", "0.3"),
];

#[test]
fn json_is_the_canonical_bytes_of_the_library() {
    let output = castling_plan(&with(&flags(), &["--json"]));
    let plan = Plan::of(&Class::from_pairs(EVERY_ANSWER).unwrap());
    assert_eq!(stdout(&output), plan.to_json());
    assert_eq!(output.status.code(), Some(0));
}

/// Scripts and the signalling server's clients read these names; a change here is theirs too.
#[test]
fn json_keeps_its_names_order_and_form() {
    let plan = Plan::of(&Class::from_pairs(EVERY_ANSWER).unwrap());
    assert_eq!(plan.to_json(), include_str!("data/plan.json"));
}

#[test]
fn table_shows_numbers_units_and_formulas() {
    let output = castling_plan(&flags());
    let table = stdout(&output);
    let row = |name: &str| {
        let found = table.lines().find(|line| line.trim_start().starts_with(name));
        found.unwrap_or_else(|| panic!("no row {name:?} in\n{table}")).to_owned()
    };
    for (name, value, formula) in [
        ("relayed ", "7", "K = T(2P−T−1)/2"),
        ("sent ", "15.798 Mbit/s", "2 × K × b"),
        ("sent in a month ", "426.55 GB", "a meeting × meetings"),
        ("people at most, with 5 Mbit/s of uplink ", "5", "1 + ⌊uplink / b⌋"),
        ("relayed links on average ", "5.1", "E[K] = S × r"),
    ] {
        let row = row(name);
        let words: Vec<_> =
            row.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
        assert_eq!(words, [name.trim(), value, formula]);
    }
}

#[test]
fn csv_holds_plain_numbers_in_base_units() {
    let output = castling_plan(&with(&flags(), &["--csv"]));
    let csv = stdout(&output);
    assert!(csv.starts_with("section,name,value,unit,formula\r\n"));
    assert!(csv.contains("\"Relay\",\"sent\",\"15798160\",\"bit/s\",\"2 × K × b\"\r\n"), "{csv}");
}

#[test]
fn every_name_of_a_question_is_a_flag() {
    for key in class::KEYS {
        let mut answers = vec![("people", "5")];
        match key {
            "people" => {}
            "video" | "audio" => answers.push((key, "32kbit")),
            "blocked-share" | "relayed-links-share" => answers.push((key, "0.2")),
            _ => answers.push((key, "1")),
        }
        let flags: Vec<_> = answers.iter().map(|(key, value)| format!("--{key}={value}")).collect();
        let output = castling_plan(&with(&flags, &["--json"]));
        let plan = Plan::of(&Class::from_pairs(answers).unwrap());
        assert_eq!(stdout(&output), plan.to_json(), "{key}");
    }
}

#[test]
fn bad_input_gets_one_line_and_status_2() {
    for (arguments, expected) in [
        (&[][..], "castling-plan: people: missing; try castling-plan --help\n"),
        (&["--people", "-1"], "castling-plan: people: \"-1\" is not a number of people"),
        (&["--people=5", "--relayed=6"], "castling-plan: relayed: \"6\" is not "),
        (&["--people=5", "--video=1MB"], "castling-plan: video: \"1MB\" is not a rate of"),
        (
            &["--people=5", "--blocked-share=.1", "--relayed-links-share=.1"],
            "castling-plan: blocked-",
        ),
        (&["--people=5", "--people=5"], "castling-plan: the argument '--people <P>'"),
        (&["--people=5", "--json", "--csv"], "castling-plan: the argument '--json'"),
        (&["--pupils=5"], "castling-plan: unexpected argument '--pupils' found\n"),
        (&["vectors"], "castling-plan: the following required arguments were not provided: <FILE>"),
        (&["vectors", "no-such-file"], "castling-plan: no-such-file: "),
        (&["vectors", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")], "castling-plan: "),
    ] {
        let output = castling_plan(arguments);
        let complaint = String::from_utf8(output.stderr.clone()).unwrap();
        assert!(complaint.starts_with(expected), "{arguments:?}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn vectors_pass_or_name_the_failing_row() {
    let good = include_str!("vectors.csv");
    let output = castling_plan(&["vectors", &vectors_file("good.csv", good)]);
    assert_eq!(stdout(&output), "254 of 254 rows pass\n");
    assert_eq!(output.status.code(), Some(0));

    let bad = good.replace("\nlinks_total-6,links_total,", "\nlinks_total-6,links_sum,");
    let output = castling_plan(&["vectors", &vectors_file("bad.csv", &bad)]);
    assert_eq!(
        stdout(&output),
        "links_total-6 (links_sum) fails: the model has no such function\n253 of 254 rows pass\n"
    );
    assert_eq!(output.status.code(), Some(1));
}

fn castling_plan<S: AsRef<str>>(arguments: &[S]) -> Output {
    let arguments = arguments.iter().map(AsRef::as_ref);
    let program = env!("CARGO_BIN_EXE_castling-plan");
    Command::new(program).args(arguments).output().expect("the program was built with this test")
}

fn flags() -> Vec<String> {
    EVERY_ANSWER.iter().map(|(key, value)| format!("--{key}={value}")).collect()
}

fn with(flags: &[String], more: &[&str]) -> Vec<String> {
    flags.iter().cloned().chain(more.iter().map(|flag| (*flag).to_owned())).collect()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the program prints UTF-8")
}

fn vectors_file(name: &str, text: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, text).expect("the directory for tests' files is writable");
    path
}
