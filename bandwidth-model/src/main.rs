//! `castling-plan`: what a video class needs, before it is held.

use std::fmt::Display;
use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bandwidth_model::{Class, Plan, table, vectors};
use clap::{Args, Parser, Subcommand};

/// Exit status for a question, flag or file that cannot be used.
const BAD_INPUT: u8 = 2;
/// Exit status for vectors that fail, or output that cannot be written.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return complain(BAD_INPUT, first_paragraph(&error)),
        Err(help_or_version) => return print(&help_or_version.to_string(), ExitCode::SUCCESS),
    };
    match cli.command {
        Some(Command::Vectors { file }) => run_vectors(&file),
        None => plan(&cli.question, cli.output),
    }
}

/// Plans a video class: links, relay traffic, and what each person's line must carry.
#[derive(Parser)]
#[command(name = "castling-plan", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    question: Question,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a file of test vectors and names each failing row
    Vectors {
        /// CSV with the columns id, function, inputs_json, output, expected, expected_exact, …
        file: PathBuf,
    },
}

/// The question, as text: the library reads it, for this program and for `GET /api/plan` alike.
#[derive(Args)]
struct Question {
    /// People in the class (P)
    #[arg(long, value_name = "P", allow_hyphen_values = true)]
    people: Option<String>,
    /// How many of them cannot connect directly (T) [default: all, the worst case]
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    relayed: Option<String>,
    /// Encoded video of each person: 300000, 300kbit or 1.5Mbit; 0 for none [default: 1Mbit]
    #[arg(long, value_name = "RATE", allow_hyphen_values = true)]
    video: Option<String>,
    /// Encoded audio of each person; 0 for none [default: 24kbit]
    #[arg(long, value_name = "RATE", allow_hyphen_values = true)]
    audio: Option<String>,
    /// Length of a meeting in hours, such as 1.5 [default: 1]
    #[arg(long, value_name = "H", allow_hyphen_values = true)]
    hours: Option<String>,
    /// Meetings in a month [default: 1]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    meetings: Option<String>,
    /// Share of people who are blocked, 0 to 1: adds averages and a 90 % level
    #[arg(long, value_name = "q", allow_hyphen_values = true)]
    blocked_share: Option<String>,
    /// The same from the share of links that are relayed, 0 to 1
    #[arg(long, value_name = "r", allow_hyphen_values = true)]
    relayed_links_share: Option<String>,
}

impl Question {
    fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let answers = [
            ("people", &self.people),
            ("relayed", &self.relayed),
            ("video", &self.video),
            ("audio", &self.audio),
            ("hours", &self.hours),
            ("meetings", &self.meetings),
            ("blocked-share", &self.blocked_share),
            ("relayed-links-share", &self.relayed_links_share),
        ];
        answers.into_iter().filter_map(|(key, answer)| Some((key, answer.as_deref()?)))
    }
}

#[derive(Args, Clone, Copy)]
#[group(multiple = false)]
struct Output {
    /// Prints JSON, the bytes that `GET /api/plan` answers
    #[arg(long)]
    json: bool,
    /// Prints CSV, numbers in base units
    #[arg(long)]
    csv: bool,
}

fn plan(question: &Question, output: Output) -> ExitCode {
    let class = match Class::from_pairs(question.pairs()) {
        Ok(class) => class,
        Err(error) => return complain(BAD_INPUT, format!("{error}; try castling-plan --help")),
    };
    let plan = Plan::of(&class);
    let text = match output {
        Output { json: true, .. } => plan.to_json(),
        Output { csv: true, .. } => table::to_csv(&plan),
        Output { .. } => table::to_table(&plan),
    };
    print(&text, ExitCode::SUCCESS)
}

fn run_vectors(file: &Path) -> ExitCode {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return complain(BAD_INPUT, format!("{}: {error}", file.display())),
    };
    match vectors::run(&text) {
        Ok(report) => {
            let status = if report.all_passed() { ExitCode::SUCCESS } else { FAILURE.into() };
            print(&format!("{report}\n"), status)
        }
        Err(error) => complain(BAD_INPUT, format!("{}: {error}", file.display())),
    }
}

/// Writes a result. A reader that has read enough (`| head`) is no failure; a full disk is.
fn print(text: &str, status: ExitCode) -> ExitCode {
    match stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(FAILURE, format!("standard output: {error}"))
        }
        _ => status,
    }
}

fn complain(status: u8, problem: impl Display) -> ExitCode {
    // When even this cannot be written, the status still tells.
    let _ = writeln!(std::io::stderr(), "castling-plan: {problem}");
    status.into()
}

/// What clap has to say, without usage and tips, on one line.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    let line = paragraph.collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}
