//! `cardshop admin update`: keys for updates of appliances, signing, checking, and handing an update to the shop. The secret
//! key is a file of whoever releases; no server ever has it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cardshop_card::StopFlag;
use cardshop_creator::{Backoff, Uploader};
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, Index, IndexBuilder};
use cardshop_protocol::keys::{decode_public, encode_public, generate, key_id};
use cardshop_protocol::update::{Check, Head, MAX_HEAD_SIZE, Manifest, STICK_FILE, Version, listed};
use cardshop_sim::client::Client;
use clap::Subcommand;
use data_encoding::HEXLOWER;
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde_json::{Value, json};

use crate::exit::{Ending, wrong_usage};
use crate::report::Output;
use crate::trust::TrustArgs;

/// Largest key file, bytes: ours have 65.
const MAX_KEY_FILE: u64 = 4096;
/// Chunk size of an update's index, bytes: the next one fetches little that it has.
const CHUNK_SIZE: u32 = 64 * 1024;
/// Bytes moved at once.
const PIECE: usize = 1 << 20;

/// Makes, checks and publishes updates of appliances.
///
/// Example: cardshop admin update sign set.img --key update.key --version 1.5 -o CARDSHOP.UPD
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Update {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Keygen(Keygen),
    Sign(Sign),
    Verify(Verify),
    Publish(Publish),
}

impl Update {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        match self.what {
            What::Keygen(command) => command.run(output),
            What::Sign(command) => command.run(output),
            What::Verify(command) => command.run(output),
            What::Publish(command) => command.run(output),
        }
    }
}

/// Makes a key pair: FILE, which signs and is to be kept where no server is, and FILE.pub, which disks are made with.
///
/// Example: cardshop admin update keygen -o update.key
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
struct Keygen {
    /// The secret key; one that is there is not overwritten.
    #[arg(short, long, value_name = "FILE", default_value = "update.key")]
    output: PathBuf,
}

impl Keygen {
    fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let key = generate().map_err(|error| anyhow::anyhow!("no randomness for a key: {error}"))?;
        let public = self.output.with_added_extension("pub");
        let shown = self.output.display().to_string();
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.output).with_context(
                || format!("{shown} cannot be made: a key that is there is never overwritten"),
            )?;
        writeln!(file, "{}", HEXLOWER.encode(&key.to_bytes()))?;
        file.sync_all()?;
        std::fs::write(&public, format!("{}\n", encode_public(&key.verifying_key())))
            .with_context(|| format!("cannot write {}", public.display()))?;
        let kid = key_id(&key.verifying_key());
        output.event(json!({"event": "key", "kid": kid, "secret": shown, "public": public}));
        output.line(format_args!("key {kid}: {shown} signs, {} goes onto disks", public.display()));
        Ok(Ending::Done)
    }
}

/// Signs a partition set (of appliance-image/make-set, or an older update), so that appliances take it.
///
/// Example: cardshop admin update sign set.img --key update.key --version 1.5 -o CARDSHOP.UPD
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
struct Sign {
    /// The set.
    #[arg(value_name = "SET")]
    set: PathBuf,
    /// The secret key, a file of `keygen`.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Its version, if not the set's own: one to four numbers with dots between.
    #[arg(long)]
    version: Option<Version>,
    /// Public keys that sign what follows this version [default: the one that signs]. To change keys, name both, publish,
    /// and sign the next version with the new one alone.
    #[arg(long, value_name = "FILE")]
    trust: Vec<PathBuf>,
    /// The update; called CARDSHOP.UPD on a stick, an appliance offers it at its console.
    #[arg(short, long, value_name = "FILE", default_value = STICK_FILE)]
    output: PathBuf,
}

impl Sign {
    fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let key = read_secret(&self.key)?;
        let mut set = open(&self.set)?;
        let head = checked(&mut set, &self.set)?;
        let trust = self.trust.iter().map(|path| read_public(path)).collect::<anyhow::Result<Vec<_>>>()?;
        let trust = if trust.is_empty() { vec![key.verifying_key()] } else { trust };
        let manifest = Manifest {
            version: self.version.unwrap_or_else(|| head.manifest.version.clone()),
            keys: trust.iter().map(listed).collect(),
            ..head.manifest.clone()
        };
        let front = Head::encode(&manifest, Some(&key))?;
        let shown = self.output.display().to_string();
        let mut write = || -> io::Result<()> {
            let new = self.output.with_added_extension("new");
            let mut file = BufWriter::new(File::create(&new)?);
            file.write_all(&front)?;
            set.seek(SeekFrom::Start(head.size()))?;
            io::copy(&mut (&mut set).take(head.file_size() - head.size()), &mut file)?;
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            std::fs::rename(new, &self.output)
        };
        write().with_context(|| format!("cannot write {shown}"))?;
        let kid = key_id(&key.verifying_key());
        output.event(json!({"event": "signed", "version": manifest.version, "kid": kid, "file": shown}));
        output.line(format_args!("{shown}: version {}, signed by key {kid}", manifest.version));
        Ok(Ending::Done)
    }
}

/// Checks an update as an appliance does that was made with this public key.
///
/// Example: cardshop admin update verify CARDSHOP.UPD --key update.key.pub
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
struct Verify {
    /// The update.
    #[arg(value_name = "FILE")]
    update: PathBuf,
    /// Public keys, one of which has signed it.
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
}

