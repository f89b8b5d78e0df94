//! From settings to a configuration that cannot be wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use relay_proto::Alternates;
use relay_proto::address::Family;
use relay_proto::auth::ExpiryMode;
use relay_proto::policy::{Cidr, RelayIp};
use relay_proto::request::LIFETIME_S_MIN;
use relay_proto::shape::Rate;

use crate::host;
use crate::quota::Limits;
use crate::secrets::{SecretFile, Signature};
use crate::settings::{SettingError, Settings};
use crate::tls::{self, Certificates};

/// Program name on the command line and, in capitals, in the environment.
pub const PROGRAM: &str = "castling-relay";
/// Shortest secret in bytes.
pub const SECRET_LEN_MIN: usize = 16;
/// Most workers: a port's owner is one byte.
pub const WORKERS_MAX: usize = 64;
/// Descriptors kept for everything that is no relayed port.
const DESCRIPTORS_RESERVED: u64 = 512;
/// The port of TURN over UDP and TCP (RFC 8656 §19.1).
const TURN_PORT: u16 = 3478;
/// The port of TURN over TLS.
const TLS_PORT: u16 = 5349;
/// Secrets that stand in manuals and must not be used.
const SAMPLE_SECRETS: [&str; 3] = ["secret", "north", "mysecret"];

/// Settings that a reload applies while calls go on; the others need a restart.
pub const RELOADED: &[&str] = &[
    "allocations-per-room",
    "allocations-per-user",
    "allow-peer",
    "alternate-server",
    "deny-peer",
    "drain-limit",
    "expiry-mode",
    "max-allocations",
    "max-bps",
    "max-bps-per-allocation",
    "max-bytes-per-credential",
    "max-session",
    "rfc5766-channels",
    "secret-file",
    "state-dir",
    "strict-channels",
    "user",
    "users-per-ip",
];

/// Reads a configuration again, from where it came from.
#[derive(Clone)]
pub struct Source(Arc<dyn Fn() -> Result<Config, SettingError> + Send + Sync>);

impl Source {
    /// `read` gives the configuration as it is now, without making what is missing:
    /// [`Config::from_settings_again`].
    pub fn new(read: impl Fn() -> Result<Config, SettingError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The configuration of now.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn read(&self) -> Result<Config, SettingError> {
        (self.0)()
    }
}

/// What a relay is started with. Its debug form names addresses only.
#[derive(Clone)]
pub struct Config {
    /// Addresses for STUN and TURN over UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Addresses that the operator did not ask for; those the host lacks are left out.
    pub listen_is_default: bool,
    /// Addresses for TURN over TLS; none without a certificate.
    pub listen_tls: Vec<SocketAddr>,
    /// As [`Config::listen_is_default`].
    pub listen_tls_is_default: bool,
    /// The certificate for TLS, which is then served on every address for streams.
    pub certificates: Option<Arc<Certificates>>,
    /// Sources whose streams begin with the header of a proxy.
    pub trusted_proxies: Vec<Cidr>,
    /// Second STUN port; 0 is off.
    pub stun_alt_port: u16,
    /// Where relayed ports are opened, at most one per family.
    pub relay_ips: Vec<RelayIp>,
    /// First and last relayed port.
    pub ports: (u16, u16),
    /// Authentication realm.
    pub realm: String,
    /// Shared secrets; the first mints.
    pub secrets: Vec<Vec<u8>>,
    /// Where they are kept.
    pub secret_file: SecretFile,
    /// The state of that file just before it was read.
    pub secret_file_seen: Option<Signature>,
    /// Static users and their passwords.
    pub users: BTreeMap<String, String>,
    /// Opened peer networks.
    pub allow_peers: Vec<Cidr>,
    /// Closed peer networks.
    pub deny_peers: Vec<Cidr>,
    /// Ports of other services of this process, which no peer may be.
    pub service_ports: Vec<u16>,
    /// Most allocations of a user, of a room and in all, and most users of an address.
    pub limits: Limits,
    /// Longest life of an allocation in seconds; `None` is without end.
    pub session_s_max: Option<u32>,
    /// What a credential's expiry ends.
    pub expiry_mode: ExpiryMode,
    /// Accept the channel numbers of RFC 5766.
    pub rfc5766_channels: bool,
    /// Copy the DSCP towards peers and clients.
    pub preserve_dscp: bool,
    /// Channels need a live permission and stay their pair's for five minutes.
    pub strict_channels: bool,
    /// Most payload of one allocation, each way for itself.
    pub allocation_rate_max: Option<Rate>,
    /// Most payload that the whole relay sends.
    pub rate_max: Option<Rate>,
    /// Most payload carried with one credential in bytes, both ways together.
    pub credential_bytes_max: Option<u64>,
    /// Where a draining relay sends new clients.
    pub alternates: Alternates,
    /// How long it waits for its last allocation.
    pub drain_limit: Duration,
    /// Packet threads.
    pub workers: usize,
    /// HTTP for metrics and health.
    pub admin: SocketAddr,
    /// Bearer token of the admin address.
    pub admin_token: Option<String>,
    /// What all of this was made from.
    pub given: Settings,
    /// Where a reload reads it again; `None` refuses to.
    pub source: Option<Source>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Config");
        out.field("listen", &self.listen).field("admin", &self.admin).finish_non_exhaustive()
    }
}

