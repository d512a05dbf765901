//! The PostgreSQL engine: any number of schedulers on one database. Batches are one function call each, with versions
//! compared inside (`layout_1.sql`); claims pass over what another is just taking; `side` hears of others' changes and
//! holds the leader's lock.
//!
//! Its connections live in a small runtime of their own, so that reads may block their caller wherever that runs. A
//! connection that breaks is replaced and the command said again for [`RETRY_FOR`]: every batch has a name that the
//! database remembers, so that one whose answer was lost is not carried out twice.

mod address;
mod side;
#[cfg(test)]
mod tls_tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod};
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{IsolationLevel, Row};

pub use address::PostgresAddress;

use super::batch::{Change, Expect};
use super::engine::{Answer, Engine, News, Sink};
use super::{Record, Select, StoreError};

/// Layouts of the tables, each made from the one before; the database remembers how many it has.
const LAYOUTS: [&str; 1] = [include_str!("layout_1.sql")];
/// Locked while layouts change.
const LAYOUT_LOCK: i64 = 0x6361_7264_6c61_796f;
/// Connections to the database; more callers wait. PostgreSQL takes 100 in all unless told otherwise.
const MAX_CONNECTIONS: usize = 16;
/// Threads for them: they only wait.
const THREADS: usize = 2;
/// How long a command is said again while the database is away, and the pauses between.
const RETRY_FOR: Duration = Duration::from_secs(15);
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Documents read or written at once by exports and imports.
const CHUNK: usize = 500;
/// Documents that may wait to be told to others.
const NEWS_LENGTH: usize = 1024;

const COLUMNS: &str = "d.kind, d.id, d.version, d.schema, d.indexes, d.body";

/// The open store; closed when it is dropped.
pub(super) struct Postgres {
    pool: Pool,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    changed: mpsc::Sender<(String, String)>,
    overflow: Arc<AtomicBool>,
    leads: watch::Receiver<bool>,
    news: broadcast::Sender<News>,
    connected: Arc<AtomicBool>,
    shown: String,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Params = Vec<Box<dyn ToSql + Sync + Send>>;

impl Postgres {
    /// Opens the store, and brings its tables to this program's layout.
    ///
    /// # Errors
    /// `Unreachable`.
    pub(super) fn open(address: PostgresAddress) -> Result<Self, StoreError> {
        let shown = address.shown.clone();
        let unreachable = |reason: String| StoreError::Unreachable { store: shown.clone(), reason };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("store-postgres")
            .enable_all()
            .build()
            .map_err(|e| unreachable(e.to_string()))?;
        let manager = Manager::from_config(
            (*address.config).clone(),
            address.tls.clone(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(MAX_CONNECTIONS)
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .wait_timeout(Some(RETRY_FOR))
            .build()
            .map_err(|e| unreachable(e.to_string()))?;
        let (changed, changes) = mpsc::channel(NEWS_LENGTH);
        let (leading, leads) = watch::channel(false);
        let store = Self {
            pool,
            runtime: Some(runtime),
            changed,
            overflow: Arc::default(),
            leads,
            news: broadcast::channel(NEWS_LENGTH).0,
            connected: Arc::new(AtomicBool::new(true)),
            shown: shown.clone(),
        };
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|e| unreachable(e.to_string()))?;
        let side = side::Side {
            address,
            me: format!("{:016x}", u64::from_be_bytes(name)),
            changed: changes,
            overflow: store.overflow.clone(),
            leads: leading,
            news: store.news.clone(),
            connected: store.connected.clone(),
        };
        let pool = store.pool.clone();
        store.wait(async move { lay_out(&pool).await })?.map_err(unreachable)?;
        store.runtime().spawn(side.run());
        Ok(store)
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("open until dropped")
    }

    /// Blocks the caller until the runtime has done it.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        self.runtime().spawn(async move {
            let _ = done.send(work.await);
        });
        answer.recv().map_err(|_| StoreError::Stopped)
    }

    fn rows(&self, sql: &'static str, params: Params) -> Result<Vec<Record>, StoreError> {
        let (pool, shown) = (self.pool.clone(), self.shown.clone());
        let rows = self.wait(async move { query(&pool, sql, &params).await })?;
        let rows = rows.map_err(|e| StoreError::Unreachable { store: shown, reason: e.to_string() })?;
        rows.iter().map(record).collect()
    }

    fn run(&self, sql: &'static str, mut params: Params, changes: Vec<Change>) -> Answer<'_, bool> {
        Box::pin(async move {
            params.extend(arguments(&changes)?);
            let pool = self.pool.clone();
            let done = self.runtime().spawn(async move { query(&pool, sql, &params).await });
            match done.await.map_err(|_| StoreError::Stopped)? {
                Ok(rows) => {
                    self.tell(&changes);
                    Ok(rows.first().is_some_and(|row| row.get(0)))
                }
                Err(Failure::Conflict(n)) => {
                    Err(changes.get(n.wrapping_sub(1)).map_or(StoreError::Stopped, Change::conflict))
                }
                Err(error) => {
                    Err(StoreError::Unreachable { store: self.shown.clone(), reason: error.to_string() })
                }
            }
        })
    }

    fn tell(&self, changes: &[Change]) {
        for change in changes {
            if self.changed.try_send((change.kind.to_owned(), change.id.clone())).is_err() {
                self.overflow.store(true, Ordering::Release);
                return;
            }
        }
    }
}

