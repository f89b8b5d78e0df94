//! A certificate for the laboratory's server, which no authority has signed.

use std::path::PathBuf;
use std::process::Command;

use e2e::lab::SERVER;
use e2e::{Failure, Outcome};
use tempfile::TempDir;

/// Where the relay serves TLS.
pub const TLS_PORT: u16 = 5349;

/// Certificate and key in a folder that goes with the value.
pub struct Certificate(TempDir);

impl Certificate {
    /// Makes one that is good for a day.
    pub fn make() -> Outcome<Self> {
        let made = Self(tempfile::tempdir()?);
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "1", "-subj", "/CN=castling"])
            // Clients that take it for an authority of its own look for both.
            .args(["-addext", &format!("subjectAltName=IP:{SERVER}")])
            .args(["-addext", "extendedKeyUsage=serverAuth"])
            .arg("-out")
            .arg(made.chain())
            .arg("-keyout")
            .arg(made.key())
            .output()
            .map_err(|error| Failure::new(format!("openssl (Debian package openssl): {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(format!("openssl: {}", said.trim())));
        }
        Ok(made)
    }

    /// The certificate, PEM.
    pub fn chain(&self) -> PathBuf {
        self.0.path().join("cert.pem")
    }

    /// Its private key, PEM.
    pub fn key(&self) -> PathBuf {
        self.0.path().join("key.pem")
    }

    /// What the relay needs to serve TLS with it.
    pub fn flags(&self) -> String {
        let (chain, key) = (self.chain(), self.key());
        format!(
            "--listen-tls {SERVER}:{TLS_PORT} --tls-cert {} --tls-key {}",
            chain.display(),
            key.display()
        )
    }
}
