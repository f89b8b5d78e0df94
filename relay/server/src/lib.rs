//! The edge of the relay: sockets, threads and HTTP around [`relay_proto`], which decides.
//!
//! [`start`] runs a relay in this process; `castling-relay` and `castling-signaling` both call it.

pub mod admin;
mod api;
mod caps;
pub mod config;
pub mod control;
mod edge;
pub mod flags;
mod host;
mod metrics;
mod order;
mod ports;
mod quota;
mod ring;
pub mod secrets;
pub mod settings;
mod shared;
mod signals;
mod socket;
mod stream;
pub mod tls;
mod watch;
mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use relay_proto::auth::Credentials;
use relay_proto::policy::PeerPolicy;
use relay_proto::relay::{Keys, Relay, Settings};

use caps::Caps;
pub use relay_proto::Who;

pub use config::Config;
use control::Control;
pub use control::Kicked;
use settings::SettingError;
use shared::Shared;
pub use signals::Signals;
use socket::Waker;
use tls::Certificates;
use watch::Watch;
use worker::{Listener, Worker};

/// Most ports tried where the kernel may choose one.
const BIND_TRIES_MAX: usize = 8;
/// Most live permissions of an allocation.
const PERMISSIONS_MAX: usize = 64;
/// Most live channels of an allocation.
const CHANNELS_MAX: usize = 64;

/// A relay that runs. Dropping it stops it.
pub struct Handle {
    listening: Vec<SocketAddr>,
    listening_tls: Vec<SocketAddr>,
    certificates: Option<Arc<Certificates>>,
    shared: Arc<Shared>,
    control: Arc<Control>,
    workers: Vec<JoinHandle<()>>,
    admin: Option<admin::Server>,
    watch: Option<Watch>,
}

/// Starts a relay: when this returns, its sockets are bound.
///
/// # Errors
/// A setting that this host cannot fulfil, such as a port that is taken.
pub fn start(config: Config) -> Result<Handle, SettingError> {
    let Listeners { listening, listening_tls, mut datagrams, streams } = bind_all(&config)?;
    let admin = admin::bind(config.admin)?;
    let failed = |error: io::Error| SettingError::new("workers", error);
    // One worker more: the last one serves streams.
    let wakers: io::Result<Vec<_>> = (0..=config.workers).map(|_| Waker::new()).collect();
    let shared = Shared::new(
        wakers.map_err(failed)?,
        config.relay_ips.clone(),
        config.ports,
        config.limits,
        Caps::new(config.rate_max, config.credential_bytes_max),
    );
    let shared = Arc::new(shared.preserving_dscp(config.preserve_dscp));
    let own: Vec<_> = listening.iter().chain(&listening_tls).copied().collect();
    let control = Arc::new(Control::new(shared.clone(), config.clone(), own));
    let settings = control.relay_settings();
    let nonce_key = random();
    let new = || Relay::new(settings.clone(), &Keys { nonce: nonce_key, seed: random() });
    let stream_relay = new();
    let relay = || new().beside(&stream_relay);
    let mut workers = Vec::new();
    let mut rings = ring::connect(config.workers + 1);
    let stream_rings = rings.pop().expect("one worker more than for datagrams");
    for (number, rings) in rings.into_iter().enumerate() {
        let (relay, listeners, shared) = (relay(), datagrams.remove(0), shared.clone());
        let run = move || {
            Worker::new(number, shared, relay, listeners, rings)?.run();
            Ok(())
        };
        workers.push(spawn(format!("relay-{number}"), run).map_err(failed)?);
    }
    let worker_shared = shared.clone();
    let doors = stream::Doors {
        certificates: config.certificates.clone(),
        trusted_proxies: config.trusted_proxies,
    };
    let run = move || {
        stream::run(config.workers, worker_shared, stream_relay, streams, doors, stream_rings)
    };
    workers.push(spawn("relay-stream".into(), run).map_err(failed)?);
    let certificates = config.certificates;
    let page = metrics::Page::new(
        shared.clone(),
        config.relay_ips.clone(),
        control.clone(),
        certificates.clone(),
    );
    let admin = admin::serve(admin, page, control.clone(), config.admin_token)?;
    let watch = Watch::start(control.clone()).map_err(failed)?;
    let (admin, watch) = (Some(admin), Some(watch));
    Ok(Handle { listening, listening_tls, certificates, shared, control, workers, admin, watch })
}

