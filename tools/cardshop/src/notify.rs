//! How a site sends mail and calls others: `--smtp` and what belongs to it. Passwords come from a file or the environment,
//! never from the command line.

use std::path::PathBuf;

use cardshop_scheduler::{MailApi, NotifySettings, SmtpAddress};

use crate::exit::wrong_usage;
use crate::store::read_password;

/// What is told to whom.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct NotifyArgs {
    /// Send mail by this server: smtps:// is TLS, smtp:// STARTTLS, smtp+plain:// neither. Without one letters are kept,
    /// and GET /api/v1/messages says so. No password in it: everybody here could read it.
    #[arg(long, env = "CARDSHOP_SMTP", value_name = "smtps://[USER@]HOST[:PORT]")]
    pub(crate) smtp: Option<String>,
    /// File with the password of the mail server's user [default: CARDSHOP_SMTP_PASSWORD in the environment].
    #[arg(long, env = "CARDSHOP_SMTP_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) smtp_password_file: Option<PathBuf>,
    /// Give letters to this service instead, by HTTP as Mailgun takes them: its address up to the domain.
    #[arg(long, env = "CARDSHOP_MAIL_API", value_name = "https://HOST/v3/DOMAIN", conflicts_with = "smtp")]
    pub(crate) mail_api: Option<String>,
    /// File with the service's key [default: CARDSHOP_MAIL_API_KEY in the environment].
    #[arg(long, env = "CARDSHOP_MAIL_API_KEY_FILE", value_name = "FILE")]
    pub(crate) mail_api_key_file: Option<PathBuf>,
    /// Who letters are from: an address, or a name and the address in angle brackets.
    #[arg(long, env = "CARDSHOP_MAIL_SENDER", value_name = "ADDRESS")]
    pub(crate) mail_sender: Option<String>,
    /// Where questions go; it gets a blind copy of everything.
    #[arg(long, env = "CARDSHOP_MAIL_SUPPORT", value_name = "ADDRESS")]
    pub(crate) mail_support: Option<String>,
    /// Who else hears of failed orders.
    #[arg(long, env = "CARDSHOP_MAIL_FAILED_ORDERS", value_name = "ADDRESS")]
    pub(crate) mail_failed_orders: Option<String>,
    /// Send a test letter to this address at each start.
    #[arg(long, env = "CARDSHOP_MAIL_TEST", value_name = "ADDRESS")]
    pub(crate) mail_test: Option<String>,
    /// Tell this topic of an ntfy server what somebody has to do something about.
    #[arg(long, env = "CARDSHOP_NTFY", value_name = "https://SERVER/TOPIC")]
    pub(crate) ntfy: Option<String>,
    /// File with a token for that server [default: CARDSHOP_NTFY_TOKEN in the environment].
    #[arg(long, env = "CARDSHOP_NTFY_TOKEN_FILE", value_name = "FILE")]
    pub(crate) ntfy_token_file: Option<PathBuf>,
    /// Let webhooks lead to addresses of this machine and its network too; whoever makes one can reach what is there.
    #[arg(long, env = "CARDSHOP_PRIVATE_WEBHOOKS", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) private_webhooks: Option<bool>,
}

impl NotifyArgs {
    /// These, and where they say nothing `other`.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            smtp: self.smtp.or(other.smtp),
            smtp_password_file: self.smtp_password_file.or(other.smtp_password_file),
            mail_api: self.mail_api.or(other.mail_api),
            mail_api_key_file: self.mail_api_key_file.or(other.mail_api_key_file),
            mail_sender: self.mail_sender.or(other.mail_sender),
            mail_support: self.mail_support.or(other.mail_support),
            mail_failed_orders: self.mail_failed_orders.or(other.mail_failed_orders),
            mail_test: self.mail_test.or(other.mail_test),
            ntfy: self.ntfy.or(other.ntfy),
            ntfy_token_file: self.ntfy_token_file.or(other.ntfy_token_file),
            private_webhooks: self.private_webhooks.or(other.private_webhooks),
        }
    }

    /// As the scheduler takes them.
    pub(crate) fn choose(&self) -> anyhow::Result<NotifySettings> {
        let password = secret(&self.smtp_password_file, "CARDSHOP_SMTP_PASSWORD")?;
        let smtp = match &self.smtp {
            Some(url) => Some(SmtpAddress::parse(url, password.as_deref()).map_err(wrong_usage)?),
            None if self.smtp_password_file.is_some() => {
                return Err(wrong_usage("the password of which mail server? say --smtp URL"));
            }
            None => None,
        };
        let key = secret(&self.mail_api_key_file, "CARDSHOP_MAIL_API_KEY")?;
        let mail_api = match &self.mail_api {
            Some(url) => {
                let key = key.ok_or_else(|| {
                    wrong_usage("the service for mail has no key: say --mail-api-key-file FILE")
                })?;
                Some(MailApi { url: url.clone(), key })
            }
            None => None,
        };
        let settings = NotifySettings {
            smtp,
            mail_api,
            sender: self.mail_sender.clone(),
            support: self.mail_support.clone(),
            failed_orders: self.mail_failed_orders.clone(),
            test_mail: self.mail_test.clone(),
            ntfy: self.ntfy.clone(),
            ntfy_token: secret(&self.ntfy_token_file, "CARDSHOP_NTFY_TOKEN")?,
            private_webhooks: self.private_webhooks.unwrap_or(false),
        };
        settings.check().map_err(|error| wrong_usage(error.to_string()))?;
        Ok(settings)
    }
}

fn secret(file: &Option<PathBuf>, variable: &str) -> anyhow::Result<Option<String>> {
    match file {
        Some(path) => Ok(Some(read_password(path)?)),
        None => Ok(std::env::var(variable).ok().filter(|value| !value.is_empty())),
    }
}
