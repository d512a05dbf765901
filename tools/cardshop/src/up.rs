//! `cardshop up` and the services alone: `scheduler`, `warehouse`, `creator`; `broker` is a file of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use cardshop_card::StopFlag;
use cardshop_creator::worker;
use cardshop_protocol::token::SharedKeys;
use cardshop_scheduler::{CatalogueConfig, Keeping, NotifySettings, Scheduler};
use serde::Deserialize;
use serde_json::json;

use crate::broker::{BrokerArgs, OtherBrokerArgs};
use crate::build::CachePolicy;
use crate::exit::{Ending, stop_flag, wrong_usage};
use crate::keys;
use crate::notify::NotifyArgs;
use crate::report::Output;
use crate::s3::S3Args;
use crate::services::{self, Port, Setup, Site, pinned, public_url, warehouse_config, warehouse_tls};
use crate::store::{CatalogueArgs, KeepArgs, StoreArgs};
use crate::tls::TlsArgs;
use crate::trust::TrustArgs;
use crate::web::WebServer;

pub(crate) const HTTP_PORT: u16 = 8080;
const WAREHOUSE_PORT: u16 = 8081;
pub(crate) const MQTT_PORT: u16 = 1883;
/// How often a command that stays up looks whether it should end.
pub(crate) const STOP_POLL: Duration = Duration::from_millis(100);

/// Runs scheduler, pages, broker and warehouse in one process.
///
/// Example: cardshop up --data /var/lib/cardshop --with-creator
/// On a network: cardshop up --data /var/lib/cardshop --listen 0.0.0.0:8080 --host shop.lan
///
/// Settings: a flag, else its CARDSHOP_* variable, else the line of the same name in the --config file.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Up {
    /// Where everything is kept.
    #[arg(long, env = "CARDSHOP_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Settings in TOML: data, listen, warehouse_listen, mqtt_listen, host, tls, tls_cert, tls_key, with_creator, s3,
    /// s3_region, s3_keys, store, store_password_file, keep_backups, keep_history, catalogue, catalogue_private,
    /// smtp, smtp_password_file, mail_api,
    /// mail_api_key_file, mail_sender, mail_support, mail_failed_orders, mail_test, ntfy, ntfy_token_file,
    /// private_webhooks.
    #[arg(long, env = "CARDSHOP_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    other_broker: OtherBrokerArgs,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    s3: S3Args,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    keep: KeepArgs,
    #[command(flatten)]
    catalogue: CatalogueArgs,
    #[command(flatten)]
    notify: NotifyArgs,
    /// Also run a creator.
    #[arg(long, env = "CARDSHOP_WITH_CREATOR", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    with_creator: Option<bool>,
}

/// Where to listen.
#[derive(clap::Args, Clone)]
pub(crate) struct Listen {
    /// Address of web and API; with port 0 all services take free ports [default: 127.0.0.1:8080].
    #[arg(long, env = "CARDSHOP_LISTEN", value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Address of the warehouse [default: the web address with port 8081].
    #[arg(long, env = "CARDSHOP_WAREHOUSE_LISTEN", value_name = "ADDR:PORT")]
    pub(crate) warehouse_listen: Option<SocketAddr>,
    /// Address of the broker without TLS [default: the web address, or 127.0.0.1 if that is on a network, with port
    /// 1883].
    #[arg(long, env = "CARDSHOP_MQTT_LISTEN", value_name = "ADDR:PORT")]
    pub(crate) mqtt_listen: Option<SocketAddr>,
    /// Name or address by which others reach this machine; the certificate of our own CA is good for it too
    /// [default: the address that is listened on].
    #[arg(long, env = "CARDSHOP_HOST", value_name = "NAME")]
    pub(crate) host: Option<String>,
}