impl Handle {
    /// The addresses where STUN and TURN are served, over UDP and TCP.
    #[must_use]
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// The addresses that are there for TURN over TLS.
    #[must_use]
    pub fn listening_tls(&self) -> &[SocketAddr] {
        &self.listening_tls
    }

    /// The certificate, if TLS is served.
    #[must_use]
    pub fn certificates(&self) -> Option<&Arc<Certificates>> {
        self.certificates.as_ref()
    }

    /// Where metrics and health are served.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(admin::Server::address)
    }

    /// Reads the settings again and applies what can change while calls go on, all or nothing.
    /// Returns the keys that changed but need a restart. The log says the same.
    ///
    /// # Errors
    /// The first setting that cannot be used, after which everything is as it was; or the
    /// configuration has no [`config::Source`].
    pub fn reload(&self) -> Result<Vec<String>, SettingError> {
        self.control.reload()
    }

    /// Ends all allocations of a user or a room and revokes the name for `for_s` seconds, or for
    /// as long as the credentials in use were good. When this returns, no byte of theirs goes
    /// either way.
    pub fn kick(&self, who: &Who, for_s: u64) -> Kicked {
        self.control.kick(who, for_s)
    }

    /// Opens no new allocations from now on; those that live go on.
    pub fn drain(&self) {
        self.control.drain();
    }

    /// Waits until the relay drains and is empty, or has drained for as long as it may.
    pub async fn drained(&self) {
        self.control.drained().await;
    }

    /// Ends every allocation and thread.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.admin = None;
        self.watch = None;
        for mailbox in &self.shared.mailboxes {
            mailbox.stop.store(true, Ordering::Relaxed);
            mailbox.waker.wake();
        }
        for worker in self.workers.drain(..) {
            // A worker that panicked has ended the process already.
            let _ = worker.join();
        }
    }
}

/// Runs a worker on a thread of its own.
fn spawn(
    name: String,
    worker: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(move || {
        let _end = AbortOnPanic;
        if let Err(error) = worker() {
            tracing::error!(%error, "a worker cannot run");
            std::process::exit(1);
        }
    })
}

/// A worker that panics leaves its clients without an answer: better to be restarted.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Everything that clients write to.
struct Listeners {
    /// Where TURN is served.
    listening: Vec<SocketAddr>,
    /// Where TURN over TLS is served.
    listening_tls: Vec<SocketAddr>,
    /// Sockets for datagrams, for each worker.
    datagrams: Vec<Vec<Listener>>,
    /// Sockets for connections.
    streams: Vec<TcpListener>,
}

/// Binds every listener, those for datagrams once for each worker.
fn bind_all(config: &Config) -> Result<Listeners, SettingError> {
    let (mut listening, mut streams) = (Vec::new(), Vec::new());
    let mut datagrams: Vec<Vec<Listener>> = (0..config.workers).map(|_| Vec::new()).collect();
    let mut listening_tls = Vec::new();
    let alternate = |address: &SocketAddr| SocketAddr::new(address.ip(), config.stun_alt_port);
    let turn = config.listen.iter().map(|address| (*address, false));
    let stun = config.listen.iter().map(alternate).map(|address| (address, true));
    let stun = stun.filter(|_| config.stun_alt_port != 0);
    if config.listen.len() * 2 > worker::LISTENERS_MAX {
        let text = format!("at most {} addresses", worker::LISTENERS_MAX / 2);
        return Err(SettingError::new("listen", text));
    }
    for (address, stun_only) in turn.chain(stun) {
        match bind_both(address, config.workers, stun_only) {
            Ok((bound, sockets, stream)) => {
                for (worker, socket) in datagrams.iter_mut().zip(sockets) {
                    if config.preserve_dscp {
                        socket::report_class(socket.as_fd(), bound.is_ipv4())
                            .map_err(|error| SettingError::new("preserve-dscp", error))?;
                    }
                    worker.push(Listener { socket, stun_only });
                }
                if let Some(stream) = stream {
                    listening.push(bound);
                    streams.push(stream);
                }
            }
            Err(error) if config.listen_is_default && lacks_family(&error) => {}
            Err(error) => {
                let key = if stun_only { "stun-alt-port" } else { "listen" };
                return Err(SettingError::new(key, format!("{address}: {}", advice(&error))));
            }
        }
    }
    if listening.is_empty() {
        return Err(SettingError::new("listen", "this host has neither IPv4 nor IPv6"));
    }
    for address in &config.listen_tls {
        match bind_stream(*address) {
            Ok((bound, stream)) => {
                listening_tls.push(bound);
                streams.push(stream);
            }
            Err(error) if config.listen_tls_is_default && lacks_family(&error) => {}
            Err(error) => {
                return Err(SettingError::new(
                    "listen-tls",
                    format!("{address}: {}", advice(&error)),
                ));
            }
        }
    }
    Ok(Listeners { listening, listening_tls, datagrams, streams })
}

