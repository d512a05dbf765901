//! The console on the appliance's own screen: what is shown, which key does what, and what is asked of the rest. Pure:
//! keys in, [`Ask`]s out. `console_draw` makes a picture of it, `effects::console` has the terminal.
//!
//! ```text
//!   slots ──n──► a name is typed (the light strobes) ──Enter──► Name
//!     │ ├──N──► network: four fields ──Enter──► tried for 60 s, kept only when the server is reached
//!     │ ├──J──► join: server, token (hidden), label ──Enter──► JOIN.TXT
//!     │ └──e x R o T──► "sure?" ──y──► eject, remove, restart, off, reset
//!     └──i r h g m s u──► at once: identify, retry, hold, name all, move, support file, update
//! ```

use std::collections::BTreeMap;

use cardshop_protocol::ids::SlotId;
use cardshop_protocol::message::{Action, Progress, SlotStatus};

use super::bench::{BenchView, SlotLine};
use super::book::MAX_NAME_CHARS;
use super::event::Wish;
use super::network_file::NetworkFile;
use super::notice::Notice;

/// Longest text typed into a field, characters: a token has 60, an address of a shop rarely as many.
const MAX_FIELD_CHARS: usize = 120;

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// The last character is taken back.
    Backspace,
    /// The next field, or the next slot.
    Down,
    /// The field, or the slot, before.
    Up,
}

/// What is asked of the rest of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Of the shop.
    Wish(Wish),
    /// The network is to be like this, if the server is reached then.
    Network(NetworkFile),
    /// Another join file.
    Join {
        /// Its text: it holds the token.
        text: String,
    },
    /// A file for whoever helps.
    Support,
}

/// Everything the screen shows that is not the console's own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConsoleView {
    /// What people call the appliance.
    pub label: String,
    /// Its id.
    pub appliance: String,
    /// Version of the agent.
    pub version: String,
    /// Where it stands.
    pub notice: Option<Notice>,
    /// The shop's address.
    pub server: String,
    /// The broker is connected.
    pub connected: bool,
    /// This machine's addresses.
    pub addresses: Vec<String>,
    /// UTC, to the second.
    pub time: String,
    /// The slots.
    pub bench: BenchView,
    /// How far each write is.
    pub progress: BTreeMap<SlotId, Progress>,
    /// What came of the last key.
    pub told: String,
    /// An update that is under way, or offered by a card.
    pub update: Option<String>,
}

/// One line to type into.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    /// What it is for.
    pub title: &'static str,
    /// What was typed.
    pub text: String,
    /// Nobody is to read it.
    pub hidden: bool,
}

/// A hidden text is not in a log either.
impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Field({}: {:?})", self.title, self.shown())
    }
}

impl Field {
    fn new(title: &'static str, text: impl Into<String>) -> Self {
        Self { title, text: text.into(), hidden: false }
    }

    /// What a screen shows of it.
    pub fn shown(&self) -> String {
        if self.hidden { "*".repeat(self.text.chars().count()) } else { self.text.clone() }
    }
}

/// What a form is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Purpose {
    Name(SlotId),
    Network,
    Join,
}

/// Lines to type into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// What it is about.
    pub title: String,
    /// Its lines.
    pub fields: Vec<Field>,
    /// The one that is typed into.
    pub at: usize,
    purpose: Purpose,
}

/// What the keyboard speaks to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Page {
    /// The list of slots.
    #[default]
    Slots,
    /// Lines to type into.
    Form(Form),
    /// A question that `y` answers.
    Sure {
        /// The question.
        text: String,
        /// What follows.
        ask: Box<Ask>,
    },
}

/// The console's own state.
#[derive(Debug, Clone, Default)]
pub struct Console {
    /// What the keyboard speaks to.
    pub page: Page,
    /// Which slot is chosen, by its place in the list.
    pub chosen: usize,
    /// What is wrong with what was typed.
    pub problem: Option<String>,
}

impl Console {
    /// A key was pressed; gives what follows elsewhere.
    pub fn key(&mut self, key: Key, view: &ConsoleView) -> Option<Ask> {
        self.problem = None;
        self.chosen = self.chosen.min(view.bench.slots.len().saturating_sub(1));
        match std::mem::take(&mut self.page) {
            Page::Slots => self.on_slots(key, view),
            Page::Form(form) => self.on_form(form, key),
            // Any other key is a no.
            Page::Sure { ask, .. } => (key == Key::Char('y')).then_some(*ask),
        }
    }

