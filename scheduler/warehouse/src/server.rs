//! Accepts connections and serves HTTP/1.1 on each, within limits. Once a second each connection asks whether
//! the account that used it last was disabled meanwhile, and is then reset, in the middle of whatever it does:
//! a slow reader would otherwise go on getting what the kernel has buffered. Started by [`crate::start`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use cardshop_protocol::token::{Claims, SharedKeys, is_revoked};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

use crate::http::{Warehouse, chain};
use crate::now;
use crate::socket::Socket;
use crate::tls::Tls;

/// How long a client may take over a request's head, and how long an unused connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a connection asks whether its account still counts. With a key list that is 2 s old at most,
/// a disabled account stops within 4 s.
const REVOCATION_CHECK: Duration = Duration::from_secs(1);
/// How long running downloads may go on after a shutdown was asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// Pause after `accept` failed, which it does when file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long what the S3 store did not do is left alone.
const MOVE_PAUSE: Duration = Duration::from_secs(10);
/// How often forgotten uploads and images whose time is up are looked for.
const EXPIRY_CHECK: Duration = Duration::from_secs(60);
/// Buffer of a connection for reading, and so the most of one frame of a request body, and for writing; bytes.
/// Half of it halves the rate of downloads.
const BUFFER: usize = 128 * 1024;
/// Most bytes of a connection that wait in the kernel to be sent. Without a limit each client that takes nothing holds
/// up to 4 MiB there, and a thousand of them all that the kernel has for TCP: then everybody gets small windows.
const UNSENT: u32 = 256 * 1024;

/// A running warehouse. Dropping it stops it without waiting; [`Running::shutdown`] waits.
pub struct Running {
    address: SocketAddr,
    encrypted: bool,
    stop: DropGuard,
    tasks: JoinSet<()>,
    warehouse: Arc<Warehouse>,
}

impl Running {
    pub(crate) fn serve(
        listener: TcpListener,
        address: SocketAddr,
        tls: Option<Tls>,
        warehouse: Arc<Warehouse>,
    ) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(expire(warehouse.clone(), stop.clone()));
        if warehouse.store.has_bucket() {
            tasks.spawn(move_images(warehouse.clone(), stop.clone()));
        }
        let acceptor = tls.as_ref().map(|tls| TlsAcceptor::from(tls.config()));
        let encrypted = acceptor.is_some();
        if let Some(tls) = tls {
            let stop = stop.clone();
            tasks.spawn(async move {
                let _ = stop.run_until_cancelled(tls.keep_fresh()).await;
            });
        }
        tasks.spawn(accept(listener, acceptor, warehouse.clone(), stop.clone()));
        Self { address, encrypted, stop: stop.drop_guard(), tasks, warehouse }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients on this machine find it: without a slash at the end.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.encrypted { "https" } else { "http" }, self.address)
    }

    /// Stops: nobody new, two seconds for running requests, and every upload is left with a durable offset.
    pub async fn shutdown(mut self) {
        drop(self.stop);
        // They end on their own; an error only says that one panicked, which is in the log already.
        while self.tasks.join_next().await.is_some() {}
        self.warehouse.close().await;
    }
}

async fn expire(warehouse: Arc<Warehouse>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(EXPIRY_CHECK);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let warehouse = warehouse.clone();
        let look = move || {
            warehouse.store.expire(now());
            warehouse.store.clear_due(now());
            warehouse.look_after_space();
        };
        let _ = tokio::task::spawn_blocking(look).await;
    }
}

/// Brings images to the S3 store, and takes them out. A pass that runs ends by itself when all stops: the folder is not
/// given free before.
async fn move_images(warehouse: Arc<Warehouse>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let (moving, when) = (warehouse.clone(), stop.clone());
        let pass = tokio::task::spawn_blocking(move || moving.store.move_images(&when));
        let next = async |pass| match pass {
            Ok(()) => warehouse.store.work_for_bucket().await,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "images cannot be moved; they wait here");
                tokio::time::sleep(MOVE_PAUSE).await;
            }
        };
        let pass = pass.await.expect("the store does not panic");
        stop.run_until_cancelled(next(pass)).await;
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    warehouse: Arc<Warehouse>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(warehouse.store.limits.max_connections));
    let router = crate::http::router(warehouse.clone());
    let mut connections = JoinSet::new();
    let accept_one = async || {
        let place = places.clone().acquire_owned().await.expect("never closed");
        (listener.accept().await, place)
    };
    while let Some((accepted, place)) = stop.run_until_cancelled(accept_one()).await {
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let connection = Connection { peer, keys: warehouse.keys.clone(), stop: stop.clone() };
                let (router, acceptor) = (router.clone(), acceptor.clone());
                connections.spawn(async move {
                    if let Some(socket) = open(stream, acceptor, peer).await {
                        connection.serve(socket, router).await;
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, all).await;
}

/// The connection's bytes, after the handshake where there is one.
async fn open(stream: TcpStream, acceptor: Option<TlsAcceptor>, peer: SocketAddr) -> Option<Socket> {
    // Answers are written in full buffers; waiting for more would only delay the last one.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
    let Some(acceptor) = acceptor else { return Some(Socket::Plain(stream)) };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => Some(Socket::Tls(Box::new(tls))),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "no handshake");
            None
        }
        Err(_) => None,
    }
}

/// Whose connection it is: the claims of the last request with a token. Handlers find it in the request.
#[derive(Clone, Default)]
pub(crate) struct ConnectionClaims(Arc<Mutex<Option<Arc<Claims>>>>);

impl ConnectionClaims {
    pub(crate) fn set(&self, claims: Arc<Claims>) {
        *self.0.lock().expect("no holder panics") = Some(claims);
    }

    /// The next request begins: whose it is is not known yet.
    pub(crate) fn clear(&self) {
        *self.0.lock().expect("no holder panics") = None;
    }

    pub(crate) fn get(&self) -> Option<Arc<Claims>> {
        self.0.lock().expect("no holder panics").clone()
    }

    /// Only a revocation ends what runs. A token that expires in the middle of a long download was good
    /// when that began; the next request needs a new one.
    fn are_revoked(&self, keys: &SharedKeys) -> bool {
        self.get().is_some_and(|claims| is_revoked(&keys.current(), &claims))
    }
}

struct Connection {
    peer: SocketAddr,
    keys: SharedKeys,
    stop: CancellationToken,
}

impl Connection {
    async fn serve(self, socket: Socket, router: axum::Router) {
        let claims = ConnectionClaims::default();
        let (in_request, peer) = (claims.clone(), self.peer);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(in_request.clone());
            request.extensions_mut().insert(Peer(peer));
            router.clone().oneshot(request.map(Body::new))
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(socket), service);
        let mut check = tokio::time::interval(REVOCATION_CHECK);
        let mut closing = false;
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = %self.peer, %error, "a connection broke");
                    }
                    return;
                }
                _ = check.tick() => if claims.are_revoked(&self.keys) {
                    tracing::info!(peer = %self.peer, "a connection is reset: its account was disabled");
                    let _ = connection.into_parts().io.into_inner().into_tcp().set_zero_linger();
                    return;
                },
                () = self.stop.cancelled(), if !closing => {
                    closing = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    }
}

/// Where a request comes from.
#[derive(Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);