impl Verify {
    fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let keys = self.key.iter().map(|path| read_public(path)).collect::<anyhow::Result<Vec<_>>>()?;
        let head = checked(&mut open(&self.update)?, &self.update)?;
        let kid = head.signed_by(&keys)?;
        let version = &head.manifest.version;
        output.event(json!({"event": "verified", "version": version, "kid": kid, "digest": head.digest()}));
        output.line(format_args!("version {version}, signed by key {kid}, whole"));
        Ok(Ending::Done)
    }
}

/// Hands a signed update to the shop: it is put into the warehouse, and offered to appliances ring by ring.
///
/// Example: cardshop admin update publish CARDSHOP.UPD --server https://shop.example --username ada
#[allow(rustdoc::bare_urls)] // the help prints the example as it is typed
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
struct Publish {
    /// The update.
    #[arg(value_name = "FILE")]
    update: PathBuf,
    /// The scheduler.
    #[arg(long, env = "CARDSHOP_SERVER", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// Somebody of the staff.
    #[arg(long, env = "CARDSHOP_USERNAME")]
    username: String,
    /// File with the password; without it CARDSHOP_PASSWORD is read.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Shares of the appliances, in percent, that get it one after the other; the rest comes last [default: 10].
    #[arg(long, value_name = "PERCENT", value_delimiter = ',')]
    rings: Vec<u8>,
    /// Appliances with this label are the first; say it again for each.
    #[arg(long, value_name = "LABEL")]
    first: Vec<String>,
    /// Appliances take it though it is older than what they run.
    #[arg(long)]
    allow_older: bool,
    /// It is only put there; somebody starts it at the page of updates.
    #[arg(long)]
    paused: bool,
    #[command(flatten)]
    trust: TrustArgs,
}

impl Publish {
    fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let mut file = open(&self.update)?;
        let head = checked(&mut file, &self.update)?;
        let kid = head.key().context("nobody has signed this update: cardshop admin update sign")?;
        let index = index_of(&mut file, head.file_size())?;
        let password = match &self.password_file {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => std::env::var("CARDSHOP_PASSWORD")
                .map_err(|_| wrong_usage("no password: say --password-file FILE or set CARDSHOP_PASSWORD"))?,
        };
        let roots = self.trust.roots(None)?;
        let client =
            Client::login_trusting(&self.server, roots.clone(), &self.username, password.trim_end())?;
        let asked = json!({
            "version": head.manifest.version, "image": index.id(), "size": head.file_size(), "kid": kid,
            "keys": head.manifest.keys, "rings": self.rings, "first": self.first, "allow_older": self.allow_older,
        });
        let made: Value = client.post("/updates", &asked)?;
        let text =
            |name: &str| made[name].as_str().map(str::to_owned).context("the answer is not the scheduler's");
        let (id, token) = (text("id")?, text("upload_token")?);
        let task = text("task")?.parse().ok().context("the answer is not the scheduler's")?;
        let name = format!("appliance-{}", head.manifest.version);
        let mut upload =
            Uploader::new(&text("warehouse")?, task, &name, &self.update, &index, Backoff::default())?;
        upload.set_roots(roots);
        upload.run(&|| token.clone(), &StopFlag::new(), &mut |_, _| ())?;
        if !self.paused {
            let _: Value = client.post(&format!("/updates/{id}/resume"), &json!({}))?;
        }
        let state = if self.paused { "paused" } else { "running" };
        output
            .event(json!({"event": "published", "id": id, "version": head.manifest.version, "state": state}));
        output.line(format_args!("update {id}: version {}, {state}", head.manifest.version));
        Ok(Ending::Done)
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The head of a file whose parts are all what it says.
fn checked(file: &mut File, path: &Path) -> anyhow::Result<Head> {
    let mut front = Vec::new();
    Read::take(&mut *file, MAX_HEAD_SIZE as u64).read_to_end(&mut front)?;
    let head = Head::decode(&front).with_context(|| path.display().to_string())?;
    file.rewind()?;
    let mut check = Check::new(&head);
    let mut rest = Read::take(&mut *file, head.file_size());
    let mut buffer = vec![0; PIECE];
    loop {
        match rest.read(&mut buffer)? {
            0 => break,
            count => check.push(&buffer[..count]).with_context(|| path.display().to_string())?,
        }
    }
    check.finish().with_context(|| path.display().to_string())?;
    Ok(head)
}

/// The index of a file, all of which is data.
fn index_of(file: &mut File, size: u64) -> anyhow::Result<Index> {
    anyhow::ensure!(file.metadata()?.len() == size, "there is something behind the update's end");
    let extents = vec![Extent { offset: 0, length: size, kind: ExtentKind::Data }];
    let mut builder =
        IndexBuilder::new(ImageMap { image_size: size, extents, passport: vec![] }, CHUNK_SIZE)?;
    file.rewind()?;
    let mut buffer = vec![0; PIECE];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => builder.data(&buffer[..count])?,
        }
    }
    Ok(builder.finish()?)
}

fn read_key_file(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = open(path)?.take(MAX_KEY_FILE).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn read_secret(path: &Path) -> anyhow::Result<SigningKey> {
    let bytes = HEXLOWER.decode(read_key_file(path)?.as_bytes()).ok();
    let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
    let bytes = bytes.with_context(|| format!("{} does not hold a secret key of keygen", path.display()))?;
    Ok(SigningKey::from_bytes(&bytes))
}

fn read_public(path: &Path) -> anyhow::Result<VerifyingKey> {
    let key = decode_public(&read_key_file(path)?);
    key.with_context(|| format!("{} does not hold a public key (the file that ends in .pub)", path.display()))
}
