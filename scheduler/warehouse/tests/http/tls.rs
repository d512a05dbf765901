//! Encrypted: who trusts the CA gets in, and a new certificate is served without ending a connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cardshop_warehouse::{Config, Running, TlsFiles, start};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::common::*;

/// Generous: the files are looked at every 2 s.
const PATIENCE: Duration = Duration::from_secs(60);

struct Ca {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    /// Puts a fresh certificate and key into `folder`; the certificate, as it is sent.
    fn issue(&self, folder: &Path) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let issued = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("cert.pem"), issued.pem()).unwrap();
        issued.der().clone()
    }

    fn connect(&self, running: &Running) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = builder.with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        let name = ServerName::try_from("localhost").unwrap();
        let socket = TcpStream::connect(running.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        StreamOwned::new(ClientConnection::new(config, name).unwrap(), socket)
    }
}

/// The status line of `GET /health`; the connection stays open.
fn health(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"}") {
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    Ok(String::from_utf8(answer).unwrap().lines().next().unwrap().to_owned())
}

fn served(stream: &StreamOwned<ClientConnection, TcpStream>) -> CertificateDer<'static> {
    stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

fn scene() -> (Shop, Ca, tempfile::TempDir, Running, CertificateDer<'static>) {
    let mut shop = Shop::open();
    shop.stop();
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let first = ca.issue(folder.path());
    // Encrypted, it may be reached from a network.
    let mut config = Config::new("0.0.0.0:0".parse().unwrap(), shop.data());
    config.tls = Some(TlsFiles { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") });
    let running = shop.runtime.block_on(start(config, shop.keys.clone())).unwrap();
    (shop, ca, folder, running, first)
}

#[test]
fn a_new_certificate_is_served_without_ending_a_connection_and_a_broken_one_is_not_taken() {
    let (shop, ca, folder, running, first) = scene();
    let mut old = ca.connect(&running);
    assert_eq!(health(&mut old).unwrap(), "HTTP/1.1 200 OK");
    assert_eq!(served(&old), first);
    let comes = |wanted: &CertificateDer<'static>| {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut fresh = ca.connect(&running);
            assert_eq!(health(&mut fresh).unwrap(), "HTTP/1.1 200 OK");
            if served(&fresh) == *wanted {
                return;
            }
            assert!(Instant::now() < until, "the new certificate is not served");
            std::thread::yield_now();
        }
    };
    let second = ca.issue(folder.path());
    comes(&second);
    // Half-written: the key is of another certificate.
    std::fs::write(folder.path().join("cert.pem"), "no certificate").unwrap();
    comes(&second);
    comes(&ca.issue(folder.path()));
    assert_eq!(health(&mut old).unwrap(), "HTTP/1.1 200 OK", "the first connection is still good");
    shop.runtime.block_on(running.shutdown());
}

#[test]
fn a_client_that_does_not_trust_the_ca_or_speaks_in_the_clear_gets_nothing() {
    let (shop, _, _folder, running, _) = scene();
    let stranger = health(&mut Ca::new().connect(&running)).unwrap_err();
    assert!(stranger.to_string().contains("invalid peer certificate"), "{stranger}");
    let mut clear = TcpStream::connect(running.address()).unwrap();
    clear.set_read_timeout(Some(PATIENCE)).unwrap();
    clear.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // Whether it is closed or reset, no HTTP comes.
    let _ = clear.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    shop.runtime.block_on(running.shutdown());
}

#[test]
fn a_key_of_another_certificate_is_refused_at_the_start() {
    let shop = Shop::open();
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    ca.issue(folder.path());
    let other = KeyPair::generate().unwrap();
    std::fs::write(folder.path().join("key.pem"), other.serialize_pem()).unwrap();
    let mut config = Config::new("127.0.0.1:0".parse().unwrap(), folder.path().join("data"));
    config.tls = Some(TlsFiles { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") });
    let refused = shop.runtime.block_on(start(config, shop.keys.clone())).err().unwrap();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("is not the key of"), "{cause}");
}
