//! How the site sends: mail server, addresses, ntfy. Read from flags, environment or a file by who starts the scheduler.

use lettre::message::Mailbox;

use super::api::MailApi;
use crate::SchedulerError;
use crate::core::fields::check_email;

/// Ports by kind of connection. **Source:** RFC 8314 §3.3, RFC 6409 §3.1, RFC 5321 §4.5.4.2.
const TLS_PORT: u16 = 465;
const STARTTLS_PORT: u16 = 587;
const PLAIN_PORT: u16 = 25;

/// How the site sends. It may hold a password, so it has no `Debug`.
#[derive(Clone, Default)]
pub struct NotifySettings {
    /// The mail server; without one letters are kept and say so.
    pub smtp: Option<SmtpAddress>,
    /// A service that takes letters by HTTP, in place of a mail server.
    pub mail_api: Option<MailApi>,
    /// `Name <address>` or an address: who letters are from.
    pub sender: Option<String>,
    /// Where questions go; it gets a blind copy of everything.
    pub support: Option<String>,
    /// Hears of failed orders.
    pub failed_orders: Option<String>,
    /// Gets a test letter at each start.
    pub test_mail: Option<String>,
    /// A topic of an ntfy server that hears what somebody has to do something about: `https://ntfy.example/topic`.
    pub ntfy: Option<String>,
    /// Token for that server.
    pub ntfy_token: Option<String>,
    /// Webhooks may lead to addresses of this machine and its network.
    pub private_webhooks: bool,
}

/// How the connection to a mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpSecurity {
    /// From the first byte.
    Tls,
    /// By STARTTLS, which must be offered.
    StartTls,
    /// Not at all.
    Plain,
}

/// A mail server. It may hold a password, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpAddress {
    /// How it is encrypted.
    pub security: SmtpSecurity,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Who logs in; nobody when it is `None`.
    pub username: Option<String>,
    /// With this.
    pub password: Option<String>,
}

impl SmtpAddress {
    /// Of `smtps://[USER@]HOST[:PORT]` (TLS), `smtp://…` (STARTTLS) or `smtp+plain://…` (not encrypted). The password
    /// comes apart from it. A `@` in the user's name is written as it is: the last one ends it.
    ///
    /// # Errors
    /// Why it is none, without what it may hold of a password.
    pub fn parse(url: &str, password: Option<&str>) -> Result<Self, String> {
        let form = "smtps://[USER@]HOST[:PORT] for TLS, smtp:// for STARTTLS or smtp+plain:// for neither";
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| format!("a mail server is written as {form}"))?;
        let (security, usual) = match scheme {
            "smtps" => (SmtpSecurity::Tls, TLS_PORT),
            "smtp" => (SmtpSecurity::StartTls, STARTTLS_PORT),
            "smtp+plain" => (SmtpSecurity::Plain, PLAIN_PORT),
            _ => return Err(format!("a mail server is written as {form}")),
        };
        let rest = rest.trim_end_matches('/');
        let (username, server) = match rest.rsplit_once('@') {
            Some((user, server)) => (Some(user), server),
            None => (None, rest),
        };
        if username.is_some_and(|user| user.contains(':')) {
            return Err("no password in the address of the mail server: everybody here could read it".into());
        }
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().map_err(|_| format!("{port:?} is no port"))?)
            }
            _ => (server, usual),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let good = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || !host.chars().all(good) {
            return Err(format!("which mail server? it is written as {form}"));
        }
        let username = username.filter(|user| !user.is_empty()).map(str::to_owned);
        let password = password.filter(|password| !password.is_empty()).map(str::to_owned);
        if username.is_some() && password.is_none() {
            return Err("the mail server's user has no password: give it in a file or the environment".into());
        }
        let address = Self { security, host: host.to_owned(), port, username, password };
        if address.username.is_some() && security == SmtpSecurity::Plain && !address.is_loopback() {
            return Err("a password is not sent unencrypted over a network: take smtps:// or smtp://".into());
        }
        Ok(address)
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }
}

