//! The agent's settings: one TOML file, read once at start. Where things lie, which slots there are, and the
//! virtual bench. What the scheduler decides (leases, names, holds) is not here.

use std::path::{Path, PathBuf};

use cardshop_protocol::ids::SlotId;
use serde::Deserialize;

/// Longest configuration or join file, bytes. Ours are below 1 KiB.
pub(crate) const MAX_FILE_SIZE: u64 = 64 * 1024;
/// Most slots of one appliance: four 16-port hubs.
pub const MAX_SLOTS: usize = 64;

/// Most connections for one image: what servers commonly allow one address.
pub const MAX_CONNECTIONS: u32 = 16;

/// Settings of one agent.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of `state` (key, identity, journal) and `cache` (images).
    pub data: PathBuf,
    /// The join file.
    pub join: PathBuf,
    /// PEM: CAs that the broker's certificate is to be of, for `mqtts://`; the system's when it is not given.
    #[serde(default)]
    pub mqtt_ca: Option<PathBuf>,
    /// Slots whose device never changes.
    #[serde(default, rename = "slot")]
    pub slots: Vec<SlotConfig>,
    /// Every reader that is plugged in has slots.
    #[serde(default)]
    pub readers: bool,
    /// Says on every console of the kernel where this appliance stands.
    #[serde(default)]
    pub screens: bool,
    /// Lights, screen and keyboard of this machine, and what may be done with it.
    #[serde(default)]
    pub bench: BenchConfig,
    /// Where the boot loader has what it starts.
    #[serde(default)]
    pub update: UpdateConfig,
    /// Virtual slots with an operator of their own.
    #[serde(default)]
    pub simulate: Option<SimulateConfig>,
    /// How images are fetched.
    #[serde(default)]
    pub fetch: FetchConfig,
    /// How much of the disk images may take.
    #[serde(default)]
    pub cache: CacheConfig,
}

/// Lights, screen and keyboard of this machine, and what may be done with it from there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BenchConfig {
    /// The kernel's LEDs: those called `cardshop:{slot}:{colour}` are lit.
    pub leds: PathBuf,
    /// Serial ports at which a LED panel may be; the first that answers is used.
    pub panel: Vec<PathBuf>,
    /// The terminal that shows the console and has the keyboard.
    pub console: Option<PathBuf>,
    /// Program that restarts this machine; without it a restart is refused.
    pub reboot: Option<PathBuf>,
    /// Program that applies what `NETWORK.TXT` beside the join file says; without it the network is not changed here.
    pub network: Option<PathBuf>,
}

impl Default for BenchConfig {
    fn default() -> Self {
        let leds = "/sys/class/leds".into();
        Self { leds, panel: Vec::new(), console: None, reboot: None, network: None }
    }
}

/// Where the boot loader has what it starts. Without a partition set there, nothing is ever updated.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateConfig {
    /// Where the boot partition is mounted.
    pub boot: PathBuf,
    /// The kernel's command line, in which the boot loader says what it has started.
    pub command_line: PathBuf,
    /// Made when it is decided whether a version that is tried is kept.
    pub decided: PathBuf,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            boot: "/media/boot".into(),
            command_line: "/proc/cmdline".into(),
            decided: "/run/cardshop-decided".into(),
        }
    }
}

/// How images are fetched.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FetchConfig {
    /// Connections for one image. Eight are what it takes on a line with losses (see `cardshop bench fetch`).
    pub connections: u32,
    /// Most bytes a second for all images together; no limit when it is not given.
    pub max_bps: Option<u64>,
    /// `http://`, `https://` or `socks5://` address of a proxy; the environment's when it is not given. Addresses of
    /// this machine are never asked for through it.
    pub proxy: Option<String>,
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self { connections: 8, max_bps: None, proxy: None }
    }
}

/// A proxy's address may hold a password.
impl std::fmt::Debug for FetchConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { connections, max_bps, proxy } = self;
        let proxy = proxy.as_ref().map(|_| "hidden");
        f.debug_struct("FetchConfig")
            .field("connections", connections)
            .field("max_bps", max_bps)
            .field("proxy", &proxy)
            .finish()
    }
}

/// How much of the disk images may take, and where else they may come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Most bytes of all images together; the disk decides when it is not given.
    pub max_bytes: Option<u64>,
    /// Bytes of the disk that stay free.
    pub keep_free_bytes: u64,
    /// A folder with images brought by hand, laid out like a warehouse's; a disk labelled `CARDSHOP-CACHE` is looked
    /// for when it is not given.
    pub disk: Option<PathBuf>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { max_bytes: None, keep_free_bytes: 64 * 1024 * 1024, disk: None }
    }
}

/// A slot with a fixed device: a loop device, or a file that stands for a card.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotConfig {
    /// Its id.
    pub id: SlotId,
    /// A card is in it while this exists and is not empty.
    pub device: PathBuf,
}

/// Virtual slots: cards are sparse files, and an operator who does what the slots ask for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimulateConfig {
    /// How many slots.
    pub slots: u32,
    /// Folder of the cards; `cards` beside `state` when it is not given.
    pub cards: Option<PathBuf>,
    /// Sizes of the cards, bytes, used in turn.
    pub card_sizes: Vec<u64>,
    /// How long the operator takes for everything, milliseconds.
    pub insert_delay_ms: u64,
    /// How fast a card takes bytes, bytes a second; no limit when it is not given.
    pub write_bps: Option<u64>,
}

