//! `castling-relay`: a STUN and TURN server.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use castling_relay::config::{PROGRAM, Source, load_secrets};
use castling_relay::flags::FLAGS;
use castling_relay::settings::{self, SettingError, Settings};
use castling_relay::{Config, Signals, start};
use clap::{Arg, ArgMatches, Command, value_parser};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let done = settings::matches(command()).and_then(|matches| {
        let Some(matches) = matches else { return Ok(()) };
        match matches.subcommand() {
            Some(("credential", given)) => credential(given),
            _ => run(&matches),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{PROGRAM}: {error}");
            ExitCode::from(2)
        }
    }
}

fn command() -> Command {
    let needed = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).required(true)
    };
    settings::command(PROGRAM, "A STUN and TURN server", FLAGS).subcommand(
        Command::new("credential").about("Print a TURN credential as JSON").args([
            needed("secret-file", "FILE", "Shared secrets, one a line; the first mints"),
            needed("user", "USER", "Such as room.peer"),
            needed("ttl", "SECONDS", "How long it opens allocations")
                .value_parser(value_parser!(u32)),
        ]),
    )
}

fn run(matches: &ArgMatches) -> Result<(), SettingError> {
    log_to_stderr();
    let settings = load(matches)?;
    let mut config = Config::from_settings(&settings)?;
    let matches = matches.clone();
    let again = move || Config::from_settings_again(&load(&matches)?);
    config.source = Some(Source::new(again));
    if settings.check() {
        print!("{}", settings.describe(FLAGS));
        return Ok(());
    }
    let signals = Signals::catch();
    let relay = start(config)?;
    for address in relay.listening() {
        tracing::info!(%address, "STUN and TURN over UDP and TCP");
    }
    for address in relay.listening_tls() {
        tracing::info!(%address, "TURN over TLS");
    }
    if let Some(address) = relay.admin() {
        tracing::info!(%address, "metrics and health");
    }
    signals.serve(&relay);
    relay.stop();
    Ok(())
}

fn load(matches: &ArgMatches) -> Result<Settings, SettingError> {
    Settings::load(matches, FLAGS, |name| std::env::var(name).ok(), PROGRAM)
}

fn credential(given: &ArgMatches) -> Result<(), SettingError> {
    let text = |name: &str| given.get_one::<String>(name).cloned().unwrap_or_default();
    let secrets = load_secrets(text("secret-file").as_ref())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let expires = now + u64::from(given.get_one::<u32>("ttl").copied().unwrap_or_default());
    let secret = secrets.first().map(Vec::as_slice).unwrap_or_default();
    let made = relay_proto::credential::mint(secret, &text("user"), expires);
    let json = serde_json::json!({
        "username": made.username,
        "password": made.password,
        "expires": expires,
    });
    println!("{json}");
    Ok(())
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
