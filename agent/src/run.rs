//! The agent's main thread: takes events one by one, asks the shop what follows, and does it in order. A fact
//! that cannot be put on the disk ends the agent: nothing may be called done that is not on record.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cardshop_card::{FailureNote, StopFlag};
use cardshop_protocol::ids::{ApplianceId, SlotId};
use cardshop_protocol::keys::appliance_id;
use cardshop_protocol::message::{
    CommandReply, Hardware, Health, Info, Presence, Progress, Remedy, SlotInfo, SlotState, VERSION,
};
use cardshop_protocol::topic::ApplianceTopic;
use ed25519_dalek::SigningKey;

use crate::config::{Config, ConfigError};
use crate::core::book::Book;
use crate::core::console::ConsoleView;
use crate::core::notice::{Notice, Surroundings, notice};
use crate::core::{Effect, Event, Failure, Finding, Message, Shop, SlotEvent, Work};
use crate::effects::bell::Bell;
use crate::effects::cache::Cache;
use crate::effects::cache_disk::{self, CacheDisk};
use crate::effects::clock::Clock;
use crate::effects::console::Shown;
use crate::effects::devices::Devices;
use crate::effects::errands::{Errands, LastTold};
use crate::effects::fetch::{Fetcher, Pace, Shared, SignatureRule, Tokens};
use crate::effects::fixed_slots::Place;
use crate::effects::http::Http;
use crate::effects::lights::Lights;
use crate::effects::mqtt::{Link, LinkConfig};
use crate::effects::outbox::{Outbox, OutboxError};
use crate::effects::readers::Finder;
use crate::effects::screen::{self, Screen};
use crate::effects::session::{Identity, Session};
use crate::effects::slot_book::{self, SlotBook};
use crate::effects::state::{StateError, StateFolder};
use crate::effects::virtual_bench::{TOLD, Told};
use crate::effects::{
    console, fixed_slots, http, join_file, kernel_leds, logs, machine, mqtt, panel, probe, readers, session,
    uevents, update, virtual_bench, writer,
};

/// Events that may wait; whoever makes more of them waits until the shop has caught up.
const EVENTS: usize = 1024;
/// Time passes for the shop at least this often.
const TICK: Duration = Duration::from_millis(250);
/// The console is told this often what there is to show.
const CONSOLE_EVERY: Duration = Duration::from_millis(250);
/// Health is published this often. **Source:** `broker/protocol/README.md`.
const HEALTH_EVERY: Duration = Duration::from_secs(30);
/// Longest wait for writers at a clean end: a stop is noticed between requests, a sync can take seconds.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How long a start waits for an agent that was killed a moment ago.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Room for log lines in a reply: control characters double in JSON, and the payload is at most 8 KiB.
const LOG_REPLY_SIZE: usize = 3 * 1024;

