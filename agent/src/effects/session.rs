//! Keeps the appliance joined and logged in: a thread that does what [`crate::core::enrol`] says is due, and
//! the access token that everyone else takes from here. Who is refused says so, and a new one is got.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cardshop_protocol::api::{JoinAnswer, TokenPair};
use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::join::{JoinToken, pairing_code};
use cardshop_protocol::keys::{appliance_id, decode_public};
use cardshop_protocol::message::Hardware;
use ed25519_dalek::SigningKey;

use super::http::{Http, jitter, trusting};
use super::join_file::{self, JoinFile};
use super::pin::{PinError, find_ca};
use super::server::{Server, ServerError};
use super::state::{Member, StateError, StateFolder};
use crate::core::enrol::{Act, Answer, Enrolment, Standing};

/// An access token. `generation` grows with every one, so that whoever was refused can say which.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) generation: u64,
}

/// How the broker is reached.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    /// `mqtt://host:port` or `mqtts://…`.
    pub(crate) url: String,
    /// PEM: CAs that its certificate is to be of, if the site named any.
    pub(crate) ca: Option<String>,
}

impl Broker {
    fn of(member: &Member) -> Option<Self> {
        Some(Self { url: member.mqtt.clone()?, ca: member.mqtt_ca.clone() })
    }
}

#[derive(Default)]
struct Shared {
    token: Option<Token>,
    broker: Option<Broker>,
    standing: Option<Standing>,
    /// Generation of the token somebody was refused with.
    refused: u64,
    ending: bool,
}

/// Where everyone gets the access token; clones are the same session.
#[derive(Clone, Default)]
pub(crate) struct Session(Arc<(Mutex<Shared>, Condvar)>);

impl Session {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.0.lock().expect("no holder panics")
    }

    /// The newest token.
    pub(crate) fn token(&self) -> Option<Token> {
        self.lock().token.clone()
    }

    /// The newest token and the broker, once both are known.
    pub(crate) fn broker(&self) -> Option<(Token, Broker)> {
        let shared = self.lock();
        Some((shared.token.clone()?, shared.broker.clone()?))
    }

    /// A token was refused: another is wanted. Repeated calls for the same one change nothing.
    pub(crate) fn refused(&self, generation: u64) {
        let mut shared = self.lock();
        shared.refused = shared.refused.max(generation);
        self.0.1.notify_all();
    }

    /// Where the appliance stands.
    pub(crate) fn standing(&self) -> Standing {
        self.lock().standing.clone().unwrap_or(Standing::Starting)
    }

    /// Ends the session's thread.
    pub(crate) fn end(&self) {
        self.lock().ending = true;
        self.0.1.notify_all();
    }

    /// A session with a token that never changes.
    #[cfg(test)]
    pub(crate) fn fixed(text: &str) -> Self {
        let session = Self::default();
        session.lock().token = Some(Token { text: text.into(), generation: 1 });
        session
    }

    /// Gives everyone this token and broker, as if a login had.
    #[cfg(test)]
    pub(crate) fn set(&self, token: &str, generation: u64, mqtt: &str) {
        let mut shared = self.lock();
        shared.token = Some(Token { text: token.into(), generation });
        shared.broker = Some(Broker { url: mqtt.into(), ca: None });
    }

    /// Generation somebody was refused with; 0 when nobody was.
    #[cfg(test)]
    pub(crate) fn refused_generation(&self) -> u64 {
        self.lock().refused
    }

    fn show(&self, standing: &Standing) {
        let mut shared = self.lock();
        if shared.standing.as_ref() != Some(standing) {
            tracing::info!(?standing, "where this appliance stands");
            shared.standing = Some(standing.clone());
        }
        if matches!(standing, Standing::Rejected | Standing::Retired | Standing::WrongServer(_)) {
            shared.token = None;
        }
    }

    /// Waits until `due`, or until somebody is refused; `None` when the agent ends.
    fn wait(&self, due: Instant, seen_refused: u64) -> Option<bool> {
        let mut shared = self.lock();
        loop {
            if shared.ending {
                return None;
            }
            let current = shared.token.as_ref().map_or(0, |t| t.generation);
            if shared.refused > seen_refused && shared.refused == current {
                return Some(true);
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(false);
            }
            shared = self.0.1.wait_timeout(shared, left).expect("no holder panics").0;
        }
    }
}

/// Who asks to join.
pub(crate) struct Identity {
    /// The appliance's key.
    pub(crate) key: SigningKey,
    /// What the machine is.
    pub(crate) hardware: Hardware,
}