impl Listen {
    /// The site that is asked for, with what is not said filled in.
    pub(crate) fn setup(
        self,
        default_http: SocketAddr,
        data: &Path,
        own: &BrokerArgs,
        other: &OtherBrokerArgs,
        trust: &TrustArgs,
    ) -> anyhow::Result<Setup> {
        let http = self.listen.unwrap_or(default_http);
        let beside = |port| SocketAddr::new(http.ip(), if http.port() == 0 { 0 } else { port });
        let warehouse = self.warehouse_listen.unwrap_or_else(|| beside(WAREHOUSE_PORT));
        // Better said before a CA is made and ports are open.
        public_url("http", http, self.host.as_deref())?;
        public_url("http", warehouse, self.host.as_deref())?;
        let mqtt_tls = own.tls_listen(self.mqtt_listen.unwrap_or_else(|| beside(MQTT_PORT)));
        let mqtt_tls = (other.broker.is_none() && own.encrypts(mqtt_tls)).then_some(mqtt_tls);
        let mqtt = self.mqtt_listen.unwrap_or_else(|| match mqtt_tls {
            // Only this machine needs it.
            Some(_) if !http.ip().is_loopback() && !own.mqtt_plain_anywhere => {
                SocketAddr::new(Ipv4Addr::LOCALHOST.into(), beside(MQTT_PORT).port())
            }
            _ => beside(MQTT_PORT),
        });
        let encrypted = [http, warehouse].into_iter().filter(|a| own.tls.covers(*a)).chain(mqtt_tls);
        let encrypted: Vec<_> = encrypted.collect();
        let files = match &*encrypted {
            [] => None,
            some => {
                let tls = TlsArgs { tls: Some(true), ..own.tls.clone() };
                tls.files(data, some, self.host.as_deref())?
            }
        };
        let port = |listen| Port { listen, tls: files.clone().filter(|_| own.tls.covers(listen)) };
        let own_ca = files.as_ref().and_then(|files| files.own_ca.clone());
        Ok(Setup {
            data: data.to_owned(),
            http: port(http),
            warehouse: port(warehouse),
            broker: other.choose(own, data, mqtt, mqtt_tls.zip(files.clone()))?,
            host: self.host,
            roots: trust.roots(own_ca.as_ref())?,
            own_ca,
            s3: None,
            catalogue: CatalogueConfig::default(),
            keeping: Keeping::default(),
            notify: NotifySettings::default(),
        })
    }
}

/// What a `--config` file may say.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UpFile {
    data: Option<PathBuf>,
    listen: Option<SocketAddr>,
    warehouse_listen: Option<SocketAddr>,
    mqtt_listen: Option<SocketAddr>,
    with_creator: Option<bool>,
    host: Option<String>,
    tls: Option<bool>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    s3: Option<String>,
    s3_region: Option<String>,
    s3_keys: Option<PathBuf>,
    store: Option<String>,
    store_password_file: Option<PathBuf>,
    keep_backups: Option<usize>,
    keep_history: Option<u64>,
    catalogue: Option<String>,
    catalogue_private: Option<bool>,
    smtp: Option<String>,
    smtp_password_file: Option<PathBuf>,
    mail_api: Option<String>,
    mail_api_key_file: Option<PathBuf>,
    mail_sender: Option<String>,
    mail_support: Option<String>,
    mail_failed_orders: Option<String>,
    mail_test: Option<String>,
    ntfy: Option<String>,
    ntfy_token_file: Option<PathBuf>,
    private_webhooks: Option<bool>,
}

impl UpFile {
    fn notify(&self) -> NotifyArgs {
        NotifyArgs {
            smtp: self.smtp.clone(),
            smtp_password_file: self.smtp_password_file.clone(),
            mail_api: self.mail_api.clone(),
            mail_api_key_file: self.mail_api_key_file.clone(),
            mail_sender: self.mail_sender.clone(),
            mail_support: self.mail_support.clone(),
            mail_failed_orders: self.mail_failed_orders.clone(),
            mail_test: self.mail_test.clone(),
            ntfy: self.ntfy.clone(),
            ntfy_token_file: self.ntfy_token_file.clone(),
            private_webhooks: self.private_webhooks,
        }
    }

    fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }
}

impl Up {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let file = UpFile::read(self.config.as_deref())?;
        let notify = self.notify.or(file.notify()).choose()?;
        let data = self
            .data
            .or(file.data)
            .ok_or_else(|| wrong_usage("where should everything be kept? say --data DIR"))?;
        let listen = Listen {
            listen: self.listen.listen.or(file.listen),
            warehouse_listen: self.listen.warehouse_listen.or(file.warehouse_listen),
            mqtt_listen: self.listen.mqtt_listen.or(file.mqtt_listen),
            host: self.listen.host.or(file.host),
        };
        let mut broker = self.broker;
        broker.tls.tls = broker.tls.tls.or(file.tls);
        broker.tls.tls_cert = broker.tls.tls_cert.or(file.tls_cert);
        broker.tls.tls_key = broker.tls.tls_key.or(file.tls_key);
        let local = SocketAddr::from(([127, 0, 0, 1], HTTP_PORT));
        let mut setup = listen.setup(local, &data, &broker, &self.other_broker, &self.trust)?;
        let with_creator = self.with_creator.or(file.with_creator).unwrap_or(false);
        setup.s3 = S3Args {
            s3: self.s3.s3.or(file.s3),
            s3_region: self.s3.s3_region.or(file.s3_region),
            s3_keys: self.s3.s3_keys.or(file.s3_keys),
        }
        .choose()?;
        let store = StoreArgs {
            store: self.store.store.or(file.store),
            store_password_file: self.store.store_password_file.or(file.store_password_file),
        };
        let keep = KeepArgs {
            keep_backups: self.keep.keep_backups.or(file.keep_backups),
            keep_history: self.keep.keep_history.or(file.keep_history),
        };
        setup.keeping = keep.keeping(store.choose()?);
        let catalogue = CatalogueArgs {
            catalogue_private: self.catalogue.catalogue_private || file.catalogue_private.unwrap_or(false),
            catalogue: self.catalogue.catalogue.or(file.catalogue),
        };
        setup.catalogue = catalogue.config();
        setup.notify = notify;
        let stop = stop_flag();
        runtime()?.block_on(async {
            let site = Site::start(setup).await?;
            output.event(site.ready());
            output.line(format_args!("web and API  {}", site.http));
            output.line(format_args!("warehouse    {}", site.warehouse));
            output.line(format_args!("MQTT         {}", site.mqtt));
            if let Some(ca) = &site.own_ca {
                output.line(ca);
            }
            if let Some(login) = &site.first_login {
                output.line(format_args!("first login  {} {} (shown once)", login.username, login.password));
            }
            let creator = if with_creator { Some(start_creator(&site, &data, &stop).await?) } else { None };
            let ended = tokio::select! {
                () = wait(&stop) => Ok(Ending::Done),
                error = site.broker_died() => Err(error.into()),
            };
            stop.stop();
            if let Some(creator) = creator {
                let _ = tokio::task::spawn_blocking(move || creator.join()).await;
            }
            site.shutdown().await;
            ended
        })
    }
}

/// A creator beside the scheduler.
async fn start_creator(site: &Site, data: &Path, stop: &StopFlag) -> anyhow::Result<JoinHandle<()>> {
    let (username, password) = site.scheduler.local_creator().await?;
    let mut config = worker::Config::new(&site.http_here, &username, &password, &data.join("creator"));
    config.roots = site.roots.clone();
    Ok(run_creator(config, stop.clone()))
}

/// Runs a creator in a thread of its own.
pub(crate) fn run_creator(config: worker::Config, stop: StopFlag) -> JoinHandle<()> {
    std::thread::spawn(move || {
        if let Err(error) = worker::run(config, stop) {
            tracing::error!(%error, "the creator ended");
        }
    })
}

