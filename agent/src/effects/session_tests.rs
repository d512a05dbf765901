//! Joining and logging in against a server over real TCP that checks every signature.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cardshop_protocol::api::{
    ApplianceLogin, Join, JoinAnswer, Membership, NonceAnswer, Problem, Refresh, TokenPair,
};
use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::join::{JoinToken, crockford, pairing_code};
use cardshop_protocol::keys::{appliance_id, decode_public, decode_signature, encode_public};
use cardshop_protocol::message::Hardware;
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use rustls::ServerConfig;

use super::http;
use super::session::{Identity, Session, start};
use super::state::StateFolder;
use super::test_http::{Request, send, serve};
use super::test_tls::{Ca, serve_tls};
use crate::core::enrol::Standing;
use crate::core::notice::{Surroundings, notice};

const LIMIT: Duration = Duration::from_secs(30);

/// What the server knows and does.
struct Site {
    key: SigningKey,
    token: JoinToken,
    used: Vec<String>,
    appliance: Option<(ApplianceId, VerifyingKey)>,
    membership: Membership,
    expires_in: u64,
    lies: bool,
    refuses_refresh: bool,
    joins: u32,
    logins: u32,
    refreshes: u32,
}

impl Site {
    fn answer(&mut self, request: &Request) -> Option<Vec<u8>> {
        let path = request.path.strip_prefix("/api/v1")?;
        match (request.method.as_str(), path) {
            ("POST", "/join") => self.join(&serde_json::from_slice(&request.body).ok()?),
            ("GET", path) if path.starts_with("/join/") => self.standing(),
            ("POST", "/auth/nonce") => Some(serde_json::to_vec(&NonceAnswer { nonce: "n1".into() }).unwrap()),
            ("POST", "/auth/appliance") => self.log_in(&serde_json::from_slice(&request.body).ok()?),
            ("POST", "/auth/refresh") => self.refresh(&serde_json::from_slice(&request.body).ok()?),
            _ => None,
        }
    }
    fn join(&mut self, join: &Join) -> Option<Vec<u8>> {
        let key = decode_public(&join.public_key)?;
        let proof = Signature::from_bytes(&decode_signature(&join.proof)?);
        key.verify_strict(&self.token.proof_message(key.as_bytes()), &proof).ok()?;
        if join.token != self.token.to_string() || self.used.contains(&join.token) {
            return None;
        }
        self.used.push(join.token.clone());
        self.joins += 1;
        self.appliance = Some((appliance_id(&key), key));
        self.standing()
    }
    fn standing(&self) -> Option<Vec<u8>> {
        let (appliance, key) = self.appliance?;
        let server = self.key.verifying_key();
        let code = pairing_code(key.as_bytes(), server.as_bytes());
        let answer = JoinAnswer {
            appliance,
            state: self.membership,
            code: if self.lies { "AAAAAA".into() } else { code },
            server_key: encode_public(&server),
            mqtt: (self.membership == Membership::Approved).then(|| "mqtt://127.0.0.1:1".into()),
            mqtt_ca: None,
        };
        Some(serde_json::to_vec(&answer).unwrap())
    }
    fn log_in(&mut self, login: &ApplianceLogin) -> Option<Vec<u8>> {
        let (appliance, key) = self.appliance?;
        let signature = Signature::from_bytes(&decode_signature(&login.signature)?);
        key.verify_strict(&ApplianceLogin::message(appliance, "n1"), &signature).ok()?;
        self.logins += 1;
        self.pair()
    }
    fn refresh(&mut self, refresh: &Refresh) -> Option<Vec<u8>> {
        if self.refuses_refresh
            || refresh.refresh_token != format!("refresh {}", self.logins + self.refreshes)
        {
            return None;
        }
        self.refreshes += 1;
        self.pair()
    }
    fn pair(&self) -> Option<Vec<u8>> {
        let number = self.logins + self.refreshes;
        let [access_token, refresh_token] = ["access", "refresh"].map(|kind| format!("{kind} {number}"));
        let pair = TokenPair { access_token, refresh_token, expires_in: self.expires_in };
        Some(serde_json::to_vec(&pair).unwrap())
    }
}

/// A server, and the folder of an appliance that was given its join file.
struct World {
    site: Arc<Mutex<Site>>,
    address: String,
    folder: tempfile::TempDir,
    join_path: PathBuf,
}

/// A session's thread.
struct Running {
    session: Session,
    thread: JoinHandle<()>,
}