impl Config {
    /// Checks every setting, and makes the secret at first start.
    ///
    /// # Errors
    /// The first setting that cannot be used: the operator's mistake, or the host's state.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        let file = secret_file(settings)?;
        if file.is_own {
            make_secret_if_missing(&file.path)?;
        }
        Self::from_settings_again(settings)
    }

    /// Checks every setting of a program that runs already: a secret that is missing now was
    /// there before, and is not made anew.
    ///
    /// # Errors
    /// The first setting that cannot be used: the operator's mistake, or the host's state.
    pub fn from_settings_again(settings: &Settings) -> Result<Self, SettingError> {
        let listen_is_default = !settings.given("listen");
        let listen =
            if listen_is_default { everywhere(TURN_PORT) } else { settings.many("listen")? };
        let certificates = certificates(settings)?;
        let listen_tls = settings.many("listen-tls")?;
        let listen_tls_is_default = listen_tls.is_empty();
        let listen_tls = match &certificates {
            None if listen_tls_is_default => Vec::new(),
            None => {
                let text = "--tls-cert and --tls-key are needed";
                return Err(SettingError::new("listen-tls", text));
            }
            Some(_) if listen_tls_is_default => everywhere(TLS_PORT),
            Some(_) => listen_tls,
        };
        let ports = (settings.required("min-port")?, settings.required("max-port")?);
        if ports.0 < 1024 || ports.0 > ports.1 {
            let text = format!("{}: must be from 1024 to --max-port {}", ports.0, ports.1);
            return Err(SettingError::new("min-port", text));
        }
        let (admin, admin_token) = admin(settings)?;
        let secret_file = secret_file(settings)?;
        let secret_file_seen = secret_file.signature();
        let secrets = secret_file.read()?;
        let workers = match settings.one("workers")? {
            Some(workers) => workers,
            None => std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX),
        };
        if !(1..=WORKERS_MAX).contains(&workers) {
            return Err(SettingError::new("workers", format!("{workers}: 1 to {WORKERS_MAX}")));
        }
        Ok(Self {
            listen,
            listen_is_default,
            listen_tls,
            listen_tls_is_default,
            certificates,
            trusted_proxies: settings.many("trusted-proxy")?,
            stun_alt_port: settings.required("stun-alt-port")?,
            relay_ips: relay_ips(settings)?,
            ports,
            realm: settings.required("realm")?,
            secrets,
            secret_file,
            secret_file_seen,
            users: users(settings)?,
            allow_peers: settings.many("allow-peer")?,
            deny_peers: settings.many("deny-peer")?,
            service_ports: Vec::new(),
            limits: Limits {
                per_user: unlimited_if_zero(settings.required("allocations-per-user")?),
                per_room: unlimited_if_zero(settings.required("allocations-per-room")?),
                users_per_ip: unlimited_if_zero(settings.required("users-per-ip")?),
                all: match settings.one("max-allocations")? {
                    Some(most) => unlimited_if_zero(most),
                    None => default_allocations_max(ports),
                },
            },
            session_s_max: session_s_max(settings)?,
            expiry_mode: settings.required("expiry-mode")?,
            rfc5766_channels: settings.switch("rfc5766-channels")?,
            preserve_dscp: settings.switch("preserve-dscp")?,
            strict_channels: settings.switch("strict-channels")?,
            allocation_rate_max: Rate::from_bps(settings.required("max-bps-per-allocation")?),
            rate_max: Rate::from_bps(settings.required("max-bps")?),
            credential_bytes_max: match settings.required("max-bytes-per-credential")? {
                0 => None,
                bytes => Some(bytes),
            },
            alternates: alternates(settings)?,
            drain_limit: Duration::from_secs(settings.required("drain-limit")?),
            workers,
            admin,
            admin_token,
            given: settings.clone(),
            source: None,
        })
    }

    /// The address that clients are told for this family.
    #[must_use]
    pub fn external_ip(&self, family: Family) -> Option<IpAddr> {
        let relay = self.relay_ips.iter().find(|ip| Family::of(&ip.local) == family)?;
        Some(relay.external)
    }
}

