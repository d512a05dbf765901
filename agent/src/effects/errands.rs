//! What the console asks for that the shop has no part in: network settings on trial, another join file, a file for
//! whoever helps. What became of it is told on the screen.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::http::Http;
use super::join_file::{self, check_join_file};
use super::state::{StateFolder, replace_file};
use super::support::Support;
use crate::core::console::{Ask, ConsoleView};
use crate::core::network_file::NetworkFile;
use crate::core::trial::{TRIAL, Trial, Verdict};

/// Pause between two questions to the shop.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Longest wait for the shop's answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The file for whoever helps, 8.3: a tar.gz.
const SUPPORT_FILE: &str = "SUPPORT.TGZ";

/// The last line for the person at the appliance; clones are the same line.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastTold(Arc<Mutex<String>>);

impl LastTold {
    /// Says something.
    pub(crate) fn say(&self, text: impl Into<String>) {
        *self.0.lock().expect("no holder panics") = text.into();
    }

    /// What was said last.
    pub(crate) fn last(&self) -> String {
        self.0.lock().expect("no holder panics").clone()
    }
}

/// Does what the console asks for.
#[derive(Clone)]
pub(crate) struct Errands {
    pub(crate) http: Http,
    pub(crate) state: Arc<StateFolder>,
    /// The join file; `NETWORK.TXT` and [`SUPPORT_FILE`] lie beside it.
    pub(crate) join: PathBuf,
    /// What applies network settings.
    pub(crate) network: Option<PathBuf>,
    pub(crate) told: LastTold,
    /// What of the settings nobody else may read.
    pub(crate) secrets: Vec<String>,
    /// Settings are on trial: others wait.
    pub(crate) trying: Arc<AtomicBool>,
}

impl Errands {
    /// Does it, and says what became of it. Wishes are the shop's.
    pub(crate) fn run(&self, ask: Ask, view: &ConsoleView) {
        match ask {
            Ask::Wish(_) => {}
            Ask::Network(file) => self.try_network(file),
            Ask::Join { text } => self.told.say(self.join(&text)),
            Ask::Support => self.told.say(match self.support(view) {
                Ok(path) => format!("{} is written, without any password in it.", path.display()),
                Err(error) => format!("{SUPPORT_FILE} is not written: {error}"),
            }),
        }
    }

    fn join(&self, text: &str) -> String {
        if let Err(error) = check_join_file(text) {
            return error.to_string();
        }
        match replace_file(&self.join, text.as_bytes()) {
            Err(error) => format!("{} is not written: {error}", self.join.display()),
            Ok(()) if self.state.member().is_some() => {
                "This appliance belongs to a shop: it joins the other one after a restart.".into()
            }
            Ok(()) => "The token is written; it is erased once the shop has let this appliance in.".into(),
        }
    }

    fn support(&self, view: &ConsoleView) -> std::io::Result<PathBuf> {
        let path = self.join.with_file_name(SUPPORT_FILE);
        let support = Support {
            state: &self.state,
            join: &self.join,
            settings: None,
            known: self.secrets.clone(),
            about: about(view),
        };
        replace_file(&path, &support.bundle()?)?;
        Ok(path)
    }

    fn try_network(&self, file: NetworkFile) {
        let Some(program) = self.network.clone() else {
            return self.told.say("The network of this machine is not set here.");
        };
        if self.trying.swap(true, Ordering::AcqRel) {
            return self.told.say("Other settings are being tried.");
        }
        let errands = self.clone();
        let work = move || {
            let told = errands.trial(&program, &file, TRIAL);
            errands.told.say(told);
            errands.trying.store(false, Ordering::Release);
        };
        self.told.say("Trying the new network settings; without the shop they are taken back in a minute.");
        if let Err(error) = std::thread::Builder::new().name("network".into()).spawn(work) {
            self.trying.store(false, Ordering::Release);
            self.told.say(format!("No thread to try them with: {error}"));
        }
    }

    /// Applies settings, and keeps or takes them back.
    fn trial(&self, program: &PathBuf, file: &NetworkFile, limit: Duration) -> String {
        let on_trial = self.state.path("network.trial");
        if let Err(error) = replace_file(&on_trial, file.to_toml().as_bytes()) {
            return format!("The settings cannot be kept: {error}");
        }
        apply(program, Some(&on_trial));
        let trial = Trial::begin(Instant::now(), limit);
        loop {
            match trial.verdict(Instant::now(), self.reached()) {
                Verdict::Keep => break,
                Verdict::Wait(left) => std::thread::sleep(ASK_AGAIN.min(left)),
                Verdict::RollBack => {
                    apply(program, None);
                    return "The shop was not reached: the network is as it was before.".into();
                }
            }
        }
        match replace_file(&self.join.with_file_name("NETWORK.TXT"), file.to_toml().as_bytes()) {
            Ok(()) => "The shop is reached; the new network settings are kept.".into(),
            Err(error) => format!("The shop is reached, but NETWORK.TXT is not written: {error}"),
        }
    }

