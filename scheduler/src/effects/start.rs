//! Opens a scheduler: store, secrets, and on the first start the first user, channel, media and warehouses.

use std::os::unix::fs::DirBuilderExt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use cardshop_protocol::token::Role;
use tokio::sync::Notify;

use super::Inner;
use super::accounts::Throttles;
use super::ask::Outside;
use super::catalogue::unique_slug;
use super::clock::{Clock, Ids, check_randomness};
use super::commands::Reflexes;
use super::content::Content;
use super::jobs::Jobs;
use super::join::Nonces;
use super::keeping::{backups, make_folder};
use super::keys::Keys;
use super::link::BrokerAddress;
use super::live::Live;
use super::metrics::Metrics;
use super::notify::Post;
use super::passwords::{Passwords, random_password};
use super::retained::Retained;
use super::users::unique_name;
use crate::core::documents::{
    ChannelDocument, DEFAULT_CHANNEL, MEDIA_SIZES_GB, Media, Story, User, usable_bytes,
};
use crate::core::picture::Picture;
use crate::store::{Batch, KINDS, Select, Store, StoreAddress, StoreError, upgrade};
use crate::{Config, Scheduler, SchedulerError};

/// Login name of the first user.
const ADMIN: &str = "admin";

/// The first user of a new site. Told once; `Debug` hides the password.
#[derive(Clone)]
pub struct FirstLogin {
    /// Login name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for FirstLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FirstLogin({}, password hidden)", self.username)
    }
}

impl Scheduler {
    /// Opens or makes the scheduler of `config.data`. The login is given at the very first start only.
    ///
    /// # Errors
    /// `Config` for an address that cannot work, `Store` when the data directory is in use or damaged.
    pub async fn open(config: Config) -> Result<(Self, Option<FirstLogin>), SchedulerError> {
        let own = || StoreAddress::Directory(config.data.join("store"));
        let address = config.keeping.store.clone().unwrap_or_else(own);
        let open = move || address.open();
        Self::open_on(config, open, (Clock::default(), Ids::default()), Outside::Http).await
    }

