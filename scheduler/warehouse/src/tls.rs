//! TLS from two PEM files, read again when they change: a new certificate counts for the next handshake, and no
//! connection ends. Used by `server`, and by whoever else serves HTTP in this process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Where the certificate and its key lie.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain, PEM, the server's own first.
    pub cert: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// Why they cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not there, or not PEM.
    #[error("cannot read {path}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("{0} holds no certificate")]
    NoCertificate(PathBuf),
    /// The key is of another certificate, or of a kind that is not known.
    #[error("{key} is not the key of {cert}")]
    Mismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What tells that a file is another one: change time and size.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// The certificate that is served now.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    served: Arc<Served>,
    stamp: Mutex<Stamp>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        // Before the bytes: what changes in between is read again.
        let stamp = stamp(&files);
        let served = Arc::new(Served(RwLock::new(Arc::new(read(&files)?))));
        Ok(Self { files, served, stamp: Mutex::new(stamp) })
    }

    /// What connections are accepted with.
    pub fn config(&self) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("ring knows TLS 1.2 and 1.3");
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.served.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Looks at the files every two seconds, for ever: to be run beside the listener, and dropped with it.
    pub async fn keep_fresh(self) {
        let tls = Arc::new(self);
        let mut tick = tokio::time::interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            let tls = tls.clone();
            let _ = tokio::task::spawn_blocking(move || tls.refresh()).await;
        }
    }

    /// Reads the files again when they changed; what cannot be used is said once, and the old certificate stays.
    fn refresh(&self) {
        let mut known = self.stamp.lock().expect("no holder panics");
        let now = stamp(&self.files);
        if *known == now {
            return;
        }
        *known = now;
        match read(&self.files) {
            Ok(key) => {
                *self.served.0.write().expect("no holder panics") = Arc::new(key);
                tracing::info!(cert = %self.files.cert.display(), "the certificate is renewed");
            }
            Err(error) => tracing::error!(%error, "the new certificate cannot be used, the old one stays"),
        }
    }
}

#[derive(Debug)]
struct Served(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().expect("no holder panics").clone())
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    let of = |path: &Path| std::fs::metadata(path).and_then(|m| Ok((m.modified()?, m.len()))).ok();
    [of(&files.cert), of(&files.key)]
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let TlsFiles { cert, key } = files;
    let unreadable = |path: &Path, source| TlsError::Unreadable { path: path.to_owned(), source };
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
    let chain: Vec<_> = chain.map_err(|e| unreadable(cert, e))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(cert.clone()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable(key, e))?;
    CertifiedKey::from_der(chain, private, &default_provider()).map_err(|source| TlsError::Mismatch {
        cert: cert.clone(),
        key: key.clone(),
        source,
    })
}