impl World {
    fn new(membership: Membership) -> Self {
        let token = JoinToken::from_random(&[3; 32], None);
        let site = Arc::new(Mutex::new(Site {
            key: SigningKey::from_bytes(&[9; 32]),
            token: token.clone(),
            used: vec![],
            appliance: None,
            membership,
            expires_in: 3600,
            lies: false,
            refuses_refresh: false,
            joins: 0,
            logins: 0,
            refreshes: 0,
        }));
        let shared = Arc::clone(&site);
        let address = serve(move |request, stream| {
            let refusal = Problem {
                kind: "about:blank".into(),
                title: "no".into(),
                status: 403,
                detail: "not you".into(),
                code: "no".into(),
            };
            let answer = shared.lock().unwrap().answer(request);
            match answer {
                Some(body) => send(stream, "200 OK", &body),
                None => send(stream, "403 Forbidden", &serde_json::to_vec(&refusal).unwrap()),
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let join_path = folder.path().join("JOIN.TXT");
        let world = Self { site, address, folder, join_path };
        world.write_join_file(&token);
        world
    }

    fn write_join_file(&self, token: &JoinToken) {
        self.write_join_file_for(&self.address, &token.to_string());
    }

    fn write_join_file_for(&self, server: &str, token: &str) {
        let text = format!("server = \"{server}\"\ntoken = \"{token}\"\nlabel = \"Bench\"\n");
        std::fs::write(&self.join_path, text).unwrap();
    }

    /// Puts TLS before the server, and a join file for it that pins this CA; gives how many bytes clients have said.
    fn encrypt(&self, config: ServerConfig, pin: [u8; 10]) -> Arc<AtomicU64> {
        let (server, said) = serve_tls(config, &self.address);
        let token = JoinToken::from_random(&[4; 32], Some(pin));
        self.site(|site| site.token = token.clone());
        self.write_join_file_for(&server, &token.to_string());
        said
    }

    fn start(&self) -> Running {
        let state = Arc::new(StateFolder::open(&self.folder.path().join("state"), LIMIT).unwrap());
        let session = Session::default();
        let identity = Identity { key: state.key().unwrap(), hardware: Hardware::default() };
        let thread =
            start(&session, http::Http::new(http::client()), identity, state, self.join_path.clone())
                .unwrap();
        Running { session, thread }
    }

    fn site<T>(&self, look: impl Fn(&mut Site) -> T) -> T {
        look(&mut self.site.lock().unwrap())
    }
}

impl Running {
    fn wait_for(&self, what: &str, reached: impl Fn(&Session) -> bool) {
        let begun = Instant::now();
        while !reached(&self.session) {
            assert!(begun.elapsed() < LIMIT, "{what}: {:?}", self.session.standing());
            std::thread::yield_now();
        }
    }
    fn end(self) {
        self.session.end();
        self.thread.join().unwrap();
    }
}

fn token_of(session: &Session) -> Option<String> {
    session.token().map(|t| t.text)
}

fn contains(path: &Path, text: &str) -> bool {
    std::fs::read_to_string(path).unwrap().contains(text)
}

#[test]
fn an_appliance_joins_once_waits_for_a_person_and_needs_no_token_after_a_restart() {
    let world = World::new(Membership::Pending);
    let running = world.start();
    running.wait_for("the code", |s| matches!(s.standing(), Standing::WaitingForApproval(_)));
    assert!(token_of(&running.session).is_none() && contains(&world.join_path, "csj1."));
    world.site(|site| site.membership = Membership::Approved);
    running.wait_for("a token", |s| token_of(s).as_deref() == Some("access 1"));
    assert_eq!(running.session.broker().unwrap().1.url, "mqtt://127.0.0.1:1");
    assert!(!contains(&world.join_path, "csj1."), "the used token is erased");
    running.end();

    let running = world.start();
    running.wait_for("a token again", |s| token_of(s).as_deref() == Some("access 2"));
    assert_eq!(world.site(|site| (site.joins, site.logins)), (1, 2));
    running.end();
}

#[test]
fn a_short_token_is_refreshed_and_a_refused_refresh_becomes_a_login_by_key() {
    let world = World::new(Membership::Approved);
    world.site(|site| site.expires_in = 2);
    let running = world.start();
    running.wait_for("a refresh", |_| world.site(|site| site.refreshes) == 1);
    world.site(|site| site.refuses_refresh = true);
    running.wait_for("a login", |_| world.site(|site| site.logins) == 2);
    running.wait_for("the new token", |s| token_of(s).as_deref() == Some("access 3"));
    running.end();
}

#[test]
fn a_server_whose_code_does_not_follow_from_both_keys_gets_nothing() {
    let world = World::new(Membership::Approved);
    world.site(|site| site.lies = true);
    let running = world.start();
    running.wait_for("the refusal", |s| matches!(s.standing(), Standing::WrongServer(_)));
    assert!(running.session.token().is_none());
    assert_eq!(world.site(|site| site.logins), 0);
    running.end();
}

#[test]
fn another_site_under_the_same_address_is_not_taken_for_the_shop_joined_before() {
    let world = World::new(Membership::Approved);
    let running = world.start();
    running.wait_for("a token", |s| s.token().is_some());
    running.end();
    world.site(|site| site.key = SigningKey::from_bytes(&[10; 32]));
    let running = world.start();
    running.wait_for("the refusal", |s| matches!(s.standing(), Standing::WrongServer(_)));
    running.end();
}

#[test]
fn a_new_token_in_the_join_file_joins_anew_and_no_join_file_is_needed_afterwards() {
    let world = World::new(Membership::Approved);
    let running = world.start();
    running.wait_for("a token", |s| s.token().is_some());
    running.end();
    let fresh = JoinToken::from_random(&[5; 32], None);
    world.site(|site| {
        site.key = SigningKey::from_bytes(&[10; 32]);
        site.token = fresh.clone();
    });
    world.write_join_file(&fresh);
    let running = world.start();
    running.wait_for("a token of the other site", |s| s.token().is_some());
    assert_eq!(world.site(|site| site.joins), 2);
    running.end();
    std::fs::remove_file(&world.join_path).unwrap();
    let running = world.start();
    running.wait_for("a token without a join file", |s| s.token().is_some());
    running.end();
}

#[test]
fn a_rejected_appliance_says_so_and_has_no_token() {
    let world = World::new(Membership::Rejected);
    let running = world.start();
    running.wait_for("the rejection", |s| s.standing() == Standing::Rejected);
    assert!(running.session.token().is_none());
    running.end();
}

#[test]
fn a_retired_appliance_says_so_and_has_no_token() {
    let world = World::new(Membership::Retired);
    let running = world.start();
    running.wait_for("the end of its service", |s| s.standing() == Standing::Retired);
    assert!(running.session.token().is_none());
    running.end();
}

#[test]
fn a_captive_portal_is_not_taken_for_the_shop() {
    let world = World::new(Membership::Approved);
    let portal = serve(|_, stream| send(stream, "200 OK", b"<html>Accept our terms first</html>"));
    let token = world.site(|site| site.token.to_string());
    world.write_join_file_for(&portal, &token);
    let running = world.start();
    running.wait_for("the portal", |s| matches!(s.standing(), Standing::WrongServer(_)));
    assert!(running.session.token().is_none());
    running.end();
}

#[test]
fn a_certificate_of_the_future_is_named_as_the_clocks_fault() {
    let ca = Ca::new();
    let world = World::new(Membership::Approved);
    world.encrypt(ca.issue_from(2090, "127.0.0.1", 2099), ca.fingerprint());
    let running = world.start();
    running.wait_for("the clock", |s| matches!(s.standing(), Standing::ServerAway(_)));
    let around = Surroundings { network: true, connected: false, slots: 0 };
    assert_eq!(notice(&running.session.standing(), around).code, "clock_wrong");
    running.end();
}

#[test]
fn a_token_nobody_knows_is_a_named_refusal() {
    let world = World::new(Membership::Approved);
    world.site(|site| site.token = JoinToken::from_random(&[4; 32], None));
    let running = world.start();
    running.wait_for("the refusal", |s| matches!(s.standing(), Standing::JoinRefused(_)));
    running.end();
}

#[test]
fn a_pinned_ca_is_found_in_the_handshake_and_is_the_only_one_trusted_afterwards() {
    let world = World::new(Membership::Approved);
    let ca = Ca::new();
    world.encrypt(ca.issue("127.0.0.1", 2099), ca.fingerprint());
    let running = world.start();
    running.wait_for("a token", |s| token_of(s).as_deref() == Some("access 1"));
    running.end();

    // A restart needs no token to know the CA, and one who merely has the address is not taken for the site.
    let running = world.start();
    running.wait_for("a token again", |s| token_of(s).as_deref() == Some("access 2"));
    running.end();
    let (stranger, said) = serve_tls(Ca::new().issue("127.0.0.1", 2099), &world.address);
    world.write_join_file_for(&stranger, "");
    let running = world.start();
    running.wait_for("the refusal", |s| matches!(s.standing(), Standing::ServerAway(_)));
    assert_eq!(said.load(Ordering::SeqCst), 0);
    running.end();
}

#[test]
fn a_server_of_another_ca_is_told_nothing_and_both_fingerprints_are_named() {
    let world = World::new(Membership::Approved);
    let (ours, theirs) = (Ca::new(), Ca::new());
    let said = world.encrypt(theirs.issue("127.0.0.1", 2099), ours.fingerprint());
    let running = world.start();
    running.wait_for("the refusal", |s| matches!(s.standing(), Standing::WrongServer(_)));
    let standing = format!("{:?}", running.session.standing());
    for ca in [&ours, &theirs] {
        assert!(standing.contains(&crockford(&ca.fingerprint())), "{standing}");
    }
    assert_eq!(said.load(Ordering::SeqCst), 0);
    running.end();
}

#[test]
fn the_pinned_ca_beside_a_certificate_that_is_not_good_opens_nothing() {
    let ca = Ca::new();
    for (wrong, config) in [
        ("of another's making", ca.beside_another("127.0.0.1")),
        ("for another host", ca.issue("127.0.0.2", 2099)),
        ("out of time", ca.issue("127.0.0.1", 2021)),
    ] {
        let world = World::new(Membership::Approved);
        let said = world.encrypt(config, ca.fingerprint());
        let running = world.start();
        running.wait_for(wrong, |s| matches!(s.standing(), Standing::ServerAway(_)));
        assert_eq!(said.load(Ordering::SeqCst), 0, "{wrong}");
        running.end();
    }
}
