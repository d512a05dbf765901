//! `--store`: where the scheduler's state is when it is not in its folder, and how long history and backups are kept. The
//! password comes from a file or the environment, never from the command line. Also the commands of `admin` that copy
//! a whole store.

use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use cardshop_scheduler::{
    CatalogueConfig, Keeping, PostgresAddress, StoreAddress, export_store, import_store,
};
use serde_json::json;

use crate::exit::{Ending, wrong_usage};
use crate::report::Output;

/// Largest file of a password, bytes.
const MAX_PASSWORD_SIZE: u64 = 4096;

/// Which store.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct StoreArgs {
    /// Keep the scheduler's state in this PostgreSQL database; several schedulers may share it. On a network it is
    /// encrypted, sslrootcert=FILE names a CA of your own. No password in it: everybody here could read it.
    #[arg(long, env = "CARDSHOP_STORE", value_name = "postgres://USER@HOST/DATABASE")]
    pub(crate) store: Option<String>,
    /// File with the database's password [default: CARDSHOP_STORE_PASSWORD or PGPASSWORD in the environment].
    #[arg(long, env = "CARDSHOP_STORE_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) store_password_file: Option<PathBuf>,
}

/// Where content for cards is looked up.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct CatalogueArgs {
    /// OPDS catalogue that content is chosen from on the pages, as
    /// https://library.kiwix.org/catalog/v2/entries?count=-1 [default: none].
    #[allow(rustdoc::bare_urls)] // the help prints the address as it is typed
    #[arg(long, env = "CARDSHOP_CATALOGUE", value_name = "URL")]
    pub(crate) catalogue: Option<String>,
    /// The catalogue may be on this machine or its network.
    #[arg(long, env = "CARDSHOP_CATALOGUE_PRIVATE", requires = "catalogue")]
    pub(crate) catalogue_private: bool,
}

impl CatalogueArgs {
    /// For the scheduler.
    pub(crate) fn config(self) -> CatalogueConfig {
        CatalogueConfig { url: self.catalogue, private: self.catalogue_private }
    }
}

/// How long things are kept.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct KeepArgs {
    /// Daily backups that are kept in DIR/scheduler/backups; 0 makes none [default: 7].
    #[arg(long, env = "CARDSHOP_KEEP_BACKUPS", value_name = "COUNT")]
    pub(crate) keep_backups: Option<usize>,
    /// Days after which stories and the audit log are removed; open orders keep theirs [default: 3653].
    #[arg(long, env = "CARDSHOP_KEEP_HISTORY", value_name = "DAYS")]
    pub(crate) keep_history: Option<u64>,
}

impl StoreArgs {
    /// The database, if one is named.
    pub(crate) fn choose(&self) -> anyhow::Result<Option<StoreAddress>> {
        let Some(url) = &self.store else {
            return match self.store_password_file {
                Some(_) => Err(wrong_usage("the password of which database? say --store URL")),
                None => Ok(None),
            };
        };
        let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let password = match &self.store_password_file {
            Some(path) => Some(read_password(path)?),
            None => read("CARDSHOP_STORE_PASSWORD").or_else(|| read("PGPASSWORD")),
        };
        let address = PostgresAddress::parse(url, password.as_deref());
        Ok(Some(StoreAddress::Postgres(address.map_err(|error| wrong_usage(error.to_string()))?)))
    }
}

impl KeepArgs {
    /// With the store.
    pub(crate) fn keeping(&self, store: Option<StoreAddress>) -> Keeping {
        let usual = Keeping::default();
        Keeping {
            store,
            backups: self.keep_backups.unwrap_or(usual.backups),
            history_days: self.keep_history.unwrap_or(usual.history_days),
        }
    }
}

pub(crate) fn read_password(path: &Path) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).with_context(cannot)?;
    let mut text = String::new();
    file.take(MAX_PASSWORD_SIZE).read_to_string(&mut text).with_context(cannot)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// A store on the command line: a data directory or a database.
