//! `--s3`: where a warehouse puts images' bytes when they do not stay in its folder. Secrets come from a file or the
//! environment, never from the command line.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cardshop_warehouse::{S3, S3Keys};
use serde::Deserialize;

use crate::exit::wrong_usage;

/// Largest file of keys, bytes; a session token has 2 KB at most.
const MAX_KEYS_SIZE: u64 = 16 * 1024;

/// Which S3-compatible store.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct S3Args {
    /// Keep images' bytes in this bucket of an S3-compatible store.
    #[arg(long, env = "CARDSHOP_S3", value_name = "https://HOST/BUCKET[/PREFIX]")]
    pub(crate) s3: Option<String>,
    /// Its region [default: us-east-1].
    #[arg(long, env = "CARDSHOP_S3_REGION", value_name = "NAME")]
    pub(crate) s3_region: Option<String>,
    /// TOML file with access_key_id, secret_access_key and maybe session_token [default: AWS_ACCESS_KEY_ID and the like
    /// in the environment].
    #[arg(long, env = "CARDSHOP_S3_KEYS", value_name = "FILE")]
    pub(crate) s3_keys: Option<PathBuf>,
}

impl S3Args {
    /// The store, if one is named.
    pub(crate) fn choose(self) -> anyhow::Result<Option<S3>> {
        let Some(url) = self.s3 else {
            return match self.s3_region.is_some() || self.s3_keys.is_some() {
                true => Err(wrong_usage("a region or keys of which S3 store? say --s3 URL")),
                false => Ok(None),
            };
        };
        let keys = match &self.s3_keys {
            Some(path) => read_keys(path)?,
            None => keys_of_environment()?,
        };
        Ok(Some(S3 { url, region: self.s3_region.unwrap_or_else(|| "us-east-1".into()), keys }))
    }
}

/// A file of keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

fn read_keys(path: &Path) -> anyhow::Result<S3Keys> {
    let cannot = || format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).with_context(cannot)?.len();
    anyhow::ensure!(size <= MAX_KEYS_SIZE, "{} has {size} bytes: that is no file of keys", path.display());
    let text = std::fs::read_to_string(path).with_context(cannot)?;
    // The parser's own words would repeat the line, and with it the secret.
    let file: KeysFile = toml::from_str(&text).map_err(|_| {
        anyhow::anyhow!(
            "{} is not TOML with access_key_id, secret_access_key and maybe session_token",
            path.display()
        )
    })?;
    let KeysFile { access_key_id, secret_access_key, session_token } = file;
    Ok(S3Keys { access_key_id, secret_access_key, session_token })
}

fn keys_of_environment() -> anyhow::Result<S3Keys> {
    let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (read("AWS_ACCESS_KEY_ID"), read("AWS_SECRET_ACCESS_KEY")) {
        (Some(access_key_id), Some(secret_access_key)) => {
            Ok(S3Keys { access_key_id, secret_access_key, session_token: read("AWS_SESSION_TOKEN") })
        }
        _ => Err(wrong_usage(
            "no keys for the S3 store: say --s3-keys FILE or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_a_file_and_a_broken_one_is_refused_without_repeating_its_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let args = |s3: Option<&str>| S3Args {
            s3: s3.map(Into::into),
            s3_region: None,
            s3_keys: Some(path.clone()),
        };
        std::fs::write(&path, "access_key_id = 'me'\nsecret_access_key = 'hidden'\n").unwrap();
        let s3 = args(Some("https://s3.example/shop")).choose().unwrap().unwrap();
        assert_eq!((s3.region.as_str(), s3.keys.secret_access_key.as_str()), ("us-east-1", "hidden"));
        assert!(!format!("{s3:?}").contains("hidden"));
        for text in
            ["access_key_id = 'me'\nsecret_access_key = 'hidden", "secret_access_key = 'hidden'\nx = 1"]
        {
            std::fs::write(&path, text).unwrap();
            let refused = format!("{:#}", args(Some("https://s3.example/shop")).choose().unwrap_err());
            assert!(!refused.contains("hidden") && refused.contains("secret_access_key"), "{refused}");
        }
        assert!(args(None).choose().is_err(), "keys of no store");
        assert!(S3Args::default().choose().unwrap().is_none());
    }
}
