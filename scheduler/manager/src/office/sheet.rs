//! A page of the back office as data: facts, tables and forms, drawn by one template. Pages say what stands on them; how a
//! field, a button or an empty table looks is decided here once.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cardshop_scheduler::{Scheduler, SchedulerError, random_password};

use super::sent::Sent;
use crate::page::{After, InLanguage, Refused, Shell, show};
use crate::session::Session;
use crate::statistics::Chart;
use crate::words::Back;

/// A page.
#[derive(Template)]
#[template(path = "sheet.html")]
pub(crate) struct Sheet {
    pub(crate) shell: Shell,
    pub(crate) b: &'static Back,
    pub(crate) title: String,
    /// Where it belongs: address and word.
    pub(crate) above: Option<(String, String)>,
    pub(crate) help: String,
    /// Why a form was not carried out, in English.
    pub(crate) fault: String,
    /// A secret that is shown once.
    pub(crate) secret: Option<Secret>,
    pub(crate) parts: Vec<Part>,
}

/// Something that is shown once.
pub(crate) struct Secret {
    pub(crate) help: &'static str,
    pub(crate) text: String,
}

/// A part of a page.
pub(crate) enum Part {
    /// A sentence.
    Say(String),
    /// Address, word and what is there.
    Links(&'static str, Vec<(String, String, String)>),
    Facts(Vec<(&'static str, Cell)>),
    Table(Table),
    Form(Form),
    /// What a bulk of acts came to: name and reason of each that was refused.
    Refusals(Vec<(String, String)>),
    Charts(Vec<Chart>),
    /// A text as it is, with its title.
    Source(&'static str, String),
    /// A log: painted HTML, and where it grows.
    Log {
        html: String,
        live: String,
    },
}

/// A cell of a table, or a fact.
pub(crate) enum Cell {
    Text(String),
    Code(String),
    Link(String, String),
    /// For programs, and in words.
    State(&'static str, String),
    Form(Form),
}

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) heads: Vec<&'static str>,
    pub(crate) rows: Vec<Row>,
    /// Address of the next page.
    pub(crate) next: Option<String>,
    /// Rows can be chosen, for these acts together.
    pub(crate) bulk: Option<Bulk>,
}

pub(crate) struct Bulk {
    pub(crate) action: &'static str,
    pub(crate) deeds: Vec<Deed>,
}

pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) cells: Vec<Cell>,
}

/// A form, for the whole page or in a table's cell.
#[derive(Default)]
pub(crate) struct Form {
    pub(crate) title: &'static str,
    pub(crate) help: &'static str,
    pub(crate) action: String,
    /// Asks and changes nothing.
    pub(crate) asks: bool,
    /// Beside each other instead of below.
    pub(crate) inline: bool,
    pub(crate) fields: Vec<Field>,
    pub(crate) deeds: Vec<Deed>,
}

/// A button.
pub(crate) struct Deed {
    pub(crate) value: &'static str,
    pub(crate) word: &'static str,
    /// What screen readers say beyond the word.
    pub(crate) of: String,
}

pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) value: String,
    pub(crate) hint: &'static str,
    pub(crate) required: bool,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Hidden,
    /// Of this type of HTML, with at most so many characters.
    Line(&'static str, usize),
    Area(usize),
    Number(i64, i64),
    Check(bool),
    /// Value, word, chosen.
    One(Vec<(String, String, bool)>),
    Many(Vec<(String, String, bool)>),
}

impl Sheet {
    pub(crate) fn new(
        scheduler: &Scheduler,
        session: &Session,
        after: &After,
        title: impl Into<String>,
    ) -> Result<Self, SchedulerError> {
        let shell = Shell::new(scheduler, session, after)?;
        let b = shell.w.language.back();
        Ok(Self {
            above: Some(("/office".into(), b.back_office.into())),
            shell,
            b,
            title: title.into(),
            help: String::new(),
            fault: String::new(),
            secret: None,
            parts: Vec::new(),
        })
    }

    pub(crate) fn help(mut self, help: &str) -> Self {
        self.help = help.to_owned();
        self
    }

    pub(crate) fn fault(mut self, fault: String) -> Self {
        self.fault = fault;
        self
    }

    pub(crate) fn above(mut self, path: &str, word: &str) -> Self {
        self.above = Some((path.to_owned(), word.to_owned()));
        self
    }

    pub(crate) fn with(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }

    pub(crate) fn with_if(self, yes: bool, part: impl FnOnce() -> Part) -> Self {
        if yes { self.with(part()) } else { self }
    }
}

impl Form {
    pub(crate) fn new(title: &'static str, action: impl Into<String>) -> Self {
        Self { title, action: action.into(), ..Self::default() }
    }

    pub(crate) fn inline(action: impl Into<String>) -> Self {
        Self { inline: true, ..Self::new("", action) }
    }

