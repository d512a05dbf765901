//! The services of a site in this process: broker, warehouse, scheduler and pages, each on its own TCP address.
//! They reach each other over these addresses only, as they would on three machines.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use cardshop_card::StopFlag;
use cardshop_protocol::token::SharedKeys;
use cardshop_scheduler::{FirstLogin, Scheduler};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::broker::Broker;
use crate::keys;
use crate::tls::TlsFiles;

/// Where the three services listen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) warehouse: SocketAddr,
    pub(crate) mqtt: SocketAddr,
}

/// A running site.
pub(crate) struct Site {
    pub(crate) http: String,
    pub(crate) warehouse: String,
    pub(crate) mqtt: String,
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
    /// Starts everything on `addresses`, with state below `data`.
    pub(crate) async fn start(data: &Path, addresses: Addresses, broker: Broker) -> anyhow::Result<Self> {
        let stop = StopFlag::new();
        let keys = SharedKeys::default();
        let broker = broker.start(keys.clone()).await?;
        let warehouse = cardshop_warehouse::start(warehouse_config(data, addresses.warehouse), keys.clone())
            .await
            .context("the warehouse does not start; --warehouse-listen ADDR:PORT gives it another address")?;
        let listener = bind(addresses.http).await?;
        let http = format!("http://{}", listener.local_addr()?);
        let warehouse_url = warehouse.url();
        let (scheduler, first_login) = Scheduler::open(cardshop_scheduler::Config {
            data: data.join("scheduler"),
            public_url: http.clone(),
            mqtt_url: broker.url.clone(),
            mqtt_ca: broker.ca,
            appliance_mqtt_url: broker.appliance_url,
            warehouses: vec![warehouse_url.clone()],
            admin_password: None,
        })
        .await
        .context("cannot open the scheduler's store")?;
        let web = WebServer::start(listener, &scheduler);
        // Else the scheduler would be the first whom the broker cannot know yet.
        keys::keep_fresh(&http, keys, stop.clone()).await.context("the scheduler does not give its keys")?;
        if let Some(running) = &broker.running {
            scheduler.add_metrics(running.metrics());
        }
        let background = scheduler.start_background();
        let running = Running { broker: broker.running, warehouse, background, web };
        Ok(Self { http, warehouse: warehouse_url, mqtt: broker.url, first_login, scheduler, stop, running })
    }

    /// The first line of `--json`: where everything is.
    pub(crate) fn ready(&self) -> Value {
        json!({"event": "ready", "http": self.http, "warehouse": self.warehouse, "mqtt": self.mqtt,
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

/// For the warehouse: certificate and key.
pub(crate) fn warehouse_tls(files: TlsFiles) -> cardshop_warehouse::TlsFiles {
    cardshop_warehouse::TlsFiles { cert: files.cert, key: files.key }
}

/// Binds, or says what to do about it.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; --listen ADDR:PORT takes another, port 0 any that is free")
    })
}

/// The web server of API and pages.
pub(crate) struct WebServer {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl WebServer {
    pub(crate) fn start(listener: TcpListener, scheduler: &Scheduler) -> Self {
        let router = scheduler.router().merge(cardshop_manager::pages(scheduler.clone()));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = axum::serve(listener, service).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        Self { stop, task: tokio::spawn(server.into_future()) }
    }

    /// Ends the server. Live streams never end by themselves, so it waits a moment only.
    pub(crate) async fn shutdown(self) {
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);
        let _ = self.stop.send(());
        let abort = self.task.abort_handle();
        if tokio::time::timeout(PATIENCE, self.task).await.is_err() {
            abort.abort();
        }
    }
}