/// All addresses of both families.
fn everywhere(port: u16) -> Vec<SocketAddr> {
    vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
}

fn certificates(settings: &Settings) -> Result<Option<Arc<Certificates>>, SettingError> {
    let files = match (settings.one("tls-cert")?, settings.one("tls-key")?) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => tls::Files { certificate, key },
        (Some(_), None) => return Err(SettingError::new("tls-cert", "--tls-key is needed too")),
        (None, Some(_)) => return Err(SettingError::new("tls-key", "--tls-cert is needed too")),
    };
    Ok(Some(Arc::new(Certificates::load(files)?)))
}

/// The state directory: `--state-dir`, else `$STATE_DIRECTORY`, else `./state`.
///
/// # Errors
/// None in practice: any text is a path.
pub fn state_dir(settings: &Settings) -> Result<PathBuf, SettingError> {
    let given = settings.one("state-dir")?;
    let by_systemd = || std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
    Ok(given.or_else(by_systemd).unwrap_or_else(|| PathBuf::from("state")))
}

/// Reads shared secrets, one a line; blank lines do not count.
///
/// # Errors
/// A file that cannot be read, holds no secret, or one that is short or well known.
pub fn load_secrets(path: &Path) -> Result<Vec<Vec<u8>>, SettingError> {
    let wrong = |text: String| SettingError::new("secret-file", text);
    let text = std::fs::read_to_string(path)
        .map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for line in &lines {
        if SAMPLE_SECRETS.contains(line) || line.len() < SECRET_LEN_MIN {
            let text = "a secret needs 16 bytes or more, and none from a manual; \
                        `openssl rand -base64 32` makes one";
            return Err(wrong(format!("{}: {text}", path.display())));
        }
    }
    if lines.is_empty() {
        return Err(wrong(format!("{}: it holds no secret", path.display())));
    }
    Ok(lines.into_iter().map(|line| line.as_bytes().to_vec()).collect())
}

/// `--secret-file`, else the file that the state directory has.
fn secret_file(settings: &Settings) -> Result<SecretFile, SettingError> {
    Ok(match settings.one("secret-file")? {
        Some(path) => SecretFile { path, is_own: false },
        None => SecretFile { path: state_dir(settings)?.join("turn-secret"), is_own: true },
    })
}

/// Makes the secret of a state directory from 32 random bytes if there is none yet.
fn make_secret_if_missing(path: &Path) -> Result<(), SettingError> {
    let wrong = |error| wrong_state(path, error);
    if !path.exists() {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(wrong)?;
        }
        let mut raw = [0; 32];
        getrandom::fill(&mut raw).expect("the kernel has randomness");
        let text = Base64UrlUnpadded::encode_string(&raw);
        // Written aside and linked into place: a crash leaves the old state or the new, and of
        // two first starts at once the first wins.
        let aside = path.with_extension(format!("new-{}", std::process::id()));
        let _ = std::fs::remove_file(&aside);
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(&aside).map_err(wrong)?;
        let written = writeln!(file, "{text}").and_then(|()| file.sync_all());
        let linked = written.and_then(|()| std::fs::hard_link(&aside, path));
        let _ = std::fs::remove_file(&aside);
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(wrong(error)),
            _ => {}
        }
    }
    Ok(())
}

fn wrong_state(path: &Path, error: std::io::Error) -> SettingError {
    SettingError::new("state-dir", format!("{}: {error}", path.display()))
}

/// Reads the secrets of a state directory, which nobody else may.
pub(crate) fn load_own_secrets(path: &Path) -> Result<Vec<Vec<u8>>, SettingError> {
    let mode =
        std::fs::metadata(path).map_err(|error| wrong_state(path, error))?.permissions().mode();
    if mode & 0o007 != 0 {
        let text = format!("{}: everybody may read it; run chmod 600 on it", path.display());
        return Err(SettingError::new("state-dir", text));
    }
    load_secrets(path)
}

