//! One build whose image goes to a warehouse on the way, as a creator does it: how long the index took, and how much of
//! the upload was done when the build had ended. The warehouse is a real one, in this process and on the same disk.

use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::Context;
use cardshop_card::StopFlag;
use cardshop_creator::{
    Backoff, EarlyUpload, Growing, LocalFiles, Options, Policy, Recipe, Uploader, Watcher,
};
use cardshop_protocol::api::CreationPhase;
use cardshop_protocol::ids::{OrderId, TaskId};
use cardshop_protocol::index::Index;
use cardshop_protocol::keys::{KeyList, KeyUse, PublicKey, generate};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::{Claims, ISSUER, Role, SharedKeys, TokenSigner};
use ureq::tls::RootCerts;

/// How long the creator's token is good, seconds: longer than any benchmark.
const TOKEN_LIFE_S: u64 = 24 * 3600;

/// What it took.
pub(super) struct Uploaded {
    /// The whole build.
    pub(super) build_s: f64,
    /// Of it, telling what is data and digesting what was not digested on the way.
    pub(super) index_s: f64,
    /// Until the warehouse shows the image.
    pub(super) shown_s: f64,
    /// Share of the image that the warehouse had when the build ended.
    pub(super) share: f64,
    pub(super) index_bytes: usize,
    pub(super) chunks: usize,
    pub(super) extents: usize,
}

/// Builds and uploads.
pub(super) fn run(recipe: &Path, folder: &Path, stop: &StopFlag) -> anyhow::Result<Uploaded> {
    std::fs::create_dir(folder)?;
    let task = TaskId::creation(OrderId::from_parts(1, 1));
    let key = generate().context("the system has no randomness to give")?;
    let keys = SharedKeys::default();
    keys.replace(KeyList {
        items: vec![PublicKey::new(&key.verifying_key(), KeyUse::Jwt)],
        ..KeyList::default()
    });
    let token = token(&TokenSigner::new(&key), task);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let config = cardshop_warehouse::Config::new("127.0.0.1:0".parse()?, folder.join("warehouse"));
    let warehouse = runtime.block_on(cardshop_warehouse::start(config, keys))?;
    let done = build(recipe, folder, &warehouse.url(), task, &token, stop);
    runtime.block_on(warehouse.shutdown());
    std::fs::remove_dir_all(folder)?;
    done
}

fn token(signer: &TokenSigner, task: TaskId) -> String {
    let now = Timestamp::from_system(SystemTime::now()).as_secs();
    signer.sign(&Claims {
        iss: ISSUER.into(),
        sub: "bench".into(),
        role: Role::Creator,
        channel: vec!["bench".parse().expect("a slug")],
        scope: Some(Claims::upload_scope(task)),
        epoch: 0,
        jti: "1".into(),
        iat: now,
        exp: now + TOKEN_LIFE_S,
        signed_by: None,
    })
}

fn build(
    recipe: &Path,
    folder: &Path,
    warehouse: &str,
    task: TaskId,
    token: &str,
    stop: &StopFlag,
) -> anyhow::Result<Uploaded> {
    let text = std::fs::read_to_string(recipe)?;
    let growing = Arc::new(Growing::default());
    let grows = Arc::clone(&growing);
    let watcher = Watcher::new(|_| (), |_| ()).with_final(move |image, upto| {
        if let Err(error) = grows.written(image, upto) {
            tracing::warn!(%error, "the image is not uploaded while it is built");
        }
    });
    let image = folder.join("card.img");
    let options = Options {
        image: image.clone(),
        cache: folder.join("cache"),
        local_files: LocalFiles::Any { relative_to: recipe.with_file_name("") },
        max_image_bytes: None,
        backoff: Backoff::default(),
        offline: true,
        policy: Policy::default(),
        watcher,
    };
    let recipe = Recipe::from_text(&text)?;
    let begun = Instant::now();
    let (mut index_since, backoff) = (None, Backoff::default());
    let early = EarlyUpload { warehouse, task, name: "bench", backoff, roots: RootCerts::WebPki };
    let token = || token.to_owned();
    let (index, build_s, share): (Index, _, _) = std::thread::scope(|scope| {
        let upload = scope.spawn(|| early.run(&growing, &token));
        let built = cardshop_creator::build(&recipe, &options, stop, &mut |progress| {
            if progress.phase == CreationPhase::Indexing {
                index_since.get_or_insert_with(Instant::now);
            }
        });
        let (built, build_s) = match built {
            Ok(built) => (built, begun.elapsed().as_secs_f64()),
            Err(error) => {
                growing.abandon();
                return Err(anyhow::Error::from(error).context("the build failed"));
            }
        };
        let share = growing.sent() as f64 / built.index.image_size() as f64;
        upload.join().expect("an upload does not panic").context("the upload failed")?;
        Ok((built.index, build_s, share))
    })?;
    let index_s = index_since.map_or(0.0, |since| build_s - since.duration_since(begun).as_secs_f64());
    let mut rest = Uploader::new(warehouse, task, "bench", &image, &index, backoff)?;
    rest.run(&token, stop, &mut |_, _| ()).context("the index is refused")?;
    Ok(Uploaded {
        build_s,
        index_s,
        shown_s: begun.elapsed().as_secs_f64(),
        share,
        index_bytes: index.encode().len(),
        chunks: index.chunks().len(),
        extents: index.extents().len(),
    })
}
