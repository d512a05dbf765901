//! A site under TLS, with the real binaries: an order over nothing else, strangers who get nothing, and a certificate
//! that is replaced while somebody is connected.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cardshop_sim::shop;
use common::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// A read that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn bench() -> Bench {
    Bench { slots: 1, card_sizes: vec![300 << 20], write_bps: 0 }
}

fn port_of(url: &str) -> &str {
    url.rsplit_once('/').unwrap().1
}

/// What a client in the clear is answered.
fn answer_in_the_clear(url: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(port_of(url)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // Whether it is closed or reset does not matter.
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// One card of an order, and what of it went over which addresses.
fn one_card(shop: &Shop) {
    let manager = shop.manager();
    let configuration = shop.stock(&manager);
    let _agent = shop.new_agent(&manager, &bench());
    let order = shop::order(&manager, &configuration, 1).unwrap();
    assert_eq!(shop.wait_for(&manager, order, "written")["verified"], 1);
    let (index, image) = shop.image();
    let cards = finished_cards(&shop.cards());
    assert_eq!(cards.len(), 1);
    assert_equal_in_every_extent(&index, &image, &cards[0].0);

    let state = shop.folder.path().join("appliance/state");
    let read =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(state.join(name)).unwrap()).unwrap() };
    let member = read("member.json");
    let ca = std::fs::read_to_string(shop.ca.as_ref().unwrap()).unwrap();
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    assert_eq!(der(member["ca"].as_str().unwrap()), der(&ca), "the appliance keeps the site's CA");
    assert!(member["server"].as_str().unwrap().starts_with("https://"));
    assert!(member["mqtt"].as_str().unwrap().starts_with("mqtts://"));
    let desired = read("desired.json").to_string();
    assert!(!desired.contains("http://"), "leases name no address in the clear: {desired}");
}

#[test]
fn an_order_is_written_over_tls_alone_by_an_appliance_that_knew_only_the_fingerprint() {
    let shop = Shop::open_with(&["--listen", "127.0.0.1:0", "--tls"]);
    assert!(shop.http.starts_with("https://") && shop.warehouse.starts_with("https://"), "{}", shop.http);
    assert!(shop.mqtt.starts_with("mqtts://"), "{}", shop.mqtt);
    one_card(&shop);
    let ca = shop.ca.clone().unwrap();
    let (index, image) = shop.image();
    let write = |words: &[&std::ffi::OsStr]| {
        let card = shop.folder.path().join("one-more.img");
        std::fs::File::create(&card).unwrap().set_len(300 << 20).unwrap();
        let written = cardshop()
            .args(["write", "--yes", &format!("{}/images/{}", shop.warehouse, index.id())])
            .arg(&card)
            .args(words)
            .env("CARDSHOP_TOKEN", shop.manager().access_token())
            .output()
            .unwrap();
        (written, card)
    };
    let (stranger, _) = write(&[]);
    assert!(text_of(&stranger).contains("UnknownIssuer"), "{}", text_of(&stranger));
    let (written, card) = write(&["--ca".as_ref(), ca.as_ref()]);
    assert!(written.status.success(), "{}", text_of(&written));
    assert_equal_in_every_extent(&index, &image, &card);
    for url in [&shop.http, &shop.warehouse, &shop.mqtt] {
        let answer = answer_in_the_clear(url);
        assert!(!answer.windows(4).any(|w| w == b"HTTP"), "{url}: {answer:?}");
    }
}

#[test]
fn the_services_trust_one_ca_each_in_a_process_of_its_own() {
    one_card(&Shop::open_apart_encrypted());
}

