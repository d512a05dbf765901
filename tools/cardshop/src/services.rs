//! The services of a site in this process: broker, warehouse, scheduler and pages, each on its own TCP address.
//! They reach each other over these addresses only, as they would on three machines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use cardshop_card::StopFlag;
use cardshop_protocol::token::SharedKeys;
use cardshop_scheduler::{CatalogueConfig, FirstLogin, Keeping, NotifySettings, Scheduler};
use cardshop_warehouse::S3;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use ureq::tls::RootCerts;

use crate::broker::Broker;
use crate::exit::wrong_usage;
use crate::keys;
use crate::tls::{OwnCa, TlsFiles};
use crate::web::WebServer;

/// How a site is set up.
pub(crate) struct Setup {
    pub(crate) data: PathBuf,
    pub(crate) http: Port,
    pub(crate) warehouse: Port,
    pub(crate) broker: Broker,
    /// By which name others reach this machine.
    pub(crate) host: Option<String>,
    /// The CA of our own, where a service encrypts with it.
    pub(crate) own_ca: Option<OwnCa>,
    /// Whose certificates the services accept from each other.
    pub(crate) roots: RootCerts,
    /// Where images' bytes go once they are whole; in the folder when it is `None`.
    pub(crate) s3: Option<S3>,
    /// Where content is looked up.
    pub(crate) catalogue: CatalogueConfig,
    /// Where the scheduler keeps its state, and for how long.
    pub(crate) keeping: Keeping,
    /// How people and programs are told.
    pub(crate) notify: NotifySettings,
}

/// Where a service listens, and with what it encrypts.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) listen: SocketAddr,
    pub(crate) tls: Option<TlsFiles>,
}

impl Port {
    /// The address others know the service by, when it is bound to `bound`.
    pub(crate) fn url(&self, bound: SocketAddr, host: Option<&str>) -> anyhow::Result<String> {
        public_url(if self.tls.is_some() { "https" } else { "http" }, bound, host)
    }

    /// The address that the same machine knows it by: loopback where it may, which a named certificate is rarely for.
    fn url_here(&self, bound: SocketAddr, host: Option<&str>) -> anyhow::Result<String> {
        if self.tls.as_ref().is_some_and(|tls| tls.own_ca.is_none()) {
            return self.url(bound, host);
        }
        let ip = match bound.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", SocketAddr::new(ip, bound.port())))
    }
}

/// `scheme://host:port` of a service bound to `bound`; what is on loopback is known by that alone.
pub(crate) fn public_url(scheme: &str, bound: SocketAddr, host: Option<&str>) -> anyhow::Result<String> {
    match host {
        Some(host) if !bound.ip().is_loopback() => {
            let host = match host.parse() {
                Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
                _ => host.to_owned(),
            };
            Ok(format!("{scheme}://{host}:{}", bound.port()))
        }
        None if bound.ip().is_unspecified() => {
            Err(wrong_usage("say with --host NAME by which name or address others reach this machine"))
        }
        _ => Ok(format!("{scheme}://{bound}")),
    }
}

/// A running site.
pub(crate) struct Site {
    pub(crate) http: String,
    pub(crate) warehouse: String,
    pub(crate) mqtt: String,
    /// The CA of our own, where there is one.
    pub(crate) own_ca: Option<OwnCa>,
    /// Whose certificates the services have.
    pub(crate) roots: RootCerts,
    /// Where this machine finds web and API.
    pub(crate) http_here: String,
    pub(crate) first_login: Option<FirstLogin>,
    pub(crate) scheduler: Scheduler,
    stop: StopFlag,
    running: Running,
}

struct Running {
    /// `None` when the site uses a broker of others.
    broker: Option<cardshop_broker::Running>,
    warehouse: cardshop_warehouse::Running,
    background: cardshop_scheduler::Background,
    web: WebServer,
}

