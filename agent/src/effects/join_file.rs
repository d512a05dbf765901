//! `JOIN.TXT`: which server to join, with which token, under which name. Read at start and whenever there is
//! nothing else to try; after approval the token in it is overwritten in place, so that it lies nowhere on the
//! stick any more.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use cardshop_protocol::join::JoinToken;
use serde::Deserialize;

use super::address::check_http;
use crate::config::{MAX_FILE_SIZE, line_of, read_bounded};

/// What the join file says.
#[derive(Clone)]
pub(crate) struct JoinFile {
    /// Base address of the server, without a slash at its end.
    pub(crate) server: String,
    /// The token, until it is used.
    pub(crate) token: Option<JoinToken>,
    /// What people will call the appliance.
    pub(crate) label: String,
}

#[derive(Deserialize)]
struct Contents {
    server: String,
    token: Option<String>,
    #[serde(default)]
    label: String,
}

/// Why a join file is of no use. Never repeats the token.
#[derive(Debug, thiserror::Error)]
pub enum JoinFileError {
    /// It cannot be read.
    #[error("the join file cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is longer than a join file can be.
    #[error("the join file is longer than {MAX_FILE_SIZE} bytes")]
    TooLong,
    /// It is not TOML with `server`, `token` and `label`.
    #[error("the join file is not valid TOML with server, token and label (line {0})")]
    NotToml(usize),
    /// Its server address must not be used.
    #[error("the join file's server {0}")]
    Address(#[from] super::address::AddressError),
    /// Its token is not one.
    #[error("the join file's token is damaged: copy it again, it begins with csj1.")]
    BadToken,
    /// Its token names the site's own CA, which plain text cannot show.
    #[error("the join file's token names the site's own CA: its server address has to begin with https://")]
    OwnCaInTheClear,
}

/// Reads the join file.
///
/// # Errors
/// Any [`JoinFileError`].
pub(crate) fn read(path: &Path) -> Result<JoinFile, JoinFileError> {
    parse(&read_bounded(path)?)
}

/// Says what a join file's text is no good for, before it goes onto a stick.
///
/// # Errors
/// Any [`JoinFileError`] but `Read`.
pub fn check_join_file(text: &str) -> Result<(), JoinFileError> {
    parse(text).map(drop)
}

fn parse(text: &str) -> Result<JoinFile, JoinFileError> {
    if text.len() as u64 > MAX_FILE_SIZE {
        return Err(JoinFileError::TooLong);
    }
    let contents: Contents =
        toml::from_str(text).map_err(|error| JoinFileError::NotToml(line_of(text, &error)))?;
    let server = contents.server.trim_end_matches('/').to_owned();
    let address = check_http(&server)?;
    let token = match contents.token.as_deref().map(str::trim) {
        None | Some("") => None,
        Some(text) => Some(text.parse::<JoinToken>().map_err(|_| JoinFileError::BadToken)?),
    };
    if !address.tls && token.as_ref().is_some_and(|t| !t.uses_public_ca()) {
        return Err(JoinFileError::OwnCaInTheClear);
    }
    let label: String = contents.label.chars().filter(|c| !c.is_control()).take(80).collect();
    let label = if label.trim().is_empty() { "appliance".into() } else { label };
    Ok(JoinFile { server, token, label })
}

/// Overwrites the token's line in place with a comment of the same length. A file that cannot be written (a
/// read-only stick) is left as it is: the token is used up all the same.
///
/// # Errors
/// What the file system says.
pub(crate) fn erase_token(path: &Path) -> io::Result<()> {
    let text = read_bounded(path)?;
    let erased: String = text.split_inclusive('\n').map(erase_line).collect();
    if erased == text {
        return Ok(());
    }
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(erased.as_bytes())?;
    file.sync_all()
}

fn erase_line(line: &str) -> String {
    let is_token =
        line.trim_start().strip_prefix("token").is_some_and(|rest| rest.trim_start().starts_with('='));
    if !is_token {
        return line.to_owned();
    }
    let body = line.trim_end_matches(['\r', '\n']);
    let note = "# token: used";
    let end = &line[body.len()..];
    format!("{note:<width$.width$}{end}", width = body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("JOIN.TXT");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn the_token_is_overwritten_in_place_and_the_rest_is_kept() {
        let token = JoinToken::from_random(&[9; 32], None);
        let text = format!(
            "# mine\r\nserver = \"http://127.0.0.1:8080/\"\r\ntoken = \"{token}\"\r\nlabel = \"Bench\"\r\n"
        );
        let (_folder, path) = file(&text);
        let join = read(&path).unwrap();
        assert_eq!((join.server.as_str(), join.label.as_str()), ("http://127.0.0.1:8080", "Bench"));
        assert!(join.token == Some(token.clone()));
        erase_token(&path).unwrap();
        let after = std::fs::read_to_string(&path).unwrap();
        assert_eq!(after.len(), text.len());
        assert!(!after.contains(&token.secret) && after.starts_with("# mine\r\n"), "{after}");
        assert!(read(&path).unwrap().token.is_none());
    }

    #[test]
    fn each_way_to_be_useless_has_a_name_and_none_shows_the_token() {
        let good = JoinToken::from_random(&[9; 32], None).to_string();
        let own_ca = JoinToken::from_random(&[9; 32], Some([1; 10])).to_string();
        let cases = [
            ("server = ".to_owned(), "line 1"),
            (format!("server = \"http://shop.example\"\ntoken = \"{good}\""), "unencrypted"),
            (format!("server = \"https://shop.example\"\ntoken = \"{}\"", &good[1..]), "damaged"),
            (format!("server = \"http://127.0.0.1:1\"\ntoken = \"{own_ca}\""), "own CA"),
        ];
        for (text, reason) in cases {
            let (_folder, path) = file(&text);
            let error = read(&path).err().unwrap().to_string();
            assert!(error.contains(reason) && !error.contains(&good[12..30]), "{error}");
        }
    }
}
