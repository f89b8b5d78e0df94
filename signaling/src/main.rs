//! `castling-signaling`: the web app, its rooms, and an embedded relay.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use castling_relay::settings::{self, SettingError, Settings};
use castling_signaling::config::{self, Config};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("castling-signaling: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), SettingError> {
    let flags = config::flags();
    let about = "Serves video classes: the web app, its rooms, and a TURN relay";
    let command = settings::command(config::PROGRAM, about, &flags);
    let Some(matches) = settings::matches(command)? else { return Ok(()) };
    let variable = |name: &str| std::env::var(name).ok();
    let settings = Settings::load(&matches, &flags, variable, config::PROGRAM)?;
    let config = Config::from_settings(&settings)?;
    if settings.check() {
        print!("{}", settings.describe(&flags));
        return Ok(());
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| SettingError::new("threads", error))?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), SettingError> {
    let no_signals = |error| SettingError::new("signals", error);
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let server = castling_signaling::start(config).await?;
    let address = reachable(server.address());
    // Whoever started us may have closed the pipe; the server runs all the same.
    let _ = writeln!(std::io::stdout(), "Castling is ready: http://{address}");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.stop().await;
    Ok(())
}

/// Where a browser on this machine finds a listener that is bound to every address.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        own => own,
    };
    SocketAddr::new(ip, listening.port())
}
