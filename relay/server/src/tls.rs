//! The certificate of TURN over TLS: read at the start, and again whenever its files change.
//!
//! TLS itself is rustls: 1.2 and 1.3, no early data, no renegotiation, and nothing remembered
//! about a client after its connection.

mod validity;
mod watch;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::settings::SettingError;
pub use validity::Validity;
pub use watch::Watch;

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
    /// The files as they were before they were first read.
    loaded: [watch::Print; 2],
    failures: AtomicU64,
}

impl Certificates {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// A file that cannot be read or used, or two that do not fit each other: the operator's
    /// mistake. The error is named after the flag of that file.
    pub fn load(files: Files) -> Result<Self, SettingError> {
        let loaded = watch::prints(&files);
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
        Ok(Self { files, config, current, loaded, failures: AtomicU64::new(0) })
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

    /// The host that clients are to verify: `page`, if the certificate is valid for it, else the
    /// first name of the certificate; `None` if it has none but with wildcards.
    #[must_use]
    pub fn host_for(&self, page: Option<&str>) -> Option<String> {
        let pair = self.current.pair();
        let certificate = webpki::EndEntityCert::try_from(pair.certificate()).ok()?;
        let covers = |host: &&str| {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(bare);
            name.is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
        };
        let own = || certificate.valid_dns_names().find(|name| !name.starts_with('*'));
        page.filter(covers).or_else(own).map(str::to_owned)
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

    /// Reads the files again; connections that live keep what they have.
    ///
    /// # Errors
    /// As [`Certificates::load`]; the certificate stays what it was.
    fn reload(&self) -> Result<(), SettingError> {
        let pair = Pair::read(&self.files, self.config.crypto_provider())?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
        Ok(())
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
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair().key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificates(names: &[&str]) -> Certificates {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let folder = tempfile::tempdir().expect("folder");
        let files = Files {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        };
        std::fs::write(&files.certificate, made.cert.pem()).expect("written");
        std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
        Certificates::load(files).expect("a pair")
    }

    #[test]
    fn clients_are_told_a_host_that_they_can_verify() {
        let own = certificates(&["turn.example", "*.class.example", "192.0.2.7"]);
        let told = |page| own.host_for(Some(page));
        assert_eq!(told("turn.example").as_deref(), Some("turn.example"));
        assert_eq!(told("a.class.example").as_deref(), Some("a.class.example"));
        assert_eq!(told("192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(told("192.0.2.8").as_deref(), Some("turn.example"), "another host");
        assert_eq!(told("[::1]").as_deref(), Some("turn.example"));
        assert_eq!(own.host_for(None).as_deref(), Some("turn.example"));
        let wild = certificates(&["*.class.example"]);
        assert_eq!(wild.host_for(Some("class.example")), None);
        assert_eq!(wild.host_for(None), None, "nobody is called *");
    }
}
