//! Gives letters to the mail server: one connection, kept open between letters that follow each other. TLS by rustls with
//! ring, under the roots that the site trusts.

use std::time::Duration;

use lettre::transport::smtp::PoolConfig;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message as Mime, Tokio1Executor, address::Envelope,
};
use ureq::tls::RootCerts;

use super::settings::{SmtpAddress, SmtpSecurity};
use crate::SchedulerError;
use crate::core::notify::message::Fault;

/// Longest wait for any answer. **Source:** RFC 5321 §4.5.3.2 allows minutes; a letter that is not answered sooner comes
/// again later.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Longest time for a whole letter: a server that answers byte by byte is left.
const LETTER_WITHIN: Duration = Duration::from_secs(300);
/// How long a connection is kept for the next letter.
const KEEP_OPEN: Duration = Duration::from_secs(10);
/// Refusals that are about our login and not about a letter. **Source:** RFC 4954 §6.
const LOGIN_REFUSED: [u16; 4] = [530, 534, 535, 538];

/// The mail server.
pub(super) struct Server {
    transport: AsyncSmtpTransport<Tokio1Executor>,
}

impl Server {
    /// # Errors
    /// `Config` when roots or name cannot be used.
    pub(super) fn new(server: &SmtpAddress, roots: &RootCerts) -> Result<Self, SchedulerError> {
        let tls = match server.security {
            SmtpSecurity::Plain => Tls::None,
            SmtpSecurity::StartTls => Tls::Required(parameters(server, roots)?),
            SmtpSecurity::Tls => Tls::Wrapper(parameters(server, roots)?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&server.host)
            .port(server.port)
            .tls(tls)
            .timeout(Some(ANSWER_WITHIN))
            .pool_config(PoolConfig::new().max_size(1).idle_timeout(KEEP_OPEN));
        if let (Some(username), Some(password)) = (&server.username, &server.password) {
            builder = builder.credentials(Credentials::new(username.clone(), password.clone()));
        }
        Ok(Self { transport: builder.build() })
    }

    /// Gives the server one letter for one mailbox; its answer.
    pub(super) async fn send(&self, from: Address, to: Address, letter: &Mime) -> Result<String, Fault> {
        let envelope = Envelope::new(Some(from), vec![to]).map_err(|e| Fault::Never(e.to_string()))?;
        let bytes = letter.formatted();
        let sending = self.transport.send_raw(&envelope, &bytes);
        match tokio::time::timeout(LETTER_WITHIN, sending).await {
            Ok(Ok(answer)) => {
                let text = answer.message().collect::<Vec<_>>().join(" ");
                Ok(format!("{} {text}", answer.code()).trim_end().to_owned())
            }
            Ok(Err(error)) => Err(fault(&error)),
            Err(_) => {
                let text = format!("the mail server took more than {} s over it", LETTER_WITHIN.as_secs());
                Err(Fault::Away(text))
            }
        }
    }
}

fn fault(error: &lettre::transport::smtp::Error) -> Fault {
    let text = error.to_string();
    let code = error.status().map(u16::from);
    match code {
        Some(code) if LOGIN_REFUSED.contains(&code) => Fault::Away(text),
        // The service is closing, or too much at once.
        Some(421) => Fault::Away(text),
        Some(code) if code >= 500 => Fault::Never(text),
        Some(_) => Fault::Later(text),
        None => Fault::Away(text),
    }
}

fn parameters(server: &SmtpAddress, roots: &RootCerts) -> Result<TlsParameters, SchedulerError> {
    let cannot = |e: lettre::transport::smtp::Error| {
        SchedulerError::Config(format!("TLS to the mail server {} cannot be set up: {e}", server.host))
    };
    let mut builder = TlsParameters::builder(server.host.clone());
    if let RootCerts::Specific(own) = roots {
        builder = builder.certificate_store(CertificateStore::None);
        for root in own.iter() {
            builder =
                builder.add_root_certificate(Certificate::from_der(root.der().to_vec()).map_err(cannot)?);
        }
    }
    builder.build_rustls().map_err(cannot)
}