impl Site {
    /// Starts everything.
    pub(crate) async fn start(setup: Setup) -> anyhow::Result<Self> {
        let Setup { data, http, warehouse, broker, host, own_ca, roots, s3, catalogue, keeping, notify } =
            setup;
        let host = host.as_deref();
        let stop = StopFlag::new();
        let keys = SharedKeys::default();
        let broker = broker.start(keys.clone(), host).await?;
        let mut config = cardshop_warehouse::Config { s3, ..warehouse_config(&data, warehouse.listen) };
        config.tls = warehouse.tls.clone().map(warehouse_tls);
        let running_warehouse = cardshop_warehouse::start(config, keys.clone())
            .await
            .context("the warehouse does not start; --warehouse-listen ADDR:PORT gives it another address")?;
        let warehouse_url = warehouse.url(running_warehouse.address(), host)?;
        let listener = bind(http.listen).await?;
        let bound = listener.local_addr()?;
        let (http_url, http_here) = (http.url(bound, host)?, http.url_here(bound, host)?);
        let (scheduler, first_login) = Scheduler::open(cardshop_scheduler::Config {
            data: data.join("scheduler"),
            public_url: http_url.clone(),
            mqtt_url: broker.url.clone(),
            mqtt_ca: broker.ca,
            appliance_mqtt_url: broker.appliance_url.clone(),
            own_ca: pinned(&http.tls),
            roots: roots.clone(),
            warehouses: vec![warehouse_url.clone()],
            admin_password: None,
            catalogue,
            keeping,
            notify,
        })
        .await
        .context("cannot open the scheduler's store")?;
        let web = WebServer::start(listener, http.tls.as_ref(), &scheduler)?;
        // Else the scheduler would be the first whom the broker cannot know yet.
        keys::keep_fresh(&http_here, roots.clone(), keys, stop.clone())
            .await
            .context("the scheduler does not give its keys")?;
        if let Some(running) = &broker.running {
            scheduler.add_metrics(running.metrics());
        }
        let background = scheduler.start_background();
        let running = Running { broker: broker.running, warehouse: running_warehouse, background, web };
        Ok(Self {
            http: http_url,
            warehouse: warehouse_url,
            mqtt: broker.appliance_url.unwrap_or(broker.url),
            own_ca,
            roots,
            http_here,
            first_login,
            scheduler,
            stop,
            running,
        })
    }

    /// The first line of `--json`: where everything is.
    pub(crate) fn ready(&self) -> Value {
        json!({"event": "ready", "http": self.http, "warehouse": self.warehouse, "mqtt": self.mqtt,
            "ca": self.own_ca.as_ref().map(|ca| &ca.pem),
            "username": self.first_login.as_ref().map_or("admin", |l| &l.username),
            "password": self.first_login.as_ref().map(|l| &l.password)})
    }

    /// Waits until the broker cannot go on. Whoever started this process starts it again.
    pub(crate) async fn broker_died(&self) -> cardshop_broker::Error {
        match &self.running.broker {
            Some(broker) => broker.died().await,
            None => std::future::pending().await,
        }
    }

    /// Ends all services, each after what it is doing.
    pub(crate) async fn shutdown(self) {
        self.stop.stop();
        self.running.background.shutdown().await;
        self.running.web.shutdown().await;
        if let Some(broker) = self.running.broker {
            broker.shutdown().await;
        }
        self.running.warehouse.shutdown().await;
    }
}

pub(crate) fn warehouse_config(data: &Path, listen: SocketAddr) -> cardshop_warehouse::Config {
    cardshop_warehouse::Config::new(listen, data.join("warehouse"))
}

/// What join tokens pin: the CA of our own, where web and API encrypt with it.
pub(crate) fn pinned(tls: &Option<TlsFiles>) -> Option<[u8; 10]> {
    tls.as_ref()?.own_ca.as_ref().map(|ca| ca.fingerprint)
}

/// Certificate and key, for whoever serves HTTP.
pub(crate) fn warehouse_tls(files: TlsFiles) -> cardshop_warehouse::TlsFiles {
    cardshop_warehouse::TlsFiles { cert: files.cert, key: files.key }
}

/// Binds, or says what to do about it.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; --listen ADDR:PORT takes another, port 0 any that is free")
    })
}
