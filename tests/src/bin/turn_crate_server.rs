//! The TURN server of the `turn` crate, for the benchmark to compare with.
//!
//! Arguments: the address to listen on, the realm and a file with the shared secret of REST
//! credentials. One thread: it is given one core.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use relay_proto::credential;
use tokio::net::UdpSocket;
use tokio::signal::unix::{SignalKind, signal};
use turn::auth::{AuthHandler, generate_auth_key};
use turn::relay::relay_static::RelayAddressGeneratorStatic;
use turn::server::Server;
use turn::server::config::{ConnConfig, ServerConfig};
use webrtc_util::vnet::net::Net;

/// What the workspace was built with.
const LOCK: &str = include_str!("../../../Cargo.lock");

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--version"] => {
            println!("turn crate {}", locked_version("turn").unwrap_or("of unknown version"));
            Ok(())
        }
        [listen, realm, secret] => serve(listen, realm, secret).await,
        _ => Err("usage: turn_crate_server IP:PORT REALM SECRET-FILE".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("turn_crate_server: {error}");
            ExitCode::from(2)
        }
    }
}

async fn serve(listen: &str, realm: &str, secret_file: &str) -> Outcome<()> {
    let listen: SocketAddr = listen.parse()?;
    let secret = std::fs::read_to_string(secret_file)?.trim().to_owned();
    let conn = Arc::new(UdpSocket::bind(listen).await?);
    let relay_addr_generator = Box::new(RelayAddressGeneratorStatic {
        relay_address: listen.ip(),
        address: listen.ip().to_string(),
        net: Arc::new(Net::new(None)),
    });
    let server = Server::new(ServerConfig {
        conn_configs: vec![ConnConfig { conn, relay_addr_generator }],
        realm: realm.to_owned(),
        auth_handler: Arc::new(Rest { secret }),
        channel_bind_timeout: Duration::ZERO, // the crate's default, ten minutes
        alloc_close_notify: None,
    })
    .await?;
    signal(SignalKind::terminate())?.recv().await;
    Ok(server.close().await?)
}

/// REST credentials: the user name says until when, its signature is the password.
struct Rest {
    secret: String,
}

impl AuthHandler for Rest {
    fn auth_handle(
        &self,
        username: &str,
        realm: &str,
        _: SocketAddr,
    ) -> Result<Vec<u8>, turn::Error> {
        let wrong = || turn::Error::Other(format!("{username:?}: not <expiry>:<user>"));
        credential::split(username).ok_or_else(wrong)?;
        let password = credential::password(self.secret.as_bytes(), username);
        Ok(generate_auth_key(username, realm, &password))
    }
}

/// The version of a package in the workspace's lock file.
fn locked_version(package: &str) -> Option<&'static str> {
    let name = format!("name = \"{package}\"");
    let mut lines = LOCK.lines().skip_while(|line| *line != name);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_lock_file() {
        let version = locked_version("turn").unwrap();
        assert!(LOCK.contains(&format!("name = \"turn\"\nversion = \"{version}\"\n")));
        assert_eq!(locked_version("no-such-package"), None);
    }

    #[test]
    fn credentials_are_those_of_the_other_relays() {
        let rest = Rest { secret: "north".to_owned() };
        let minted = credential::mint(b"north", "bench", 4_000_000_000);
        let key = |username: &str| rest.auth_handle(username, "r", ([127, 0, 0, 1], 1).into());
        let expected = generate_auth_key(&minted.username, "r", &minted.password);
        assert_eq!(key(&minted.username).unwrap(), expected);
        assert!(key("bench").is_err());
        assert!(key("soon:bench").is_err());
    }
}
