//! `cardshop bench broker`: our broker beside Debian's Mosquitto, each a process of its own, by turns, under the same
//! load from this process. Ours checks tokens and rights; Mosquitto is told to believe everybody.

mod client;
mod loads;
mod server;

use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use self::loads::{Idle, fan_in, idle, logins, reconnects};
use self::server::{Kind, Server, Signer};
use crate::broker::allow_many_files;
use crate::exit::Ending;
use crate::report::Output;
use crate::up::runtime;

/// Our broker beside Mosquitto: throughput, delivery time, memory of a client, logins at once.
///
/// Example: cardshop bench broker --rounds 1 --clients 1000 --seconds 20
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct BenchBroker {
    /// Turns of each; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Publishers of the throughput run.
    #[arg(long, default_value_t = 100)]
    publishers: usize,
    /// Messages of each publisher.
    #[arg(long, default_value_t = 1000)]
    messages: usize,
    /// Appliances that are connected and report every ten seconds.
    #[arg(long, default_value_t = 5000)]
    clients: usize,
    /// How long they do.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Clients that log in at once, from one address, within the limits of a broker.
    #[arg(long, default_value_t = 1000)]
    logins: usize,
    /// How long connections come and go, to see whether memory grows.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    reconnects: u64,
    /// Be our broker, for the process that measures.
    #[arg(long, hide = true)]
    serve: bool,
    /// With the limits of a broker, for `serve`.
    #[arg(long, hide = true)]
    limited: bool,
}

impl BenchBroker {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        allow_many_files();
        if self.serve {
            return runtime()?.block_on(server::serve(self.limited)).map(|()| Ending::Done);
        }
        let signer = Signer::new()?;
        let mut kinds = vec![Kind::Ours];
        if server::mosquitto().is_some() {
            kinds.push(Kind::Mosquitto);
        } else {
            output.line("SKIPPED: mosquitto is not installed: ours is measured alone");
        }
        let mut table = Table::default();
        for round in 1..=self.rounds {
            for kind in &kinds {
                output.line(format_args!("round {round}: {}", kind.name()));
                // A runtime of its own for each: what one leaves behind is not the other's.
                runtime()?.block_on(self.turn(*kind, &signer, &mut table))?;
            }
        }
        table.show(output);
        Ok(Ending::Done)
    }

    async fn turn(&self, kind: Kind, signer: &Signer, table: &mut Table) -> anyhow::Result<()> {
        let server = Server::start(kind, signer, false).await.with_context(|| kind.name().to_owned())?;
        table.add(
            "publish QoS 1",
            "messages/s",
            kind,
            fan_in(&server, self.publishers, self.messages).await?,
        );
        server.stop().await;

        let server = Server::start(kind, signer, false).await?;
        let load = Idle {
            clients: self.clients,
            every: Duration::from_secs(10),
            lasts: Duration::from_secs(self.seconds),
        };
        let measured = idle(&server, &load).await?;
        table.add("idle clients connected in", "s", kind, measured.connected_s);
        table.add("memory of a client", "KiB", kind, measured.kib_per_client);
        table.add("delivery, median", "ms", kind, measured.median_ms);
        table.add("delivery, p99", "ms", kind, measured.p99_ms);
        server.stop().await;

        // Mosquitto has no such limits: it shows what the machine can.
        let server = Server::start(kind, signer, true).await?;
        table.add("logins at once", "s", kind, logins(&server, self.logins).await?);
        server.stop().await;

        if self.reconnects > 0 {
            let server = Server::start(kind, signer, false).await?;
            // First what a broker keeps of its newest messages is filled: it grows to its bound once.
            fan_in(&server, self.publishers, self.messages).await?;
            let grown = reconnects(&server, Duration::from_secs(self.reconnects)).await?;
            table.add("memory grown over reconnects", "KiB", kind, grown);
            server.stop().await;
        }
        Ok(())
    }
}

/// Figures by what was measured, ours and the other's.
#[derive(Default)]
struct Table(Vec<(&'static str, &'static str, [Vec<f64>; 2])>);

impl Table {
    fn add(&mut self, what: &'static str, unit: &'static str, kind: Kind, value: f64) {
        let row = match self.0.iter().position(|(name, ..)| *name == what) {
            Some(row) => row,
            None => {
                self.0.push((what, unit, [Vec::new(), Vec::new()]));
                self.0.len() - 1
            }
        };
        self.0[row].2[kind as usize].push(value);
    }

    fn show(&mut self, output: &Output) {
        output.line(format_args!("\n{:<30} {:>12} {:>12} {:>8}  unit", "", "ours", "mosquitto", "ratio"));
        for (what, unit, values) in &mut self.0 {
            let [ours, other] = values.each_mut().map(|v| median(v));
            let ratio = ours.zip(other).map(|(ours, other)| ours / other);
            output.event(json!({"event": "figure", "what": what, "unit": unit, "ours": ours, "mosquitto": other, "ratio": ratio}));
            let show = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
            output.line(format_args!(
                "{what:<30} {:>12} {:>12} {:>8}  {unit}",
                show(ours),
                show(other),
                show(ratio)
            ));
        }
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
