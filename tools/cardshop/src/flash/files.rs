//! What goes onto the stick beside the system: `JOIN.TXT` from a file, standard input, a variable or a token, and
//! `NETWORK.TXT` from flags. Both are read by the appliance's own parsers before anything is erased. The token is
//! never an argument, and never printed.

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cardshop_agent::{NetworkFile, check_join_file};

use crate::exit::wrong_usage;

/// Longest join file, bytes; the appliance reads no more.
const MAX_JOIN_FILE_SIZE: u64 = 64 * 1024;

/// The words for both files.
#[derive(clap::Args)]
pub(super) struct FileArgs {
    /// JOIN.TXT, or a token alone; - is standard input. Else the variable CARDSHOP_JOIN holds it.
    #[arg(long, value_name = "FILE")]
    join: Option<PathBuf>,
    /// The shop's address; has precedence over the join file's.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// What people will call the appliance.
    #[arg(long)]
    label: Option<String>,
    /// Its own address and the length of its network's prefix, such as 192.168.1.20/24; once for each family
    /// [default: DHCP].
    #[arg(long, value_name = "ADDR/N")]
    static_ip: Vec<String>,
    /// The way out; once for each family.
    #[arg(long, value_name = "ADDR", requires = "static_ip")]
    gateway: Vec<IpAddr>,
    /// Who is asked for names [default: what DHCP says].
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    name_servers: Vec<IpAddr>,
}

impl FileArgs {
    /// Names and contents of the files.
    pub(super) fn read(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let mut files = Vec::new();
        if let Some(text) = self.join_text()? {
            let join = join_file(&text, self.server.as_deref(), self.label.as_deref())?;
            files.push(("JOIN.TXT", join));
        } else if self.server.is_some() || self.label.is_some() {
            return Err(wrong_usage("--server and --label go with a token: --join FILE, or CARDSHOP_JOIN"));
        }
        files.extend(self.network_file()?.map(|text| ("NETWORK.TXT", text)));
        Ok(files)
    }

    fn join_text(&self) -> anyhow::Result<Option<String>> {
        let mut text = String::new();
        match &self.join {
            Some(path) if path == Path::new("-") => {
                std::io::stdin().take(MAX_JOIN_FILE_SIZE).read_to_string(&mut text)?;
            }
            Some(path) => {
                let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
                file.take(MAX_JOIN_FILE_SIZE).read_to_string(&mut text)?;
            }
            None => match std::env::var("CARDSHOP_JOIN") {
                Ok(value) => text = value,
                Err(_) => return Ok(None),
            },
        }
        Ok(Some(text))
    }

    fn network_file(&self) -> anyhow::Result<Option<String>> {
        if self.static_ip.is_empty() && self.name_servers.is_empty() {
            return Ok(None);
        }
        let list = |values: Vec<String>| format!("{values:?}");
        let text = format!(
            "address = {}\r\ngateway = {}\r\nname_servers = {}\r\n",
            list(self.static_ip.clone()),
            list(self.gateway.iter().map(ToString::to_string).collect()),
            list(self.name_servers.iter().map(ToString::to_string).collect())
        );
        let file = NetworkFile::parse(&text).map_err(|error| wrong_usage(error.to_string()))?;
        Ok(Some(file.to_toml()))
    }
}

/// The join file's text, once the appliance's parser takes it.
fn join_file(text: &str, server: Option<&str>, label: Option<&str>) -> anyhow::Result<String> {
    let text = text.trim_start_matches('\u{feff}');
    let mut table = if text.trim().starts_with("csj1.") {
        toml::Table::from_iter([("token".to_owned(), text.trim().into())])
    } else {
        // toml's own message quotes the line, which may be the token's.
        text.parse::<toml::Table>().map_err(|_| wrong_usage("the join file is neither a token nor TOML"))?
    };
    for (key, value) in [("server", server), ("label", label)] {
        if let Some(value) = value {
            table.insert(key.to_owned(), value.into());
        }
    }
    if !table.contains_key("server") {
        return Err(wrong_usage("a token alone does not say where the shop is: --server URL"));
    }
    let text = toml::to_string(&table)?.replace('\n', "\r\n");
    check_join_file(&text).map_err(|error| wrong_usage(error.to_string()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "csj1.abcdef.0123456789abcdefghjkmnpqrs.0000000000000000";

    #[test]
    fn a_token_alone_becomes_a_join_file_and_a_join_file_is_completed() {
        let made = join_file(&format!("{TOKEN}\n"), Some("https://shop.example"), Some("Bench")).unwrap();
        assert!(made.contains(TOKEN) && made.contains("label = \"Bench\"\r\n"), "{made}");
        let again = join_file(&made, Some("https://other.example"), None).unwrap();
        assert!(again.contains("other.example") && again.contains("Bench") && !again.contains("shop."));
    }

    #[test]
    fn what_the_appliance_would_refuse_is_refused_here_and_the_token_is_not_shown() {
        let cases = [
            (TOKEN.to_owned(), None, "--server"),
            (TOKEN.to_owned(), Some("http://shop.example"), "unencrypted"),
            (format!("{}x", &TOKEN[..30]), Some("https://shop.example"), "damaged"),
            (format!("token = {TOKEN}"), Some("https://shop.example"), "neither"),
        ];
        for (text, server, reason) in cases {
            let error = format!("{:#}", join_file(&text, server, None).unwrap_err());
            assert!(error.contains(reason) && !error.contains("0123456789"), "{error}");
        }
    }
}