/// Runs the scheduler with API and pages alone.
///
/// Example: cardshop scheduler --data /var/lib/cardshop --mqtt mqtt://127.0.0.1:1883 --warehouse http://127.0.0.1:8081
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct SchedulerOnly {
    /// Where the state is kept; the scheduler's own files lie in DIR/scheduler.
    #[arg(long, env = "CARDSHOP_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Address of web and API.
    #[arg(long, env = "CARDSHOP_LISTEN", value_name = "ADDR:PORT", default_value_t = SocketAddr::from(([127, 0, 0, 1], HTTP_PORT)))]
    listen: SocketAddr,
    #[command(flatten)]
    tls: TlsArgs,
    /// Name or address by which others reach this machine; the certificate of our own CA is good for it too
    /// [default: the address that is listened on].
    #[arg(long, env = "CARDSHOP_HOST", value_name = "NAME")]
    host: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    keep: KeepArgs,
    #[command(flatten)]
    catalogue: CatalogueArgs,
    #[command(flatten)]
    notify: NotifyArgs,
    /// The broker.
    #[arg(long, env = "CARDSHOP_MQTT", value_name = "URL", default_value_t = format!("mqtt://127.0.0.1:{MQTT_PORT}"))]
    mqtt: String,
    /// CAs that the certificate of an mqtts:// broker is to be of, PEM [default: that of --ca, else the system's].
    #[arg(long, env = "CARDSHOP_MQTT_CA", value_name = "FILE")]
    mqtt_ca: Option<PathBuf>,
    /// Where appliances reach the broker [default: the same].
    #[arg(long, env = "CARDSHOP_MQTT_URL", value_name = "URL")]
    mqtt_url: Option<String>,
    /// The warehouses; say it again for each.
    #[arg(
        long,
        env = "CARDSHOP_WAREHOUSE",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8081"
    )]
    warehouse: Vec<String>,
}

impl SchedulerOnly {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let stop = stop_flag();
        runtime()?.block_on(async {
            let host = self.host.as_deref();
            let files = self.tls.files(&self.data, &[self.listen], host)?;
            let own_ca = files.as_ref().and_then(|files| files.own_ca.clone());
            let listener = services::bind(self.listen).await?;
            let port = Port { listen: self.listen, tls: files };
            let http = port.url(listener.local_addr()?, host)?;
            let (scheduler, first_login) = Scheduler::open(cardshop_scheduler::Config {
                data: self.data.join("scheduler"),
                public_url: http.clone(),
                mqtt_url: self.mqtt,
                mqtt_ca: self.mqtt_ca.or_else(|| self.trust.ca.clone()),
                appliance_mqtt_url: self.mqtt_url,
                own_ca: pinned(&port.tls),
                roots: self.trust.roots(own_ca.as_ref())?,
                warehouses: self.warehouse,
                admin_password: None,
                catalogue: self.catalogue.config(),
                keeping: self.keep.keeping(self.store.choose()?),
                notify: self.notify.choose()?,
            })
            .await?;
            let web = WebServer::start(listener, port.tls.as_ref(), &scheduler)?;
            let background = scheduler.start_background();
            output.event(json!({"event": "ready", "http": http,
                "username": first_login.as_ref().map(|l| &l.username), "password": first_login.as_ref().map(|l| &l.password)}));
            output.line(format_args!("web and API  {http}"));
            if let Some(ca) = own_ca {
                output.line(ca);
            }
            if let Some(login) = &first_login {
                output.line(format_args!("first login  {} {} (shown once)", login.username, login.password));
            }
            wait(&stop).await;
            background.shutdown().await;
            web.shutdown().await;
            Ok(Ending::Done)
        })
    }
}