/// The thread's own state.
struct Keeper {
    session: Session,
    http: Http,
    identity: Identity,
    appliance: ApplianceId,
    state: Arc<StateFolder>,
    join_path: PathBuf,
    /// Where we have asked to join.
    member: Option<Member>,
    /// What the join file says, once it was read.
    file: Option<JoinFile>,
    refresh_token: String,
    generation: u64,
    /// The server has said that it does not know us: a token, even one used before, may change that.
    unknown: bool,
    /// Id of a token that was refused: whoever has joined before goes on without it.
    refused_token: Option<String>,
}

/// Whom an answer is from, as a [`Member`] remembers it.
struct Joined {
    server: String,
    label: String,
    token: Option<String>,
    ca: Option<String>,
}

impl From<&Member> for Joined {
    fn from(member: &Member) -> Self {
        let Member { server, label, token, ca, .. } = member.clone();
        Self { server, label, token, ca }
    }
}

/// Starts the thread.
///
/// # Errors
/// What the system says when it has no thread to give.
pub(crate) fn start(
    session: &Session,
    http: Http,
    identity: Identity,
    state: Arc<StateFolder>,
    join_path: PathBuf,
) -> std::io::Result<JoinHandle<()>> {
    let member = state.member();
    // Before there is a token that could be shown to anybody.
    http.trust(member.as_ref().and_then(|m| m.ca.as_deref()));
    let mut keeper = Keeper {
        session: session.clone(),
        http,
        appliance: appliance_id(&identity.key.verifying_key()),
        identity,
        member,
        state,
        join_path,
        file: None,
        refresh_token: String::new(),
        generation: 0,
        unknown: false,
        refused_token: None,
    };
    std::thread::Builder::new().name("session".into()).spawn(move || keeper.run())
}

impl Keeper {
    fn run(&mut self) {
        let started = Instant::now();
        let mut machine = Enrolment::new();
        let mut seen_refused = 0;
        loop {
            let (act, due) = machine.next();
            match self.session.wait(started + due, seen_refused) {
                None => return,
                Some(true) => {
                    seen_refused = self.generation;
                    machine.token_refused(started.elapsed());
                }
                Some(false) => {
                    let answer = self.act(act);
                    tracing::debug!(?act, ?answer, "session");
                    machine.answered(started.elapsed(), answer, jitter());
                    self.session.show(machine.standing());
                }
            }
        }
    }

    fn act(&mut self, act: Act) -> Answer {
        match act {
            Act::ReadJoinFile => self.read_join_file(),
            Act::Join => self.join(),
            Act::AskState => self.ask_state(),
            Act::LogIn => self.log_in(),
            Act::Refresh => self.refresh(),
        }
    }

    fn read_join_file(&mut self) -> Answer {
        self.file = match join_file::read(&self.join_path) {
            Ok(file) => Some(file),
            Err(error) if self.member.is_none() => return Answer::NoJoinFile(error.to_string()),
            Err(error) => {
                tracing::debug!(%error, "no join file: going on where we have joined");
                None
            }
        };
        let token = self.file.as_ref().and_then(|f| f.token.as_ref());
        let has_token = token.is_some_and(|token| match &self.member {
            None => true,
            Some(_) if self.unknown => true,
            Some(member) => {
                let known = [member.token.as_deref(), self.refused_token.as_deref()];
                !known.contains(&Some(token.id.as_str()))
            }
        });
        if let (false, Some(file), Some(member)) = (has_token, &self.file, &mut self.member)
            && member.server != file.server
        {
            tracing::info!(from = member.server, to = file.server, "the shop has another address now");
            member.server.clone_from(&file.server);
        }
        Answer::JoinFile { has_token }
    }

    /// The server we have joined or asked to, before that the join file's, with what a member remembers of it.
    fn server(&self) -> Result<(Server, Joined), Answer> {
        match (&self.member, &self.file) {
            (Some(member), _) => Ok((Server::new(self.http.agent(), &member.server), Joined::from(member))),
            (None, Some(file)) => {
                let (server, ca) = self.named(&file.server, file.token.as_ref())?;
                let (base, label) = (file.server.clone(), file.label.clone());
                Ok((server, Joined { server: base, label, token: None, ca }))
            }
            (None, None) => Err(Answer::NoJoinFile("no server is known".into())),
        }
    }

