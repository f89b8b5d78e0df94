//! Rooms, the web app and TURN credentials.
//!
//! [`start`] binds everything that a [`config::Config`] asks for. Inside, [`room`] decides who may
//! say what to whom, [`socket`] carries it, and [`hub`] is what the connections share.

mod accept;
pub mod config;
mod files;
mod headers;
pub mod hub;
mod ice;
mod metrics;
pub mod name;
mod outlet;
mod pace;
mod plan;
pub mod protocol;
mod relays;
pub mod room;
mod server;
pub mod socket;
mod visitor;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use castling_relay::settings::SettingError;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::config::Config;
use crate::hub::Hub;
use crate::ice::Issuer;

/// How long the members may take to hear that the server ends.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// A running server.
pub struct Server {
    address: SocketAddr,
    admin: SocketAddr,
    hub: Arc<Hub>,
    listeners: Vec<JoinHandle<()>>,
    relay: Option<castling_relay::Handle>,
}

/// Starts the relay, if one is embedded, and both listeners.
///
/// # Errors
/// An address that cannot be bound, or a relay that cannot start: the operator's mistake.
pub async fn start(config: Config) -> Result<Server, SettingError> {
    let (listener, address) = bind("listen", config.listen).await?;
    let (admin_listener, admin) = bind("admin", config.admin).await?;
    let own_ports = vec![address.port(), admin.port()];
    let started = spawn_blocking(move || config.relays.start(own_ports)).await;
    let (relays, relay) = started.expect("starting a relay does not panic")?;
    let issuer = Issuer::new(relays, hub::random());
    let hub = Arc::new(Hub::new(issuer, config.limits, config.timing, hub::random()));
    let site = server::Site {
        hub: hub.clone(),
        files: config.files,
        origins: config.origins,
        trusted_proxies: config.trusted_proxies,
    };
    let public = server::public(Arc::new(site));
    let operator = server::admin(hub.clone(), admin, config.admin_token);
    let closed = || {
        let hub = hub.clone();
        move || hub.closed()
    };
    let listeners = vec![
        tokio::spawn(accept::run(listener, public, closed())),
        tokio::spawn(accept::run(admin_listener, operator, closed())),
    ];
    Ok(Server { address, admin, hub, listeners, relay })
}

impl Server {
    /// Where browsers connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the operator connects.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Tells all members, closes every connection and ends the relay.
    pub async fn stop(self) {
        self.hub.close();
        for listener in self.listeners {
            // A listener that panicked has ended as well.
            let _ = listener.await;
        }
        // A member that does not answer is cut off.
        let _ = timeout(STOP_WITHIN, self.hub.emptied()).await;
        if let Some(relay) = self.relay {
            // Its threads are joined; one that panicked has ended the process.
            let _ = spawn_blocking(move || relay.stop()).await;
        }
    }
}

async fn bind(key: &str, at: SocketAddr) -> Result<(TcpListener, SocketAddr), SettingError> {
    let failed = |error: io::Error| {
        let text = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program uses this port; stop it or choose another".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "this host has no such address".to_owned(),
            _ => error.to_string(),
        };
        SettingError::new(key, format!("{at}: {text}"))
    };
    let listener = TcpListener::bind(at).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
