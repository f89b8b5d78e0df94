//! The settings, and a configuration that cannot be wrong.

use std::net::SocketAddr;
use std::path::PathBuf;

use castling_relay::config::{admin, load_secrets, state_dir};
use castling_relay::flags::FLAGS as RELAY_FLAGS;
use castling_relay::settings::{Flag, Kind, SettingError, Settings};
use relay_proto::policy::Cidr;

use crate::files::Files;
use crate::hub::Limits;
use crate::relays::{Choice, Relays, below_prefix};
use crate::socket::Timing;
use crate::visitor::Origins;

/// Name of the program, and prefix of its environment variables.
pub const PROGRAM: &str = "castling-signaling";
/// In front of the settings of the embedded relay.
pub const RELAY_PREFIX: &str = "relay.";
/// Settings that the embedded relay takes from us unless it has its own.
const SHARED: [&str; 2] = ["secret-file", "state-dir"];
/// Where the embedded relay is stricter than a stand-alone one, since it knows what its clients are
/// for. A person of eight who are all relayed sends and gets about 10 Mbit/s of payload, which is
/// 18 GB in the four hours that a session may last.
const EMBEDDED: [(&str, &str); 2] =
    [("max-bps-per-allocation", "8000000"), ("max-bytes-per-credential", "20000000000")];
/// A school is one address, so this many sockets per address must stay possible.
const SOCKETS_PER_IP_MIN: usize = 64;

const OWN_FLAGS: &[Flag] = &[
    Flag::new("listen", Kind::One("IP:PORT"), Some("127.0.0.1:8080"), "HTTP and WebSocket"),
    Flag::new(
        "relay",
        Kind::Many("URL"),
        None,
        "Stand-alone relay to hand out, turn:HOST:PORT?transport=udp; none: one is embedded",
    ),
    Flag::new("secret-file", Kind::One("FILE"), None, "Secret shared with the relays"),
    Flag::new("origin", Kind::Many("HOST"), None, "Allowed Origin besides the own host"),
    Flag::new("allow-no-origin", Kind::Switch, None, "Accept WebSockets without Origin"),
    Flag::new("trusted-proxy", Kind::Many("CIDR"), None, "Whose X-Forwarded-For is believed"),
    Flag::new("max-sockets", Kind::One("N"), Some("2000"), "WebSockets in all"),
    Flag::new("max-sockets-per-ip", Kind::One("N"), Some("256"), "WebSockets per address"),
    Flag::new("web-root", Kind::One("DIR"), None, "Serve these files, not the embedded ones"),
    Flag::new("admin", Kind::One("IP:PORT"), Some("127.0.0.1:9642"), "Metrics and health"),
    Flag::new(
        "admin-token-file",
        Kind::One("FILE"),
        None,
        "Bearer token; needed when --admin is not loopback",
    ),
    Flag::new(
        "state-dir",
        Kind::One("DIR"),
        None,
        "Where the secret is [default: $STATE_DIRECTORY, else ./state]",
    ),
];

/// Every setting of the program, those of the embedded relay below [`RELAY_PREFIX`].
#[must_use]
pub fn flags() -> Vec<Flag> {
    let relay = RELAY_FLAGS.iter().map(|flag| flag.prefixed(RELAY_PREFIX));
    OWN_FLAGS.iter().cloned().chain(relay).collect()
}

/// What the server runs with.
pub struct Config {
    /// Where browsers connect.
    pub listen: SocketAddr,
    /// Where the operator connects.
    pub admin: SocketAddr,
    /// What the operator shows there.
    pub admin_token: Option<String>,
    /// The relays to hand out.
    pub relays: Choice,
    /// Most WebSockets.
    pub limits: Limits,
    /// When things happen on a connection; no setting changes it.
    pub timing: Timing,
    /// Pages that may connect.
    pub origins: Origins,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// The web app.
    pub files: Files,
}

impl Config {
    /// Reads the settings of the table.
    ///
    /// # Errors
    /// A value that cannot be used: the operator's mistake.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        let (admin, admin_token) = admin(settings)?;
        Ok(Self {
            listen: settings.required("listen")?,
            admin,
            admin_token,
            relays: relays(settings)?,
            limits: limits(settings)?,
            timing: Timing::default(),
            origins: Origins {
                allowed: settings.many("origin")?,
                allow_none: settings.switch("allow-no-origin")?,
            },
            trusted_proxies: settings.many("trusted-proxy")?,
            files: settings.one("web-root")?.map_or(Ok(Files::Embedded), folder)?,
        })
    }
}

fn relays(settings: &Settings) -> Result<Choice, SettingError> {
    let urls = settings.many("relay")?;
    if urls.is_empty() {
        let mut relay = settings.below(RELAY_PREFIX);
        for shared in SHARED {
            if let Some(value) = settings.one::<String>(shared)? {
                relay.set_default(shared, &value);
            }
        }
        EMBEDDED.iter().for_each(|(key, value)| relay.set_default(key, value));
        let config = castling_relay::Config::from_settings(&relay).map_err(|error| {
            let own = |key: &&str| {
                let is_named = error.to_string().starts_with(&format!("{key}: "));
                is_named && !settings.given(&format!("{RELAY_PREFIX}{key}"))
            };
            if SHARED.iter().any(own) { error } else { below_prefix(&error) }
        });
        return Ok(Choice::Embedded(Box::new(config?)));
    }
    let given = settings.one("secret-file")?;
    let path = given.map_or_else(|| Ok(state_dir(settings)?.join("turn-secret")), Ok)?;
    let secret = load_secrets(&path)?.into_iter().next().unwrap_or_default();
    Ok(Choice::StandAlone(Relays::stand_alone(&urls, secret)?))
}

fn limits(settings: &Settings) -> Result<Limits, SettingError> {
    let sockets = settings.required("max-sockets")?;
    let sockets_per_ip = settings.required("max-sockets-per-ip")?;
    if sockets == 0 {
        return Err(SettingError::new("max-sockets", "at least 1, or nobody can connect"));
    }
    if sockets_per_ip < SOCKETS_PER_IP_MIN {
        let text = format!("at least {SOCKETS_PER_IP_MIN}, as a school shares one address");
        return Err(SettingError::new("max-sockets-per-ip", text));
    }
    Ok(Limits { sockets, sockets_per_ip })
}

fn folder(root: PathBuf) -> Result<Files, SettingError> {
    if root.is_dir() {
        return Ok(Files::Folder(root));
    }
    Err(SettingError::new("web-root", format!("{} is not a folder", root.display())))
}
