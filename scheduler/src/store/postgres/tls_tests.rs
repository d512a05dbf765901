//! A database on a network: only under TLS, only with a certificate of the CA that was named, for the host that was
//! named, and with the password.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::super::conformance::{create, thing};
use super::super::test_postgres::Server;
use super::super::{PostgresAddress, Store, StoreError};

const PASSWORD: &str = "on the network";

/// A new CA's certificate, and a certificate of it with its key for `host`; all PEM.
fn certificates(host: &str) -> (String, String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (ca, server.pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_database_on_the_network_is_reached_under_tls_by_its_own_ca_and_a_password_only() {
    // An address of this test's own, so that the usual port is free.
    let host = format!("127.77.{}.{}", std::process::id() >> 8 & 0xff, std::process::id() & 0xff);
    let (ca, certificate, key) = certificates(&host);
    let files = [("server.pem", certificate), ("server.key", key)];
    let Some(server) = Server::start_at(&host, &files) else { return };
    server.set_password(PASSWORD);
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (folder.path().join("ca.pem"), folder.path().join("other.pem"));
    std::fs::write(&right, ca).unwrap();
    std::fs::write(&wrong, certificates(&host).0).unwrap();
    let database = server.database();
    let name = database.split(['/', '?']).nth(3).unwrap();
    let open = |host: &str, words: String, password: &str| {
        let url = format!("postgres://cardshop@{host}/{name}?{words}");
        Store::open_postgres(PostgresAddress::parse(&url, Some(password)).unwrap())
    };
    let (right, wrong) =
        (format!("sslrootcert={}", right.display()), format!("sslrootcert={}", wrong.display()));

    let store = open(&host, format!("sslmode=require&{right}"), PASSWORD).unwrap();
    create(&store, &thing("a", "x", 1)).await.unwrap();

    let another_name = "127.0.0.1.example";
    let by_address = format!("sslmode=require&{right}&hostaddr={host}");
    for (host, words, password, why) in [
        (&*host, format!("sslmode=require&{wrong}"), PASSWORD, "certificate"),
        (&*host, "sslmode=require".into(), PASSWORD, "certificate"),
        (another_name, by_address, PASSWORD, "certificate"),
        (&*host, format!("sslmode=require&{right}"), "a guess", "password"),
        (&*host, "sslmode=disable".into(), PASSWORD, "no encryption"),
    ] {
        let Err(StoreError::Unreachable { reason, .. }) = open(host, words, password) else {
            panic!("{host} {why}: it was let in");
        };
        assert!(reason.contains(why), "{reason}");
    }
}
