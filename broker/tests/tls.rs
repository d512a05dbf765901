//! The TLS port: peers that check the certificate, files that change under open connections, client certificates,
//! and handshakes that never end.

// clippy.toml allows both in tests, and does not see that helpers are part of one.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cardshop_broker::{Config, Error, Refusal, TlsConfig, TlsError, start};
use cardshop_protocol::token::{Role, SharedKeys};
use common::{A, Hello, Raw, Shop, config, got, limits, own, soon};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A CA with its certificate in `ca.pem`.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate for self-signed when its issuer has the same name.
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a new certificate with its key into `directory`.
    fn issue(&self, directory: &Path) {
        let (certificate, key) = self.signed();
        std::fs::write(directory.join("ca.pem"), self.0.pem()).unwrap();
        std::fs::write(directory.join("server.pem"), certificate).unwrap();
        std::fs::write(directory.join("server.key"), key).unwrap();
    }

    /// A certificate of this machine, and its key.
    fn signed(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.0.pem().as_bytes()).unwrap()).unwrap();
        roots
    }

    /// Connects with trust in this CA.
    async fn connect(
        &self,
        shop: &Shop,
        certificate: Option<(String, String)>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(self.roots());
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let stream = TcpStream::connect(shop.broker.tls_address().unwrap()).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        soon("the handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }
}

fn tls(directory: &Path) -> TlsConfig {
    TlsConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        certificate: directory.join("server.pem"),
        key: directory.join("server.key"),
        client_ca: None,
    }
}

/// A broker with a certificate of a CA of its own.
async fn site() -> (TempDir, Ca, Shop) {
    let directory = tempdir().unwrap();
    let ca = Ca::new();
    ca.issue(directory.path());
    let tls = Some(tls(directory.path()));
    let shop = Shop::start(Config { tls, ..config(&directory.path().join("data"), limits()) }).await;
    (directory, ca, shop)
}