    /// A form that filters: it asks, and shows what was asked.
    pub(crate) fn asking(action: impl Into<String>) -> Self {
        Self { asks: true, ..Self::inline(action) }
    }

    pub(crate) fn help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }

    pub(crate) fn field(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }

    pub(crate) fn deed(self, value: &'static str, word: &'static str) -> Self {
        self.deed_of(value, word, "")
    }

    pub(crate) fn deed_of(mut self, value: &'static str, word: &'static str, of: &str) -> Self {
        self.deeds.push(Deed { value, word, of: of.to_owned() });
        self
    }

    pub(crate) fn cell(self) -> Cell {
        Cell::Form(self)
    }

    pub(crate) fn part(self) -> Part {
        Part::Form(self)
    }
}

impl Field {
    fn new(name: &'static str, label: &'static str, value: impl Into<String>, kind: Kind) -> Self {
        Self { name, label, value: value.into(), hint: "", required: false, kind }
    }

    pub(crate) fn line(
        name: &'static str,
        label: &'static str,
        value: impl Into<String>,
        most: usize,
    ) -> Self {
        Self::new(name, label, value, Kind::Line("text", most))
    }

    pub(crate) fn email(name: &'static str, label: &'static str, value: impl Into<String>) -> Self {
        Self::new(name, label, value, Kind::Line("email", 254))
    }

    pub(crate) fn date(name: &'static str, label: &'static str, value: impl Into<String>) -> Self {
        Self::new(name, label, value, Kind::Line("date", 10))
    }

    pub(crate) fn password(name: &'static str, label: &'static str) -> Self {
        Self::new(name, label, "", Kind::Line("password", 256))
    }

    pub(crate) fn area(
        name: &'static str,
        label: &'static str,
        value: impl Into<String>,
        most: usize,
    ) -> Self {
        Self::new(name, label, value, Kind::Area(most))
    }

    pub(crate) fn number(
        name: &'static str,
        label: &'static str,
        value: impl ToString,
        (least, most): (i64, i64),
    ) -> Self {
        Self::new(name, label, value.to_string(), Kind::Number(least, most))
    }

    pub(crate) fn check(name: &'static str, label: &'static str, on: bool) -> Self {
        Self::new(name, label, "yes", Kind::Check(on))
    }

    pub(crate) fn hidden(name: &'static str, value: impl Into<String>) -> Self {
        Self::new(name, "", value, Kind::Hidden)
    }

    /// Sent again by a second press of the button: what the form does is done once.
    pub(crate) fn once() -> Self {
        Self::hidden("key", random_password())
    }

    /// One of these: value and word.
    pub(crate) fn one(
        name: &'static str,
        label: &'static str,
        chosen: &str,
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let options = options.into_iter().map(|(value, word)| (value == chosen, value, word));
        let options = options.map(|(on, value, word)| (value, word, on)).collect();
        Self::new(name, label, "", Kind::One(options))
    }

    /// Any of these.
    pub(crate) fn many(
        name: &'static str,
        label: &'static str,
        chosen: &[String],
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let options = options.into_iter().map(|(value, word)| (chosen.contains(&value), value, word));
        let options = options.map(|(on, value, word)| (value, word, on)).collect();
        Self::new(name, label, "", Kind::Many(options))
    }

    pub(crate) fn required(self) -> Self {
        Self { required: true, ..self }
    }

    pub(crate) fn hint(self, hint: &'static str) -> Self {
        Self { hint, ..self }
    }
}

/// Where a form of a page leads: on, or to the same page again with what was typed and why not.
pub(crate) fn settle(
    session: &Session,
    done: Result<Response, SchedulerError>,
    again: impl FnOnce(String) -> Result<Sheet, SchedulerError>,
) -> Result<Response, Refused> {
    let (status, fault) = match done {
        Ok(response) => return Ok(response),
        Err(error @ SchedulerError::Invalid(_)) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        Err(error @ (SchedulerError::Conflict { .. } | SchedulerError::Refused(_))) => {
            (StatusCode::CONFLICT, error.to_string())
        }
        Err(error) => return Err(Refused::new(&session.locale, error)),
    };
    Ok((status, show(&again(fault).told(session)?)).into_response())
}

/// The page that asks whether something that cannot be undone is meant; the same form again, and sure.
pub(crate) fn ask_first(
    sheet: Sheet,
    action: &str,
    sent: &Sent,
    what: String,
    (value, word): (&'static str, &'static str),
) -> Response {
    let b = sheet.b;
    let mut form = Form::inline(action).field(Field::hidden("sure", "yes"));
    for (name, text) in sent.kept() {
        form = form.field(Field::hidden(name, text));
    }
    let sheet = sheet.above(action, b.no_back).with(Part::Say(what)).with(form.deed(value, word).part());
    show(&sheet).into_response()
}