/// A batch's name and its changes, as the database's functions take them.
fn arguments(changes: &[Change]) -> Result<Params, StoreError> {
    let mut name = [0; 16];
    getrandom::fill(&mut name).map_err(|_| StoreError::Stopped)?;
    let (mut kinds, mut ids, mut expects) = (Vec::new(), Vec::new(), Vec::new());
    let (mut schemas, mut indexes, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
    for change in changes {
        // For its limit only.
        change.encode(0)?;
        let record = change.record(0);
        kinds.push(change.kind);
        ids.push(change.id.clone());
        expects.push(match change.expect {
            Expect::Absent => 0,
            Expect::Version(version) => i64::try_from(version).unwrap_or(i64::MAX),
            Expect::Any => -1,
        });
        schemas.push(record.as_ref().map(|record| record.schema as i32));
        indexes.push(record.as_ref().map(|record| json(&record.index)));
        bodies.push(record.as_ref().map(|record| json(&record.body)));
    }
    Ok(vec![
        Box::new(format!("{:032x}", u128::from_be_bytes(name))),
        Box::new(kinds),
        Box::new(ids),
        Box::new(expects),
        Box::new(schemas),
        Box::new(indexes),
        Box::new(bodies),
    ])
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("a document is plain JSON")
}

fn record(row: &Row) -> Result<Record, StoreError> {
    let (kind, id): (String, String) = (row.get(0), row.get(1));
    let unreadable = |e: serde_json::Error| {
        StoreError::Dump(std::io::Error::other(format!("{kind} {id} in the database is damaged: {e}")))
    };
    Ok(Record {
        version: row.get::<_, i64>(2) as u64,
        schema: row.get::<_, i32>(3) as u32,
        index: serde_json::from_str(row.get(4)).map_err(unreadable)?,
        body: serde_json::from_str(row.get(5)).map_err(unreadable)?,
        kind,
        id,
    })
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("change {0} is not as expected")]
    Conflict(usize),
    #[error("{0}")]
    Other(String),
    /// Worth another try.
    #[error("{0}")]
    Again(String),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(told) = error.as_db_error() else { return Self::Again(describe(&error)) };
        // **Source:** PostgreSQL 15, appendix A: 08 connection, 40 serialization and deadlock, 53300 too many
        // connections, 57P01 to 57P03 shutting down or starting.
        match told.code().code() {
            "CS001" => Self::Conflict(told.detail().and_then(|n| n.parse().ok()).unwrap_or(0)),
            "40001" | "40P01" | "53300" | "57P01" | "57P02" | "57P03" => Self::Again(told.to_string()),
            code if code.starts_with("08") => Self::Again(told.to_string()),
            _ => Self::Other(told.to_string()),
        }
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            other => Self::Other(other.to_string()),
        }
    }
}

/// An error with its causes: the library's own text leaves them out.
fn describe(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// One command, said again while that may help.
async fn query(pool: &Pool, sql: &str, params: &Params) -> Result<Vec<Row>, Failure> {
    let until = Instant::now() + RETRY_FOR;
    let mut pause = PAUSE.0;
    loop {
        match try_query(pool, sql, params).await {
            Err(Failure::Again(reason)) if Instant::now() < until => {
                tracing::debug!(reason, "the database is asked again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            answer => return answer,
        }
    }
}

async fn try_query(pool: &Pool, sql: &str, params: &Params) -> Result<Vec<Row>, Failure> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(sql).await?;
    let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|p| p.as_ref() as &(dyn ToSql + Sync)).collect();
    Ok(client.query(&statement, &params).await?)
}

/// Brings the tables to this program's layout.
async fn lay_out(pool: &Pool) -> Result<(), String> {
    let text = |error: tokio_postgres::Error| describe(&error);
    let mut client = pool.get().await.map_err(|e| Failure::from(e).to_string())?;
    let transaction = client.transaction().await.map_err(text)?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LAYOUT_LOCK]).await.map_err(text)?;
    let table = "CREATE TABLE IF NOT EXISTS cardshop_layout (version integer PRIMARY KEY)";
    transaction.batch_execute(table).await.map_err(text)?;
    let sql = "SELECT coalesce(max(version), 0) FROM cardshop_layout";
    let version: i32 = transaction.query_one(sql, &[]).await.map_err(text)?.get(0);
    let Some(missing) = usize::try_from(version).ok().and_then(|version| LAYOUTS.get(version..)) else {
        return Err(format!("its tables are of a newer cardshop (layout {version})"));
    };
    for (layout, n) in missing.iter().zip(version + 1..) {
        transaction.batch_execute(layout).await.map_err(text)?;
        transaction.execute("INSERT INTO cardshop_layout VALUES ($1)", &[&n]).await.map_err(text)?;
    }
    transaction.commit().await.map_err(text)
}