    fn on_slots(&mut self, key: Key, view: &ConsoleView) -> Option<Ask> {
        let bench = &view.bench;
        match key {
            Key::Down => self.chosen = (self.chosen + 1).min(bench.slots.len().saturating_sub(1)),
            Key::Up => self.chosen = self.chosen.saturating_sub(1),
            Key::Escape if bench.question.is_some() => return Some(Ask::Wish(Wish::NameAll { on: false })),
            Key::Char('g') => return Some(Ask::Wish(Wish::NameAll { on: bench.question.is_none() })),
            Key::Char('s') => return Some(Ask::Support),
            Key::Char('u') => return Some(Ask::Wish(Wish::Act(Action::Update))),
            Key::Char('m') => {
                return Some(Ask::Wish(Wish::Move(bench.moved.first()?.clone())));
            }
            Key::Char('o') if bench.on => {
                let off = Ask::Wish(Wish::Switch { on: false });
                self.sure(
                    "Switch this appliance off? What is being written is finished, nothing is begun.",
                    off,
                );
            }
            Key::Char('o') => return Some(Ask::Wish(Wish::Switch { on: true })),
            Key::Char('R') => {
                self.sure_act("Restart this machine when no card is being written?", Action::Reboot)
            }
            Key::Char('T') => {
                self.sure("Forget all names, and slots without a reader?", Ask::Wish(Wish::ResetNames))
            }
            Key::Char('N') => self.page = Page::Form(network_form()),
            Key::Char('J') => self.page = Page::Form(join_form(view)),
            Key::Char(_) | Key::Enter => return self.on_slot(key, bench.slots.get(self.chosen)?),
            Key::Escape | Key::Backspace => {}
        }
        None
    }

    fn on_slot(&mut self, key: Key, line: &SlotLine) -> Option<Ask> {
        let slot = line.slot.clone();
        let label = line.name.clone().unwrap_or_else(|| slot.to_string());
        let at_once = match key {
            Key::Char('i' | 't') => Action::Identify { slot },
            Key::Char('r') => Action::Retry { slot },
            Key::Char('h') => return Some(Ask::Wish(Wish::Hold { slot, hold: !line.held_here })),
            Key::Char('n') => {
                let field = Field::new("Name", line.name.clone().unwrap_or_default());
                let title = format!("What is slot {} called? Its light strobes.", line.slot);
                self.page = Page::Form(Form {
                    title,
                    fields: vec![field],
                    at: 0,
                    purpose: Purpose::Name(slot.clone()),
                });
                Action::Identify { slot }
            }
            Key::Char('e') => {
                let text = format!("Stop what is done to the card in slot {label}, and let go of it?");
                self.sure_act(&text, Action::Eject { slot });
                return None;
            }
            Key::Char('x') => {
                self.sure(&format!("Forget slot {label}?"), Ask::Wish(Wish::Remove { slot }));
                return None;
            }
            Key::Enter if matches!(line.state.state, SlotStatus::Confirm | SlotStatus::Guarded) => {
                self.sure_act(&format!("Erase the card in slot {label}?"), Action::Release { slot });
                return None;
            }
            _ => return None,
        };
        Some(Ask::Wish(Wish::Act(at_once)))
    }

    fn sure(&mut self, text: &str, ask: Ask) {
        self.page = Page::Sure { text: text.to_owned(), ask: Box::new(ask) };
    }

    fn sure_act(&mut self, text: &str, action: Action) {
        self.sure(text, Ask::Wish(Wish::Act(action)));
    }

    fn on_form(&mut self, mut form: Form, key: Key) -> Option<Ask> {
        let last = form.fields.len() - 1;
        let limit = if matches!(form.purpose, Purpose::Name(_)) { MAX_NAME_CHARS } else { MAX_FIELD_CHARS };
        let field = &mut form.fields[form.at];
        match key {
            Key::Escape => return None,
            Key::Char(c) if !c.is_control() && field.text.chars().count() < limit => field.text.push(c),
            Key::Backspace => drop(field.text.pop()),
            Key::Down => form.at = (form.at + 1).min(last),
            Key::Up => form.at = form.at.saturating_sub(1),
            Key::Enter if form.at < last => form.at += 1,
            Key::Enter => match submitted(&form) {
                Ok(ask) => return Some(ask),
                Err(problem) => self.problem = Some(problem),
            },
            Key::Char(_) => {}
        }
        self.page = Page::Form(form);
        None
    }
}