/// Binds an address for connections.
fn bind_stream(address: SocketAddr) -> io::Result<(SocketAddr, TcpListener)> {
    let stream = socket::bind_stream_listener(address)?;
    Ok((stream.local_addr()?, stream))
}

type Bound = (SocketAddr, Vec<UdpSocket>, Option<TcpListener>);

/// Binds an address for datagrams, and for connections too unless only STUN is served there.
fn bind_both(address: SocketAddr, workers: usize, stun_only: bool) -> io::Result<Bound> {
    let bind = || {
        let (bound, sockets) = bind_shared(address, workers)?;
        let stream = (!stun_only).then(|| socket::bind_stream_listener(bound)).transpose()?;
        Ok((bound, sockets, stream))
    };
    // A port of the kernel's choice is free for datagrams, but perhaps not for connections.
    let tries = if address.port() == 0 { BIND_TRIES_MAX } else { 1 };
    (1..tries).find_map(|_| bind().ok()).map_or_else(bind, Ok)
}

/// As many sockets on one address as there are workers; the kernel gives each client to one.
fn bind_shared(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<UdpSocket>)> {
    // Sockets that share a port would also share it with another relay that runs already; one
    // that does not share finds out.
    let probe = socket::bind_listener(address, false)?;
    let bound = probe.local_addr()?;
    drop(probe);
    let sockets: io::Result<Vec<_>> =
        (0..workers).map(|_| socket::bind_listener(bound, true)).collect();
    Ok((bound, sockets?))
}

fn lacks_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// The kernel's word, and what to do about it.
fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program uses this port; stop it or choose another".into()
        }
        io::ErrorKind::AddrNotAvailable => "this host has no such address".into(),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the privilege to bind them".into()
        }
        _ => error.to_string(),
    }
}

fn relay_settings(config: &Config, listening: &[SocketAddr], own_ips: Vec<IpAddr>) -> Settings {
    let mut service_ports: Vec<u16> = listening.iter().map(SocketAddr::port).collect();
    service_ports.extend([config.stun_alt_port, config.admin.port()]);
    service_ports.extend(&config.service_ports);
    let (first, last) = config.ports;
    Settings {
        credentials: Credentials::new(
            config.realm.clone(),
            config.secrets.clone(),
            config.users.clone(),
        ),
        policy: PeerPolicy {
            relay_ips: config.relay_ips.clone(),
            relay_ports: first..=last,
            service_ports,
            own_ips,
            allow: config.allow_peers.clone(),
            deny: config.deny_peers.clone(),
        },
        permissions_max: PERMISSIONS_MAX,
        channels_max: CHANNELS_MAX,
        expiry_mode: config.expiry_mode,
        session_s_max: config.session_s_max,
        rfc5766_channels: config.rfc5766_channels,
        strict_channels: config.strict_channels,
        rate_max: config.allocation_rate_max,
    }
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the kernel has randomness");
    bytes
}
