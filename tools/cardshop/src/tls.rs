//! Certificates for the services: files that a person names, or a CA of our own that is made at the first start.
//! It only makes files; each service reads its own and reads them again when they change.
//!
//! ```text
//! DIR/tls/ca.pem      the CA's certificate: what other machines are given to trust
//! DIR/tls/ca.key      its key; 0600; never leaves this machine
//! DIR/tls/server.pem  the services' certificate and the CA's, issued anew at every start
//! DIR/tls/server.key  its key; 0600
//! ```
//!
//! What pins the CA is [`OwnCa::fingerprint`]: a join token carries it, so that an appliance that was never here
//! knows the site's CA from a stranger's. It is of the key, so it outlives a CA certificate that is issued anew.
//! Services on several machines share one CA by sharing `ca.pem` and `ca.key`.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use cardshop_protocol::join::crockford;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, date_time_ymd,
};

use crate::exit::wrong_usage;

/// Certificates count from here: an appliance whose clock still stands at its build time must accept them.
const FIRST_YEAR: i32 = 2024;
/// Years a CA is good for: whoever pinned it must be visited when it ends.
const CA_YEARS: i32 = 30;
/// Years a server certificate is good for. It is issued anew at every start, and browsers refuse above 825 days.
const SERVER_YEARS: i32 = 2;
/// Where Linux keeps this machine's name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// How the services encrypt.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct TlsArgs {
    /// Certificate chain in PEM; read again when the file changes.
    #[arg(long, env = "CARDSHOP_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key in PEM.
    #[arg(long, env = "CARDSHOP_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Encrypt with a CA of our own in DIR/tls, made at the first start. On by itself where an address is not
    /// loopback and no certificate is named.
    #[arg(long, env = "CARDSHOP_TLS", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) tls: Option<bool>,
    /// A further name or address for the certificate of our own CA; say it again for each.
    #[arg(long, env = "CARDSHOP_TLS_NAME", value_name = "NAME", value_delimiter = ',')]
    pub(crate) tls_name: Vec<String>,
}

/// Where a service finds its certificate.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Set when the certificate comes from our own CA.
    pub(crate) own_ca: Option<OwnCa>,
}

/// A CA that this machine made.
#[derive(Clone, Debug)]
pub(crate) struct OwnCa {
    /// Its certificate, PEM.
    pub(crate) pem: PathBuf,
    /// First 80 bits of the SHA-256 of its SubjectPublicKeyInfo: the last part of a join token.
    pub(crate) fingerprint: [u8; 10],
}

/// As a line beside the addresses.
impl std::fmt::Display for OwnCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "own CA       {} {}", crockford(&self.fingerprint), self.pem.display())
    }
}

impl TlsArgs {
    /// Whether a service at this address encrypts.
    pub(crate) fn covers(&self, address: SocketAddr) -> bool {
        self.tls.unwrap_or(self.tls_cert.is_some() || !address.ip().is_loopback())
    }

    /// The files to serve with, made where they are our own, then good for `host` too; `None` where no service
    /// encrypts, which only those on loopback addresses need not.
    pub(crate) fn files(
        &self,
        data: &Path,
        listen: &[SocketAddr],
        host: Option<&str>,
    ) -> anyhow::Result<Option<TlsFiles>> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), Some(_)) if self.tls == Some(false) => Ok(None),
            (Some(cert), Some(key)) => {
                Ok(Some(TlsFiles { cert: cert.clone(), key: key.clone(), own_ca: None }))
            }
            (None, None) if listen.iter().any(|address| self.covers(*address)) => {
                let names: Vec<String> =
                    host.map(str::to_owned).into_iter().chain(self.tls_name.clone()).collect();
                own(data, listen, &names).map(Some)
            }
            (None, None) => Ok(None),
            _ => Err(wrong_usage("a certificate and its key go together: say both --tls-cert and --tls-key")),
        }
    }
}

/// Our own CA, made when it is not there, and a fresh certificate of it.
fn own(data: &Path, listen: &[SocketAddr], names: &[String]) -> anyhow::Result<TlsFiles> {
    let folder = data.join("tls");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = |name: &str| folder.join(name);
    let ca_key = key(&file("ca.key"))?;
    let fingerprint = fingerprint(&ca_key);
    let ca = ca_params(&fingerprint);
    let ca_path = file("ca.pem");
    if !ca_path.try_exists().with_context(|| format!("cannot look for {}", ca_path.display()))? {
        put(&ca_path, ca.self_signed(&ca_key)?.pem().as_bytes(), 0o644)?;
    }
    let ca_pem =
        fs::read_to_string(&ca_path).with_context(|| format!("cannot read {}", ca_path.display()))?;
    let server_key = key(&file("server.key"))?;
    let server =
        server_params(subjects(listen, names)?).signed_by(&server_key, &Issuer::from_params(&ca, &ca_key))?;
    // With the CA: who knows only its fingerprint finds it in the handshake.
    put(&file("server.pem"), (server.pem() + &ca_pem).as_bytes(), 0o644)?;
    Ok(TlsFiles {
        cert: file("server.pem"),
        key: file("server.key"),
        own_ca: Some(OwnCa { pem: ca_path, fingerprint }),
    })
}

/// **Source:** the join token's format: `csj1.<id>.<secret>.<ca>`.
fn fingerprint(ca: &KeyPair) -> [u8; 10] {
    let digest = ring::digest::digest(&ring::digest::SHA256, &ca.subject_public_key_info());
    digest.as_ref()[..10].try_into().expect("SHA-256 has 32 bytes")
}

