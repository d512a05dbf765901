//! Where a PostgreSQL server is, and how it is reached: a `postgres://` address without a password, which comes from a
//! file or the environment. On a network the connection is encrypted and the server's certificate checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::SchedulerError;

/// How long making a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A connection that was idle this long is asked for a sign of life, and one that gives none this long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A database that a store is in. Holds a password, so that `Debug` shows none of it.
#[derive(Clone)]
pub struct PostgresAddress {
    pub(super) config: Box<tokio_postgres::Config>,
    pub(super) tls: MakeRustlsConnect,
    /// For people: host and database.
    pub(super) shown: String,
}

impl std::fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl PostgresAddress {
    /// Reads `postgres://user@host/database`; `?host=/run/postgresql` names a socket's folder, `sslmode=disable` or
    /// `require` overrules what the host says (only sockets and loopback go without), `sslrootcert=FILE` names the CA.
    ///
    /// # Errors
    /// `Config`: it is none, or has a password, which everybody on the machine could read.
    pub fn parse(url: &str, password: Option<&str>) -> Result<Self, SchedulerError> {
        // Never the address itself: it may hold a password.
        let wrong = |why: &str| SchedulerError::Config(format!("the store's address cannot be used: {why}"));
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(wrong("it does not begin with postgres://"));
        }
        let (url, ca) = take_ca(url);
        let mut config: tokio_postgres::Config = url.parse().map_err(|_| {
            wrong("it is not like postgres://user@host/database, with sslmode=disable or require")
        })?;
        if config.get_password().is_some() {
            return Err(wrong(
                "a password in it can be read by everybody here: give it by file or environment",
            ));
        }
        let is_local = |host: &Host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => {
                name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
            }
        };
        if !url.contains("sslmode=") {
            let is_here = config.get_hosts().iter().all(is_local);
            config.ssl_mode(if is_here { SslMode::Disable } else { SslMode::Require });
        } else if config.get_ssl_mode() == SslMode::Prefer {
            return Err(wrong("sslmode is disable or require"));
        }
        if let Some(password) = password {
            config.password(password);
        }
        // What is acknowledged survives a power cut, whatever the server's default is.
        let options = config.get_options().unwrap_or_default();
        let options = format!("{options} -c synchronous_commit=on");
        config.options(options.trim()).application_name("cardshop");
        config.connect_timeout(CONNECT_WITHIN).keepalives_idle(KEEP_ALIVE).tcp_user_timeout(KEEP_ALIVE);
        let hosts: Vec<_> = config.get_hosts().iter().map(host_name).collect();
        let shown = format!("{} at {}", config.get_dbname().unwrap_or("database"), hosts.join(", "));
        Ok(Self { tls: MakeRustlsConnect::new(client(ca.as_deref())?), config: Box::new(config), shown })
    }
}

fn host_name(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

/// `sslrootcert` is libpq's; the client library does not know it.
fn take_ca(url: &str) -> (String, Option<PathBuf>) {
    let Some((before, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let (mut rest, mut ca) = (Vec::new(), None);
    for part in query.split('&') {
        match part.strip_prefix("sslrootcert=") {
            Some(path) => ca = Some(PathBuf::from(path)),
            None => rest.push(part),
        }
    }
    (format!("{before}?{}", rest.join("&")), ca)
}

fn client(ca: Option<&Path>) -> Result<rustls::ClientConfig, SchedulerError> {
    let mut roots = rustls::RootCertStore::empty();
    match ca {
        None => {
            roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        }
        Some(path) => {
            let unreadable =
                |e: String| SchedulerError::Config(format!("cannot read the CA {}: {e}", path.display()));
            let certificates = CertificateDer::pem_file_iter(path).map_err(|e| unreadable(e.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|e| unreadable(e.to_string()))?;
                roots.add(certificate).map_err(|e| unreadable(e.to_string()))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| SchedulerError::Config(e.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_and_loopback_go_without_encryption_and_a_password_is_never_in_the_address() {
        let mode = |url: &str| PostgresAddress::parse(url, None).map(|a| a.config.get_ssl_mode());
        for local in [
            "postgres://u@127.0.0.1/shop",
            "postgres:///shop?host=/run/postgresql",
            "postgres://u@[::1]/shop",
        ] {
            assert_eq!(mode(local).unwrap(), SslMode::Disable, "{local}");
        }
        assert_eq!(mode("postgresql://u@db.example:5433/shop").unwrap(), SslMode::Require);
        assert_eq!(mode("postgres://u@db.example/shop?sslmode=disable").unwrap(), SslMode::Disable);
        for bad in [
            "mysql://u@db/shop",
            "postgres://u:geheim@db/shop",
            "postgres://u@db/shop?password=geheim",
            "postgres://u@db/shop?sslmode=prefer",
            "postgres://u@db:port/shop",
            "postgres://u@db/shop?sslrootcert=/nowhere/ca.pem",
        ] {
            let error = mode(bad).unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{error}");
        }
        let address = PostgresAddress::parse("postgres://u@db.example/shop", Some("geheim")).unwrap();
        assert_eq!(address.config.get_password(), Some(&b"geheim"[..]));
        assert!(!format!("{address:?}").contains("geheim"));
    }
}