/// The admin address and its token, without which it must be on loopback.
///
/// # Errors
/// An address off loopback without a token, a token that cannot be read or is short.
pub fn admin(settings: &Settings) -> Result<(SocketAddr, Option<String>), SettingError> {
    let address: SocketAddr = settings.required("admin")?;
    let token = settings.one("admin-token-file")?.map(|path: PathBuf| admin_token(&path));
    let token = token.transpose()?;
    if !address.ip().is_loopback() && token.is_none() {
        let text = format!("{address}: not loopback, so --admin-token-file is needed");
        return Err(SettingError::new("admin", text));
    }
    Ok((address, token))
}

fn admin_token(path: &Path) -> Result<String, SettingError> {
    let wrong =
        |text: String| SettingError::new("admin-token-file", format!("{}: {text}", path.display()));
    let token = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let token = token.trim().to_owned();
    if token.len() < SECRET_LEN_MIN {
        return Err(wrong(format!("a token needs {SECRET_LEN_MIN} bytes or more")));
    }
    Ok(token)
}

fn users(settings: &Settings) -> Result<BTreeMap<String, String>, SettingError> {
    let pair = |text: String| match text.split_once(':') {
        Some((name, password)) if !name.is_empty() && !password.is_empty() => {
            Ok((name.to_owned(), password.to_owned()))
        }
        _ => Err(SettingError::new("user", "the form is NAME:PASSWORD")),
    };
    settings.many::<String>("user")?.into_iter().map(pair).collect()
}

/// Where new clients are sent while draining.
fn alternates(settings: &Settings) -> Result<Alternates, SettingError> {
    let mut alternates = Alternates::default();
    for server in settings.many("alternate-server")? {
        let is_second = match server {
            SocketAddr::V4(server) => alternates.v4.replace(server).is_some(),
            SocketAddr::V6(server) => alternates.v6.replace(server).is_some(),
        };
        if is_second {
            let text = format!("{server}: one address per family, not more");
            return Err(SettingError::new("alternate-server", text));
        }
    }
    Ok(alternates)
}

/// The relay's addresses: as given, or those of the routes out, with their external forms.
fn relay_ips(settings: &Settings) -> Result<Vec<RelayIp>, SettingError> {
    let mut locals: Vec<IpAddr> = settings.many("relay-ip")?;
    if locals.is_empty() {
        locals = Family::ALL.into_iter().filter_map(host::route_out).collect();
    }
    if locals.is_empty() {
        tracing::warn!("no route out: relayed ports are opened on 127.0.0.1 only");
        locals.push([127, 0, 0, 1].into());
    }
    let mut relay_ips: Vec<_> =
        locals.into_iter().map(|local| RelayIp { local, external: local }).collect();
    for family in Family::ALL {
        let here = relay_ips.iter().filter(|ip| Family::of(&ip.local) == family).count();
        if here > 1 {
            return Err(SettingError::new("relay-ip", "one address per family, not more"));
        }
    }
    for external in settings.many::<ExternalIp>("external-ip")? {
        let fits = |ip: &&mut RelayIp| match external.local {
            Some(local) => ip.local == local,
            None => ip.local.is_ipv4() == external.public.is_ipv4(),
        };
        let text = format!("{}: no relay address belongs to it", external.public);
        let relay = relay_ips.iter_mut().find(fits);
        relay.ok_or_else(|| SettingError::new("external-ip", text))?.external = external.public;
    }
    Ok(relay_ips)
}

struct ExternalIp {
    public: IpAddr,
    local: Option<IpAddr>,
}

impl FromStr for ExternalIp {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (public, local) =
            text.split_once('/').map_or((text, None), |(public, local)| (public, Some(local)));
        Ok(Self { public: public.parse()?, local: local.map(str::parse).transpose()? })
    }
}

/// 0 is off; below the shortest lifetime of an allocation no client could keep one.
fn session_s_max(settings: &Settings) -> Result<Option<u32>, SettingError> {
    match settings.required("max-session")? {
        0 => Ok(None),
        seconds if seconds < LIFETIME_S_MIN => {
            let text = format!("{seconds}: must be {LIFETIME_S_MIN} or more, or 0 for off");
            Err(SettingError::new("max-session", text))
        }
        seconds => Ok(Some(seconds)),
    }
}

fn unlimited_if_zero(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

/// Nine tenths of the ports, and no more than there are descriptors for: a relayed port takes one,
/// a client's stream another.
fn default_allocations_max((first, last): (u16, u16)) -> usize {
    let ports = usize::from(last - first) + 1;
    let descriptors = host::descriptor_limit().saturating_sub(DESCRIPTORS_RESERVED);
    (ports * 9 / 10).clamp(1, usize::try_from(descriptors / 2).unwrap_or(usize::MAX).max(1))
}