fn ca_params(fingerprint: &[u8; 10]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("Cardshop CA {}", crockford(fingerprint)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(FIRST_YEAR, 1, 1);
    params.not_after = date_time_ymd(this_year() + CA_YEARS, 1, 1);
    params
}

fn server_params(subjects: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Cardshop");
    params.subject_alt_names = subjects;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = date_time_ymd(FIRST_YEAR, 1, 1);
    params.not_after = date_time_ymd(this_year() + SERVER_YEARS, 1, 1);
    params
}

/// What the certificate is good for: this machine's names, its addresses that are listened on, and `more`.
fn subjects(listen: &[SocketAddr], more: &[String]) -> anyhow::Result<Vec<SanType>> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for address in listen.iter().map(SocketAddr::ip) {
        if address.is_unspecified() { addresses.extend(own_addresses()) } else { addresses.push(address) }
    }
    let mut names = vec!["localhost".to_owned()];
    let host = fs::read_to_string(HOST_NAME).unwrap_or_default();
    if let Some(host) = Some(host.trim()).filter(|h| !h.is_empty()) {
        names.extend([host.to_owned(), format!("{host}.local")]);
    }
    for name in more {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name.clone()),
        }
    }
    addresses.sort();
    addresses.dedup();
    let mut subjects: Vec<SanType> = addresses.into_iter().map(SanType::IpAddress).collect();
    for name in names {
        let name =
            name.as_str().try_into().with_context(|| format!("{name:?} is no name for a certificate"))?;
        subjects.push(SanType::DnsName(name));
    }
    Ok(subjects)
}

/// The addresses of this machine's interfaces.
fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let address = |a: nix::sys::socket::SockaddrStorage| {
        let v4 = a.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| a.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    interfaces.filter_map(|i| i.address.and_then(address)).collect()
}

/// Reads a key, or makes one.
fn key(path: &Path) -> anyhow::Result<KeyPair> {
    match fs::read_to_string(path) {
        Ok(pem) => KeyPair::from_pem(&pem).with_context(|| format!("{} is no private key", path.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let key = KeyPair::generate()?;
            put(path, key.serialize_pem().as_bytes(), 0o600)?;
            Ok(key)
        }
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Puts a file in place in full or not at all; a service may be reading it.
fn put(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let unfinished = path.with_extension("tmp");
    let write = || {
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn this_year() -> i32 {
    const YEAR_SECONDS: u64 = 31_556_952;
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    1970 + i32::try_from(seconds / YEAR_SECONDS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn listen() -> Vec<SocketAddr> {
        vec!["0.0.0.0:0".parse().unwrap()]
    }

    #[test]
    fn the_ca_is_made_once_and_its_keys_are_for_us_alone() {
        let data = tempfile::tempdir().unwrap();
        let files = || TlsArgs::default().files(data.path(), &listen(), None).unwrap().unwrap();
        let first = files();
        let read = |name: &str| fs::read_to_string(data.path().join("tls").join(name)).unwrap();
        let (ca, ca_key, server_key) = (read("ca.pem"), read("ca.key"), read("server.key"));
        let again = files();
        assert_eq!((read("ca.pem"), read("ca.key"), read("server.key")), (ca, ca_key, server_key));
        let fingerprint = |files: TlsFiles| files.own_ca.unwrap().fingerprint;
        assert_eq!(fingerprint(first), fingerprint(again));
        for name in ["ca.key", "server.key"] {
            let mode = fs::metadata(data.path().join("tls").join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn the_fingerprint_is_of_the_key_in_the_ca_certificate_as_openssl_reads_it() {
        let data = tempfile::tempdir().unwrap();
        let ca = TlsArgs::default().files(data.path(), &listen(), None).unwrap().unwrap().own_ca.unwrap();
        let script = "openssl x509 -in \"$1\" -noout -pubkey | openssl pkey -pubin -outform der | sha256sum";
        let output =
            std::process::Command::new("sh").args(["-c", script, "sh"]).arg(&ca.pem).output().unwrap();
        if !output.status.success() || output.stderr.windows(9).any(|w| w == b"not found") {
            return println!("SKIPPED: openssl is not installed");
        }
        let hex: String = ca.fingerprint.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout)[..20], hex);
    }

    #[test]
    fn what_is_named_is_used_and_loopback_alone_needs_none() {
        let data = tempfile::tempdir().unwrap();
        let loopback = vec!["127.0.0.1:0".parse().unwrap()];
        assert!(TlsArgs::default().files(data.path(), &loopback, None).unwrap().is_none());
        let asked = TlsArgs { tls: Some(true), ..TlsArgs::default() };
        assert!(asked.files(data.path(), &loopback, None).unwrap().unwrap().own_ca.is_some());
        let named = TlsArgs { tls_cert: Some("a.pem".into()), ..TlsArgs::default() };
        assert!(named.files(data.path(), &loopback, None).is_err());
        let named = TlsArgs { tls_key: Some("a.key".into()), ..named };
        let files = named.files(data.path(), &listen(), None).unwrap().unwrap();
        assert_eq!((files.cert, files.own_ca.is_none()), (PathBuf::from("a.pem"), true));
        let wrong = TlsArgs { tls_name: vec!["no name".into()], ..TlsArgs::default() };
        // Whether a name is one is the certificate's business: an address or ASCII goes in.
        assert!(wrong.files(data.path(), &listen(), None).is_ok());
    }
}
