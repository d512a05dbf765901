//! The site's own CA, found by its fingerprint: what a join token pins. Looks at the certificates a server shows
//! and breaks the handshake off, so that nothing is sent to whoever it is; the CA found is then the only root of
//! every further connection, which checks signatures, times and names as always.
//!
//! ```text
//! connect ─► ClientHello ─► certificates: one has the pinned key? ─ yes ─► its PEM; the caller connects anew
//!                                │ no: the server's and the token's fingerprints are named
//!                                └──── in both cases: alert, closed
//! ```

use std::sync::{Arc, Mutex};

use cardshop_protocol::join::crockford;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, TcpConnector, Transport, TransportAdapter,
};

/// Most certificates that are looked at. Chains have two or three.
const MAX_CHAIN: usize = 8;

/// Why there is no CA to go on with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinError {
    /// The server is not reached, or breaks the handshake off before it has shown who it is.
    #[error("the server is not reached: {0}")]
    Away(Box<ureq::Error>),
    /// It is a stranger, or the token is of another site.
    #[error("the server's CA is {shown}, the token's is {wanted}: nothing was sent")]
    Stranger {
        /// Fingerprint of the last certificate shown.
        shown: String,
        /// Fingerprint in the token.
        wanted: String,
    },
}

/// The PEM of the CA with this fingerprint among the certificates that the server at `base` shows.
///
/// # Errors
/// Any [`PinError`].
pub(crate) fn find_ca(http: &ureq::Agent, base: &str, wanted: &str) -> Result<String, PinError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let look = Arc::new(Look { wanted: wanted.to_owned(), seen: Mutex::default(), provider });
    let connector =
        ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default()).chain(Probe(look.clone()));
    let probe = ureq::Agent::with_parts(http.config().clone(), connector, DefaultResolver::default());
    let ended = probe.get(base).call();
    let seen = look.seen.lock().expect("no holder panics").take();
    match (seen, ended) {
        (Some(Seen::Pinned(pem)), _) => Ok(pem),
        (Some(Seen::Other(shown)), _) => Err(PinError::Stranger { shown, wanted: wanted.to_owned() }),
        (None, Err(error)) => Err(PinError::Away(Box::new(error))),
        // The probe never gives a connection, so there is nothing to answer on.
        (None, Ok(_)) => Err(PinError::Stranger { shown: "none".into(), wanted: wanted.to_owned() }),
    }
}

/// First 80 bits of the SHA-256 of the SubjectPublicKeyInfo, as a join token has them; `None` for what is no
/// certificate.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> Option<String> {
    let key = ParsedCertificate::try_from(certificate).ok()?.subject_public_key_info();
    Some(crockford(&ring::digest::digest(&ring::digest::SHA256, &key).as_ref()[..10]))
}

/// What the server showed.
#[derive(Debug)]
enum Seen {
    /// PEM of the CA that is wanted.
    Pinned(String),
    /// Fingerprint of what is not.
    Other(String),
}

/// Takes no certificate at all: it only looks.
#[derive(Debug)]
struct Look {
    wanted: String,
    seen: Mutex<Option<Seen>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Look {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = std::iter::once(end_entity).chain(intermediates).take(MAX_CHAIN);
        let pinned = shown.clone().find(|c| fingerprint(c).as_ref() == Some(&self.wanted));
        let seen = match pinned {
            Some(ca) => Seen::Pinned(pem(ca)),
            None => Seen::Other(shown.last().and_then(fingerprint).unwrap_or_else(|| "unreadable".into())),
        };
        *self.seen.lock().expect("no holder panics") = Some(seen);
        Err(only_looked())
    }

    // Never reached: no certificate is taken.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_looked())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_looked())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn only_looked() -> rustls::Error {
    rustls::Error::General("the certificates were only looked at".into())
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = data_encoding::BASE64.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII"));
    let body: String = lines.flat_map(|line| [line, "\n"]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
}

/// The last part of a connection that is never made.
#[derive(Debug)]
struct Probe(Arc<Look>);

impl<In: Transport> Connector<In> for Probe {
    type Out = In;

    fn connect(
        &self,
        details: &ConnectionDetails,
        below: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(below) = below else { return Err(ureq::Error::ConnectionFailed) };
        let failed = |_| ureq::Error::Tls("the TLS settings do not fit");
        let config = ClientConfig::builder_with_provider(self.0.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(self.0.clone())
            .with_no_client_auth();
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| ureq::Error::Tls("the address has no name for TLS"))?;
        let mut tls = ClientConnection::new(config.into(), name).map_err(failed)?;
        let mut socket = TransportAdapter::new(below.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        // Ends with an error, ours once certificates were shown; it sends the alert itself.
        tls.complete_io(&mut socket)?;
        Err(ureq::Error::Tls("the server shows no certificate"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_speaks_no_tls_or_is_not_there_is_away() {
        let plain = crate::effects::test_http::serve(|_, stream| {
            crate::effects::test_http::send(stream, "200 OK", b"{}")
        });
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = nobody.local_addr().unwrap();
        drop(nobody);
        let http = crate::effects::http::client();
        for base in [plain.replace("http:", "https:"), format!("https://{gone}")] {
            let error = find_ca(&http, &base, "0123456789abcdef").unwrap_err();
            assert!(matches!(error, PinError::Away(_)), "{error}");
        }
    }
}
