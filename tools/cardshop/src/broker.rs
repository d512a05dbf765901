//! The broker of a site: our own with its ports and certificates, or one of others. `cardshop broker` runs ours alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use axum::routing::get;
use cardshop_broker::{Config, Limits, TlsConfig};
use cardshop_protocol::token::SharedKeys;
use serde_json::json;

use crate::exit::{Ending, stop_flag, wrong_usage};
use crate::keys;
use crate::report::Output;
use crate::services::{bind, public_url};
use crate::tls::{TlsArgs, TlsFiles};
use crate::trust::TrustArgs;
use crate::up::{HTTP_PORT, MQTT_PORT, runtime, wait};

const MQTT_TLS_PORT: u16 = 8883;

/// How our broker listens beside its plain port.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct BrokerArgs {
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// Address of MQTT and WebSocket under TLS [default with a certificate: that of MQTT with port 8883].
    #[arg(long, env = "CARDSHOP_MQTT_TLS_LISTEN", value_name = "ADDR:PORT")]
    pub(crate) mqtt_tls_listen: Option<SocketAddr>,
    /// Who connects under TLS has to show a certificate of one of these CAs, PEM; appliances have none.
    #[arg(long, env = "CARDSHOP_MQTT_CLIENT_CA", value_name = "FILE")]
    mqtt_client_ca: Option<PathBuf>,
    /// Let MQTT without TLS listen beyond this machine: for a network where nobody listens in.
    #[arg(long, env = "CARDSHOP_MQTT_PLAIN_ANYWHERE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub(crate) mqtt_plain_anywhere: bool,
    /// Where appliances reach the broker [default: its TLS address if it has one, else its plain one].
    #[arg(long, env = "CARDSHOP_MQTT_URL", value_name = "URL")]
    mqtt_url: Option<String>,
}

impl BrokerArgs {
    /// Where it listens under TLS, when it does, beside a plain port.
    pub(crate) fn tls_listen(&self, beside: SocketAddr) -> SocketAddr {
        let port = if beside.port() == 0 { 0 } else { MQTT_TLS_PORT };
        self.mqtt_tls_listen.unwrap_or(SocketAddr::new(beside.ip(), port))
    }

    /// Whether it listens under TLS. Whoever says where wants it.
    pub(crate) fn encrypts(&self, tls_listen: SocketAddr) -> bool {
        self.tls.tls.or(self.mqtt_tls_listen.map(|_| true)).unwrap_or_else(|| self.tls.covers(tls_listen))
    }

    fn config(&self, data: &Path, listen: SocketAddr, tls: Option<(SocketAddr, TlsFiles)>) -> Config {
        let client_ca = self.mqtt_client_ca.clone();
        let tls = tls.map(|(listen, files)| TlsConfig {
            listen,
            certificate: files.cert,
            key: files.key,
            client_ca,
        });
        let data = data.join("broker");
        Config { listen, plain_anywhere: self.mqtt_plain_anywhere, tls, data, limits: Limits::default() }
    }
}

/// A broker that is not ours.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct OtherBrokerArgs {
    /// Use this broker instead of our own: mqtt://HOST:PORT or mqtts://HOST:PORT; `cardshop admin broker-acl` writes
    /// its access list.
    #[arg(long, env = "CARDSHOP_BROKER", value_name = "URL")]
    pub(crate) broker: Option<String>,
    /// CAs that the certificate of an mqtts:// broker is to be of, PEM [default: the system's].
    #[arg(long, env = "CARDSHOP_BROKER_CA", value_name = "FILE", requires = "broker")]
    pub(crate) broker_ca: Option<PathBuf>,
}

impl OtherBrokerArgs {
    /// Our own broker on `listen`, and on another address under TLS, or the other one.
    pub(crate) fn choose(
        &self,
        own: &BrokerArgs,
        data: &Path,
        listen: SocketAddr,
        tls: Option<(SocketAddr, TlsFiles)>,
    ) -> anyhow::Result<Broker> {
        match &self.broker {
            Some(_) if own.mqtt_tls_listen.is_some() => Err(wrong_usage(
                "with --broker there is no broker here that could listen: leave --mqtt-tls-listen out",
            )),
            Some(url) => Ok(Broker::Other {
                url: url.clone(),
                ca: self.broker_ca.clone(),
                appliance_url: own.mqtt_url.clone(),
            }),
            None => Ok(Broker::Own {
                config: Box::new(own.config(data, listen, tls)),
                appliance_url: own.mqtt_url.clone(),
            }),
        }
    }
}

/// Which broker a site uses.
pub(crate) enum Broker {
    Own { config: Box<Config>, appliance_url: Option<String> },
    Other { url: String, ca: Option<PathBuf>, appliance_url: Option<String> },
}

