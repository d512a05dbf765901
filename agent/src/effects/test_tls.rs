//! A site under TLS with a CA of its own, for tests: takes connections, counts what is said on them, and passes
//! requests on to a plain server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A CA and what it can issue.
pub(crate) struct Ca {
    params: CertificateParams,
    key: KeyPair,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self { params, key: KeyPair::generate().unwrap() }
    }

    /// What a join token holds of it, read from its key and not from its certificate.
    pub(crate) fn fingerprint(&self) -> [u8; 10] {
        let info = self.key.subject_public_key_info();
        ring::digest::digest(&ring::digest::SHA256, &info).as_ref()[..10].try_into().unwrap()
    }

    /// A certificate for `name`, good until the first day of `until_year`, behind it the CA's.
    pub(crate) fn issue(&self, name: &str, until_year: i32) -> ServerConfig {
        self.issue_from(2020, name, until_year)
    }

    /// The same, good from the first day of `from_year` on.
    pub(crate) fn issue_from(&self, from_year: i32, name: &str, until_year: i32) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(from_year, 1, 1), date_time_ymd(until_year, 1, 1));
        let issued = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        self.shown_beside(issued.der().clone(), &key)
    }

    /// The CA's certificate beside one of another's making.
    pub(crate) fn beside_another(&self, name: &str) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        self.shown_beside(own.der().clone(), &key)
    }

    fn shown_beside(
        &self,
        certificate: rustls::pki_types::CertificateDer<'static>,
        key: &KeyPair,
    ) -> ServerConfig {
        let ca = self.params.self_signed(&self.key).unwrap();
        let chain = vec![certificate, ca.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap()
    }
}

/// Serves on a free port until the process ends, answering what the plain server at `inner` answers; gives the base
/// address and how many bytes clients have said.
pub(crate) fn serve_tls(config: ServerConfig, inner: &str) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let (config, inner) = (Arc::new(config), inner.trim_start_matches("http://").to_owned());
    let said = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&said);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let (inner, said) = (TcpStream::connect(&inner).unwrap(), Arc::clone(&counted));
            std::thread::spawn(move || pass_on(tls, inner, &said));
        }
    });
    (address, said)
}

fn pass_on(tls: StreamOwned<ServerConnection, TcpStream>, inner: TcpStream, said: &AtomicU64) -> Option<()> {
    let (mut tls, mut inner) = (BufReader::new(tls), BufReader::new(inner));
    loop {
        let request = message(&mut tls)?;
        said.fetch_add(request.len() as u64, Ordering::SeqCst);
        inner.get_mut().write_all(&request).ok()?;
        let answer = message(&mut inner)?;
        tls.get_mut().write_all(&answer).ok()?;
        tls.get_mut().flush().ok()?;
    }
}

/// One request or answer.
fn message(from: &mut impl BufRead) -> Option<Vec<u8>> {
    let (mut bytes, mut length) = (Vec::new(), 0);
    loop {
        let begun = bytes.len();
        if from.read_until(b'\n', &mut bytes).ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&bytes[begun..]).to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    from.take(length).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
