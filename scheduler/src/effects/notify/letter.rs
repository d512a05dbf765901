//! A message as a letter: MIME with text and HTML, in the words and the time zone of who gets it.

use std::time::{Duration, SystemTime};

use cardshop_protocol::ids::ObjectId;
use jiff::tz::TimeZone;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, Message as Mime};
use serde_json::{Value, json};

use crate::core::documents::{ChannelDocument, User};
use crate::core::notify::Notice;
use crate::core::notify::message::{Fault, Message, Part};
use crate::core::notify::template::{Frame, Override, Preview, Reader, framed, letter};
use crate::core::notify::texts::texts;
use crate::core::notify::who::Person;
use crate::core::purpose::Purpose;
use crate::{Scheduler, SchedulerError};

/// Longest name in an address, characters.
const MAX_NAME: usize = 100;

/// Says that no person wrote it, so that no absence note comes back. **Source:** RFC 3834 §5.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }
    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }
    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// A letter, and where it goes.
pub(super) struct Letter {
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) subject: String,
    pub(super) mime: Mime,
}

/// What stands between a message and its letter.
pub(super) enum Unwritten {
    Fault(Fault),
    Store(SchedulerError),
}

impl From<SchedulerError> for Unwritten {
    fn from(error: SchedulerError) -> Self {
        Self::Store(error)
    }
}

impl Scheduler {
    /// The letter of a message; `copy_of` is whom it is to when `person` gets a blind copy.
    pub(super) fn write_letter(
        &self,
        message: &Message,
        person: &Person,
        copy_of: Option<&Person>,
    ) -> Result<Letter, Unwritten> {
        let never = |text: String| Unwritten::Fault(Fault::Never(text));
        let settings = &self.inner.config.notify;
        let sender = settings.sender.as_deref().unwrap_or_default();
        let sender: Mailbox = sender.parse().map_err(|e| never(format!("the sender is no address: {e}")))?;
        let channel = message.channel.as_ref().map(|c| self.channel_by_slug(c)).transpose()?.flatten();
        let to: Address = person
            .address
            .parse()
            .map_err(|e| never(format!("{:?} is no address of mail: {e}", person.address)))?;
        let reader = copy_of.unwrap_or(person);
        let shown = copy_of.and_then(|person| person.address.parse().ok()).unwrap_or_else(|| to.clone());
        let values = self.values_to_send(message, person)?;
        let shop = shop(channel.as_ref(), &sender);
        let words = self.in_words(message.notice, reader, &values, &shop)?;
        let name = Some(clean(&reader.name)).filter(|name| !name.is_empty());
        let host = sender.email.domain().to_owned();
        let id = match message.times_sent {
            0 => format!("<{}@{host}>", message.letter),
            n => format!("<{}.{n}@{host}>", message.letter),
        };
        let date = SystemTime::UNIX_EPOCH + Duration::from_millis(message.queued.as_ms());
        let mut mime = Mime::builder()
            .from(Mailbox::new(Some(shop), sender.email.clone()))
            .to(Mailbox::new(name, shown))
            .subject(words.subject.clone())
            .message_id(Some(id))
            .date(date)
            .header(AutoSubmitted);
        let reply = channel.map(|c| c.sender_email).filter(|email| !email.is_empty());
        if let Some(reply) = reply.or_else(|| settings.support.clone()).and_then(|r| r.parse().ok()) {
            mime = mime.reply_to(Mailbox::new(None, reply));
        }
        let mut body = MultiPart::alternative_plain_html(words.text, words.html);
        let attachments = self.attachments(message, texts(reader.language.as_deref()).language)?;
        if !attachments.is_empty() {
            body = attachments.into_iter().fold(MultiPart::mixed().multipart(body), MultiPart::singlepart);
        }
        let mime = mime.multipart(body).map_err(|e| never(format!("the letter cannot be made: {e}")))?;
        Ok(Letter { from: sender.email, to, subject: words.subject, mime })
    }

    /// What a message says in the words of `person`, by the template of staff where there is one. One that turns out wrong
    /// holds up no letter: ours takes its place.
    pub(super) fn in_words(
        &self,
        notice: Notice,
        person: &Person,
        values: &Value,
        shop: &str,
    ) -> Result<Preview, Unwritten> {
        let zone = person.zone.as_deref().and_then(|name| TimeZone::get(name).ok());
        let reader = Reader::new(person.language.as_deref(), zone.unwrap_or_else(TimeZone::system));
        let values = framed(values, self.frame(notice, person, values, shop));
        let own = self.inner.store.get::<Override>(&format!("{}.{}", notice.name(), reader.texts.language));
        if let Some(own) = own.map_err(SchedulerError::from)? {
            match letter(&own.value.subject, &own.value.body, values.clone(), &reader) {
                Ok(words) => return Ok(words),
                Err(fault) => {
                    tracing::error!(event = notice.name(), %fault, "a template of staff is wrong: ours is taken");
                }
            }
        }
        let text = reader.texts.of(notice);
        letter(text.subject, text.body, values, &reader)
            .map_err(|fault| Unwritten::Fault(Fault::Never(format!("the letter cannot be written: {fault}"))))
    }

    fn frame(&self, notice: Notice, person: &Person, values: &Value, shop: &str) -> Frame {
        let site = self.inner.config.public_url.clone();
        // Who only gets the parcel has no account.
        let knows_us = person.part != Part::Recipient && notice.is_optional();
        let order = values["order"].as_str().filter(|_| knows_us);
        let page = order.map(|order| format!("{site}/orders/{order}")).unwrap_or_default();
        let support = self.inner.config.notify.support.clone().unwrap_or_default();
        Frame { shop: shop.to_owned(), support, site, page, greeted: clean(&person.name) }
    }

    /// What there is to say, with the links that are made only now: what opens an account is kept nowhere.
    fn values_to_send(&self, message: &Message, person: &Person) -> Result<Value, Unwritten> {
        let mut values = message.values.clone();
        let (Notice::PasswordReset | Notice::AccountInvitation, Some(user)) = (message.notice, message.user)
        else {
            return Ok(values);
        };
        if person.part == Part::Support {
            let reader = Reader::new(person.language.as_deref(), TimeZone::UTC);
            values["link"] = json!(reader.texts.hidden_link);
            return Ok(values);
        }
        values["link"] = json!(self.password_address(user, &values)?);
        Ok(values)
    }

    fn password_address(&self, user: ObjectId, values: &Value) -> Result<String, Unwritten> {
        let pointless = |text: &str| Unwritten::Fault(Fault::Pointless(text.to_owned()));
        let now = self.now();
        let found = self.inner.store.get::<User>(&user.to_string()).map_err(SchedulerError::from)?;
        let found = found.filter(|user| user.value.is_active(now));
        let found = found.ok_or_else(|| pointless("the user may not log in any more"))?;
        let until = values["until"].as_str().and_then(|text| text.parse().ok()).filter(|until| *until > now);
        let until = until.ok_or_else(|| pointless("the link has ended before it was sent"))?;
        let token = self.purpose_token(&found.value, Purpose::Password(user), until);
        Ok(format!("{}/password#{token}", self.inner.config.public_url))
    }
}

/// Who sends: the channel's name for itself, else the sender's.
fn shop(channel: Option<&ChannelDocument>, sender: &Mailbox) -> String {
    let own = channel.map(|c| clean(&c.sender_name)).filter(|name| !name.is_empty());
    own.or_else(|| sender.name.clone()).unwrap_or_else(|| "Cardshop".to_owned())
}

/// One line, bounded.
fn clean(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_NAME).collect();
    name.trim().to_owned()
}