/// The first certificate the broker showed.
fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_trusts_the_ca_speaks_mqtt_and_others_do_not_come_in() {
    let (_directory, ca, shop) = site().await;
    let mut staff = shop.client("ada", Role::Staff).await;
    staff.subscribe(&[("cardshop/1/#", 1)]).await;
    let token = shop.token(A, Role::Appliance);
    let mut appliance = Raw::new(ca.connect(&shop, None).await.unwrap());
    appliance.hello(&Hello::new(A, &token)).await;
    let large = "x".repeat(60_000);
    appliance.put(&own(A, "info"), &large, true).await;
    assert_eq!(staff.got().await, got(&own(A, "info"), &large, 1, false), "through both ports of one broker");

    assert!(Ca::new().connect(&shop, None).await.is_err(), "another CA is not trusted");
    let mut plain = Raw::new(TcpStream::connect(shop.broker.tls_address().unwrap()).await.unwrap());
    plain.send(&Hello::new(A, &token).packet()).await;
    // A TLS alert, and the end.
    let mut rest = Vec::new();
    soon("its end", plain.stream.read_to_end(&mut rest)).await.ok();
    assert_ne!(rest.first(), Some(&0x20), "no CONNACK outside TLS");
    shop.until("both refusals", |stats| stats.refused(Refusal::NoTls) == 2).await;
    appliance.ping().await;
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_are_used_for_new_connections_and_open_ones_go_on() {
    let (directory, ca, shop) = site().await;
    let stream = ca.connect(&shop, None).await.unwrap();
    let before = shown(&stream);
    let mut old = Raw::new(stream);
    let token = shop.token("ada", Role::Staff);
    old.hello(&Hello { keep_alive_s: 0, ..Hello::new("ada", &token) }).await;

    // Half of a renewal: a certificate that does not fit its key.
    let (certificate, key) = ca.signed();
    std::fs::write(directory.path().join("server.pem"), certificate).unwrap();
    for _ in 0..20 {
        let stream = ca.connect(&shop, None).await.unwrap();
        assert_eq!(shown(&stream), before, "the files before hold");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    std::fs::write(directory.path().join("server.key"), key).unwrap();
    soon("the new certificate", async {
        while shown(&ca.connect(&shop, None).await.unwrap()) == before {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    old.ping().await;
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_client_ca_only_its_certificates_come_in_and_log_in_as_usual() {
    let directory = tempdir().unwrap();
    let ca = Ca::new();
    ca.issue(directory.path());
    let client_ca = Some(directory.path().join("ca.pem"));
    let tls = Some(TlsConfig { client_ca, ..tls(directory.path()) });
    let shop = Shop::start(Config { tls, ..config(&directory.path().join("data"), limits()) }).await;
    let token = shop.token("ada", Role::Staff);

    let mut known = Raw::new(ca.connect(&shop, Some(ca.signed())).await.unwrap());
    known.send(&Hello::new("ada", "wrong").packet()).await;
    assert_eq!(known.packet().await, [0x20, 2, 0, 4], "a certificate is no login");
    let mut known = Raw::new(ca.connect(&shop, Some(ca.signed())).await.unwrap());
    known.hello(&Hello::new("ada", &token)).await;

    for certificate in [None, Some(Ca::new().signed())] {
        // In TLS 1.3 the client is done first and hears of its refusal when it reads.
        let Ok(mut stream) = ca.connect(&shop, certificate).await else { continue };
        stream.write_all(&Hello::new("ada", &token).packet()).await.ok();
        let read = soon("the refusal", stream.read_u8()).await;
        assert!(read.is_err(), "{read:?}");
    }
    known.ping().await;
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_silent_handshakes_are_closed_in_time_and_hold_nobody_up() {
    let (_directory, ca, shop) = site().await;
    let address = shop.broker.tls_address().unwrap();
    let mut silent = Vec::new();
    for n in 0..50 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if n % 2 == 1 {
            // A record that is promised and does not come.
            stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
        }
        silent.push(stream);
    }
    let since = Instant::now();
    let token = shop.token("ada", Role::Staff);
    let mut client = Raw::new(ca.connect(&shop, None).await.unwrap());
    client.hello(&Hello { keep_alive_s: 0, ..Hello::new("ada", &token) }).await;
    assert!(shop.broker.stats().open > 50, "nobody has waited for the silent ones");
    for mut stream in silent {
        let mut rest = Vec::new();
        soon("its end", stream.read_to_end(&mut rest)).await.ok();
    }
    assert!(since.elapsed() >= Duration::from_secs(4), "a slow link has its time");
    shop.until("fifty refusals", |stats| stats.refused(Refusal::NoTls) == 50 && stats.open == 1).await;
    client.ping().await;
    shop.broker.shutdown().await;
}

#[tokio::test]
async fn files_that_are_no_certificate_are_named() {
    let directory = tempdir().unwrap();
    let path = directory.path();
    let broken = async || {
        let config = Config { tls: Some(tls(path)), ..config(&path.join("data"), limits()) };
        match start(config, SharedKeys::default()).await {
            Err(Error::Tls(error)) => error,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it starts"),
        }
    };
    assert!(matches!(broken().await, TlsError::Read { path, .. } if path.ends_with("server.pem")));
    Ca::new().issue(path);
    std::fs::write(path.join("server.key"), "nothing").unwrap();
    assert!(matches!(broken().await, TlsError::NotPem { wanted: "private key", .. }));
    let (certificate, _) = Ca::new().signed();
    let (_, key) = Ca::new().signed();
    std::fs::write(path.join("server.pem"), certificate).unwrap();
    std::fs::write(path.join("server.key"), key).unwrap();
    assert!(matches!(broken().await, TlsError::Mismatch(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_clients_speak_to_us_under_tls() {
    if !common::is_installed("mosquitto_pub") {
        return println!("SKIPPED: mosquitto-clients is not installed");
    }
    let (directory, _ca, shop) = site().await;
    let mut staff = shop.client("ada", Role::Staff).await;
    staff.subscribe(&[("cardshop/1/#", 1)]).await;
    let port = shop.broker.tls_address().unwrap().port().to_string();
    let token = shop.token(A, Role::Appliance);
    for version in ["311", "5"] {
        let output = tokio::process::Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port, "-V", version, "-i", A, "-u", A, "-P", &token, "-q", "1"])
            .args(["-t", &own(A, "event"), "-m", version, "--cafile"])
            .arg(directory.path().join("ca.pem"))
            .stderr(Stdio::piped())
            .output();
        let output = soon("its end", output).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(staff.got().await.payload, version);
    }
    shop.broker.shutdown().await;
}