impl Default for SimulateConfig {
    fn default() -> Self {
        Self {
            slots: 4,
            cards: None,
            card_sizes: vec![8_000_000_000, 16_000_000_000, 4_000_000_000],
            insert_delay_ms: 300,
            write_bps: None,
        }
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not the TOML it should be.
    #[error("{} is not valid", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// It contradicts itself.
    #[error("the configuration {0}")]
    Contradiction(String),
}

impl Config {
    /// Reads a configuration file. [`Config::check`] is asked by [`crate::run`], after flags had their say.
    ///
    /// # Errors
    /// `Read` or `Parse`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.into(), source };
        let text = read_bounded(path).map_err(read)?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })
    }

    /// What of it nobody else may read: the name and password in a proxy's address.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let proxy = self.fetch.proxy.iter().filter_map(|url| url.split_once("://")?.1.rsplit_once('@'));
        proxy.flat_map(|(user, _)| user.split(':').map(str::to_owned).chain([user.to_owned()])).collect()
    }

    /// Checks what the types do not: slots are few and have different ids.
    ///
    /// # Errors
    /// `Contradiction`.
    pub fn check(&self) -> Result<(), ConfigError> {
        let ids = self.slot_ids();
        let mut distinct = ids.clone();
        distinct.sort();
        distinct.dedup();
        if distinct.len() < ids.len() {
            return Err(ConfigError::Contradiction("names a slot twice".into()));
        }
        if self.readers && !ids.is_empty() {
            return Err(ConfigError::Contradiction(
                "has readers and other slots, whose ids could meet".into(),
            ));
        }
        if ids.is_empty() && !self.readers || ids.len() > MAX_SLOTS {
            return Err(ConfigError::Contradiction(format!(
                "has {} slots, 1 to {MAX_SLOTS} are possible",
                ids.len()
            )));
        }
        if !(1..=MAX_CONNECTIONS).contains(&self.fetch.connections) {
            return Err(ConfigError::Contradiction(format!(
                "has {} connections for an image, 1 to {MAX_CONNECTIONS} are possible",
                self.fetch.connections
            )));
        }
        if self.simulate.as_ref().is_some_and(|s| s.slots > 0 && s.card_sizes.is_empty()) {
            return Err(ConfigError::Contradiction("has virtual slots and no card_sizes".into()));
        }
        Ok(())
    }

    /// All slots: fixed ones, then virtual ones as `s01`, `s02` …
    pub fn slot_ids(&self) -> Vec<SlotId> {
        let virtual_slots = self.simulate.as_ref().map_or(0, |s| s.slots);
        let fixed = self.slots.iter().map(|s| s.id.clone());
        fixed.chain((1..=virtual_slots).map(SlotId::numbered)).collect()
    }
}

/// The line, from 1, at which `text` is no TOML.
pub(crate) fn line_of(text: &str, error: &toml::de::Error) -> usize {
    let at = error.span().map_or(0, |span| span.start);
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Reads a text file that nobody should have made larger than [`MAX_FILE_SIZE`].
pub(crate) fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE_SIZE).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn a_configuration_names_fixed_and_virtual_slots() {
        let text = r#"
            data = "/var/lib/cardshop"
            join = "/boot/JOIN.TXT"
            [[slot]]
            id = "left"
            device = "/dev/loop7"
            [simulate]
            slots = 2
            card_sizes = [1000000, 64]
        "#;
        let config = load(text).unwrap();
        let ids: Vec<String> = config.slot_ids().iter().map(ToString::to_string).collect();
        assert_eq!(ids, ["left", "s01", "s02"]);
        assert_eq!(config.simulate.unwrap().insert_delay_ms, 300);
    }

    #[test]
    fn readers_need_no_slot_of_their_own_in_the_settings() {
        let config = load("data = \"/d\"\njoin = \"/j\"\nreaders = true").unwrap();
        assert!(config.check().is_ok() && config.slot_ids().is_empty());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_reason() {
        let base = "data = \"/d\"\njoin = \"/j\"\n";
        for (text, reason) in [
            ("", "0 slots"),
            ("[simulate]\nslots = 2\ncard_sizes = []", "no card_sizes"),
            ("[[slot]]\nid = \"s01\"\ndevice = \"/dev/x\"\n[simulate]\nslots = 1", "twice"),
            ("[simulate]\nslots = 65", "65 slots"),
            ("readers = true\n[simulate]\nslots = 1", "readers and other slots"),
            ("[simulate]\nslots = 1\n[fetch]\nconnections = 0", "0 connections"),
        ] {
            let error = load(&format!("{base}{text}")).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(matches!(load("colour = 1"), Err(ConfigError::Parse { .. })));
    }

    #[test]
    fn a_proxys_password_is_not_in_what_is_logged() {
        let text = "data = \"/d\"\njoin = \"/j\"\n[fetch]\nproxy = \"http://me:secret@proxy:3128\"\n\
                    max_bps = 1000000\n[cache]\nmax_bytes = 64000000000\ndisk = \"/media/images\"";
        let config = load(text).unwrap();
        assert!(!format!("{config:?}").contains("secret"));
        assert_eq!((config.fetch.connections, config.fetch.max_bps), (8, Some(1_000_000)));
        assert_eq!(config.cache.max_bytes, Some(64_000_000_000));
    }
}