/// The broker of a running site.
pub(crate) struct Reachable {
    /// Ours, if it is.
    pub(crate) running: Option<cardshop_broker::Running>,
    /// Where the scheduler finds it.
    pub(crate) url: String,
    /// Whose certificate it has.
    pub(crate) ca: Option<PathBuf>,
    /// Where appliances find it, if elsewhere.
    pub(crate) appliance_url: Option<String>,
}

impl Broker {
    /// Starts our own.
    pub(crate) async fn start(self, keys: SharedKeys, host: Option<&str>) -> anyhow::Result<Reachable> {
        let (config, appliance_url) = match self {
            Self::Other { url, ca, appliance_url } => {
                return Ok(Reachable { running: None, url, ca, appliance_url });
            }
            Self::Own { config, appliance_url } => (*config, appliance_url),
        };
        allow_many_files();
        let running = cardshop_broker::start(config, keys)
            .await
            .context("the broker does not start; --mqtt-listen ADDR:PORT gives it another address")?;
        let url = format!("mqtt://{}", running.address());
        let appliance_url = match (appliance_url, running.tls_address()) {
            (Some(url), _) => Some(url),
            (None, tls) => tls.map(|tls| public_url("mqtts", tls, host)).transpose()?,
        };
        Ok(Reachable { running: Some(running), url, ca: None, appliance_url })
    }
}

/// Each connection is a file: lets this process have as many as the system allows it, which is often a thousand times
/// what it has at first. Without it the broker is full at a thousand connections.
pub(crate) fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot ask for more open files: see `ulimit -n`");
    }
}

/// Runs the broker alone.
///
/// Example: cardshop broker --data /var/lib/cardshop --scheduler http://127.0.0.1:8080
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct BrokerOnly {
    /// Where the state is kept; the broker's own files lie in DIR/broker.
    #[arg(long, env = "CARDSHOP_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Address of MQTT and WebSocket without TLS.
    #[arg(long, env = "CARDSHOP_MQTT_LISTEN", value_name = "ADDR:PORT", default_value_t = SocketAddr::from(([127, 0, 0, 1], MQTT_PORT)))]
    listen: SocketAddr,
    #[command(flatten)]
    broker: BrokerArgs,
    /// Address of /metrics and /health over HTTP; none unless it is said.
    #[arg(long, env = "CARDSHOP_METRICS_LISTEN", value_name = "ADDR:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// The scheduler whose tokens are good here.
    #[arg(long, env = "CARDSHOP_SERVER", value_name = "URL", default_value_t = format!("http://127.0.0.1:{HTTP_PORT}"))]
    scheduler: String,
    #[command(flatten)]
    trust: TrustArgs,
}

impl BrokerOnly {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let stop = stop_flag();
        allow_many_files();
        runtime()?.block_on(async {
            let keys = SharedKeys::default();
            let tls_listen = self.broker.tls_listen(self.listen);
            let tls = match self.broker.encrypts(tls_listen) {
                true => {
                    let tls = TlsArgs { tls: Some(true), ..self.broker.tls.clone() };
                    tls.files(&self.data, &[tls_listen], None)?
                }
                false => None,
            };
            let own_ca = tls.as_ref().and_then(|files| files.own_ca.clone());
            let roots = self.trust.roots(own_ca.as_ref())?;
            let config = self.broker.config(&self.data, self.listen, tls.map(|files| (tls_listen, files)));
            let running = cardshop_broker::start(config, keys.clone()).await?;
            keys::keep_fresh(&self.scheduler, roots, keys, stop.clone());
            let mqtt = format!("mqtt://{}", running.address());
            let mqtts = running.tls_address().map(|address| format!("mqtts://{address}"));
            let metrics = match self.metrics_listen {
                Some(address) => Some(serve_metrics(address, running.metrics()).await?),
                None => None,
            };
            output.event(json!({"event": "ready", "mqtt": mqtt, "mqtts": mqtts, "metrics": metrics}));
            output.line(format_args!("MQTT         {mqtt}"));
            if let Some(mqtts) = mqtts {
                output.line(format_args!("MQTT, TLS    {mqtts}"));
            }
            if let Some(ca) = own_ca {
                output.line(ca);
            }
            let ended = tokio::select! {
                () = wait(&stop) => Ok(Ending::Done),
                error = running.died() => Err(error.into()),
            };
            stop.stop();
            running.shutdown().await;
            ended
        })
    }
}

/// Serves `/metrics` and `/health` until the program ends; gives the address.
async fn serve_metrics(
    address: SocketAddr,
    text: impl Fn() -> String + Send + Sync + Clone + 'static,
) -> anyhow::Result<String> {
    let listener = bind(address).await?;
    let url = format!("http://{}/metrics", listener.local_addr()?);
    let content_type = [(axum::http::header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    let metrics = move || async move { (content_type, text()) };
    let router =
        axum::Router::new().route("/metrics", get(metrics)).route("/health", get(|| async { "ok\n" }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}