impl Engine for Postgres {
    fn get(&self, kind: &'static str, id: &str) -> Result<Option<Record>, StoreError> {
        const SQL: &str = "SELECT d.kind, d.id, d.version, d.schema, d.indexes, d.body FROM cardshop_document d \
                           WHERE d.kind = $1 AND d.id = $2";
        Ok(self.rows(SQL, vec![Box::new(kind), Box::new(id.to_owned())])?.pop())
    }

    fn list(&self, kind: &'static str, select: Select<'_>) -> Result<Vec<Record>, StoreError> {
        let limit = i64::try_from(select.limit).unwrap_or(i64::MAX);
        let mut params: Params = vec![Box::new(kind), Box::new(limit)];
        if let Some((name, value)) = select.index {
            params.push(Box::new(name.to_owned()));
            params.push(Box::new(value.to_owned()));
        }
        if let Some(after) = select.after {
            params.push(Box::new(after.to_owned()));
        }
        self.rows(list_sql(select.index.is_some(), select.after.is_some(), select.newest_first), params)
    }

    fn apply(&self, changes: Vec<Change>) -> Answer<'_, ()> {
        if changes.is_empty() {
            // What can be read is committed.
            return Box::pin(std::future::ready(Ok(())));
        }
        let run = self.run("SELECT cardshop_apply($1, $2, $3, $4, $5, $6, $7)", Vec::new(), changes);
        Box::pin(async move { run.await.map(|_| ()) })
    }

    fn claim(&self, kind: &'static str, id: &str, version: u64, changes: Vec<Change>) -> Answer<'_, bool> {
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        let claimed: Params = vec![Box::new(kind), Box::new(id.to_owned()), Box::new(version)];
        let run =
            self.run("SELECT cardshop_claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)", claimed, changes);
        Box::pin(async move {
            match run.await {
                Err(StoreError::Conflict { .. }) => Ok(false),
                claimed => claimed,
            }
        })
    }

    fn dump(&self, sink: Sink<'_>) -> Result<(), StoreError> {
        let pool = self.pool.clone();
        // Two chunks wait at most: whoever writes them to a disk is slower than the database.
        let (give, chunks) = std::sync::mpsc::sync_channel::<Result<Vec<Row>, Failure>>(2);
        self.runtime().spawn(async move {
            if let Err(error) = dump_rows(&pool, &give).await {
                let _ = tokio::task::spawn_blocking(move || give.send(Err(error))).await;
            }
        });
        for chunk in chunks {
            let rows = chunk
                .map_err(|e| StoreError::Unreachable { store: self.shown.clone(), reason: e.to_string() })?;
            for row in &rows {
                sink(record(row)?).map_err(StoreError::Dump)?;
            }
        }
        Ok(())
    }

    fn is_healthy(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    fn leads(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    fn news(&self) -> Option<broadcast::Receiver<News>> {
        Some(self.news.subscribe())
    }
}

/// `$1` kind, `$2` limit, then name and value of an index, then the id before.
fn list_sql(indexed: bool, after: bool, newest_first: bool) -> &'static str {
    macro_rules! sql {
        ($from:literal, $after:literal, $order:literal) => {
            concat!(
                "SELECT d.kind, d.id, d.version, d.schema, d.indexes, d.body FROM ",
                $from,
                $after,
                " ORDER BY ",
                $order,
                " LIMIT $2"
            )
        };
    }
    macro_rules! plain {
        ($after:literal, $order:literal) => {
            sql!("cardshop_document d WHERE d.kind = $1", $after, $order)
        };
    }
    macro_rules! indexed {
        ($after:literal, $order:literal) => {
            sql!(
                "cardshop_index i JOIN cardshop_document d ON d.kind = i.kind AND d.id = i.id \
                 WHERE i.kind = $1 AND i.name = $3 AND i.value = $4",
                $after,
                $order
            )
        };
    }
    match (indexed, after, newest_first) {
        (false, false, false) => plain!("", "d.id"),
        (false, false, true) => plain!("", "d.id DESC"),
        (false, true, false) => plain!(" AND d.id > $3", "d.id"),
        (false, true, true) => plain!(" AND d.id < $3", "d.id DESC"),
        (true, false, false) => indexed!("", "i.id"),
        (true, false, true) => indexed!("", "i.id DESC"),
        (true, true, false) => indexed!(" AND i.id > $5", "i.id"),
        (true, true, true) => indexed!(" AND i.id < $5", "i.id DESC"),
    }
}

/// Sends all documents as one snapshot has them, in order.
async fn dump_rows(
    pool: &Pool,
    give: &std::sync::mpsc::SyncSender<Result<Vec<Row>, Failure>>,
) -> Result<(), Failure> {
    let mut client = pool.get().await?;
    let snapshot = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let sql = format!(
        "SELECT {COLUMNS} FROM cardshop_document d WHERE (d.kind, d.id) > ($1, $2) ORDER BY d.kind, d.id LIMIT $3"
    );
    let (mut kind, mut id) = (String::new(), String::new());
    loop {
        let rows = snapshot.query(&sql, &[&kind, &id, &(CHUNK as i64)]).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        (kind, id) = (last.get(0), last.get(1));
        let to = give.clone();
        let sent = tokio::task::spawn_blocking(move || to.send(Ok(rows)).is_ok()).await;
        if !sent.unwrap_or(false) {
            return Ok(());
        }
    }
}

/// Fills the database at `address` with documents, given by `fill`, all or none.
///
/// # Errors
/// `NotEmpty` when there is a document in it already, `Unreachable`.
pub(super) fn restore(
    address: PostgresAddress,
    fill: impl FnOnce(Sink<'_>) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let store = Postgres::open(address)?;
    let shown = store.shown.clone();
    let unreachable = |e: Failure| StoreError::Unreachable { store: shown.clone(), reason: e.to_string() };
    let (give, chunks) = mpsc::channel::<Vec<Record>>(2);
    let (done, answer) = std::sync::mpsc::sync_channel(1);
    let pool = store.pool.clone();
    store.runtime().spawn(async move {
        let _ = done.send(import(&pool, chunks).await);
    });
    let (mut chunk, mut documents) = (Vec::new(), 0);
    let filled = fill(&mut |record| {
        chunk.push(record);
        documents += 1;
        if chunk.len() < CHUNK {
            return Ok(());
        }
        // A closed channel: the answer says why.
        give.blocking_send(std::mem::take(&mut chunk))
            .map_err(|_| std::io::Error::other("the database refused"))
    });
    if filled.is_ok() {
        // An empty chunk is the end: only then is it all kept.
        let _ = give.blocking_send(chunk).and_then(|()| give.blocking_send(Vec::new()));
    }
    drop(give);
    match answer.recv().map_err(|_| StoreError::Stopped)? {
        Ok(true) => filled.map(|()| documents),
        Ok(false) => Err(StoreError::NotEmpty(shown)),
        Err(error) => filled.and(Err(unreachable(error))),
    }
}

/// False when there are documents already.
async fn import(pool: &Pool, mut chunks: mpsc::Receiver<Vec<Record>>) -> Result<bool, Failure> {
    let mut client = pool.get().await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute("LOCK TABLE cardshop_document IN EXCLUSIVE MODE").await?;
    if !transaction.query("SELECT 1 FROM cardshop_document LIMIT 1", &[]).await?.is_empty() {
        return Ok(false);
    }
    let sql = "INSERT INTO cardshop_document \
               SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::integer[], $5::text[], $6::text[])";
    loop {
        let Some(chunk) = chunks.recv().await else {
            return Err(Failure::Other("what is to be restored ended too early".into()));
        };
        if chunk.is_empty() {
            break;
        }
        let text = |of: &dyn Fn(&Record) -> String| chunk.iter().map(of).collect::<Vec<_>>();
        let (kinds, ids) = (text(&|r| r.kind.clone()), text(&|r| r.id.clone()));
        let versions: Vec<_> = chunk.iter().map(|r| i64::try_from(r.version).unwrap_or(i64::MAX)).collect();
        let schemas: Vec<_> = chunk.iter().map(|r| r.schema as i32).collect();
        let (indexes, bodies) = (text(&|r| json(&r.index)), text(&|r| json(&r.body)));
        transaction.execute(sql, &[&kinds, &ids, &versions, &schemas, &indexes, &bodies]).await?;
    }
    let indexes = "INSERT INTO cardshop_index SELECT DISTINCT d.kind, e.value ->> 0, e.value ->> 1, d.id \
                   FROM cardshop_document d, json_array_elements(d.indexes::json) e";
    transaction.batch_execute(indexes).await?;
    transaction.commit().await?;
    Ok(true)
}