#[derive(clap::Args, Clone, Debug)]
struct Place {
    /// Data directory of `cardshop up` or `cardshop scheduler`.
    #[arg(long, env = "CARDSHOP_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
}

impl Place {
    fn address(&self) -> anyhow::Result<StoreAddress> {
        match (self.store.choose()?, &self.data) {
            (Some(database), _) => Ok(database),
            (None, Some(data)) => Ok(StoreAddress::Directory(data.join("scheduler").join("store"))),
            (None, None) => Err(wrong_usage("which store? say --data DIR or --store URL")),
        }
    }
}

/// Writes the whole state of a site, as it is at one moment, to one new file; the site may run meanwhile. Not in it:
/// images, and the site's own CA in DIR/tls.
///
/// Example: cardshop admin backup --data /var/lib/cardshop -o cardshop.backup
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Backup {
    #[command(flatten)]
    place: Place,
    /// The file; it must not exist.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Makes the state of a site from a backup. Refuses where there is a state already.
///
/// Example: cardshop admin restore cardshop.backup --data /var/lib/cardshop
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Restore {
    /// The backup or export; `-` reads standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// Writes the whole state of a site as JSON lines, in an order that depends on nothing but what is in it.
///
/// Example: cardshop admin export --data /var/lib/cardshop | cardshop admin import - --store postgres://cardshop@db.example/cardshop
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Export {
    #[command(flatten)]
    place: Place,
    /// A new file [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Backup {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        to_new_file(self.place.address()?, &self.output, output)
    }
}

impl Export {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let address = self.place.address()?;
        match &self.output {
            Some(path) => to_new_file(address, path, output),
            None => {
                export_store(address, BufWriter::new(std::io::stdout().lock()))?;
                Ok(Ending::Done)
            }
        }
    }
}

impl Restore {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let address = self.place.address()?;
        let documents = if self.file == Path::new("-") {
            import_store(address, std::io::stdin().lock())
        } else {
            let file = std::fs::File::open(&self.file)
                .with_context(|| format!("cannot read {}", self.file.display()))?;
            import_store(address, BufReader::new(file))
        }
        .with_context(|| format!("{} is not restored", self.file.display()))?;
        output.event(json!({"event": "restored", "documents": documents}));
        output.line(format_args!("{documents} documents restored"));
        Ok(Ending::Done)
    }
}

/// Shows the file only when it is whole and on the disk; nobody else may read it.
fn to_new_file(from: StoreAddress, path: &Path, output: &Output) -> anyhow::Result<Ending> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = || format!("cannot write {}", path.display());
    let mut file = tempfile::Builder::new().prefix(".cardshop.").tempfile_in(folder).with_context(cannot)?;
    let documents = export_store(from, BufWriter::new(&mut file))?;
    file.flush().and_then(|()| file.as_file().sync_all()).with_context(cannot)?;
    file.persist_noclobber(path).map_err(|e| e.error).with_context(cannot)?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(cannot)?;
    let size = std::fs::metadata(path).with_context(cannot)?.len();
    output.event(json!({"event": "written", "file": path, "documents": documents, "bytes": size}));
    output.line(format_args!("{documents} documents in {}", path.display()));
    Ok(Ending::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_comes_from_a_file_and_one_in_the_address_is_refused_without_repeating_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "hidden\nmore").unwrap();
        assert_eq!(read_password(&path).unwrap(), "hidden");
        let args = |url: &str| StoreArgs { store: Some(url.into()), store_password_file: Some(path.clone()) };
        assert!(args("postgres://shop@127.0.0.1/shop").choose().unwrap().is_some());
        let refused = args("postgres://shop:hidden@127.0.0.1/shop").choose().unwrap_err();
        assert!(!format!("{refused:#}").contains("hidden"));
        assert!(StoreArgs { store: None, ..args("") }.choose().is_err(), "a password of no database");
        assert!(StoreArgs::default().choose().unwrap().is_none());
    }
}