    /// [`Scheduler::open`] on any store and clock.
    pub(crate) async fn open_on(
        mut config: Config,
        open: impl FnOnce() -> Result<Store, StoreError> + Send + 'static,
        (clock, ids): (Clock, Ids),
        outside: Outside,
    ) -> Result<(Self, Option<FirstLogin>), SchedulerError> {
        check_randomness()?;
        BrokerAddress::parse(&config.mqtt_url)?.transport(config.mqtt_ca.as_deref())?;
        config.appliance_mqtt_url.as_deref().map(BrokerAddress::parse).transpose()?;
        config.public_url = config.public_url.trim_end_matches('/').to_owned();
        for url in &mut config.warehouses {
            *url = url.trim_end_matches('/').to_owned();
            if !url.starts_with("http://") && !url.starts_with("https://") {
                let text = format!("warehouse address {url} does not begin with http:// or https://");
                return Err(SchedulerError::Config(text));
            }
        }
        if let Some(url) = &config.catalogue.url
            && !url.starts_with("http://")
            && !url.starts_with("https://")
        {
            let text = "the catalogue's address does not begin with http:// or https://";
            return Err(SchedulerError::Config(text.into()));
        }
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data);
        made.map_err(|e| SchedulerError::Config(format!("{} cannot be made: {e}", config.data.display())))?;
        let store = tokio::task::spawn_blocking(open).await.map_err(|_| SchedulerError::Busy)??;
        let started = clock.now();
        upgrade(&store, KINDS, || {
            make_folder(&backups(&config.data))?;
            let path = backups(&config.data).join(format!("before-upgrade-{started}.jsonl"));
            store.back_up(&path).map(|_| ())
        })
        .await?;
        let inner = Inner {
            post: Post::new(&config.notify, &config.roots)?,
            keys: Keys::open(&store).await?,
            passwords: Passwords::new(),
            throttles: Mutex::new(Throttles::default()),
            key_uses: Mutex::default(),
            nonces: Mutex::new(Nonces::default()),
            picture: Mutex::new(Picture::default()),
            creators: Mutex::default(),
            seen: Mutex::default(),
            jobs: Jobs::default(),
            content: Content::default(),
            live: Live::new(started),
            retained: Retained::default(),
            reflexes: Reflexes::default(),
            supports: Default::default(),
            metrics: Metrics::default(),
            discovery_due: AtomicBool::new(false),
            replan: Notify::new(),
            work: Notify::new(),
            link_anew: Notify::new(),
            leads: store.leads(),
            ids,
            outside,
            config,
            store,
            clock,
            start: AtomicU64::new(0),
            started,
        };
        let scheduler = Self { inner: Arc::new(inner) };
        scheduler.next_start().await?;
        let login = match scheduler.first_start().await {
            // Of several that start at once on an empty database one makes the first user.
            Err(SchedulerError::Store(StoreError::Conflict { .. })) => None,
            login => login?,
        };
        scheduler.add_warehouses().await?;
        scheduler.tell_repair().await?;
        scheduler.test_at_start().await?;
        scheduler.publish_keys()?;
        scheduler.show_site()?;
        Ok((scheduler, login))
    }

    /// Where people reach the site, no slash at the end.
    pub fn public_url(&self) -> &str {
        &self.inner.config.public_url
    }

    /// True when browsers may be told to ask this host under TLS only: they then do so at every port, the warehouses' too.
    pub fn is_all_encrypted(&self) -> bool {
        let config = &self.inner.config;
        std::iter::once(&config.public_url).chain(&config.warehouses).all(|url| url.starts_with("https://"))
    }

    /// The store was damaged and is whole again: somebody should look at the disk.
    async fn tell_repair(&self) -> Result<(), SchedulerError> {
        let Some(what) = self.inner.store.repaired() else { return Ok(()) };
        let mut batch = Batch::new();
        batch.create(&Story {
            id: self.next_id(),
            at: self.now(),
            kind: "store_repaired".into(),
            text: format!(
                "The store was damaged on the disk and was put together again; nothing is lost: {what}. \
                 Look at the disk."
            ),
            order: None,
            appliance: None,
            channel: None,
        });
        Ok(self.inner.store.apply(batch).await?)
    }

    async fn first_start(&self) -> Result<Option<FirstLogin>, SchedulerError> {
        let select = Select { limit: 1, ..Select::default() };
        if !self.inner.store.list::<User>(select)?.is_empty() {
            return Ok(None);
        }
        let password = self.inner.config.admin_password.clone().unwrap_or_else(random_password);
        let admin = User {
            id: self.next_id(),
            username: ADMIN.into(),
            password: self.inner.passwords.hash(password.clone()).await?,
            role: Role::Staff,
            channels: Vec::new(),
            organization: None,
            email: None,
            expires: None,
            anonymised: false,
            links_only: false,
            hook: None,
            disabled: false,
            epoch: 0,
            epoch_raised: None,
            created: self.now(),
        };
        let channel = ChannelDocument {
            id: self.next_id(),
            slug: DEFAULT_CHANNEL.parse().expect("a slug"),
            name: "Default".into(),
            active: true,
            private: false,
            sender_name: String::new(),
            sender_address: String::new(),
            sender_email: String::new(),
        };
        let mut batch = Batch::new();
        batch.create(&unique_name(&admin)).create(&admin);
        batch.create(&unique_slug(&channel)).create(&channel);
        for size in MEDIA_SIZES_GB {
            let advertised_bytes = size * 1_000_000_000;
            batch.create(&Media {
                id: self.next_id(),
                name: format!("{size} GB"),
                kind: "sd".into(),
                advertised_bytes,
                usable_bytes: usable_bytes(advertised_bytes),
            });
        }
        self.inner.store.apply(batch).await?;
        Ok(Some(FirstLogin { username: ADMIN.into(), password }))
    }
}