/// Runs the warehouse alone.
///
/// Example: cardshop warehouse --data /srv/cardshop --scheduler http://127.0.0.1:8080
/// On a network: cardshop warehouse --data /srv/cardshop --listen 0.0.0.0:8081 --scheduler https://shop.example
#[allow(rustdoc::bare_urls)] // the help prints the example as it is typed
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct WarehouseOnly {
    /// Where the state is kept; images lie in DIR/warehouse.
    #[arg(long, env = "CARDSHOP_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Address to listen on.
    #[arg(long, env = "CARDSHOP_WAREHOUSE_LISTEN", value_name = "ADDR:PORT", default_value_t = SocketAddr::from(([127, 0, 0, 1], WAREHOUSE_PORT)))]
    listen: SocketAddr,
    /// The scheduler whose tokens are good here.
    #[arg(long, env = "CARDSHOP_SERVER", value_name = "URL", default_value_t = format!("http://127.0.0.1:{HTTP_PORT}"))]
    scheduler: String,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    s3: S3Args,
}

impl WarehouseOnly {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let stop = stop_flag();
        runtime()?.block_on(async {
            let keys = SharedKeys::default();
            let mut config = warehouse_config(&self.data, self.listen);
            let files = self.tls.files(&self.data, &[self.listen], None)?;
            let own_ca = files.as_ref().and_then(|files| files.own_ca.as_ref());
            if let Some(ca) = own_ca {
                output.line(ca);
            }
            let roots = self.trust.roots(own_ca)?;
            config.tls = files.map(warehouse_tls);
            config.s3 = self.s3.choose()?;
            let running = cardshop_warehouse::start(config, keys.clone()).await?;
            keys::keep_fresh(&self.scheduler, roots, keys, stop.clone());
            let url = running.url();
            output.event(json!({"event": "ready", "warehouse": url}));
            output.line(format_args!("warehouse    {url}"));
            wait(&stop).await;
            running.shutdown().await;
            Ok(Ending::Done)
        })
    }
}

/// Runs a creator: claims creation tasks, builds images, puts them into the warehouse.
///
/// Example: cardshop creator --server http://127.0.0.1:8080 --username creator --password-file creator.pw --work /var/tmp/creator
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CreatorOnly {
    /// The scheduler.
    #[arg(long, env = "CARDSHOP_SERVER", value_name = "URL", default_value_t = format!("http://127.0.0.1:{HTTP_PORT}"))]
    server: String,
    /// Account with the role creator.
    #[arg(long, env = "CARDSHOP_USERNAME", default_value = "creator")]
    username: String,
    /// File with the account's password; without it CARDSHOP_PASSWORD is read.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Where images are built and downloads kept.
    #[arg(long, env = "CARDSHOP_WORK", value_name = "DIR")]
    work: PathBuf,
    /// Where downloads are kept, for several creators of this machine too [default: WORK/cache].
    #[arg(long, env = "CARDSHOP_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Images that are built at once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    tasks: usize,
    /// Make small stand-ins without content instead of images: for tests and for showing a shop.
    #[arg(long)]
    simulate: bool,
    #[command(flatten)]
    policy: CachePolicy,
    #[command(flatten)]
    trust: TrustArgs,
}

impl CreatorOnly {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let password = match &self.password_file {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => std::env::var("CARDSHOP_PASSWORD")
                .map_err(|_| wrong_usage("no password: say --password-file FILE or set CARDSHOP_PASSWORD"))?,
        };
        let mut config = worker::Config::new(&self.server, &self.username, password.trim_end(), &self.work);
        config.roots = self.trust.roots(None)?;
        config.cache = self.cache.clone();
        config.policy = self.policy.read()?;
        (config.tasks, config.simulate) = (self.tasks, self.simulate);
        output.event(json!({"event": "ready", "server": config.server}));
        output.line(format_args!("creator of {}", config.server));
        worker::run(config, stop_flag())?;
        Ok(Ending::Done)
    }
}

/// The runtime of the network services.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}

/// Waits for Ctrl-C or SIGTERM.
pub(crate) async fn wait(stop: &StopFlag) {
    while !stop.is_stopped() {
        tokio::time::sleep(STOP_POLL).await;
    }
}
