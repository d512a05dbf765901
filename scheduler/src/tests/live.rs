//! The live stream over a real socket.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::Site;

struct Stream(BufReader<TcpStream>);

impl Stream {
    async fn open(address: SocketAddr, token: &str, last: Option<&str>) -> Self {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request = format!(
            "GET /api/v1/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: cardshop_session={token}\r\n{last}\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self(BufReader::new(socket));
        assert!(stream.line().await.starts_with("HTTP/1.1 200"));
        while !stream.line().await.is_empty() {}
        stream
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.0.read_line(&mut line);
        tokio::time::timeout(std::time::Duration::from_secs(20), read).await.unwrap().unwrap();
        line.trim_end().to_owned()
    }

    /// The next event of this kind: its data and its id.
    async fn next(&mut self, kind: &str) -> (serde_json::Value, Option<String>) {
        loop {
            if self.line().await != format!("event: {kind}") {
                continue;
            }
            let (mut data, mut id) = (json!(null), None);
            loop {
                let line = self.line().await;
                if let Some(text) = line.strip_prefix("data: ") {
                    data = serde_json::from_str(text).unwrap();
                } else if let Some(text) = line.strip_prefix("id: ") {
                    id = Some(text.to_owned());
                } else if line.is_empty() {
                    return (data, id);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_watcher_gets_the_picture_then_changes_and_resumes_where_it_was() {
    let site = Site::new().await;
    site.channel("north").await;
    let watcher = site.user("watcher", "operator", &["default"]).await;
    let first = site.order(&site.admin, json!({})).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = site.scheduler.router().into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, router).await });

    let mut stream = Stream::open(address, &watcher, None).await;
    let (order, id) = stream.next("order").await;
    assert_eq!((&order["id"], &order["status"]), (&json!(first), &json!("created")));
    assert!(id.is_some(), "the last of the picture can be resumed from");
    site.order(&site.admin, json!({"channel": "north"})).await;
    site.made(&format!("/orders/{first}/cancel"), &site.admin, json!({})).await;
    let (order, id) = stream.next("order").await;
    assert_eq!((&order["id"], &order["status"]), (&json!(first), &json!("canceled")), "north is not its own");
    drop(stream);

    let second = site.order(&site.admin, json!({})).await;
    let mut stream = Stream::open(address, &watcher, id.as_deref()).await;
    let (order, _) = stream.next("order").await;
    assert_eq!(order["id"], json!(second), "what was missed, and no picture");

    let (_, users) = site.get("/users", &site.admin).await;
    let user = users["items"].as_array().unwrap().iter().find(|u| u["username"] == "watcher").unwrap();
    let path = format!("/users/{}/disable", user["id"].as_str().unwrap());
    site.made(&path, &site.admin, json!({})).await;
    site.order(&site.admin, json!({})).await;
    let mut rest = String::new();
    tokio::time::timeout(std::time::Duration::from_secs(20), stream.0.read_to_string(&mut rest))
        .await
        .expect("the stream of a disabled user ends")
        .unwrap();
    assert!(!rest.contains("event: order"), "and tells it nothing more");
}

#[tokio::test]
async fn an_integrator_watches_orders_and_no_appliances() {
    let site = Site::new().await;
    site.appliance(1).await;
    site.order(&site.admin, json!({})).await;
    let integrator = site.user("shop", "integrator", &["default"]).await;
    assert_eq!(site.get("/appliances", &integrator).await.0.as_u16(), 403);
    for (token, kind) in [(&integrator, "order"), (&site.admin, "appliance")] {
        let watcher = site.scheduler.authenticate(token, "").unwrap();
        let first = site.scheduler.live(&watcher, None).unwrap().next().await.unwrap();
        assert_eq!(first.kind, kind);
    }
}