    /// True when the shop answers, whatever it says.
    fn reached(&self) -> bool {
        let joined = self.state.member().map(|member| member.server);
        let Some(server) = joined.or_else(|| Some(join_file::read(&self.join).ok()?.server)) else {
            return false;
        };
        let asked = self.http.agent().get(format!("{server}/health"));
        let asked = asked.config().timeout_global(Some(ANSWER_LIMIT)).http_status_as_error(false).build();
        asked.call().is_ok()
    }
}

/// A page about the appliance as its screen shows it.
pub(crate) fn about(view: &ConsoleView) -> String {
    let slots: String = view.bench.slots.iter().fold(String::new(), |text, line| {
        let state = serde_json::to_string(&line.state).unwrap_or_default();
        text + &format!("{} {} {state}\n", line.slot, line.name.as_deref().unwrap_or("-"))
    });
    format!(
        "Cardshop agent {}\n{} {}\n{}\nnetwork: {}\nshop: {} connected: {}\nstands: {}\nupdate: {}\n\n{slots}",
        view.version,
        view.label,
        view.appliance,
        view.time,
        view.addresses.join(" "),
        view.server,
        view.connected,
        view.notice.as_ref().map_or("-", |notice| notice.code),
        view.update.as_deref().unwrap_or("-"),
    )
}

/// Runs the program that applies a file's settings; without one those of `NETWORK.TXT`.
fn apply(program: &PathBuf, file: Option<&PathBuf>) {
    let mut command = Command::new(program);
    command.args(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!(%status, "network settings were not applied without a fault"),
        Err(error) => {
            tracing::error!(program = %program.display(), %error, "no network settings are applied")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::http;
    use super::super::test_http::{send, serve};
    use super::*;
    use crate::core::console::Ask;
    use std::os::unix::fs::PermissionsExt;

    struct Site {
        folder: tempfile::TempDir,
        errands: Errands,
    }

    /// An appliance whose shop is at `server`, and a program that notes what it is called with.
    fn site(server: &str) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let (join, program) = (folder.path().join("JOIN.TXT"), folder.path().join("network"));
        std::fs::write(&join, format!("server = \"{server}\"")).unwrap();
        let script = format!(
            "#!/bin/sh\ncat \"$1\" >>{0}/applied 2>/dev/null || echo before >>{0}/applied\n",
            folder.path().display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let errands = Errands {
            http: http::Http::new(http::client()),
            state: Arc::new(StateFolder::open(&folder.path().join("state"), Duration::ZERO).unwrap()),
            join,
            network: Some(program),
            told: LastTold::default(),
            secrets: Vec::new(),
            trying: Arc::default(),
        };
        Site { folder, errands }
    }

    fn settings() -> NetworkFile {
        NetworkFile::parse("address = \"10.0.0.5/8\"").unwrap()
    }

    #[test]
    fn network_settings_with_which_the_shop_answers_are_kept() {
        let site = site(&serve(|_, stream| send(stream, "503 Service Unavailable", b"busy")));
        let told = site.errands.trial(&site.errands.network.clone().unwrap(), &settings(), TRIAL);
        assert!(told.contains("are kept"), "{told}");
        let kept = std::fs::read_to_string(site.folder.path().join("NETWORK.TXT")).unwrap();
        assert_eq!(NetworkFile::parse(&kept), Ok(settings()));
        assert_eq!(std::fs::read_to_string(site.folder.path().join("applied")).unwrap(), kept);
    }

    #[test]
    fn network_settings_with_which_the_shop_is_not_reached_are_taken_back() {
        // A port that nobody listens at.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let site = site(&format!("http://{free}"));
        let told = site.errands.trial(&site.errands.network.clone().unwrap(), &settings(), Duration::ZERO);
        assert!(told.contains("as it was before"), "{told}");
        assert!(!site.folder.path().join("NETWORK.TXT").exists());
        let applied = std::fs::read_to_string(site.folder.path().join("applied")).unwrap();
        assert!(applied.contains("10.0.0.5/8") && applied.ends_with("before\n"), "{applied}");
    }

    #[test]
    fn a_join_file_is_checked_kept_for_its_owner_only_and_a_support_file_has_no_token() {
        let site = site("http://127.0.0.1:1");
        let token = cardshop_protocol::join::JoinToken::from_random(&[9; 32], None).to_string();
        let join = |token: &str| Ask::Join {
            text: format!("server = \"http://127.0.0.1:1\"\ntoken = \"{token}\"\n"),
        };
        let view = ConsoleView { label: "Bench".into(), ..ConsoleView::default() };
        site.errands.run(join(&token[1..]), &view);
        assert!(site.errands.told.last().contains("damaged"));
        site.errands.run(join(&token), &view);
        let path = &site.errands.join;
        assert!(std::fs::read_to_string(path).unwrap().contains(&token));
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        site.errands.run(Ask::Support, &view);
        let support = std::fs::read(site.folder.path().join(SUPPORT_FILE)).unwrap();
        let mut files = tar::Archive::new(flate2::read::GzDecoder::new(&support[..]));
        let mut all = String::new();
        for file in files.entries().unwrap() {
            std::io::Read::read_to_string(&mut file.unwrap(), &mut all).unwrap();
        }
        assert!(all.contains("Bench") && !all.contains(&token[12..30]), "{all}");
    }
}