    /// The join file's server, and the site's own CA where the token names it: then the server has shown it, and
    /// nothing is sent to one whose certificate is of another.
    fn named(&self, base: &str, token: Option<&JoinToken>) -> Result<(Server, Option<String>), Answer> {
        let http = self.http.agent();
        let pin = token.filter(|token| !token.uses_public_ca()).map(|token| &token.ca);
        let ca = pin.map(|pin| find_ca(&http, base, pin)).transpose().map_err(|error| match error {
            PinError::Away(_) => Answer::Away(error.to_string()),
            PinError::Stranger { .. } => Answer::WrongServer(error.to_string()),
        })?;
        Ok((Server::new(trusting(&http, ca.as_deref()), base), ca))
    }

    fn join(&mut self) -> Answer {
        let Some(JoinFile { server: base, token: Some(token), label }) = self.file.clone() else {
            return Answer::NoJoinFile("the join file has no token".into());
        };
        let (server, ca) = match self.named(&base, Some(&token)) {
            Ok(named) => named,
            Err(answer) => return answer,
        };
        match server.join(&self.identity.key, &token, &label, self.identity.hardware.clone()) {
            Ok(answer) => {
                // Joining anew, with a token a person put there, may be to another site than before.
                self.member = None;
                self.stands(Joined { server: base, label, token: Some(token.id), ca }, &answer)
            }
            Err(error) => {
                if matches!(error, ServerError::Refused { .. }) {
                    self.refused_token = Some(token.id);
                }
                failed(error)
            }
        }
    }

    fn ask_state(&mut self) -> Answer {
        let (server, joined) = match self.server() {
            Ok(known) => known,
            Err(answer) => return answer,
        };
        match server.join_state(self.appliance) {
            Ok(answer) => self.stands(joined, &answer),
            Err(error) => {
                self.unknown |= matches!(error, ServerError::Refused { .. });
                failed(error)
            }
        }
    }

    /// Checks that the answer is from the site whose code a person compares, and remembers it.
    fn stands(&mut self, joined: Joined, answer: &JoinAnswer) -> Answer {
        let Some(server_key) = decode_public(&answer.server_key) else {
            return Answer::WrongServer("its answer has no valid key".into());
        };
        let code = pairing_code(self.identity.key.verifying_key().as_bytes(), server_key.as_bytes());
        if answer.code != code || answer.appliance != self.appliance {
            return Answer::WrongServer("its pairing code does not follow from both keys".into());
        }
        if self.member.as_ref().is_some_and(|m| m.server_key != answer.server_key) {
            return Answer::WrongServer("its key is not that of the shop joined before".into());
        }
        let Joined { server, label, token, ca } = joined;
        let JoinAnswer { server_key, mqtt, mqtt_ca, .. } = answer.clone();
        let member = Member { server, server_key, label, token, mqtt, mqtt_ca, ca };
        self.http.trust(member.ca.as_deref());
        self.session.lock().broker = Broker::of(&member);
        if let Err(error) = self.state.remember(&member) {
            self.report(&error);
        }
        self.member = Some(member);
        self.unknown = false;
        if answer.state == cardshop_protocol::api::Membership::Approved
            && let Err(error) = join_file::erase_token(&self.join_path)
        {
            tracing::debug!(%error, "the used token stays in the join file");
        }
        Answer::State { membership: answer.state, code }
    }

    fn report(&self, error: &StateError) {
        tracing::error!(%error, "membership is not remembered: the next start asks again");
    }

    fn log_in(&mut self) -> Answer {
        let (server, _) = match self.server() {
            Ok(known) => known,
            Err(answer) => return answer,
        };
        let result = server.log_in(&self.identity.key, self.appliance);
        self.tokens(result)
    }

    fn refresh(&mut self) -> Answer {
        let (server, _) = match self.server() {
            Ok(known) => known,
            Err(answer) => return answer,
        };
        let result = server.refresh(&self.refresh_token);
        self.tokens(result)
    }

    fn tokens(&mut self, result: Result<TokenPair, ServerError>) -> Answer {
        match result {
            Ok(pair) => {
                self.generation += 1;
                self.refresh_token = pair.refresh_token;
                let mut shared = self.session.lock();
                shared.token = Some(Token { text: pair.access_token, generation: self.generation });
                self.session.0.1.notify_all();
                Answer::Tokens { expires_in: Duration::from_secs(pair.expires_in.max(1)) }
            }
            Err(error) => failed(error),
        }
    }
}

fn failed(error: ServerError) -> Answer {
    match error {
        ServerError::Refused { .. } => Answer::Refused(error.to_string()),
        ServerError::NotAServer => Answer::WrongServer(error.to_string()),
        ServerError::Away(_) | ServerError::Busy(_) => Answer::Away(error.to_string()),
    }
}
