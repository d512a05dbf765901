//! The TLS of a port: certificate, key and perhaps a CA for client certificates, read from files and read again when
//! they change. New connections use the newest good files; those that are open keep what they began with, so a
//! renewed certificate costs nobody a session. Files that do not fit together (a renewal is half done) change nothing.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::serve::stopped;

/// How often the files are looked at. They are a few KiB; a renewal has weeks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Largest file that is read, bytes. A chain of certificates has some 10 KiB.
const MAX_FILE_SIZE: u64 = 1024 * 1024;

/// How a TLS port is set up.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// Where it listens, port 0 for any.
    pub listen: SocketAddr,
    /// PEM: the certificate, then those between it and its CA.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// PEM: who connects has to show a certificate of one of these CAs, besides logging in. Agents have none.
    pub client_ca: Option<PathBuf>,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of them cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One of them holds nothing of what it should.
    #[error("{} has no {wanted} in PEM form", path.display())]
    NotPem {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// What is there instead.
        #[source]
        source: Option<pem::Error>,
    },
    /// The client CA cannot be used.
    #[error("the client CA in {} cannot be used", path.display())]
    ClientCa {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: VerifierBuilderError,
    },
    /// Key and certificate do not fit together, or are of a kind we do not have.
    #[error("certificate and key do not fit together")]
    Mismatch(#[source] rustls::Error),
}

/// What the files held.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// The newest good TLS settings of one port.
pub(crate) struct Tls {
    config: TlsConfig,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files for the first time.
    pub(crate) fn open(config: TlsConfig) -> Result<(Arc<Self>, Watched), TlsError> {
        let files = read(&config)?;
        let current = RwLock::new(Arc::new(settings(&config, &files)?));
        Ok((Arc::new(Self { config, current }), Watched(files)))
    }

    /// Takes connections with the newest settings.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().expect("no holder panics").clone().into()
    }

    /// Looks at the files until the broker stops.
    pub(crate) async fn watch(self: Arc<Self>, mut seen: Watched, mut stopping: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = stopped(&mut stopping) => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let tls = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                tls.look(&mut seen);
                seen
            });
            match looked.await {
                Ok(newest) => seen = newest,
                // Only when the runtime ends.
                Err(_) => return,
            }
        }
    }

    fn look(&self, seen: &mut Watched) {
        // A file that is away for a moment is being replaced.
        let Ok(files) = read(&self.config) else { return };
        if files == seen.0 {
            return;
        }
        match settings(&self.config, &files) {
            Ok(settings) => {
                *self.current.write().expect("no holder panics") = Arc::new(settings);
                info!(certificate = %self.config.certificate.display(), "new TLS files are in use");
            }
            Err(error) => warn!(%error, "the TLS files changed and cannot be used; the ones before hold"),
        }
        seen.0 = files;
    }
}

/// What was last seen in the files.
pub(crate) struct Watched(Files);

fn read(config: &TlsConfig) -> Result<Files, TlsError> {
    Ok(Files {
        certificate: read_file(&config.certificate)?,
        key: read_file(&config.key)?,
        client_ca: config.client_ca.as_deref().map(read_file).transpose()?,
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(path)?, MAX_FILE_SIZE), &mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let not_pem = |source| TlsError::NotPem { path: path.to_owned(), wanted: "certificate", source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|source| not_pem(Some(source)))?;
    if found.is_empty() { Err(not_pem(None)) } else { Ok(found) }
}

fn settings(config: &TlsConfig, files: &Files) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&config.certificate, &files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|source| TlsError::NotPem {
        path: config.key.clone(),
        wanted: "private key",
        source: Some(source),
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Mismatch)?;
    let builder = match (&config.client_ca, &files.client_ca) {
        (Some(path), Some(bytes)) => {
            let wrong = |source| TlsError::ClientCa { path: path.clone(), source };
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(path, bytes)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(wrong)?)
        }
        _ => builder.with_no_client_auth(),
    };
    builder.with_single_cert(chain, key).map_err(TlsError::Mismatch)
}