impl NotifySettings {
    /// Whether these can work; a scheduler that is opened with them asks too.
    ///
    /// # Errors
    /// `Config` naming what cannot be used.
    pub fn check(&self) -> Result<(), SchedulerError> {
        let config = SchedulerError::Config;
        if self.smtp.is_some() && self.mail_api.is_some() {
            return Err(config("a mail server and a service for mail are set: which of them sends?".into()));
        }
        if (self.smtp.is_some() || self.mail_api.is_some()) && self.sender.is_none() {
            return Err(config("a mail server is set and no sender: who are letters from?".into()));
        }
        if let Some(api) = &self.mail_api {
            super::calls::check_url(&api.url)
                .map_err(|e| config(format!("the address {:?} for mail {e}", api.url)))?;
        }
        if let Some(sender) = &self.sender {
            sender
                .parse::<Mailbox>()
                .map_err(|e| config(format!("the sender {sender:?} is no address of mail: {e}")))?;
        }
        for (what, address) in [
            ("support", &self.support),
            ("failed orders", &self.failed_orders),
            ("test mail", &self.test_mail),
        ] {
            if let Some(address) = address {
                let lettre = address.parse::<lettre::Address>().is_ok();
                check_email(address)
                    .ok()
                    .filter(|()| lettre)
                    .ok_or_else(|| config(format!("{address:?} for {what} is no address of mail")))?;
            }
        }
        if let Some(url) = &self.ntfy {
            super::calls::topic(url)
                .ok_or_else(|| config(format!("{url:?} is no topic: https://SERVER/TOPIC is one")))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_server_is_read_and_a_password_in_its_address_is_refused() {
        let read = |url: &str| SmtpAddress::parse(url, Some("secret"));
        let server = read("smtps://ada@example.org@mail.example.org").ok().unwrap();
        assert_eq!((server.security, server.port), (SmtpSecurity::Tls, 465));
        assert_eq!(
            (server.username.as_deref(), server.host.as_str()),
            (Some("ada@example.org"), "mail.example.org")
        );
        assert_eq!(read("smtp://mail").ok().unwrap().port, 587);
        assert_eq!(read("smtp+plain://127.0.0.1:2525/").ok().unwrap().port, 2525);
        assert_eq!(read("smtp+plain://[::1]:26").ok().unwrap().host, "::1");
        for (url, says) in [
            ("mail.example.org", "is written as"),
            ("http://x", "is written as"),
            ("smtps://", "which mail server"),
            ("smtps://ada:secret@x", "no password in the address"),
            ("smtps://x:port", "is no port"),
            ("smtp+plain://ada@mail.example.org", "not sent unencrypted"),
        ] {
            let said = read(url).err().unwrap();
            assert!(said.contains(says) && !said.contains("secret"), "{url}: {said}");
        }
        assert!(SmtpAddress::parse("smtps://ada@x", None).err().unwrap().contains("has no password"));
    }

    #[test]
    fn settings_that_cannot_work_are_refused_at_start() {
        let smtp = SmtpAddress::parse("smtp+plain://localhost", None).ok();
        let api = Some(MailApi { url: "https://api.example.org".into(), key: "k".into() });
        let none = NotifySettings::default();
        for (settings, says) in [
            (
                NotifySettings { smtp: smtp.clone(), mail_api: api.clone(), ..none.clone() },
                "which of them sends",
            ),
            (NotifySettings { smtp, ..none.clone() }, "no sender"),
            (NotifySettings { mail_api: api, ..none.clone() }, "no sender"),
            (NotifySettings { sender: Some("The Shop".into()), ..none.clone() }, "no address of mail"),
            (NotifySettings { support: Some("help".into()), ..none.clone() }, "for support"),
            (NotifySettings { ntfy: Some("https://ntfy.example".into()), ..none.clone() }, "is no topic"),
        ] {
            assert!(settings.check().unwrap_err().to_string().contains(says));
        }
        none.check().unwrap();
    }
}
