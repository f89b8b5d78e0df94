//! The certificate of TURN over TLS: read at the start, and again whenever its files change.
//!
//! TLS itself is rustls: 1.2 and 1.3, no early data, no renegotiation, and nothing remembered
//! about a client after its connection.

mod validity;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::secrets::{Signature, Watched};
use crate::settings::SettingError;
pub use validity::Validity;

/// The protocol that a client may ask for by name (RFC 7443 §3.1). A client that asks for none is
/// welcome; one that asks for others only is refused (RFC 7301 §3.2).
const ALPN_TURN: &[u8] = b"stun.turn";
/// Most bytes that a connection encrypts ahead of what its socket takes: they can no longer be
/// dropped.
const ENCRYPTED_LEN_MAX: usize = 16 << 10;

/// The files of a certificate, both PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Files {
    /// The certificate, followed by those that lead to its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A certificate that can be replaced while connections live. Its debug form names files only.
pub struct Certificates {
    files: Files,
    config: Arc<ServerConfig>,
    current: Arc<Current>,
    watched: Mutex<Watched<Signatures>>,
    failures: AtomicU64,
}

impl Certificates {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// A file that cannot be read or used, or two that do not fit each other: the operator's
    /// mistake. The error is named after the flag of that file.
    pub fn load(files: Files) -> Result<Self, SettingError> {
        // Before they are read, so that no change between the two goes unnoticed.
        let seen = files.signatures();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let current = Arc::new(Current(RwLock::new(Arc::new(Pair::read(&files, &provider)?))));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| SettingError::new(CERTIFICATE_KEY, error))?
            .with_no_client_auth();
        let mut config = config.with_cert_resolver(current.clone());
        config.alpn_protocols = vec![ALPN_TURN.to_vec()];
        // Strangers leave nothing behind, so there is nothing to resume either.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let config = Arc::new(config);
        let watched = Mutex::new(Watched::new(seen));
        Ok(Self { files, config, current, watched, failures: AtomicU64::new(0) })
    }

    /// The server's side of a new connection, with the certificate of this moment.
    ///
    /// # Errors
    /// rustls refuses the configuration; it never does for ours.
    pub fn accept(&self) -> Result<ServerConnection, rustls::Error> {
        let mut session = ServerConnection::new(self.config.clone())?;
        session.set_buffer_limit(Some(ENCRYPTED_LEN_MAX));
        Ok(session)
    }

    /// Whether a client that wants to reach `host`, a name or an address, accepts the certificate
    /// for it.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let pair = self.current.pair();
        let certificate = webpki::EndEntityCert::try_from(pair.certificate());
        certificate.ok().zip(ServerName::try_from(bare).ok()).is_some_and(|(certificate, name)| {
            certificate.verify_is_valid_for_subject_name(&name).is_ok()
        })
    }

    /// The first name of the certificate that is no pattern.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let pair = self.current.pair();
        let certificate = webpki::EndEntityCert::try_from(pair.certificate()).ok()?;
        let name = certificate.valid_dns_names().find(|name| !name.starts_with('*'));
        name.map(str::to_owned)
    }

    /// From when until when the certificate is valid.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.current.pair().validity
    }

    /// How often changed files could not be used.
    #[must_use]
    pub fn reload_failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Reads the files again if they have changed; called twice a second. Connections that live
    /// keep what they have. Files that cannot be used change nothing, and are reported once.
    pub fn look(&self) {
        if !self.watched().is_due(self.files.signatures()) {
            return;
        }
        match Pair::read(&self.files, self.config.crypto_provider()) {
            Ok(pair) => {
                self.current.replace(Arc::new(pair));
                tracing::info!("TLS certificate read again");
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "TLS certificate not read again; the old one stays");
            }
        }
    }

    /// Serves what was read anew, if it comes from the same files.
    pub fn take_over(&self, new: &Self) {
        if new.files == self.files {
            self.current.replace(new.current.pair());
            std::mem::swap(&mut *self.watched(), &mut *new.watched());
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched<Signatures>> {
        // It is a value, and whole at any time.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The states of both files.
type Signatures = [Option<Signature>; 2];

impl Files {
    fn signatures(&self) -> Signatures {
        [Signature::of(&self.certificate), Signature::of(&self.key)]
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

const CERTIFICATE_KEY: &str = "tls-cert";
const KEY_KEY: &str = "tls-key";

/// A certificate with its key.
#[derive(Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    validity: Validity,
}

impl Pair {
    fn read(files: &Files, provider: &CryptoProvider) -> Result<Self, SettingError> {
        let (chain_text, key_text) =
            (read(CERTIFICATE_KEY, &files.certificate)?, read(KEY_KEY, &files.key)?);
        let wrong = |text: &str| wrong(CERTIFICATE_KEY, &files.certificate, text);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain_text).collect();
        let chain = chain.map_err(|error| wrong(&error.to_string()))?;
        let first = chain.first().ok_or_else(|| wrong("it holds no PEM certificate"))?;
        webpki::EndEntityCert::try_from(first)
            .map_err(|error| wrong(&format!("no certificate of a server: {error}")))?;
        let validity = Validity::of(first).ok_or_else(|| wrong("its dates cannot be read"))?;
        let wrong = |text: &str| self::wrong(KEY_KEY, &files.key, text);
        let key = PrivateKeyDer::from_pem_slice(&key_text)
            .map_err(|_| wrong("it holds no PEM private key"))?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => wrong("it is not the key of the certificate"),
            other => wrong(&format!("no usable key: {other}")),
        })?;
        Ok(Self { key: Arc::new(key), validity })
    }

    fn certificate(&self) -> &CertificateDer<'static> {
        self.key.cert.first().expect("a pair is made from a certificate")
    }
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, SettingError> {
    std::fs::read(path).map_err(|error| wrong(key, path, &error.to_string()))
}

fn wrong(key: &str, path: &Path, text: &str) -> SettingError {
    SettingError::new(key, format!("{}: {text}", path.display()))
}

/// What new connections get.
#[derive(Debug)]
struct Current(RwLock<Arc<Pair>>);

impl Current {
    fn pair(&self) -> Arc<Pair> {
        // A pair is replaced as a whole, so a writer that panicked left a good one.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, pair: Arc<Pair>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = pair;
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair().key.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// A new pair in these files.
    fn make(files: &Files, names: &[&str]) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        fs::write(&files.certificate, made.cert.pem()).expect("written");
        fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
    }

    fn files(folder: &TempDir) -> Files {
        let path = |name| folder.path().join(name);
        Files { certificate: path("cert.pem"), key: path("key.pem") }
    }

    fn certificates(names: &[&str]) -> Certificates {
        let folder = tempfile::tempdir().expect("folder");
        make(&files(&folder), names);
        Certificates::load(files(&folder)).expect("a pair")
    }

    #[test]
    fn files_are_followed_and_broken_ones_are_reported_once() {
        let folder = tempfile::tempdir().expect("folder");
        let files = files(&folder);
        make(&files, &["a.example"]);
        let served = Certificates::load(files.clone()).expect("a pair");
        let state = || (served.name().expect("a name"), served.reload_failures());
        let look = || (0..4).for_each(|_| served.look());
        look();
        assert_eq!(state(), ("a.example".to_owned(), 0), "nothing has changed");
        make(&files, &["b.example"]);
        served.look();
        assert_eq!(state().0, "a.example", "it may not be whole yet");
        look();
        assert_eq!(state(), ("b.example".to_owned(), 0));

        let key = fs::read(&files.key).expect("a key");
        make(&files, &["c.example"]);
        fs::write(&files.key, key).expect("written");
        look();
        assert_eq!(state(), ("b.example".to_owned(), 1), "they do not fit");
        fs::remove_file(&files.key).expect("removed");
        look();
        assert_eq!(state(), ("b.example".to_owned(), 2));
        make(&files, &["c.example"]);
        look();
        assert_eq!(state(), ("c.example".to_owned(), 2));
    }

    #[test]
    fn pair_that_a_reload_has_read_is_taken_over_from_the_same_files_alone() {
        let folder = tempfile::tempdir().expect("folder");
        make(&files(&folder), &["a.example"]);
        let served = Certificates::load(files(&folder)).expect("a pair");
        served.take_over(&certificates(&["other.example"]));
        assert_eq!(served.name().as_deref(), Some("a.example"));
        make(&files(&folder), &["b.example"]);
        served.take_over(&Certificates::load(files(&folder)).expect("a pair"));
        assert_eq!(served.name().as_deref(), Some("b.example"));
    }

    #[test]
    fn names_and_addresses_are_covered_as_clients_see_it() {
        let own = certificates(&["*.class.example", "turn.example", "192.0.2.7", "2001:db8::7"]);
        for host in ["turn.example", "a.class.example", "192.0.2.7", "[2001:db8::7]"] {
            assert!(own.covers(host), "{host}");
        }
        for host in ["class.example", "a.b.class.example", "192.0.2.8", "[::1]", "", "a b"] {
            assert!(!own.covers(host), "{host}");
        }
        assert_eq!(own.name().as_deref(), Some("turn.example"));
        assert_eq!(certificates(&["*.class.example"]).name(), None, "nobody is called *");
    }
}