fn network_form() -> Form {
    let fields = ["Address/prefix (empty: DHCP)", "Gateway", "Name servers", "Second address, IPv6"];
    let fields = fields.map(|title| Field::new(title, "")).into();
    let title = "Network. Kept only if the shop is reached within a minute.".to_owned();
    Form { title, fields, at: 0, purpose: Purpose::Network }
}

fn join_form(view: &ConsoleView) -> Form {
    let fields = vec![
        Field::new("Shop, https://…", view.server.clone()),
        Field { hidden: true, ..Field::new("Token, csj1.… (not shown)", "") },
        Field::new("Name of this appliance", view.label.clone()),
    ];
    Form { title: "Join a shop".to_owned(), fields, at: 0, purpose: Purpose::Join }
}

/// What a form that is filled in asks for, or what is wrong with it.
fn submitted(form: &Form) -> Result<Ask, String> {
    let text = |at: usize| form.fields[at].text.trim();
    match &form.purpose {
        Purpose::Name(slot) => {
            let name = (!text(0).is_empty()).then(|| text(0).to_owned());
            Ok(Ask::Wish(Wish::Name { slot: slot.clone(), name }))
        }
        Purpose::Network => {
            let words = |text: &str| -> Vec<String> {
                text.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
            };
            let addresses: Vec<String> = [0, 3].into_iter().flat_map(|at| words(text(at))).collect();
            let toml = format!(
                "address = {addresses:?}\ngateway = {:?}\nname_servers = {:?}\n",
                words(text(1)),
                words(text(2))
            );
            NetworkFile::parse(&toml).map(Ask::Network).map_err(|error| error.to_string())
        }
        Purpose::Join => {
            let line = |key: &str, at: usize| format!("{key} = {:?}\r\n", text(at));
            Ok(Ask::Join { text: line("server", 0) + &line("token", 1) + &line("label", 2) })
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::core::book::Moved;
    use crate::core::naming::Question;
    use cardshop_protocol::led::{Overlay, led};
    use cardshop_protocol::message::SlotState;
    use cardshop_protocol::time::Timestamp;

    pub(in crate::core) fn line(n: u32, name: Option<&str>, state: SlotStatus) -> SlotLine {
        let state = SlotState {
            v: 1,
            boot: 1,
            n: 1,
            state,
            led: led(state, Overlay::None),
            card: None,
            task: None,
            image: None,
            copy: None,
            total: None,
            sentence: None,
            fault: None,
            since: Timestamp::from_ms(0),
        };
        SlotLine {
            slot: SlotId::numbered(n),
            name: name.map(str::to_owned),
            state,
            held_here: false,
            counts: Default::default(),
        }
    }

    pub(in crate::core) fn view(slots: Vec<SlotLine>) -> ConsoleView {
        let bench = BenchView { slots, on: true, ..BenchView::default() };
        ConsoleView {
            label: "Bench".into(),
            server: "https://shop.example".into(),
            bench,
            ..Default::default()
        }
    }

    fn typed(console: &mut Console, view: &ConsoleView, text: &str) -> Vec<Ask> {
        text.chars()
            .filter_map(|c| console.key(if c == '\n' { Key::Enter } else { Key::Char(c) }, view))
            .collect()
    }

    fn acts(action: Action) -> Ask {
        Ask::Wish(Wish::Act(action))
    }

    #[test]
    fn keys_act_on_the_slot_that_is_chosen_and_what_destroys_is_asked_first() {
        let view = view(vec![line(1, None, SlotStatus::Writing), line(2, Some("B"), SlotStatus::Confirm)]);
        let (mut console, slot) = (Console::default(), SlotId::numbered);
        assert_eq!(typed(&mut console, &view, "i"), [acts(Action::Identify { slot: slot(1) })]);
        assert_eq!(typed(&mut console, &view, "en"), [], "a no");
        assert_eq!(typed(&mut console, &view, "ey"), [acts(Action::Eject { slot: slot(1) })]);
        assert_eq!(typed(&mut console, &view, "\n"), [], "nothing is asked of this one");
        console.key(Key::Down, &view);
        console.key(Key::Down, &view);
        assert_eq!(typed(&mut console, &view, "r"), [acts(Action::Retry { slot: slot(2) })]);
        assert_eq!(typed(&mut console, &view, "\ny"), [acts(Action::Release { slot: slot(2) })]);
        assert_eq!(typed(&mut console, &view, "h"), [Ask::Wish(Wish::Hold { slot: slot(2), hold: true })]);
        assert_eq!(typed(&mut console, &view, "xy"), [Ask::Wish(Wish::Remove { slot: slot(2) })]);
        assert_eq!(typed(&mut console, &view, "Ry"), [acts(Action::Reboot)]);
        assert_eq!(typed(&mut console, &view, "Ty"), [Ask::Wish(Wish::ResetNames)]);
        assert_eq!(typed(&mut console, &view, "oy"), [Ask::Wish(Wish::Switch { on: false })]);
        assert_eq!(typed(&mut console, &view, "s"), [Ask::Support]);
        let mut off = view.clone();
        off.bench.on = false;
        assert_eq!(typed(&mut console, &off, "o"), [Ask::Wish(Wish::Switch { on: true })]);
        assert_eq!(
            typed(&mut Console::default(), &super::tests::view(vec![]), "irhnx\n"),
            [],
            "no slot, no act"
        );
    }

    #[test]
    fn a_slot_is_named_by_typing_while_its_light_strobes_and_all_are_named_in_turn() {
        let mut view = view(vec![line(1, Some("A"), SlotStatus::Empty)]);
        let (mut console, slot) = (Console::default(), SlotId::numbered(1));
        assert_eq!(typed(&mut console, &view, "n"), [acts(Action::Identify { slot: slot.clone() })]);
        console.key(Key::Backspace, &view);
        let name = Some("Left".to_owned());
        assert_eq!(
            typed(&mut console, &view, "Left\n"),
            [Ask::Wish(Wish::Name { slot: slot.clone(), name })]
        );
        assert_eq!(typed(&mut console, &view, "g"), [Ask::Wish(Wish::NameAll { on: true })]);
        view.bench.question = Some(Question::PutIn("A".into()));
        assert_eq!(console.key(Key::Escape, &view), Some(Ask::Wish(Wish::NameAll { on: false })));
        view.bench.moved = vec![Moved { slot: slot.clone(), to: SlotId::numbered(3) }];
        let moves = Wish::Move(view.bench.moved[0].clone());
        assert_eq!(typed(&mut console, &view, "m"), [Ask::Wish(moves)]);
    }

    #[test]
    fn network_settings_are_read_by_the_appliances_own_rules_before_they_are_tried() {
        let (view, mut console) = (view(vec![]), Console::default());
        assert_eq!(typed(&mut console, &view, "N10.0.0.5\n\n\n\n"), []);
        assert!(
            console.problem.as_ref().is_some_and(|why| why.contains("10.0.0.5")),
            "{:?}",
            console.problem
        );
        (0..3).for_each(|_| drop(console.key(Key::Up, &view)));
        let asked = typed(&mut console, &view, "/8\n10.0.0.1\n10.0.0.2, 10.0.0.3\n2001:db8::5/64\n");
        let [Ask::Network(file)] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!(
            file.lines(),
            "address 10.0.0.5/8\naddress 2001:db8::5/64\ngateway 10.0.0.1\nname_server 10.0.0.2\nname_server 10.0.0.3\n"
        );
        let dhcp = typed(&mut console, &view, "N\n\n\n\n");
        assert_eq!(dhcp, [Ask::Network(NetworkFile::default())]);
    }

    #[test]
    fn a_token_is_typed_in_and_shown_nowhere() {
        let (view, mut console) = (view(vec![]), Console::default());
        assert_eq!(typed(&mut console, &view, "J\ncsj1.secret"), []);
        let Page::Form(form) = &console.page else { panic!("{:?}", console.page) };
        assert_eq!(form.fields[1].shown(), "***********");
        assert!(!format!("{console:?}").contains("secret"));
        let asked = typed(&mut console, &view, "\n\n");
        let text = "server = \"https://shop.example\"\r\ntoken = \"csj1.secret\"\r\nlabel = \"Bench\"\r\n";
        assert_eq!(asked, [Ask::Join { text: text.into() }]);
    }
}
