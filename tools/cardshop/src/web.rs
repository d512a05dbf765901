//! The web server of API and pages, in the clear or under TLS. Under TLS handshakes are made beside each other and
//! within limits, and the certificate is read again when its files change, without ending a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Extension, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener, ListenerExt};
use cardshop_scheduler::Scheduler;
use cardshop_warehouse::Tls;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::services::warehouse_tls;
use crate::tls::TlsFiles;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most connections under TLS; more wait in the kernel's queue. Each live page holds one.
const MAX_CONNECTIONS: usize = 4096;
/// Connections with a handshake behind them that the server has not taken yet: it takes them at once.
const READY: usize = 16;
/// Pause after `accept` failed, which it does when file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Live streams never end by themselves, so an end waits a moment only.
const PATIENCE: Duration = Duration::from_secs(2);

/// The running server.
pub(crate) struct WebServer {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

impl WebServer {
    /// Serves on `listener`, under TLS where there are files for it.
    pub(crate) fn start(
        listener: TcpListener,
        tls: Option<&TlsFiles>,
        scheduler: &Scheduler,
    ) -> anyhow::Result<Self> {
        let router = scheduler.router().merge(cardshop_manager::pages(scheduler.clone()));
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let task = match tls {
            None => {
                // A live page's events are small: none waits for the answer to the one before.
                let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
                let service = router.into_make_service_with_connect_info::<SocketAddr>();
                let server = axum::serve(listener, service).with_graceful_shutdown(stopped);
                tokio::spawn(server.into_future())
            }
            Some(files) => {
                let listener = Encrypted::start(listener, files)?;
                let router = router.layer(from_fn(tell_address));
                let service = router.into_make_service_with_connect_info::<Peer>();
                let server = axum::serve(listener, service).with_graceful_shutdown(stopped);
                tokio::spawn(server.into_future())
            }
        };
        Ok(Self { stop, task })
    }

    /// Ends the server.
    pub(crate) async fn shutdown(self) {
        let _ = self.stop.send(());
        let abort = self.task.abort_handle();
        if tokio::time::timeout(PATIENCE, self.task).await.is_err() {
            abort.abort();
        }
    }
}

/// Connections with their handshake behind them.
struct Encrypted {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, Peer)>,
    address: SocketAddr,
    /// Ends with this.
    _tasks: JoinSet<()>,
}

/// Who is at the other end, and the place that the connection takes.
#[derive(Debug, Clone)]
struct Peer {
    address: SocketAddr,
    _place: Option<Arc<OwnedSemaphorePermit>>,
}

impl Encrypted {
    fn start(listener: TcpListener, files: &TlsFiles) -> anyhow::Result<Self> {
        let tls = Tls::open(warehouse_tls(files.clone())).context("cannot encrypt web and API")?;
        let acceptor = TlsAcceptor::from(tls.config());
        let address = listener.local_addr()?;
        let (hand_over, ready) = mpsc::channel(READY);
        let mut tasks = JoinSet::new();
        tasks.spawn(tls.keep_fresh());
        tasks.spawn(accept(listener, acceptor, hand_over));
        Ok(Self { ready, address, _tasks: tasks })
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    hand_over: mpsc::Sender<(TlsStream<TcpStream>, Peer)>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut handshakes = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await.expect("never closed");
        while handshakes.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, address)) => {
                let _ = stream.set_nodelay(true);
                let (acceptor, hand_over) = (acceptor.clone(), hand_over.clone());
                handshakes.spawn(async move {
                    let peer = Peer { address, _place: Some(Arc::new(place)) };
                    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                        // An error says that the server has ended.
                        Ok(Ok(stream)) => drop(hand_over.send((stream, peer)).await),
                        Ok(Err(error)) => tracing::debug!(%address, %error, "no handshake"),
                        Err(_) => tracing::debug!(%address, "a handshake took too long"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(next) => next,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { address: self.address, _place: None })
    }
}

impl Connected<IncomingStream<'_, Encrypted>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Encrypted>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Handlers look for the address alone.
async fn tell_address(
    Extension(ConnectInfo(peer)): Extension<ConnectInfo<Peer>>,
    mut request: Request,
    next: Next,
) -> Response {
    request.extensions_mut().insert(ConnectInfo(peer.address));
    next.run(request).await
}