#[test]
fn a_site_on_a_network_encrypts_by_itself_and_goes_by_the_name_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("site");
    let nameless = cardshop().args(["up", "--listen", "0.0.0.0:0", "--data"]).arg(&data).output().unwrap();
    assert_eq!(nameless.status.code(), Some(2), "{}", text_of(&nameless));
    assert!(text_of(&nameless).contains("--host") && !data.exists(), "{}", text_of(&nameless));

    let shop = Shop::open_with(&["--listen", "0.0.0.0:0", "--host", "localhost"]);
    assert!(shop.http.starts_with("https://localhost:"), "{}", shop.http);
    assert!(shop.warehouse.starts_with("https://localhost:"), "{}", shop.warehouse);
    assert!(shop.mqtt.starts_with("mqtts://localhost:"), "{}", shop.mqtt);
    let manager = shop.manager();
    shop.stock(&manager);
    let join_file = shop::join_file(&manager, &shop.http).unwrap();
    assert!(!join_file.contains(&"0".repeat(16)), "the token names the site's own CA");
}

#[test]
fn an_agent_with_a_token_of_another_ca_sends_nothing_and_names_both_fingerprints() {
    let shop = Shop::open_with(&["--listen", "127.0.0.1:0", "--tls"]);
    let manager = shop.manager();
    shop.stock(&manager);
    let join_file = shop::join_file(&manager, &shop.http).unwrap();
    let token = join_file.split('"').find(|part| part.starts_with("csj1.")).unwrap();
    let (rest, ours) = token.rsplit_once('.').unwrap();
    let wrong = "0123456789abcdef";
    shop.prepare_agent(&join_file.replace(token, &format!("{rest}.{wrong}")), &bench());
    let mut agent = Command::new(agent_binary());
    agent.arg("--config").arg(shop.agent_config()).env("RUST_LOG", "info");
    let mut agent = agent.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(agent.stderr.take().unwrap()).lines().map_while(Result::ok) {
        said += &line;
        if line.contains("WrongServer") {
            break;
        }
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(said.contains(wrong) && said.contains(ours), "{said}");
    assert!(!said.contains(rest), "the token is not logged");
    assert_eq!(manager.list("/appliances").unwrap(), Vec::<Value>::new());
}

/// A CA, and certificates of it for this machine.
struct Ca {
    params: CertificateParams,
    key: KeyPair,
}

impl Ca {
    fn new(file: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        std::fs::write(file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { params, key }
    }

    /// Puts a fresh certificate and key into `folder`; the certificate, as it is sent.
    fn issue(&self, folder: &Path) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let issued = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("cert.pem"), issued.pem()).unwrap();
        issued.der().clone()
    }
}

type Connection = StreamOwned<ClientConnection, TcpStream>;

fn connect(url: &str, ca: &Path) -> Connection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = builder.with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let socket = TcpStream::connect(port_of(url)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), socket)
}

/// The status line of a page; the connection stays open.
fn ask(stream: &mut Connection) -> String {
    stream.write_all(b"HEAD /login HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap().lines().next().unwrap().to_owned()
}

#[test]
fn the_pages_get_a_new_certificate_without_ending_a_connection() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let ca = Ca::new(&file("ca.pem"));
    let first = ca.issue(folder.path());
    let words = ["--tls-cert", "--tls-key", "--ca"].into_iter().zip(["cert.pem", "key.pem", "ca.pem"]);
    let mut words: Vec<String> = words.flat_map(|(w, f)| [w.into(), file(f).display().to_string()]).collect();
    words.extend(["--listen".into(), "127.0.0.1:0".into()]);
    let shop = Shop::open_with(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(shop.ca.is_none(), "no CA is made where a certificate is named");

    let mut old = connect(&shop.http, &file("ca.pem"));
    assert_eq!(ask(&mut old), "HTTP/1.1 200 OK");
    let served = |stream: &Connection| stream.conn.peer_certificates().unwrap()[0].clone().into_owned();
    assert_eq!(served(&old), first);
    let comes = |wanted: &CertificateDer<'static>| {
        eventually("the new certificate", || {
            let mut fresh = connect(&shop.http, &file("ca.pem"));
            assert_eq!(ask(&mut fresh), "HTTP/1.1 200 OK");
            (served(&fresh) == *wanted).then_some(())
        });
    };
    let second = ca.issue(folder.path());
    comes(&second);
    std::fs::write(file("cert.pem"), "no certificate").unwrap();
    comes(&second);
    comes(&ca.issue(folder.path()));
    assert_eq!(ask(&mut old), "HTTP/1.1 200 OK", "the first connection is still good");
}