/// Why the agent ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state folder is not usable.
    #[error(transparent)]
    State(#[from] StateError),
    /// Facts can no longer be recorded.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The cache folder, or a thread, is not to be had.
    #[error("cannot start {what}")]
    Start {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A thread that lives as long as the agent has ended: without it the agent would only look alive.
    #[error("a thread of the agent ended by itself: the log says why, and a restart is safe")]
    ThreadEnded,
}

fn start_error(what: &'static str) -> impl FnOnce(std::io::Error) -> AgentError {
    move |source| AgentError::Start { what, source }
}

/// Runs an appliance until `stop` is raised: blocking, with threads of its own. At a clean end no card is
/// being written and the broker knows that the agent stopped.
///
/// # Errors
/// Any [`AgentError`].
pub fn run(config: Config, stop: StopFlag) -> Result<(), AgentError> {
    config.check()?;
    // Refused when the process has one already, which is then used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (mut agent, events) = Agent::start(config)?;
    let result = agent.work(&events, &stop);
    drop(events);
    agent.end();
    result
}

/// Everything the main thread holds.
struct Agent {
    shop: Shop,
    outbox: Outbox,
    clock: Clock,
    devices: Devices,
    fetcher: Option<Fetcher>,
    link: Link,
    session: Session,
    /// Told of every slot's state; `None` without virtual slots.
    operator: Option<SyncSender<Told>>,
    events: SyncSender<Event>,
    /// What this thread tells itself: it must not wait for room in its own queue.
    own: VecDeque<Event>,
    state: Arc<StateFolder>,
    /// The slots, as the readers' thread sees them.
    book: SlotBook,
    /// Makes that thread look.
    bell: Bell,
    lights: Lights,
    /// Shows where the appliance stands, where the settings say so.
    screen: Option<Screen>,
    /// What the console shows, and when it was told last.
    console: Option<(Shown, Instant)>,
    told: LastTold,
    progress: BTreeMap<SlotId, Progress>,
    connected: bool,
    writers: BTreeMap<(SlotId, u64), StopFlag>,
    slots_stop: StopFlag,
    key: Arc<SigningKey>,
    appliance: ApplianceId,
    /// What the broker was told at the start; slots found since come on top.
    info: Info,
    config: Config,
    cache: Cache,
    received: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
    started: Instant,
    updates: Updates,
    http: Http,
    /// When health was last published, and how many bytes had been received.
    health: (Instant, u64),
}

impl Agent {
    /// Starts all threads and carries out the shop's first effects.
    fn start(config: Config) -> Result<(Self, Receiver<Event>), AgentError> {
        let state = Arc::new(StateFolder::open(&config.data.join("state"), LOCK_PATIENCE)?);
        let key = state.key()?;
        let appliance = appliance_id(&key.verifying_key());
        let (outbox, history) = Outbox::open(&state.path("outbox"))?;
        let cache = Cache::open(&config.data.join("cache"), config.cache.clone());
        let cache = cache.map_err(start_error("the cache"))?;
        let (events, happened) = sync_channel(EVENTS);
        let (clock, devices, session) = (Clock::default(), Devices::default(), Session::default());
        let mut effects = Vec::new();
        let book = SlotBook::open(&state);
        let mut shop = Shop::start(clock.now(), history, &config.slot_ids(), &mut effects);
        shop.open_book(book.get(), config.bench.reboot.is_some());
        tracing::info!(%appliance, boot = shop.history().boot(), "starting");

        let http = http::client_through(config.fetch.proxy.as_deref())
            .map_err(|error| ConfigError::Contradiction(format!("has a [fetch] proxy of no use: {error}")))?;
        let http = Http::new(http);
        let (received, disk) = (Arc::new(AtomicU64::new(0)), CacheDisk::default());
        let fetcher = Fetcher::new(Shared {
            http: http.clone(),
            tokens: Tokens::Session(session.clone()),
            cache: cache.clone(),
            disk: disk.clone(),
            pace: Pace::new(config.fetch.connections, config.fetch.max_bps),
            clock: clock.clone(),
            events: events.clone(),
            received: Arc::clone(&received),
            any_address: false,
        });
        let hardware = machine::hardware();
        let label = join_file::read(&config.join).map(|f| f.label).ok();
        let label = label.or_else(|| state.member().map(|m| m.label)).unwrap_or_default();
        let updates = Updates::start(&config, &state);
        let info = Info { system: updates.system(), ..info(&config, &book.get(), label, hardware.clone()) };
        let (link, line) = mqtt::start(LinkConfig {
            appliance,
            boot: shop.history().boot(),
            info: info.clone(),
            session: session.clone(),
            clock: clock.clone(),
            ca: config.mqtt_ca.clone(),
            http: http.clone(),
            events: events.clone(),
        })
        .map_err(start_error("the line to the broker"))?;
        let mut agent = Self {
            shop,
            outbox,
            clock,
            devices,
            fetcher: Some(fetcher),
            link,
            session,
            operator: None,
            events,
            own: VecDeque::new(),
            state: Arc::clone(&state),
            book,
            bell: Bell::default(),
            lights: Lights::default(),
            screen: config.screens.then(|| Screen::new(config.bench.console.is_some())),
            console: None,
            told: LastTold::default(),
            progress: BTreeMap::new(),
            connected: false,
            writers: BTreeMap::new(),
            slots_stop: StopFlag::new(),
            key: Arc::new(key.clone()),
            appliance,
            info,
            config,
            cache,
            received,
            threads: vec![line],
            started: Instant::now(),
            updates,
            http: http.clone(),
            health: (Instant::now(), 0),
        };
        // This start is on record before anybody hears of it.
        agent.carry_out(effects)?;
        let (folder, place) = (agent.config.cache.disk.clone(), agent.config.data.join("cache-disk"));
        let finder = cache_disk::start(disk, folder, place, agent.slots_stop.clone());
        agent.threads.push(finder.map_err(start_error("the search for a disk with images"))?);
        let last_desired = state.desired();
        let console_http = http.clone();
        agent.start_threads(http, Identity { key, hardware }, state)?;
        agent.start_lights()?;
        agent.start_console(console_http)?;
        // Leases go on while nobody is there to repeat them.
        if let Some(desired) = last_desired {
            agent.step(Event::Desired(Box::new(desired)))?;
        }
        Ok((agent, happened))
    }

    fn start_threads(
        &mut self,
        http: Http,
        identity: Identity,
        state: Arc<StateFolder>,
    ) -> Result<(), AgentError> {
        let bench = state.path("bench.json");
        let finder = Finder {
            book: self.book.clone(),
            devices: self.devices.clone(),
            events: self.events.clone(),
            bell: self.bell.clone(),
            listed: Arc::clone(&self.updates.readers_listed),
            stop: self.slots_stop.clone(),
        };
        if self.config.readers {
            self.threads.push(readers::start(finder).map_err(start_error("the readers"))?);
            match uevents::start(self.bell.clone(), self.slots_stop.clone()) {
                Ok(thread) => self.threads.push(thread),
                Err(error) => tracing::warn!(%error, "the kernel is not heard: looking once a second"),
            }
        }
        let session = session::start(&self.session, http, identity, state, self.config.join.clone());
        self.threads.push(session.map_err(start_error("the session"))?);
        for slot in self.config.slots.clone() {
            let (devices, events) = (self.devices.clone(), self.events.clone());
            let place = Place::Path(slot.device);
            let stop = self.slots_stop.clone();
            let thread = fixed_slots::start(slot.id, place, devices, events, Bell::default(), stop);
            self.threads.push(thread.map_err(start_error("the slots"))?);
        }
        if let Some(simulate) = self.config.simulate.clone().filter(|s| s.slots > 0) {
            let folder = simulate.cards.clone().unwrap_or_else(|| self.config.data.join("cards"));
            let (tell, told) = sync_channel(TOLD);
            let (devices, events) = (self.devices.clone(), self.events.clone());
            let thread = virtual_bench::start(simulate, &folder, bench, devices, events, told);
            self.threads.push(thread.map_err(start_error("the virtual bench"))?);
            for (slot, state) in self.shop.shown() {
                // The queue is empty and longer than the slots are many.
                let _ = tell.try_send((slot.clone(), state.state));
            }
            self.operator = Some(tell);
        }
        Ok(())
    }

    fn start_lights(&mut self) -> Result<(), AgentError> {
        let leds = kernel_leds::start(self.config.bench.leds.clone(), self.lights.clone());
        self.threads.push(leds.map_err(start_error("the LEDs"))?);
        let ports = self.config.bench.panel.clone();
        if !ports.is_empty() {
            let panel = panel::start(ports, self.lights.clone(), self.events.clone());
            self.threads.push(panel.map_err(start_error("the LED panel"))?);
        }
        for (slot, state) in self.shop.shown() {
            self.lights.set(slot, state.led);
        }
        Ok(())
    }

    fn start_console(&mut self, http: Http) -> Result<(), AgentError> {
        let Some(terminal) = self.config.bench.console.clone() else { return Ok(()) };
        let shown = Shown::default();
        let errands = Errands {
            http,
            state: Arc::clone(&self.state),
            join: self.config.join.clone(),
            network: self.config.bench.network.clone(),
            told: self.told.clone(),
            secrets: self.config.secrets(),
            trying: Arc::default(),
        };
        let stop = self.slots_stop.clone();
        let thread = console::start(terminal, shown.clone(), errands, self.events.clone(), stop);
        self.threads.push(thread.map_err(start_error("the console"))?);
        self.console = Some((shown, Instant::now()));
        self.show_console();
        Ok(())
    }

    /// Tells the console what there is to show.
    fn show_console(&mut self) {
        let view = self.view();
        if let Some((shown, told)) = &mut self.console {
            shown.set(view);
            *told = Instant::now();
        }
    }

    /// What there is to show of this appliance.
    fn view(&self) -> ConsoleView {
        let server = self.state.member().map(|member| member.server);
        ConsoleView {
            label: self.info.label.clone(),
            appliance: self.appliance.to_string(),
            version: self.info.agent_version.clone(),
            notice: Some(self.notice()),
            server: server
                .or_else(|| Some(join_file::read(&self.config.join).ok()?.server))
                .unwrap_or_default(),
            connected: self.connected,
            addresses: machine::addresses(),
            time: self.clock.now().to_string(),
            bench: self.shop.bench(),
            progress: self.progress.clone(),
            told: self.told.last(),
            update: self.updates.line(),
        }
    }

    fn notice(&self) -> Notice {
        let slots = self.shop.shown().count();
        let around = Surroundings { network: screen::has_route(), connected: self.connected, slots };
        notice(&self.session.standing(), around)
    }

    fn work(&mut self, events: &Receiver<Event>, stop: &StopFlag) -> Result<(), AgentError> {
        let mut ending: Option<Instant> = None;
        loop {
            let event = match events.recv_timeout(TICK) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => Event::Tick,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            self.step(event)?;
            if stop.is_stopped() && ending.is_none() {
                tracing::info!("stopping");
                ending = Some(Instant::now());
                self.step(Event::Stop)?;
            }
            if let Some(since) = ending
                && (self.shop.is_quiet() || since.elapsed() > END_LIMIT)
            {
                return Ok(());
            }
            if ending.is_none() && self.threads.iter().any(JoinHandle::is_finished) {
                return Err(AgentError::ThreadEnded);
            }
            self.look_after_updates()?;
            self.publish_health();
            self.show_standing();
        }
    }

    fn show_standing(&mut self) {
        if self.console.as_ref().is_some_and(|(_, told)| told.elapsed() >= CONSOLE_EVERY) {
            self.show_console();
        }
        if self.screen.is_some() {
            let notice = self.notice();
            self.screen.iter_mut().for_each(|screen| screen.show(notice.clone()));
        }
    }

    fn step(&mut self, event: Event) -> Result<(), AgentError> {
        self.own.push_back(event);
        while let Some(event) = self.own.pop_front() {
            self.take(event)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<(), AgentError> {
        if let Event::Desired(desired) = &event
            && self.shop.desired() != Some(&**desired)
        {
            self.state.keep_desired(desired);
        }
        if let Event::Slot { slot, event: SlotEvent::Ended { job, .. } } = &event {
            self.writers.remove(&(slot.clone(), *job));
        }
        match &event {
            Event::Connected => self.connected = true,
            Event::Disconnected => self.connected = false,
            Event::ImageRefused { image, fault } => self.update_refused(*image, &fault.text),
            Event::Slot { slot, event: SlotEvent::CardGone | SlotEvent::ReaderGone } => {
                self.updates.offers.set(slot, None);
            }
            _ => {}
        }
        let acked = matches!(event, Event::Acked(_));
        let mut effects = Vec::new();
        self.shop.step(self.clock.now(), event, &mut effects);
        self.carry_out(effects)?;
        if acked {
            self.outbox.compact_if_long(self.shop.history())?;
        }
        Ok(())
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), AgentError> {
        for effect in effects {
            match effect {
                Effect::Append(record) => self.outbox.append(&record)?,
                Effect::Show(slot, state) => self.show(slot, &state),
                Effect::Publish(message) => self.publish(message),
                Effect::Probe { slot, visit } => self.probe(slot, visit),
                Effect::Write { slot, job, card_size, work, again } => {
                    self.write(slot, job, card_size, *work, again);
                }
                Effect::Stop { slot, job } => {
                    if let Some(stop) = self.writers.get(&(slot, job)) {
                        stop.stop();
                    }
                }
                Effect::Fetch { image, warehouses } => {
                    let rule =
                        self.shop.desired().map(|d| SignatureRule::from(&d.settings)).unwrap_or_default();
                    if let Some(fetcher) = &mut self.fetcher
                        && let Err(fault) = fetcher.fetch(image, &warehouses, rule)
                    {
                        self.own.push_back(Event::ImageRefused { image, fault });
                    }
                }
                Effect::Abandon(image) => {
                    if let Some(fetcher) = &mut self.fetcher {
                        fetcher.abandon(image);
                    }
                }
                Effect::KeepBook(book) => self.keep_book(&book),
                Effect::Forget(slot) => {
                    self.lights.remove(&slot);
                    self.link.clear(ApplianceTopic::SlotState(slot));
                }
                Effect::Tell(text) => self.told.say(text),
                Effect::Reboot => self.reboot(),
                Effect::SendSupport(id) => self.send_support(id),
                Effect::LogLevel(level) => match logs::set_level(&level) {
                    Ok(()) => tracing::info!(level, "the level of the log was changed"),
                    Err(why) => tracing::warn!(level, why, "the level of the log is as it was"),
                },
                Effect::Update => {
                    if let Err(why) = self.press_update() {
                        self.told.say(format!("No update is installed: {why}."));
                    }
                }
                Effect::ReplyLogs(id) => {
                    let text = logs::ring().newest(LOG_REPLY_SIZE);
                    let ok = !text.is_empty();
                    let text = if ok { text } else { "this process keeps no log for replies".into() };
                    self.link.publish(ApplianceTopic::CmdReply, &CommandReply { v: VERSION, id, ok, text });
                }
            }
        }
        Ok(())
    }

    fn keep_book(&mut self, book: &Book) {
        if let Err(error) = self.book.keep(book) {
            tracing::error!(%error, "names and holds of slots are not kept");
        }
        self.bell.ring();
        let before = self.info.clone();
        let fixed = before.slots.iter().filter(|slot| self.config.slot_ids().contains(&slot.slot));
        self.info.slots = fixed.cloned().chain(slot_book::infos(book)).collect();
        self.info.names = book.names().clone();
        if self.info != before {
            self.link.set_info(self.info.clone());
        }
    }

    fn reboot(&self) {
        let Some(program) = &self.config.bench.reboot else { return };
        tracing::info!("restarting this machine");
        if let Err(error) = std::process::Command::new(program).spawn() {
            tracing::error!(program = %program.display(), %error, "this machine does not restart");
        }
    }

    fn show(&self, slot: SlotId, state: &SlotState) {
        self.lights.set(&slot, state.led);
        tracing::info!(%slot, state = ?state.state, task = ?state.task.map(|t| t.to_string()), fault = ?state.fault.as_ref().map(|f| &f.text), "slot");
        self.link.publish(ApplianceTopic::SlotState(slot.clone()), state);
        if let Some(operator) = &self.operator
            && let Err(TrySendError::Full(_)) = operator.try_send((slot, state.state))
        {
            tracing::error!("the virtual operator does not keep up");
        }
    }

    fn publish(&mut self, message: Message) {
        match message {
            Message::Progress(slot, progress) => {
                self.progress.insert(slot.clone(), progress.clone());
                self.link.publish(ApplianceTopic::SlotProgress(slot), &progress);
            }
            Message::Fact(fact) => self.link.publish(ApplianceTopic::Event, &fact),
            Message::Reported(reported) => self.link.publish(ApplianceTopic::Reported, &reported),
            Message::Reply(reply) => self.link.publish(ApplianceTopic::CmdReply, &reply),
            Message::Alert { code, alert: Some(alert) } => {
                self.link.publish(ApplianceTopic::Alert(code), &alert);
            }
            Message::Alert { code, alert: None } => self.link.clear(ApplianceTopic::Alert(code)),
        }
    }

    fn probe(&self, slot: SlotId, visit: u64) {
        let Some(device) = self.devices.get(&slot) else { return };
        let (devices, events, probed) = (self.devices.clone(), self.events.clone(), slot.clone());
        let offers = self.updates.offers.clone();
        let look = move || {
            let probed_safely = std::panic::catch_unwind(|| probe::probe(&device.path));
            let (finding, identity) = probed_safely.unwrap_or_else(|_| {
                let failure = Failure::new("probe_panicked", "the look at the card broke off", Remedy::Bug);
                (Finding::Failed(failure), None)
            });
            if let Some(identity) = identity {
                devices.probed(&probed, identity);
            }
            offers.set(&probed, update::offered(&device.path));
            // Fails only when the agent has ended.
            let _ = events.send(Event::Slot { slot: probed, event: SlotEvent::Probed { visit, finding } });
        };
        if let Err(error) = std::thread::Builder::new().name(format!("probe-{slot}")).spawn(look) {
            tracing::error!(%slot, %error, "no thread to look at the card with: take it out and put it in again");
        }
    }

    fn write(
        &mut self,
        slot: SlotId,
        job: u64,
        card_size: u64,
        work: Work,
        again: Option<Option<FailureNote>>,
    ) {
        let store = self.fetcher.as_ref().and_then(|f| f.store(work.image));
        // A device that was not probed is the next card, whose arrival still waits in the queue.
        let device = self.devices.get(&slot).filter(|device| device.probed.is_some());
        let (Some(store), Some(device)) = (store, device) else {
            let failure = Failure::new("not_ready", "the image or the card is gone", Remedy::Retry);
            let event = SlotEvent::Ended { job, result: Err(failure) };
            return self.own.push_back(Event::Slot { slot, event });
        };
        let is_virtual = device.reader.is_none() && !self.config.slots.iter().any(|s| s.id == slot);
        let reader = if device.reader.is_some() { "reader" } else { reader_name(is_virtual) }.to_owned();
        let simulate = self.config.simulate.as_ref().filter(|_| is_virtual);
        let stop = StopFlag::new();
        self.writers.insert((slot.clone(), job), stop.clone());
        let task = writer::Task {
            job,
            card_size,
            work,
            again,
            device,
            store,
            key: Arc::clone(&self.key),
            appliance: self.appliance,
            shop: self.shop.desired().map(|d| d.settings.shop.clone()).unwrap_or_default(),
            reader,
            write_bps: simulate.and_then(|s| s.write_bps),
            clock: self.clock.clone(),
            events: self.events.clone(),
            slot: slot.clone(),
        };
        if let Err(error) = writer::start(task, stop) {
            let text = format!("no thread to write with: {error}");
            let event = SlotEvent::Ended { job, result: Err(Failure::new("no_thread", text, Remedy::Retry)) };
            self.own.push_back(Event::Slot { slot, event });
        }
    }

    fn publish_health(&mut self) {
        let since = self.health.0.elapsed();
        if since < HEALTH_EVERY {
            return;
        }
        let received = self.received.load(Ordering::Relaxed);
        let (cache_free_bytes, cache_used_bytes) = self.cache.usage();
        let health = Health {
            v: VERSION,
            temperature_c: machine::temperature_c(),
            cache_used_bytes,
            cache_free_bytes,
            link_bps: ((received - self.health.1) as f64 / since.as_secs_f64()) as u64,
            clock_offset_ms: self.clock.offset_ms(),
            uptime_s: self.started.elapsed().as_secs(),
        };
        self.health = (Instant::now(), received);
        self.link.publish(ApplianceTopic::Health, &health);
    }

    /// Ends all threads; what does not end in time is left to the process's end.
    fn end(mut self) {
        tracing::debug!(standing = ?self.session.standing(), "ending");
        self.writers.values().for_each(StopFlag::stop);
        let presence = if self.updates.is_restarting() { Presence::Updating } else { Presence::Stopped };
        self.link.end(self.shop.history().boot(), presence);
        self.session.end();
        self.slots_stop.stop();
        self.bell.ring();
        self.lights.end();
        drop(self.operator.take());
        if let Some(fetcher) = self.fetcher.take() {
            fetcher.end();
        }
        let until = Instant::now() + Duration::from_secs(5);
        for thread in std::mem::take(&mut self.threads) {
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            if thread.is_finished() && thread.join().is_err() {
                tracing::error!("a thread panicked");
            }
        }
    }
}

fn reader_name(is_virtual: bool) -> &'static str {
    if is_virtual { "virtual slot" } else { "fixed device" }
}

/// What the broker is told of this machine at every connect.
fn info(config: &Config, book: &Book, label: String, hardware: Hardware) -> Info {
    let fixed: BTreeMap<&SlotId, &PathBuf> = config.slots.iter().map(|s| (&s.id, &s.device)).collect();
    let slot_info = |slot: SlotId| {
        let is_virtual = !fixed.contains_key(&slot);
        let port_path = if is_virtual { format!("virtual/{slot}") } else { format!("fixed/{slot}") };
        SlotInfo { slot, port_path, reader: reader_name(is_virtual).into() }
    };
    Info {
        v: VERSION,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        label,
        hardware,
        slots: config.slot_ids().into_iter().map(slot_info).chain(slot_book::infos(book)).collect(),
        names: book.names().clone(),
        system: None,
        capabilities: vec!["discard".into()],
    }
}

mod support;
mod updates;

use updates::Updates;

#[cfg(test)]
mod tests;
